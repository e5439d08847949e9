"""Every verb is whole: its words, its lines, its pictures, its rows; and a new one is one file."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from kassette_cli import storage, table, verbs
from kassette_cli.main import DONE, MISUSED, main
from kassette_cli.misuse import HelpWanted
from kassette_cli.output import terminal
from kassette_cli.parser import parse_arguments
from kassette_cli.verbs import completion

from .processes import run

ROOT = Path(__file__).parents[2]
SNAPSHOTS = Path(__file__).parent / "snapshots"
NAMES = [each.name for each in table.load_all()]
WITHOUT_PICTURES = {
    "fork": "says one sentence",
    "check": "says one sentence",
    "completion": "prints its script, on a terminal too",
}
CALLS = {
    "list": (),
    "debug": ("completed",),
    "pending": (),
    "status": ("failed",),
    "dump": ("failed",),
    "timeline": ("failed",),
    "steps": ("failed",),
    "diff": ("failed", "completed"),
    "fork": ("failed", "--from-offset", "1"),
    "check": (),
}
"""A call of every verb that reads or writes a storage."""

TOY = '''
"""``kassette toy``: how many entries a run has."""

from kassette_cli.parser import add_run

PLACE = 45
SUMMARY = "count the entries of a run"
DESCRIPTION = "A toy."
PROGRESS = "counting"
OFFERED = {"--unit": ("entries", "lines")}


def add_arguments(parser):
    add_run(parser)
    parser.add_argument("--unit", metavar="U", default="entries", help="what they are called")


async def find(storage, arguments):
    from kassette_cli.storage import read_run

    return len(await read_run(storage, arguments.run))


def lines(found, arguments):
    from kassette_cli.output.json_lines import json_line

    return [json_line({arguments.unit: found})]


def view(found, arguments):
    yield f"{found} {arguments.unit}"
'''


def help_of(*arguments: str) -> str:
    with pytest.raises(HelpWanted) as wanted:
        parse_arguments([*arguments, "--help"])
    return str(wanted.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_verb_has_words_of_its_own(name: str) -> None:
    """`kassette VERB --help` would be empty, or two verbs would stand in one place."""
    verb = table.load(name)
    assert re.search(rf"^    {name} +\S", help_of(), re.MULTILINE)
    assert f"{verb.summary[0].upper()}{verb.summary[1:]}." in " ".join(help_of(name).split())
    places = [each.place for each in table.load_all()]
    assert places == sorted(set(places))


@pytest.mark.parametrize("name", NAMES)
def test_a_verb_prints_a_line_for_each_object_in_a_pipe(name: str, url: str) -> None:
    """A program that reads lines of JSON would be given something else."""
    if not table.load(name).needs_storage:
        return
    outcome = run("--storage", url, name, *CALLS[name])
    assert outcome.code == 0
    lines = outcome.out.decode().splitlines()
    assert lines
    assert all(line.startswith("{") and line.endswith("}") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_verb_has_pictures_and_rows(name: str) -> None:
    """What a terminal shows of it would change unseen; nobody would be told that it is there."""
    pictures = {path.stem.rpartition("-")[2] for path in SNAPSHOTS.glob(f"{name}*.txt")}
    assert pictures == (set() if name in WITHOUT_PICTURES else {"60", "100", "160"})
    for page in ("docs/command.md", "skills/kassette/SKILL.md"):
        row = rf"^\| `kassette {name}\b[^|]*` \| [^|]+ \|"
        assert re.search(row, (ROOT / page).read_text("utf-8"), re.MULTILINE), page


def test_no_page_tells_of_a_verb_that_is_gone() -> None:
    """The docs would name commands that the command refuses."""
    for page in ("docs/command.md", "skills/kassette/SKILL.md"):
        named = re.findall(
            r"^\| `kassette ([a-z]+)", (ROOT / page).read_text("utf-8"), re.MULTILINE
        )
        assert named == NAMES, page


def test_a_new_verb_is_one_file(
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Adding a verb would mean to find all the places that know of verbs."""
    directory = tmp_path / "verbs"
    directory.mkdir()
    (directory / "toy.py").write_text(TOY, "utf-8")
    monkeypatch.setattr(verbs, "__path__", [*verbs.__path__, str(directory)])

    assert [each.name for each in table.load_all()] == [*NAMES[:6], "toy", *NAMES[6:]]
    assert "toy          count the entries of a run" in help_of()
    assert "what they are called" in help_of("toy")
    for shell in completion.SHELLS:
        assert "toy" in completion.script(shell)
        assert "entries lines" in completion.script(shell)

    stdout = io.TextIOWrapper(io.FileIO(1, "wb", closefd=False))
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["--storage", url, "toy", "completed", "--unit", "lines"]) == DONE
    assert capfdbinary.readouterr().out == b'{"lines":4}\n'
    assert main(["--storage", url, "toy"]) == MISUSED
    assert main(["toys"]) == MISUSED
    assert b"'timeline', 'toy', 'steps'" in capfdbinary.readouterr().err

    arguments = parse_arguments(["--storage", url, "toy", "completed"])
    console = Console(file=io.StringIO(), width=60)
    opened = storage.open_url(url)
    terminal.show(console, table.load("toy").shown(arguments, opened, console))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "4 entries\n"
