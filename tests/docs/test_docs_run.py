"""README.md and docs/ tell the truth: their code runs, their commands work, their links lead on."""

import contextlib
import importlib.util
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import kassette
import kassette.errors
import kassette_io
import kassette_io.testing
from kassette import KassetteError, decode_journal, encode_entry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"<!-- file: (\S+) -->\s*\Z")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SHELL = ("bash", "console", "sh", "shell")


class Block(NamedTuple):
    """A fenced block: its language, text and first line, and what the page says that it prints.

    ``file`` is where the reader is told to put it, by a comment before it.
    """

    language: str
    text: str
    line: int
    printed: str | None
    file: str | None


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    found = list(FENCE.finditer(text))
    for position, match in enumerate(found):
        printed = None
        following = found[position + 1] if position + 1 < len(found) else None
        if (
            following is not None
            and following[1] == "text"
            and not text[match.end() : following.start()].strip()
        ):
            printed = following[2]
        line = text.count("\n", 0, match.start()) + 2
        file = FILE.search(text, 0, match.start())
        yield Block(match[1], match[2], line, printed, None if file is None else file[1])


def assert_printed(block: Block, output: str) -> None:
    """Compare with what the page shows; ``…`` in the page stands for anything but a new line."""
    if block.printed is None:
        return
    pattern = ".*".join(map(re.escape, block.printed.split("…")))
    assert re.fullmatch(pattern, output) is not None, (
        f"line {block.line} prints\n{output}\nand the page says\n{block.printed}"
    )


def write(block: Block) -> None:
    assert block.file is not None
    path = Path(block.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, "utf-8")


def run_python(block: Block, page: Path, module: ModuleType) -> str:
    source = "\n" * (block.line - 1) + block.text
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, page, "exec", dont_inherit=True), vars(module))
    return printed.getvalue()


def run_shell(script: str, bin_directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a shell would, where ``kassette``, ``pytest`` and ``python`` are ours."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        encoding="utf-8",
        # on a terminal, too, what a program prints is there before it is killed
        env={
            **os.environ,
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        },
        check=False,
    )


def run_commands(block: Block, bin_directory: Path) -> str:
    done = run_shell(block.text, bin_directory)
    assert (done.returncode, done.stderr) == (0, ""), f"line {block.line}: {done}"
    return done.stdout


def run_transcript(block: Block, bin_directory: Path) -> str:
    """Run each command behind a ``$``, and return the transcript that a terminal would show."""
    shown = ""
    for command in re.findall(r"^\$ (.+)$", block.text, re.MULTILINE):
        done = run_shell(command, bin_directory)
        killed = done.returncode == -signal.SIGKILL
        assert killed or (done.returncode, done.stderr) == (0, ""), f"line {block.line}: {done}"
        shown += f"$ {command}\n{done.stdout}" + "Killed\n" * killed
    return shown


@pytest.fixture
def bin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory with the commands that the pages use, as an installation has them."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, module in {
        "kassette": "-m kassette_cli",
        "pytest": "-m pytest",
        "python": "",
    }.items():
        command = directory / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    if not entry_points(group="pytest11", name="kassette"):
        monkeypatch.setenv("PYTEST_PLUGINS", "kassette_io.pytest_plugin")
    return directory


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, bin_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would show that somebody who types what the page says gets something else."""
    module = ModuleType("page")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in reversed([each for each in blocks(page) if each.file is not None]):
        write(block)  # the first text of each, for a page that shows a run before its program
    for block in blocks(page):
        if block.file is not None:
            write(block)
        elif block.language == "python":
            assert_printed(block, run_python(block, page, module))
        elif block.language in SHELL and block.text.startswith("$ "):
            assert_printed(block._replace(printed=block.text), run_transcript(block, bin_directory))
        elif block.language in SHELL and "pip install" not in block.text:
            assert_printed(block, run_commands(block, bin_directory))


def test_the_quickstart_may_be_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would show that whoever runs the first examples again, as anybody does, gets a traceback."""
    page = ROOT / "docs" / "quickstart.md"
    monkeypatch.chdir(tmp_path)
    for time in ("first", "second"):
        module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)
        code = [each for each in blocks(page) if each.language == "python" and each.file is None]
        assert "".join(run_python(block, page, module) for block in code), time


def test_the_readme_begins_with_a_crash_and_its_recovery() -> None:
    """Would show that a newcomer has to take our word for it, or that the example runs only once."""
    first, program, *_ = blocks(ROOT / "README.md")
    assert program.file == "answer.py"
    assert first.line < 15
    crash, recovery, again = re.split(r"^\$ ", first.text, flags=re.MULTILINE)[1:]
    assert crash.startswith("python answer.py --crash\n")
    assert crash.endswith("\nKilled\n")
    assert recovery.startswith("python answer.py\n")
    assert "asking the model" in crash
    assert "asking the model" not in recovery
    assert "Success(" in recovery
    assert again == "python answer.py\nmail-1 is already complete\n"


