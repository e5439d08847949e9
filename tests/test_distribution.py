"""The distribution is `kassette-py`; the packages that it installs, and its command, are `kassette`.

On the package index `kassette` is somebody else's. Whoever installs it after a page or an error
message of ours runs a stranger's code, so no line may tell them to.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SUFFIXES = {"", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}

WRONG = re.compile(
    r"\bkassette\\?\["
    r"|\b(?:pip3? install|pipx install|poetry add|uv add)\b[^\n#&;|]*[ '\"]kassette(?=['\"\s<=>~`]|$)"
    r"|\b(?:distribution|metadata|version)\(['\"]kassette['\"]\)"
)
"""An extra, an install line or a look-up of metadata that means the other project."""


def text_files() -> Iterator[Path]:
    """Yield the files of the repository that people read or run, without what tools left there."""
    for top in sorted(ROOT.iterdir()):
        if top.is_file() and top.suffix in SUFFIXES and not top.name.startswith(".coverage"):
            yield top
        elif top.is_dir() and (top.name in {".ci", ".github"} or top.name.isidentifier()):
            found = (each for each in sorted(top.rglob("*")) if each.suffix in SUFFIXES)
            yield from (each for each in found if each.is_file())


def test_no_line_installs_the_other_project() -> None:
    """If it fails, somebody who does as we say installs a stranger's package."""
    files = [each for each in text_files() if each != Path(__file__)]
    names = {each.relative_to(ROOT).as_posix() for each in files}
    assert {"README.md", "docs/index.md", "kassette_io/typed.py", "pyproject.toml"} <= names
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if WRONG.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install kassette",
        "python -m pip install nox kassette>=0.1",
        "`pip install kassette`",
        "pip install 'kassette[s3]'",
        'all = ["kassette[cli]"]',
        r"match=r'kassette\[s3\]'",
        "uv add kassette",
        "python -m pip install --upgrade 'kassette'",
        'version("kassette")',
    ],
)
def test_a_wrong_line_is_found(line: str) -> None:
    """If it fails, the test above passes because it finds nothing."""
    assert WRONG.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "pip install kassette-py",
        "pip install 'kassette-py[s3]'",
        "pip install -e '.[all]'",
        "pip install x; kassette list",
    ],
)
def test_a_right_line_passes(line: str) -> None:
    """If it fails, nobody can write an install line at all."""
    assert not WRONG.search(line)


def test_every_extra_that_is_named_exists() -> None:
    """If it fails, pip warns that there is no such extra, and installs nothing of it."""
    named = {
        extra
        for path in text_files()
        for extras in re.findall(
            r"(?:kassette-py|\.whl|'\.)\[([a-z0-9,]+)\]", path.read_text("utf-8", errors="replace")
        )
        for extra in extras.split(",")
    }
    assert {"all", "cli", "pydantic", "s3"} <= named <= set(PROJECT["optional-dependencies"])


def test_what_is_installed_is_called_as_declared() -> None:
    """If it fails, `kassette --version` cannot tell its version."""
    assert PROJECT["name"] == "kassette-py"
    assert set(PROJECT["scripts"]) == {"kassette"}
