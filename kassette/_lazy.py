"""Names of a package, loaded when first asked for: start-up time is part of the product."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

_PACKAGES = ("kassette_io", "kassette", "kassette_io.testing")
"""The packages in which to look for a name that is imported from the wrong one."""


def lazy_names(package: str, names_by_module: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of ``package`` that imports each name on first use (PEP 562).

    ``names_by_module`` maps a module to its names, separated by spaces.
    """
    modules = {name: module for module, names in names_by_module.items() for name in names.split()}

    def load(name: str) -> object:
        module = modules.get(name)
        if module is None:
            raise _absent(package, name)
        value: object = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def _absent(package: str, name: str) -> AttributeError | ImportError:
    """Return the error for a name that ``package`` lacks; it names the package that has it."""
    other = None if name.startswith("_") else _owner(name)
    if other is None:
        return AttributeError(f"module {package!r} has no attribute {name!r}")
    where = f"{package!r} has no {name!r}, but {other!r} has: from {other} import {name}"
    # `from package import name` discards the message of an AttributeError
    if sys._getframe(2).f_code.co_name == "_handle_fromlist":  # pyright: ignore[reportPrivateUsage]
        return ImportError(where, name=package)
    return AttributeError(where)


def _owner(name: str) -> str | None:
    return next((each for each in _PACKAGES if name in import_module(each).__all__), None)
