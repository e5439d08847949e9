"""``main`` as a program calls it: what it returns, and what it leaves of the caller's streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import IO, Any

import pytest

import kassette_cli.output
from kassette_cli import main as module
from kassette_cli.main import DONE, MISUSED, READER_GONE, REFUSED, main


@contextmanager
def written_to(descriptor: int, name: str, patch: pytest.MonkeyPatch) -> Iterator[IO[Any]]:
    """Let a standard stream write to ``descriptor``, some kilobytes at a time."""
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        patch.setattr(sys, name, stream)
        yield stream


def test_it_returns_its_exit_code(
    url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that calls it could not tell success from failure."""
    with written_to(os.dup(1), "stdout", monkeypatch):
        assert main(["--version"]) == DONE
        assert capfd.readouterr().out == f"kassette {version('kassette-py')}\n"
        assert main(["--storage", url, "status", "completed"]) == DONE
        assert capfd.readouterr().out == '{"status":"completed"}\n'
        assert main(["--storage", url, "status", "unknown"]) == REFUSED
        assert main(["lst"]) == MISUSED


def test_a_closed_standard_output_is_told(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kassette list >&-` would be a bug of kassette, or a success that printed nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        code = main(["--storage", url, "list"])
    assert code == REFUSED
    message = "kassette: cannot write to standard output: it is closed\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("broken", ["pipe", "disk"])
def test_what_could_not_be_written_is_not_tried_again(
    url: str,
    broken: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interpreter's last flush would fail as well, with a traceback of its own."""
    reading, writing = os.pipe()
    os.close(reading)
    if broken == "disk":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    opened = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patch, written_to(writing, "stdout", patch) as stdout:
        code = main(["--storage", url, "list"])
        stdout.write("what the caller still wants to say")
        stdout.flush()
        assert len(os.listdir("/dev/fd")) == opened
    told = capsys.readouterr().err
    if broken == "pipe":
        assert (code, told) == (READER_GONE, "")
    else:
        assert code == REFUSED
        assert told.endswith("cannot write to standard output: No space left on device\n")


def test_a_complaint_is_there_at_once_and_its_failure_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A script that waits for the message would wait for the end; a full disk would be a traceback."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with monkeypatch.context() as patch, written_to(writing, "stderr", patch):
        assert main(["lst"]) == MISUSED
        assert os.read(reading, 100).startswith(b"kassette: ")
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    with monkeypatch.context() as patch, written_to(full, "stderr", patch) as stderr:
        assert main(["lst"]) == MISUSED
        stderr.write("more")
        stderr.flush()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert main(["lst"]) == MISUSED


def test_an_exit_is_nobody_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that leaves while the command runs in it would go on."""

    def leave(*_: object) -> None:
        raise SystemExit(5)

    monkeypatch.setattr(module, "_answer", leave)
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 5


def test_only_a_missing_extra_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation would look like one without `kassette-py[cli]`."""
    monkeypatch.delattr(kassette_cli.output, "terminal", raising=False)
    monkeypatch.setitem(sys.modules, "kassette_cli.output.terminal", None)
    with pytest.raises(ModuleNotFoundError):
        module._import_terminal()
