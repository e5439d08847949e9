"""The command on a real (pseudo-)terminal: when it renders, how wide, in colour or not."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import final

import anyio
import pytest
from rich.console import Console

from kassette_cli.output import terminal
from kassette_io import LocalStorage, start

from .journals import COMPLETED, DEADLINE, JOURNALS
from .processes import Outcome, Terminal, environment, run, run_on_terminal

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-9]|4[0-9]|9[0-7])(?:;[0-9]+)*m")


def text_of(outcome: Outcome) -> str:
    """Check that all went well, and give what is on the screen without its colours."""
    assert (outcome.code, outcome.err) == (0, b"")
    return ESCAPE.sub(b"", outcome.out).decode().replace("\r\n", "\n")


def words_of(outcome: Outcome) -> str:
    """Do as ``text_of``, without frames and line breaks."""
    return " ".join(re.sub("[─-╿]", " ", text_of(outcome)).split())


def rows_of(outcome: Outcome) -> list[list[str]]:
    """Give the table's cells, whatever progress was shown meanwhile."""
    assert (outcome.code, outcome.err) == (0, b"")
    text = ESCAPE.sub(b"", outcome.out).decode()
    lines = [line.strip() for line in re.split("[\r\n]+", text)]
    return [re.split("  +", line) for line in lines if line.split(" ")[0] in JOURNALS]


def test_list_is_a_table_of_every_run(url: str) -> None:
    """An operator would be shown JSON, or a table without the runs that need attention."""
    outcome = Terminal("--storage", url, "list", columns=120).close()
    t0, t1, t2 = (f"2026-01-31 12:00:{second:02}" for second in (0, 1, 2))
    assert rows_of(outcome) == [
        ["cancelled", "cancelled", "0", "2", t0, t2],
        ["completed", "completed", "2", "1", t0, t2],
        ["damaged", "unreadable"],
        ["failed", "failed", "0", "1", t0, t1],
        ["never-written", "unsettled", "0", "0"],
        ["resumed", "unsettled", "0", "2", t0, t2],
        ["surrogates", "failed", "1", "1", t0, t1],
        ["suspended", "suspended", "0", "1", t0, t1, "approval"],
        ["suspended-then-start", "suspended", "0", "2", t0, t2, "approval"],
        ["torn", "unsettled", "0", "1", t0, t0],
        ["unknown-fields", "completed", "1", "1", t0, t2],
    ]
    assert b"journal of run 'damaged', line 2" in outcome.out
    assert b"11 runs: 3 unsettled" in outcome.out


def test_the_table_fills_while_it_reads(store: Path, url: str) -> None:
    """A list of ten thousand runs would show nothing until the last of them is read."""
    os.mkfifo(store / "cancelled-slow.jsonl")
    child = Terminal("--storage", url, "list", columns=120)
    child.read_until(b"2026-01-31 12:00:02")
    with (store / "cancelled-slow.jsonl").open("wb") as journal:
        assert b"unknown-fields" not in child.shown
        journal.write(COMPLETED.encode())
    outcome = child.close()
    assert outcome.code == 0
    assert b"12 runs" in outcome.out


def test_list_chooses_runs(url: str) -> None:
    """The table would show other runs than the pipe gives for the same words."""
    outcome = Terminal("--storage", url, "list", "--status", "failed,suspended").close()
    assert [row[0] for row in rows_of(outcome)] == [
        "failed",
        "surrogates",
        "suspended",
        "suspended-then-start",
    ]
    some = Terminal("--storage", url, "list", "--status", "completed", "--limit", "1").close()
    assert [row[0] for row in rows_of(some)] == ["completed"]
    young = Terminal("--storage", url, "list", "--older-than", "99999999d").close()
    assert b"no matching runs in" in young.out


def test_list_takes_its_limit_and_says_that_there_is_nothing(url: str, tmp_path: Path) -> None:
    """`--limit` would be for pipes only; an empty storage would show an empty frame."""
    shown = text_of(run_on_terminal("--storage", url, "list", "--limit", "1"))
    assert "cancelled" in shown
    assert "completed" not in shown
    (tmp_path / "empty").mkdir()
    empty = f"file:{tmp_path}/empty"
    assert (
        words_of(run_on_terminal("--storage", empty, "list", columns=500)) == f"no runs in {empty}"
    )


