"""Output that ends early: closed pipes, full disks, interrupts; what is printed is of no concern."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kassette_cli.main import INTERRUPTED, READER_GONE, _write_at_once

from .journals import START, long_journal
from .processes import COMMAND, Outcome, Terminal, environment, run, started


@pytest.fixture
def long_run(store: Path) -> str:
    """Give the id of a run whose journal fits into no pipe."""
    (store / "long.jsonl").write_text(long_journal(3000), encoding="utf-8")
    return "long"


def test_a_reader_that_has_enough_ends_it_quietly(url: str, long_run: str) -> None:
    """`kassette dump RUN | head -1` would end in a BrokenPipeError, on the screen and in logs."""
    with started("--storage", url, "dump", long_run) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"type":"start"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == READER_GONE


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("status", "failed"), ("dump", "failed"), ("--help",), ("--version",)],
)
def test_a_reader_that_is_gone_ends_it_quietly(url: str, arguments: tuple[str, ...]) -> None:
    """Little output waits in a buffer, so only the interpreter's last flush would fail, noisily.

    Before Python 3.13 that noise is made in development mode only.
    """
    reading, writing = os.pipe()
    os.close(reading)
    env = environment(PYTHONDEVMODE="1")
    with started("--storage", url, *arguments, stdout=writing, env=env) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == READER_GONE


def test_head_is_served_through_a_real_shell(url: str, long_run: str) -> None:
    """The pipeline that everybody types would print more than head lets through."""
    shell = ("sh", "-c", '"$@" | head -n 1', "sh", *COMMAND)
    outcome = run("--storage", url, "dump", long_run, command=shell)
    assert (outcome.code, outcome.err) == (0, b"")
    assert outcome.out.count(b"\n") == 1


@pytest.mark.parametrize("variables", [{"PYTHONDEVMODE": "1"}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("arguments", [("list",), ("dump", "long"), ("--help",)])
def test_output_that_cannot_be_written_exits_1(
    url: str, long_run: str, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    """A full disk would leave half an archive behind and call it a success."""
    full = os.open("/dev/full", os.O_WRONLY)
    env = environment(**variables)
    with started("--storage", url, *arguments, stdout=full, env=env) as process:
        os.close(full)
        assert process.stderr is not None
        assert process.stderr.read() == (
            b"kassette: cannot write to standard output: No space left on device\n"
        )
        assert process.wait() == 1


def test_output_that_is_cut_short_exits_1(store: Path, url: str, tmp_path: Path) -> None:
    """A disk that takes a part of the last line would leave that in an archive, as a success.

    Unbuffered, Python's own standard output forgets what a short write has left over.
    """
    (store / "short.jsonl").write_text(long_journal(1), encoding="utf-8")
    shell = ("sh", "-c", 'ulimit -f 1; exec "$@" > cut', "sh", *COMMAND)
    env = environment(PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
    env.pop("COVERAGE_PROCESS_CONFIG", None)  # its data would not fit either
    outcome = run("--storage", url, "dump", "short", command=shell, cwd=tmp_path, env=env)
    assert outcome == Outcome(
        1, b"", b"kassette: cannot write to standard output: File too large\n"
    )


def test_a_closed_standard_output_exits_1(url: str) -> None:
    """`>&-` would crash, or write into whatever file took the number of the closed one."""
    shell = ("sh", "-c", 'exec "$@" >&-', "sh", *COMMAND)
    outcome = run("--storage", url, "list", command=shell)
    assert outcome == Outcome(1, b"", b"kassette: cannot write to standard output: it is closed\n")


def test_an_interrupt_while_reading_exits_130(store: Path, url: str) -> None:
    """Ctrl-C before a storage has answered would print a traceback, or wait for the storage."""
    os.mkfifo(store / "slow.jsonl")
    with started("--storage", url, "status", "slow") as process:
        with (store / "slow.jsonl").open("wb"):
            process.send_signal(signal.SIGINT)
            assert process.communicate() == (b"", b"")
        assert process.returncode == INTERRUPTED


def test_an_interrupt_while_writing_exits_130(url: str, long_run: str) -> None:
    """Ctrl-C would not reach a command whose reader has stopped reading."""
    with started("--storage", url, "dump", long_run) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert os.read(process.stdout.fileno(), 1) == b"{"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait() == INTERRUPTED


def test_an_interrupt_on_a_terminal_exits_130_and_gives_the_cursor_back(
    store: Path, url: str
) -> None:
    """Ctrl-C while progress is shown would leave a terminal without a cursor."""
    os.mkfifo(store / "slow.jsonl")
    terminal = Terminal("--storage", url, "status", "slow")
    with (store / "slow.jsonl").open("wb"):
        terminal.read_until(b"reading the journal")
        terminal.process.send_signal(signal.SIGINT)
        outcome = terminal.close()
    assert (outcome.code, outcome.err) == (INTERRUPTED, b"")
    assert outcome.out.rindex(b"\x1b[?25h") > outcome.out.rindex(b"\x1b[?25l")


def test_what_was_read_before_an_error_is_printed_before_it(url: str) -> None:
    """Where both go to one log, an error would stand above the entries that it came after."""
    done = subprocess.run(
        [*COMMAND, "--storage", url, "dump", "damaged"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        check=False,
    )
    first, second = done.stdout.decode().splitlines()
    assert (done.returncode, f"{first}\n") == (1, START)
    assert second.startswith("kassette: ")


def test_what_is_followed_is_in_the_pipe_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dump --follow | jq` would show nothing until some kilobytes have gathered."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    monkeypatch.setattr("sys.stdout", SimpleNamespace(fileno=lambda: writing))

    def lines() -> Iterator[bytes]:
        for line in (b"one\n", b"two\n"):
            yield line
            assert os.read(reading, 100) == line

    _write_at_once(lines())
    os.close(reading)
    os.close(writing)
