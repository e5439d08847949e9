"""Ctrl-C, where the main thread feels it and where it does not, and where it must not be quick."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kassette_cli import interrupts
from kassette_cli.main import INTERRUPTED

from .journals import START
from .processes import COMMAND, Terminal, run, started


def program(text: str) -> tuple[str, ...]:
    """Give a command that runs ``text`` before it is ``kassette``."""
    begin = (
        "import os, signal, sys, threading\nfrom kassette_cli import interrupts, main\n"
        "from kassette_cli.verbs import list as listing"
    )
    end = "sys.exit(main.main())"
    return sys.executable, "-c", "\n".join((begin, text, end))


def out_of_reach(moment: float, before: str = "before = int") -> tuple[str, ...]:
    """Give a command that reads as if from a hung disk: no signal gets it out of that."""
    return program(f"""
{before}
read = listing.summarise_file

def read_regardless(*given):
    signal.signal(signal.SIGINT, lambda *_: None)
    before()
    return read(*given)

listing.summarise_file = read_regardless
interrupts._MOMENT = {moment}
""")


def interrupt_to_the_end(terminal: Terminal) -> None:
    latest = time.monotonic() + 60
    while terminal.process.poll() is None and time.monotonic() < latest:
        terminal.process.send_signal(signal.SIGINT)
    terminal.process.kill()


@pytest.mark.parametrize(
    "command",
    [pytest.param(COMMAND, id="felt"), pytest.param(out_of_reach(0.01), id="out of reach")],
)
def test_an_interrupt_while_the_table_fills_gives_the_cursor_back(
    store: Path, url: str, command: tuple[str, ...]
) -> None:
    """Ctrl-C would leave a terminal without a cursor, or do nothing while a disk hangs."""
    os.mkfifo(store / "slow.jsonl")
    terminal = Terminal("--storage", url, "list", command=command)
    terminal.read_until(b"reading runs")
    terminal.process.send_signal(signal.SIGINT)
    outcome = terminal.close()
    assert (outcome.code, outcome.err) == (INTERRUPTED, b"")
    assert outcome.out.rindex(b"\x1b[?25h") > outcome.out.rindex(b"\x1b[?25l")


def test_the_second_interrupt_waits_for_nothing(store: Path, url: str) -> None:
    """Whoever presses Ctrl-C again has waited already."""
    os.mkfifo(store / "slow.jsonl")
    terminal = Terminal("--storage", url, "list", command=out_of_reach(3600.0))
    terminal.read_until(b"reading runs")
    interrupt_to_the_end(terminal)
    assert terminal.close().code == INTERRUPTED


def test_an_interrupt_does_not_wait_for_a_terminal_that_takes_nothing(
    store: Path, url: str
) -> None:
    """After Ctrl-S the cursor cannot be given back, and the command would never end."""
    os.mkfifo(store / "slow.jsonl")
    fill = """
def before():
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, b"x")
    except BlockingIOError:
        os.set_blocking(1, True)
    os.write(2, b"full\\n")
"""
    call = ("--storage", url, "list", "--json", "--status", "failed")
    terminal = Terminal(*call, command=out_of_reach(3600.0, fill))
    assert terminal.process.stderr is not None
    assert terminal.process.stderr.readline() == b"full\n"
    interrupt_to_the_end(terminal)
    assert terminal.close().code == INTERRUPTED


def test_a_fork_that_has_begun_is_ended_first(store: Path, url: str) -> None:
    """One Ctrl-C would leave half a fork, or a whole one that nobody was told of."""
    (store / "r.jsonl").write_text(START, encoding="utf-8")
    slow = program("""
fsync, interrupts._MOMENT = os.fsync, 0.0

def slow_fsync(fd):
    if threading.current_thread() is not threading.main_thread() and sys.stdin is not None:
        sys.stdin = None
        os.kill(os.getpid(), signal.SIGINT)
        os.write(2, b"begun\\n")
    fsync(fd)

