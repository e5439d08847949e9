"""Completion: the script offers what the command takes, and bash really completes with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from kassette_cli.misuse import HelpWanted
from kassette_cli.parser import parse_arguments
from kassette_cli.table import load_all
from kassette_cli.verbs import completion
from kassette_cli.verbs.list import STATUSES

from .journals import JOURNALS
from .processes import Terminal, environment, run

ASK = """\
kassette() { "$PYTHON" -m kassette_cli "$@"; }
eval "$2"
COMP_LINE="$1"
COMP_POINT=${#1}
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_kassette
printf '%s\\n' "${COMPREPLY[@]}"
"""
TAKEN = {each.name: completion.taken_by(each) for each in load_all()}
VERBS = list(TAKEN)
SCRIPTS = Path(__file__).parent / "scripts"
REWRITE = os.environ.get("KASSETTE_REWRITE_SNAPSHOTS") == "1"


def offered(line: str, **variables: str) -> list[str]:
    env = environment(PYTHON=sys.executable, **variables)
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", line, completion.script("bash")],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def help_of(*arguments: str) -> str:
    with pytest.raises(HelpWanted) as wanted:
        parse_arguments([*arguments, "--help"])
    return str(wanted.value)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_offered(verb: str) -> None:
    """An option would be added to the command and nobody would be offered it."""
    taken = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_of(verb), re.MULTILINE))
    assert taken == {*TAKEN[verb].options, *completion.COMMON}


@pytest.mark.parametrize("verb", VERBS)
def test_options_that_take_a_value_are_known(verb: str) -> None:
    """What follows `--limit` would be taken for a verb."""
    taking = set(re.findall(r"^  (--[a-z-]+) [A-Z]", help_of(verb), re.MULTILINE))
    assert taking == {*TAKEN[verb].with_value}


def test_bash_completes_verbs_options_and_states() -> None:
    """The script would be printed, and complete nothing."""
    assert offered("kassette ") == VERBS
    assert offered("kassette st") == ["status", "steps"]
    assert offered("kassette --storage file:x st") == ["status", "steps"]
    assert offered("kassette --storage=file:x ti") == ["timeline"]
    assert offered("kassette --ve") == ["--version"]
    assert offered("kassette dump run --f") == ["--follow", "--full"]
    assert offered("kassette list --status fa") == ["failed"]
    assert offered("kassette list --limit ") == []
    assert offered("kassette completion z") == ["zsh"]


def test_bash_completes_run_ids(url: str, store: Path) -> None:
    """Run ids are what nobody can type; and a colon in one would double its first half."""
    runs = sorted(JOURNALS)
    assert offered(f"kassette --storage {url} status ") == runs
    assert offered("kassette status ", KASSETTE_STORAGE=url) == runs
    assert offered(f"kassette status --storage {url} sus") == ["suspended", "suspended-then-start"]
    assert offered("kassette status ") == []
    (store / "a:b:1.jsonl").touch()
    assert offered(f"kassette --storage {url} dump a") == ["a:b:1"]
    assert offered(f"kassette --storage {url} dump a:b") == ["b:1"]
    assert offered("kassette --storage file:/none dump ") == []


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_has_a_script_of_all_verbs(shell: str) -> None:
    """A shell would be offered that is given nothing; or a storage would be needed to set it up."""
    code, out, err = run("completion", shell)
    assert (code, err) == (0, b"")
    words = set(re.findall(r"[a-z][a-z-]+", out.decode()))
    options = {option.removeprefix("--") for each in TAKEN.values() for option in each.options}
    assert words >= {*VERBS, *options, *STATUSES}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_the_one_that_was_tried(shell: str) -> None:
    """A script for a shell that is not installed here would be broken, and nobody would see it.

    Try the new one in that shell, then take it over with KASSETTE_REWRITE_SNAPSHOTS=1.
    """
    path = SCRIPTS / f"kassette.{shell}"
    code, out, err = run("completion", shell)
    assert (code, err) == (0, b"")
    if REWRITE:
        path.write_bytes(out)
    assert out.decode() == path.read_text("utf-8")


def test_the_manual_page_tells_of_everything() -> None:
    """`kassette --help` would not tell what an exit code or a state means."""
    page = help_of()
    headings = re.findall(r"^([a-z][a-z ]*):", page, re.MULTILINE)
    assert headings == [
        "usage", "options", "verbs", "states", "output", "exit codes", "environment", "examples"
    ]  # fmt: skip
    for word in (*VERBS, *STATUSES, "0 ", "1 ", "2 ", "130", "141", "KASSETTE_STORAGE"):
        assert re.search(rf"^ +{word}", page, re.MULTILINE), word


VALUES = {
    "list": {"--limit": "N", "--status": "S[,S…]", "--older-than": "AGE"},
    "dump": {"--offset": "N"},
    "fork": {"--from-offset": "N", "--from-step": "ID", "--new-run-id": "ID"},
}
"""What help calls the value of each option."""
RUNS = {verb: ["RUN"] for verb in ("debug", "status", "dump", "timeline", "steps", "fork")}
RUNS["diff"] = ["RUN_A", "RUN_B"]
"""What help calls the runs that a verb is given."""


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_what_each_option_and_verb_takes(verb: str) -> None:
    """Somebody would have to guess whether `--older-than` takes seconds or a date."""
    page = help_of(verb)
    named = dict(re.findall(r"^  (--[a-z-]+) (\S+)", page, re.MULTILINE))
    assert named == {"--storage": "URL", **VALUES.get(verb, {})}
    positional = page.partition("positional arguments:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  ([A-Z_]+)", positional, re.MULTILINE) == RUNS.get(verb, [])


def test_the_manual_page_begins_with_how_to_call_it() -> None:
    """The first line of help would say `{list,status,…}`, over three lines."""
    usage = " ".join(help_of().partition("\n\n")[0].split())
    assert usage == "usage: kassette [-h] [--storage URL] [--json] [--version] VERB ..."


@pytest.mark.parametrize(("columns", "width"), [(60, 58), (None, 78)])
def test_help_is_as_wide_as_the_terminal(columns: int | None, width: int) -> None:
    """Lines would be broken by the terminal, or be as short as those of a narrow one."""
    if columns is None:
        page = run("list", "--help").out.decode()
    else:
        page = Terminal("list", "--help", columns=columns).close().out.decode()
    lines = page.partition("options:")[2].splitlines()
    broken = [
        (line, following.split()[0])
        for line, following in pairwise(lines)
        if following.startswith(" " * 20)
    ]
    assert max(len(line) for line, _ in broken) <= width
    assert all(len(line) + 1 + len(word) > width for line, word in broken)
