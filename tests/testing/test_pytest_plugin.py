"""The pytest plugin as its users have it: test files, run by a pytest of their own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kassette_io.testing import Mode

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
FLOW = """
import pytest

def ask(question):
    return f"answer to {question}"

async def answer(ctx, question: str):
    text = await ctx.step("think", ask, question)
    return await ctx.step("send", ask, text)
"""
INI = """
[pytest]
addopts = --strict-markers
filterwarnings =
    error
    ignore:Module already imported:pytest.PytestAssertRewriteWarning
"""
"""Our plugin has been imported, since it runs in this process: older versions warn of that."""
THREE_LINES = """
@pytest.mark.kassette("journals/run-1.jsonl")
def test_answer(kassette_journal):
    assert kassette_journal.run_sync(answer).result == "answer to answer to life"
"""
RECORD = """
@pytest.mark.kassette("journals/run-1.jsonl")
def test_record(kassette_journal):
    assert kassette_journal.run_sync(answer, "life").status == "success"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Give a project whose tests run with anyio's plugin and ours, and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini(INI)
    return pytester


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    return project.runpytest_inprocess("-p", "anyio", "-p", "kassette_io.pytest_plugin", *options)


def test_a_journal_becomes_a_test_in_three_lines(project: pytest.Pytester) -> None:
    """The shortest way from a journal to a test would not work as it is documented."""
    directory = project.mkdir("tests")
    test = directory / "test_it.py"
    test.write_text(FLOW + RECORD)
    assert run(project, "--kassette-mode=once").ret == 0
    assert (directory / "journals" / "run-1.jsonl").read_text().count("\n") == 4
    test.write_text(
        FLOW.replace('return f"answer to {question}"', "raise SystemExit") + THREE_LINES
    )
    run(project, "tests/test_it.py").assert_outcomes(passed=1)


def test_async_tests_under_both_loops_use_it(project: pytest.Pytester) -> None:
    """A user's async tests, under asyncio or trio, could not replay a journal."""
    project.makepyfile(
        FLOW
        + RECORD
        + """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.kassette("journals/run-1.jsonl", lines=2)
async def test_part(kassette_journal):
    outcome = await kassette_journal.run(answer, stubs={"send": lambda text: text.upper()})
    assert outcome.result == "ANSWER TO LIFE"
"""
    )
    run(project, "--kassette-mode=once").assert_outcomes(passed=3)


def test_the_failure_is_the_report_and_nothing_of_the_library(project: pytest.Pytester) -> None:
    """The first divergence would be buried under frames of kassette."""
    test = project.makepyfile(FLOW + RECORD)
    run(project, "--kassette-mode=once")
    test.write_text(FLOW.replace('"send"', '"post"') + THREE_LINES)
    ran = run(project)
    ran.assert_outcomes(failed=1)
    shown = ran.stdout.str()
    for line in (
        "run-1.jsonl' diverge at offset 2",
        "E         recorded:   step 'send' -> 'answer to answer to life'",
        "E         requested:  step 'post', with the arguments ('answer to life',)",
        "E         before it:",
        "E           offset   1  'think' replayed",
        "E       Allow it to run with allow_live=['post'], ",
    ):
        assert line in shown
    assert "_eventloop.py" not in shown
    assert "journals.py" not in shown
    run(project, "--kassette-mode=new").assert_outcomes(failed=1)
    test.write_text(FLOW + 'answers = "unused"\n' + THREE_LINES)
    run(project, "--kassette-mode=all").assert_outcomes(failed=1)


@pytest.mark.parametrize("marker", ["", "@pytest.mark.kassette", "@pytest.mark.kassette('a', b=1)"])
def test_a_test_that_does_not_name_its_journal_is_told_how(
    marker: str, project: pytest.Pytester
) -> None:
    """A forgotten marker would end in a traceback through a fixture."""
    project.makepyfile(f"import pytest\n\n{marker}\ndef test_it(kassette_journal): pass")
    ran = run(project)
    ran.assert_outcomes(errors=1)
    ran.stdout.fnmatch_lines(
        ['kassette_journal needs the marker that names its journal: @pytest.mark.kassette("*']
    )


def test_options_and_marker_explain_themselves(project: pytest.Pytester) -> None:
    """A mode would be there that the option refuses, or nobody could find out what it is for."""
    helped = run(project, "--help").stdout.str()
    modes = ",".join(mode.value for mode in Mode)
    assert f"--kassette-mode={{{modes}}}" in helped
    marked = run(project, "--markers").stdout.str()
    assert "@pytest.mark.kassette(path, *, lines=None): the journal file" in marked


def test_an_installed_plugin_is_found_and_can_be_switched_off(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user would have to load it by hand, or could not run tests without it."""
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    entry_points = shipped["project"]["entry-points"]["pytest11"]
    assert entry_points == {"kassette": "kassette_io.pytest_plugin"}
    installed = project.mkdir("site") / "shipped-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: shipped\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(
        "[pytest11]\nkassette = kassette_io.pytest_plugin\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{installed.parent}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    project.makepyfile("def test_it(): pass")
    found = project.runpytest_subprocess("--fixtures", "-v").stdout.str()
    assert "kassette_journal -- " in found
    off = project.runpytest_subprocess("-p", "no:kassette")
    off.assert_outcomes(passed=1)


def test_the_plugin_costs_nothing_to_import() -> None:
    """Every pytest run in an environment with kassette would start later."""
    program = (
        "import pytest, sys; before = set(sys.modules); import kassette_io.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == [
        "kassette",
        "kassette._lazy",
        "kassette_io",
        "kassette_io.pytest_plugin",
    ]