STATUSES = {
    "cancelled": (
        "the deadline passed before the event arrived",
        "fork cancelled --from-offset 3",
    ),
    "completed": ("the workflow returned", 'result "second"', "dump completed"),
    "failed": ("LookupError: no such order: “7”", "fork failed --from-offset 1"),
    "never-written": ("the journal has no end", "await start(storage, 'never-written')"),
    "resumed": ("the journal has no end", "await start(storage, 'resumed')"),
    "surrogates": (r"cut \ud83d", "last step s at offset 1"),
    "suspended-then-start": (
        "waiting for approval (Waiting for event: approval) until 2999-01-01 00:00:00 UTC",
        "await resume(storage, 'suspended-then-start', 'approval', value)",
    ),
}


@pytest.mark.parametrize("run_id", sorted(STATUSES))
def test_status_says_why_and_what_to_do_next(url: str, run_id: str) -> None:
    """Somebody who was not there would have to read the journal to know what to do."""
    shown = words_of(run_on_terminal("--storage", url, "status", run_id, columns=200))
    state = run("--storage", url, "status", run_id).out.decode().split('"')[3]
    assert shown.startswith(f"{run_id} is {state}")
    for words in STATUSES[run_id]:
        assert words in shown


def test_the_advice_can_be_followed_word_for_word(url: str) -> None:
    """The command that a panel recommends would be misuse."""
    shown = words_of(run_on_terminal("--storage", url, "status", "failed", columns=300))
    advice = re.search(r"kassette (--storage \S+ fork failed --from-offset 1)", shown)
    assert advice is not None
    assert run(*advice[1].split(), "--new-run-id", "again").code == 0


def test_status_names_the_process_that_has_the_run_open(store: Path, url: str) -> None:
    """A run that is being worked on would be taken for a crashed one, and started twice."""

    async def look_while_open() -> Outcome:
        async with LocalStorage(store) as storage, await start(storage, "mine"):
            return await anyio.to_thread.run_sync(look)

    def look() -> Outcome:
        return run_on_terminal("--storage", url, "status", "mine", columns=200)

    shown = words_of(anyio.run(look_while_open))
    assert f"its lock file names process {os.getpid()} on {os.uname().nodename}" in shown
    assert "no lock file" in words_of(look())


@pytest.mark.parametrize("content", ["4711\n", '{"pid":4711,"acquiredAt":"2026-01-31"}'])
def test_status_names_the_process_of_another_kassette(store: Path, url: str, content: str) -> None:
    """A run that a TypeScript process works on would be taken for a crashed one."""
    (store / "torn.lock").write_text(content, encoding="utf-8")
    shown = words_of(run_on_terminal("--storage", url, "status", "torn", columns=200))
    assert (
        "its lock file names process 4711 (of the TypeScript kassette); if that process is gone, "
        "recover the run from Python await start(storage, 'torn')"
    ) in shown


NO_EVIDENCE = ["", "{}", "[]", "-1", '{"pid":-1}', '{"pid":"x","host":1,"since":2}']


@pytest.mark.parametrize("content", NO_EVIDENCE)
def test_a_lock_file_that_says_nothing_is_no_evidence(store: Path, url: str, content: str) -> None:
    """A lock file that is just being written would crash whoever looks."""
    (store / "torn.lock").write_text(content, encoding="utf-8")
    shown = words_of(run_on_terminal("--storage", url, "status", "torn", columns=200))
    assert "no lock file" in shown