def test_the_comparison_counts_the_lines_of_its_programs() -> None:
    """Would show that we praise ourselves with a number that the page itself refutes."""
    page = ROOT / "docs" / "comparison.md"
    (row,) = re.findall(r"^\| lines of the program below \|(.+)\|$", page.read_text("utf-8"), re.M)
    (heads,) = re.findall(r"^\| \| (kassette \|.+)\|$", page.read_text("utf-8"), re.M)
    counted = dict(zip(heads.split("|"), row.split("|"), strict=True))
    programs = {each.file: each.text for each in blocks(page) if each.file is not None}
    for name, count in counted.items():
        text = programs[f"with_{name.strip().lower()}.py"]
        compile(text, name, "exec")
        assert len(re.findall(r"^.*\S", text, re.M)) == int(count), name


def test_pages_hold_code_and_commands_to_run() -> None:
    """Would show that the tests of this file pass because they find nothing to test."""
    counted = {page.name: [block.language for block in blocks(page)] for page in PAGES}
    assert counted["README.md"].count("python") == 1
    assert counted["quickstart.md"].count("python") >= 8
    assert "console" in counted["quickstart.md"]
    assert {"jsonl", "python"} <= set(counted["journal-format.md"])
    assert {"mermaid", "python"} <= set(counted["architecture.md"])
    assert counted["testing.md"].count("console") == 3
    assert len(LINK.findall((ROOT / "README.md").read_text("utf-8"))) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_its_language(page: Path) -> None:
    """Would show that a block is left out of these tests by a typing mistake."""
    known = {"python", "text", "jsonl", "mermaid", *SHELL}
    assert {block.language for block in blocks(page)} <= known
    fences = re.findall(r"^\s*(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(list(blocks(page)))


def test_journal_examples_are_journals() -> None:
    """Would show that a tool written after the format's page cannot read our journals (D11)."""
    examples = [b for b in blocks(ROOT / "docs" / "journal-format.md") if b.language == "jsonl"]
    page = (ROOT / "docs" / "journal-format.md").read_text("utf-8")
    notes = {
        key
        for row in re.findall(r"^\| `\w+`(?:, `\w+`)* \| (`.*?) \|", page, re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    shown: set[str] = set()
    for block in examples:
        data = block.text.encode()
        first = json.loads(data.split(b"\n")[0])["offset"]
        journal = decode_journal(data, first_offset=first)
        assert journal.whole == len(data)
        written = [encode_entry(each, first + at) for at, each in enumerate(journal.entries)]
        assert b"".join(written) == data, f"line {block.line} is not how kassette writes it"
        assert all(each.extra.keys() <= notes for each in journal.entries)
        shown |= {each.type for each in journal.entries}
    assert shown == {"start", "step", "suspend", "resume", "complete", "error", "cancel"}


def test_readme_has_exactly_two_set_up_commands() -> None:
    """Would show that CI, which reads the marked commands, runs something else or nothing."""
    text = (ROOT / "README.md").read_text("utf-8")
    marked = re.findall(
        r"^<!-- command: (\w+) -->\n\s*```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    assert marked == [
        ("demo", "python -m pip install '.[all]' && python examples/triage.py --demo\n"),
        ("test", "python -m pip install nox && python -m nox -s tests\n"),
    ]
    assert text.count("<!-- command:") == 2
    assert text.count("pip install") == 2


def anchors(page: Path) -> set[str]:
    prose = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    names = set(re.findall(r"^::: (\S+)$", prose, re.MULTILINE))
    return names | {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_internal_links_resolve(page: Path) -> None:
    """Would show that a reader is sent to a page or a heading that is not there."""
    prose = FENCE.sub("", page.read_text("utf-8"))
    for target in LINK.findall(prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def test_every_test_that_the_page_of_guarantees_names_exists() -> None:
    """Would show that a promise points to a check that is gone, or was renamed."""
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 50
    assert len(named) == text.count("`tests/")
    for path, test in named:
        source = (ROOT / path).read_text("utf-8")
        assert not test or re.search(rf"^(?:async )?def {test}\(", source, re.MULTILINE), test


def test_every_promise_of_the_readme_is_in_the_page_of_guarantees() -> None:
    """Would show that the README promises something of which nobody says how it is checked."""
    readme = (ROOT / "README.md").read_text("utf-8")
    promised = readme.partition("## What is promised")[2].partition("## What is not")[0]
    promises = [
        " ".join(each.split()) for each in re.findall(r"\*\*(.+?)\*\*", promised, re.DOTALL)
    ]
    page = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert len(promises) == promised.count("\n- ")
    assert [each.rstrip(".") for each in promises] == headings[: len(promises)]


def test_index_leads_to_every_page() -> None:
    """Would show that a page is written which nobody can find."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    linked = {target.partition("#")[0] for target in LINK.findall(index)}
    assert {page.name for page in PAGES[1:]} - {"index.md"} <= linked


def state_diagram() -> ModuleType:
    path = ROOT / "docs" / "state_diagram.py"
    spec = importlib.util.spec_from_file_location("state_diagram", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_state_diagram_is_drawn_from_the_table() -> None:
    """Would show that the picture of the machine is not the machine."""
    module = state_diagram()
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert module.main(["--check"]) is None
    assert module.renew(page) == page
    stale = page.replace("new --> opening: Start, Resume\n", "")
    assert stale != page
    assert module.renew(stale) == page


def test_state_diagram_shows_every_transition() -> None:
    """Would show that the script which draws the picture leaves a way out."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+): ", state_diagram().diagram(), re.MULTILINE))
    table = {
        (state.value, following.value)
        for state, row in kassette.TRANSITIONS.items()
        for states in row.values()
        for following in states
        if following is not state
    }
    assert drawn == table


def errors() -> dict[str, type[KassetteError]]:
    return {
        name: value
        for name, value in vars(kassette.errors).items()
        if inspect.isclass(value) and issubclass(value, KassetteError)
    }


def dispatched() -> dict[str, list[str]]:
    """Give the names that the dispatcher's page has an answer for, with the answers."""
    text = (ROOT / "docs" / "dispatcher.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: [*row[1:]] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_a_dispatcher_is_told_about_every_result_and_error() -> None:
    """Would show that a dispatcher meets a result or an error and does not know what to do."""
    known = set(errors()) - {"KassetteError"} | {"Success", "Suspended", "Failed"}
    assert known <= set(dispatched())


def test_reference_has_every_public_name() -> None:
    """Would show that a public name cannot be looked up, or one that is there is not public."""
    pages = [ROOT / "docs" / name for name in ("reference.md", "reference-core.md")]
    text = "".join(page.read_text("utf-8") for page in pages)
    shown = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(shown) == len(set(shown))
    public = {f"kassette_io.{name}" for name in kassette_io.__all__}
    public |= {f"kassette_io.testing.{name}" for name in kassette_io.testing.__all__}
    core = set(kassette.__all__) - set(kassette_io.__all__)
    assert set(shown) == public | {f"kassette.{name}" for name in core}


def test_every_error_has_its_place_in_the_page_of_errors() -> None:
    """Would show that a dispatcher meets an error that nobody told it about."""
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(errors()) - {"KassetteError"} <= set(rows)
    assert {"Success", "Suspended", "Failed"} <= set(rows)


def test_tree_of_errors_is_the_tree_of_classes() -> None:
    """Would show that an ``except`` written after the page catches something else."""
    (tree,) = (
        block.text
        for block in blocks(ROOT / "docs" / "errors.md")
        if block.language == "text" and block.text.startswith("KassetteError")
    )
    drawn = {
        match[2]: 0 if match[1] == "" else 1 + match[1].startswith("│")
        for match in re.finditer(r"^([│├└─ ]*)(\w+)", tree, re.MULTILINE)
    }
    depth = len(KassetteError.__mro__)
    below = {
        name: sum(issubclass(base, KassetteError) for base in each.__mro__) - 1
        for name, each in errors().items()
    }
    assert depth == 3
    assert drawn == below


def test_fields_that_the_page_of_errors_names_exist() -> None:
    """Would show that a dispatcher written after the page reads a field that is not there."""
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    for name, row in re.findall(r"^\| `(\w+)` \|(.+)$", text, re.MULTILINE):
        if name in errors():
            parameters = inspect.signature(errors()[name]).parameters
            for field in re.findall(r"`([a-z]+_[a-z_]+)`", row):
                assert field in parameters, f"{name}.{field}"


def test_names_in_the_readme_exist() -> None:
    """Would show that the table of names offers something that cannot be imported."""
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.partition("## The names")[2].partition("All of them come")[0]
    named = re.findall(r"`([A-Za-z_]+)(?:\.(\w+))?[^`]*`", table)
    assert len(named) > 20
    roots = {"ctx": kassette_io.Context, "run": kassette_io.Run}
    for root, attribute in named:
        found = roots[root] if root in roots else getattr(kassette_io, root)
        assert not attribute or hasattr(found, attribute), f"{root}.{attribute}"
