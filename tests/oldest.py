"""What pyproject.toml says works at least; ``python -m tests.oldest GROUP…`` prints it for pip.

Reads the file itself, so that no second list can say something else, and needs the standard library
alone: it runs before anything is installed. Extras count, and the dependency groups named, without
the groups that they include.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*) *(?P<extras>\[[^]]*\])? *"
    r"(?:>= *(?P<oldest>\d+(?:\.\d+)*))?(?: *, *[<!][^;>~=]*=?[^;>~=]*)*"
    r"(?P<marker> *;.*)?"
)


def pins(pyproject: Mapping[str, Any], *groups: str) -> list[str]:
    """Return a pip requirement, ``name==version``, for every dependency.

    Raises ValueError for one that does not say from which release on it works, and for two that say
    different things of one package.
    """
    found: dict[str, str] = {}
    for requirement in _requirements(pyproject, groups):
        parts = _REQUIREMENT.fullmatch(requirement)
        if parts is None or (parts["oldest"] is None and not _is_own(pyproject, parts["name"])):
            raise ValueError(f"{requirement!r} does not say from which release on: NAME>=VERSION")
        if _is_own(pyproject, parts["name"]):
            continue  # an extra that names others, which are in the list themselves
        pin = f"{parts['name']}{parts['extras'] or ''}=={parts['oldest']}{parts['marker'] or ''}"
        if found.setdefault(parts["name"], pin) != pin:
            raise ValueError(f"one package, two bounds: {found[parts['name']]!r} and {pin!r}")
    return list(found.values())


def _requirements(pyproject: Mapping[str, Any], groups: tuple[str, ...]) -> Iterator[str]:
    project = pyproject["project"]
    yield from project["dependencies"]
    for extra in project["optional-dependencies"].values():
        yield from extra
    for group in groups:
        yield from (each for each in pyproject["dependency-groups"][group] if isinstance(each, str))


def _is_own(pyproject: Mapping[str, Any], name: str) -> bool:
    return bool(name == pyproject["project"]["name"])


if __name__ == "__main__":
    print(*pins(tomllib.loads(PYPROJECT.read_text("utf-8")), *sys.argv[1:]), sep="\n")