def test_dump_separates_sessions_and_shows_every_entry(url: str) -> None:
    """Two sessions would read as one, or an entry would not be shown at all."""
    shown = words_of(run_on_terminal("--storage", url, "dump", "resumed"))
    assert shown == (
        "session 1 0 start 2026-01-31 12:00:00 "
        "1 suspend approval (Waiting for event: approval), until 2999-01-01 00:00:00 "
        "UTC 2026-01-31 12:00:01 "
        "session 2, 500 ms later 2 start 2026-01-31 12:00:02 "
        '3 resume approval 2026-01-31 12:00:02 11 B { "ok": true }'
    )
    shown = words_of(run_on_terminal("--storage", url, "dump", "completed", "--offset", "2"))
    assert shown == (
        'session 1 2 step llm#2 2026-01-31 12:00:01 8 B "second" 3 complete 2026-01-31 12:00:02'
    )


def test_dump_beyond_the_end_shows_nothing(url: str) -> None:
    """A frame around nothing would look like an entry."""
    assert run_on_terminal("--storage", url, "dump", "completed", "--offset", "9").out == b""


def test_dump_shows_what_json_holds(url: str) -> None:
    """Accents, emoji, extra fields and lone surrogates would be lost, or crash the terminal."""
    shown = words_of(run_on_terminal("--storage", url, "dump", "completed"))
    assert '{ "text": "héllo 👍", "n": [ 1, 2.5, null, true ] }' in shown
    assert '"ticket": 7' in shown
    assert '"cost": 0.25' in words_of(run_on_terminal("--storage", url, "dump", "unknown-fields"))
    shown = words_of(run_on_terminal("--storage", url, "dump", "surrogates"))
    assert r'"cut \ud83d"' in shown
    assert r"2 error cut \ud83d" in shown


def test_a_terminal_that_lacks_a_character_is_shown_its_escape(url: str) -> None:
    """An accent in a result would crash the command on a terminal that is not UTF-8."""
    env = environment(TERM="xterm", PYTHONIOENCODING="ascii")
    shown = words_of(run_on_terminal("--storage", url, "dump", "completed", env=env))
    assert r'"text": "h\xe9llo \U0001f44d"' in shown


def test_fork_names_the_new_run(store: Path, url: str) -> None:
    """Whoever forks at a terminal would have to look for the new run."""
    arguments = ("--storage", url, "fork", "completed", "--from-step", "llm#2")
    shown = text_of(run_on_terminal(*arguments, "--new-run-id", "again"))
    assert shown == "forked completed into again\nawait start(storage, 'again')\n"
    assert (store / "again.jsonl").exists()


@pytest.mark.parametrize("columns", [40, 160])
def test_the_width_is_the_terminal_s(url: str, columns: int) -> None:
    """Rows would be broken by the terminal itself, and frames with them."""
    shown = text_of(run_on_terminal("--storage", url, "status", "suspended", columns=columns))
    framed = [line for line in shown.splitlines() if line[0] in "╭│╰"]
    assert {len(line) for line in framed} == {columns}


def test_colours_are_for_terminals_that_want_them(url: str) -> None:
    """NO_COLOR would be ignored; or a terminal that shows colours would be shown none."""
    wanted = environment(TERM="xterm-256color")
    unwanted = environment(TERM="xterm-256color", NO_COLOR="1")
    dumb = environment(TERM="dumb")
    call = ("--storage", url, "status", "failed")
    assert COLOUR.search(run_on_terminal(*call, env=wanted).out)
    assert not COLOUR.search(run_on_terminal(*call, env=unwanted).out)
    assert b"\x1b" not in run_on_terminal(*call, env=dumb).out


@pytest.mark.parametrize("missing", ["rich", "aiofiles"])
def test_without_its_extra_a_terminal_gets_json_and_a_note(url: str, missing: str) -> None:
    """The command without its extra would be a traceback, or silent about what it misses."""
    without = f"""
import sys
import kassette_cli.output
from kassette_cli.main import main
class Missing:
    def find_spec(self, name, *_):
        if name == {missing!r}:
            raise ModuleNotFoundError(name=name)
for name in list(sys.modules):
    if name.startswith(({missing!r}, "kassette_cli.output.terminal")):
        del sys.modules[name]
        vars(kassette_cli.output).pop(name.rpartition(".")[2], None)
sys.meta_path.insert(0, Missing())
sys.exit(main())
"""
    command = (sys.executable, "-c", without)
    shown = Terminal("--storage", url, "dump", "completed", command=command).close()
    assert shown == Outcome(
        0,
        COMPLETED.replace("\n", "\r\n").encode(),
        f"kassette: {missing} is not installed, so the output is JSON; pip install 'kassette-py[cli]'\n".encode(),
    )


