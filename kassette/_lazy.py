"""Names of a package, loaded when first asked for: start-up time is part of the product."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, names_by_module: Mapping[str, str]) -> Callable[[str], object]:
    """Give the ``__getattr__`` of ``package`` that takes each name from its module (PEP 562).

    ``names_by_module`` maps a module to its names, separated by spaces.
    """
    modules = {name: module for module, names in names_by_module.items() for name in names.split()}

    def load(name: str) -> object:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