os.fsync = slow_fsync
""")
    call = ("fork", "r", "--from-offset", "1", "--new-run-id", "copy")
    outcome = run("--storage", url, *call, command=slow)
    assert (outcome.code, outcome.err) == (INTERRUPTED, b"begun\n")
    assert [path.name for path in store.iterdir() if "copy" in path.name] == ["copy.jsonl"]


@pytest.mark.parametrize(
    ("writing", "signals", "waits"),
    [
        pytest.param(False, [signal.SIGINT], [None, 1000.0], id="reading"),
        pytest.param(True, [signal.SIGINT], [None, None], id="writing"),
        pytest.param(False, [signal.SIGUSR1], [None, None], id="another signal"),
        pytest.param(True, [signal.SIGINT, signal.SIGUSR1], [None, None, None], id="both"),
    ],
)
def test_how_long_the_main_thread_has(
    monkeypatch: pytest.MonkeyPatch,
    writing: bool,
    signals: list[int],
    waits: list[float | None],
) -> None:
    """A signal of somebody else would end the command, or an interrupt what is half written."""
    heard, tell = os.pipe()
    taken: list[float | None] = []
    arrivals: Iterator[int] = iter(signals)

    def poll(wait: float | None) -> bool:
        taken.append(wait)
        arrived = next(arrivals, None)
        if arrived is None:
            os.close(tell)
        else:
            os.write(tell, bytes([arrived]))
        return True

    news = SimpleNamespace(register=lambda *_: None, poll=poll)
    polls = SimpleNamespace(poll=lambda: news, POLLIN=select.POLLIN)
    monkeypatch.setattr(interrupts, "select", polls)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("it ends the process"))
    event = threading.Event()
    if writing:
        event.set()
    interrupts._watch(heard, INTERRUPTED, event)
    assert taken == waits


@pytest.mark.parametrize("together", [False, True])
def test_the_second_interrupt_ends_even_what_is_written(
    monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Somebody would press Ctrl-C for ever; or the second of two quick ones would not be counted."""

    class Ended(Exception):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    heard, tell = os.pipe()
    sent = [bytes([signal.SIGINT])] * 2
    if together:
        sent = [b"".join(sent)]
    pending = iter(sent)

    def poll(wait: float | None) -> bool:
        if not select.select([heard], [], [], 0)[0]:
            os.write(tell, next(pending))
        return True

    news = SimpleNamespace(register=lambda *_: None, poll=poll)
    monkeypatch.setattr(interrupts, "select", SimpleNamespace(poll=lambda: news, POLLIN=0))
    monkeypatch.setattr(interrupts, "_show_cursor", lambda: None)
    monkeypatch.setattr(os, "_exit", end)
    writing = threading.Event()
    writing.set()
    with pytest.raises(Ended, match=str(INTERRUPTED)):
        interrupts._watch(heard, INTERRUPTED, writing)
    assert next(pending, None) is None
    os.close(heard)
    os.close(tell)


def test_a_thread_that_is_refused_leaves_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that calls `main` under a limit of threads would run out of descriptors, too."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    opened = len(os.listdir("/dev/fd"))
    with interrupts.heeded(INTERRUPTED):
        assert len(os.listdir("/dev/fd")) == opened


NO_THREAD = """
start = threading.Thread.start

def refuse_once(self):
    threading.Thread.start = start
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse_once
"""

WITHOUT_WATCHING = {
    "another thread": """
thread = threading.Thread(target=lambda: os._exit(main.main()))
thread.start()
thread.join()
""",
    "no descriptor left": """
import atexit, resource
main.main()
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
atexit.register(resource.setrlimit, resource.RLIMIT_NOFILE, before)
""",
    "no thread left": NO_THREAD,
}


@pytest.mark.parametrize("text", WITHOUT_WATCHING.values(), ids=WITHOUT_WATCHING)
def test_where_nobody_can_watch(text: str) -> None:
    """The command would not even start, or end with a traceback."""
    outcome = run("--help", command=program(text))
    assert (outcome.code, outcome.err) == (0, b"")
    assert outcome.out.endswith(run("--help").out)


def test_an_interrupt_where_nobody_can_watch(store: Path, url: str) -> None:
    """What was half set up would print a traceback for every signal."""
    os.mkfifo(store / "slow.jsonl")
    call = ("--storage", url, "list", "--status", "failed")
    with (
        started(*call, command=program(NO_THREAD)) as process,
        (store / "slow.jsonl").open("wb"),
    ):
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait() == INTERRUPTED


def test_nothing_is_left_behind_in_the_caller_s_process() -> None:
    """A program that calls `main` would lose its own Ctrl-C, and a thread and a pipe each time."""

    def state() -> tuple[int, int, int]:
        before = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before)
        return before, threading.active_count(), len(os.listdir("/dev/fd"))

    before = state()
    with interrupts.heeded(INTERRUPTED) as writing:
        assert not writing.is_set()
        assert state() != before
    assert state() == before


def test_an_interrupt_puts_nothing_into_a_pipe(store: Path, url: str) -> None:
    """A program that reads the output would be given the escape that shows a cursor."""
    os.mkfifo(store / "slow.jsonl")
    call = ("--storage", url, "list", "--status", "failed")
    with (
        started(*call, command=out_of_reach(0.01)) as process,
        (store / "slow.jsonl").open("wb"),
    ):
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.wait() == INTERRUPTED
