"""What a release consists of says the same everywhere: versions, Pythons, the tools that check it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
NOXFILE = (ROOT / "noxfile.py").read_text("utf-8")
PYTHONS = [
    each.rpartition(" ")[2]
    for each in PROJECT["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: \d\.\d+", each)
]


def workflow(name: str) -> str:
    return (ROOT / ".github" / "workflows" / name).read_text("utf-8")


def test_every_python_that_is_declared_is_tested() -> None:
    """If it fails, the index tells users of a Python on which nobody has run the tests."""
    versions = '", "'.join(PYTHONS)
    assert f'@nox.session(python=["{versions}"])\ndef compat' in NOXFILE
    assert f'        python: ["{versions}"]\n' in workflow("ci.yml")
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    page = (ROOT / "docs" / "stability.md").read_text("utf-8")
    assert f"CPython {', '.join(PYTHONS[:-1])} and {PYTHONS[-1]}." in page


def test_workflows_run_sessions_that_exist() -> None:
    """If it fails, CI is red for a name that was mistyped, or leaves out what a change must pass."""
    sessions = set(re.findall(r"^@nox\.session.*\ndef (\w+)", NOXFILE, re.MULTILINE))
    text = workflow("ci.yml") + workflow("publish.yml")
    (listed,) = re.findall(r"session: \[(.+)\]", text)
    named = set(re.findall(r"nox -s (\w+)", text)) | set(listed.split(", "))
    assert named <= sessions
    assert {"lint", "types", "site", "wheel", "tests", "oldest", "compat"} <= named


def test_what_is_published_was_built_from_the_tag_and_checked() -> None:
    """If it fails, a release may hold another version than its tag says, or what no test has seen."""
    text = workflow("publish.yml")
    for step in ('test "$GITHUB_REF_NAME" = "v$version"', "nox -s wheel", "build --outdir dist"):
        assert step in text
    assert "id-token: write" in text
    assert f"/project/{PROJECT['name']}/" in text
    assert not re.search(r"password|secrets\.", text)


def test_the_changelog_has_the_version() -> None:
    """If it fails, users of a release cannot see what is in it."""
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings[0] in ("Unreleased", PROJECT["version"])
    assert PROJECT["version"] in headings


def test_the_hooks_before_a_commit_use_the_tools_of_lint() -> None:
    """If it fails, a commit passes its hooks and is refused by CI, or the other way round."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    wanted = set(re.findall(r'additional_dependencies: \["(.+?)"\]', hooks))
    assert wanted == set(PYPROJECT["dependency-groups"]["lint"])
    assert set(re.findall(r"entry: ([\w-]+)", hooks)) == {"ruff", "lint-imports"}
