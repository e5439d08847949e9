"""The bounds that pyproject.toml declares, as the session ``oldest`` reads them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import pytest

from tests.oldest import PYPROJECT, pins


def project(*dependencies: str, **groups: list[Any]) -> dict[str, Any]:
    """Return a pyproject.toml with an extra ``all`` that has everything."""
    extras = {"s3": ["aioboto3>=15"], "all": ["kassette-py[s3]", "trio>=0.26.1"]}
    return {
        "project": {
            "name": "kassette-py",
            "dependencies": list(dependencies),
            "optional-dependencies": extras,
        },
        "dependency-groups": groups,
    }


def test_extras_and_groups_are_pinned_to_their_lower_bounds() -> None:
    """If it fails, the session passes with versions that are newer than what is declared."""
    declared = project(
        "anyio>=4.6",
        "a.b_c-d >= 2.0.1 , < 3",
        test=[
            {"include-group": "docs"},
            "coverage[toml]>=7.13",
            "trio>=0.26.1",
            "uvloop>=0.21; sys_platform == 'linux'",
        ],
        docs=["mkdocs>=1.6,<2,!=1.7"],
    )
    assert pins(declared) == ["anyio==4.6", "a.b_c-d==2.0.1", "aioboto3==15", "trio==0.26.1"]
    assert pins(declared, "test", "docs")[4:] == [
        "coverage[toml]==7.13",
        "uvloop==0.21; sys_platform == 'linux'",
        "mkdocs==1.6",
    ]


@pytest.mark.parametrize(
    "vague", ["anyio", "anyio>4.6", "anyio~=4.6", "anyio==4.6", "anyio<5", "anyio>=4.6,>=4.7"]
)
def test_a_dependency_without_one_oldest_version_is_refused(vague: str) -> None:
    """If it fails, what is tested as the oldest is whatever pip finds."""
    with pytest.raises(ValueError, match="from which release on"):
        pins(project(vague))


def test_two_bounds_for_one_package_are_refused() -> None:
    """If it fails, users are promised an older version than the tests have ever seen."""
    with pytest.raises(ValueError, match="two bounds"):
        pins(project("trio>=0.25"))


def test_what_is_declared_can_be_installed_in_its_oldest_form() -> None:
    """If it fails, ``nox -s oldest`` cannot even begin."""
    declared = tomllib.loads(PYPROJECT.read_text("utf-8"))
    shown = subprocess.run(
        [sys.executable, "-S", "-m", "tests.oldest", "test"],
        cwd=PYPROJECT.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    found = shown.stdout.splitlines()
    assert found == pins(declared, "test")
    assert {each.partition("==")[0] for each in found} >= {"anyio", "orjson", "aioboto3", "trio"}