@pytest.mark.parametrize("verb", ["status", "dump"])
def test_progress_is_shown_for_what_takes_longer_than_a_moment(
    store: Path, url: str, verb: str
) -> None:
    """A slow storage would look like a hang; and what was shown would stay on the screen."""
    os.mkfifo(store / "slow.jsonl")
    child = Terminal("--storage", url, verb, "slow", columns=60)
    with (store / "slow.jsonl").open("wb") as journal:
        child.read_until(b"reading the journal")
        journal.write(COMPLETED.encode())
    outcome = child.close()
    assert outcome.code == 0
    after = outcome.out[outcome.out.rindex(b"\x1b[?25h") :]
    assert b"complete" in after
    assert b"reading the journal" not in after


def test_progress_of_a_list_counts_the_runs(store: Path, url: str) -> None:
    """A list of many runs would not say that it goes on."""
    os.mkfifo(store / "slow.jsonl")
    child = Terminal("--storage", url, "list", columns=60)
    with (store / "slow.jsonl").open("wb") as journal:
        child.read_until(f"0/{len(JOURNALS) + 1}".encode())
        journal.write(COMPLETED.encode())
    outcome = child.close()
    assert outcome.code == 0
    assert DEADLINE.encode() not in outcome.out
    assert b"reading runs" not in outcome.out[outcome.out.rindex(b"\x1b[?25h") :]


def test_an_interrupt_while_printing_ends_what_is_shown() -> None:
    """A progress bar that was on the screen would keep the cursor when Ctrl-C comes."""
    ended: list[bool] = []

    def rows() -> Generator[str, None, None]:
        try:
            yield "a row"
            yield "another"
        finally:
            ended.append(True)

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            raise KeyboardInterrupt

    shown = rows()
    with pytest.raises(KeyboardInterrupt):
        terminal.show(Console(file=Interrupted()), shown)
    assert ended == [True]


@final
class Display:
    """What is shown while work goes on; remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_shown = threading.Event()

    def start(self) -> None:
        self.asked.append("start")
        self.is_shown.set()

    def stop(self) -> None:
        self.asked.append("stop")


def test_what_is_quick_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor would flicker on every command."""
    monkeypatch.setattr(terminal, "MOMENT", 3600)
    display = Display()
    with terminal.AfterAMoment(display):
        pass
    assert display.asked == []


def test_progress_ends_with_the_work_even_if_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spinner would spin on over the error that ended the work."""
    monkeypatch.setattr(terminal, "MOMENT", 0)
    display = Display()
    with pytest.raises(ZeroDivisionError), terminal.AfterAMoment(display):
        display.is_shown.wait()
        raise ZeroDivisionError
    assert display.asked == ["start", "stop"]


def test_options_of_dump_count_on_a_terminal_too(store: Path, url: str) -> None:
    """`--follow --offset 7` would show everything again, `--full` cut results short all the same."""
    followed = words_of(
        run_on_terminal("--storage", url, "dump", "completed", "--follow", "--offset", "3")
    )
    assert followed == "session 1 3 complete 2026-01-31 12:00:02"
    long = "z" * 3000
    (store / "long.jsonl").write_text(COMPLETED.replace('"second"', f'"{long}"'), encoding="utf-8")
    for options, count in ((("--full",), 3000), ((), 799)):
        shown = text_of(run_on_terminal("--storage", url, "dump", "long", *options, columns=120))
        assert len(re.findall("z", shown)) == count


def test_diff_shows_the_runs_on_their_own_sides(url: str) -> None:
    """Whoever compares two runs would take the one for the other."""
    shown = words_of(run_on_terminal("--storage", url, "diff", "completed", "resumed", columns=200))
    assert shown.startswith("a is completed, b is resumed")
    assert 'llm#2 a offset 2 "second" b absent' in shown
    assert 'event approval a absent b offset 3 { "ok": true }' in shown
