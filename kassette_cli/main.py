"""Entry point of the command: dispatch, error lines and exit codes; no verb is implemented here.

Rules:
- Exit codes: 0 success; 1 the storage or the run refuses, or the output cannot be written; 2 the
  command line itself is wrong; 130 interrupted; 141 the reader closed the pipe. A verb may have
  further codes for what it has found, from 10 on.
- An error is one line on standard error that begins with ``kassette:``; never a traceback.
- Nothing is printed while an event loop runs, so that an interrupt never waits for a loop that is
  blocked on a full pipe.
- What was read before an error is printed before the error.
- An interrupt ends the process immediately: otherwise a worker thread reading from a hung disk, or
  the flush of a full pipe, would keep the interpreter alive. A write to the storage finishes first.
- Start-up time is part of the product: a call imports only what it needs, and imports that inside
  ``main``, where interrupts are already handled.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from threading import Event
    from types import ModuleType
    from typing import TextIO, TypeVar

    T = TypeVar("T")

DONE = 0
REFUSED = 1
MISUSED = 2
INTERRUPTED = 130
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; None stands for the process's own arguments."""
    try:
        from kassette_cli.interrupts import heeded

        with heeded(INTERRUPTED) as writing:
            return _answer(argv, writing)
    except BaseException as error:
        code, message = _explain(error)
        if message is not None:
            _complain(message)
        return code


def _answer(argv: Sequence[str] | None, writing: Event) -> int:
    from kassette_cli.misuse import HelpWanted
    from kassette_cli.parser import parse_arguments
    from kassette_cli.table import load

    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - closed by `>&-`
        raise _OutputError("it is closed")
    try:
        arguments = parse_arguments(argv)
    except HelpWanted as help_wanted:
        _print(_write, [str(help_wanted).encode()])
        return DONE
    if arguments.version:
        _print(_write, [f"kassette {_version()}\n".encode()])
        return DONE
    verb = load(arguments.verb)
    if verb.writes:
        writing.set()
    storage = None
    if verb.needs_storage:
        from kassette_cli.storage import open_url

        storage = open_url(arguments.storage, getattr(arguments, "run_ids", ()))
    plain = arguments.json or verb.prints_lines(arguments) or not sys.stdout.isatty()
    terminal = None if plain else _import_terminal()
    if terminal is None:
        write = _write_at_once if verb.is_live(arguments) else _write
        _print(write, verb.lines(arguments, storage, sys.stdout.fileno()))
    else:
        console = terminal.make_console()
        shown = verb.shown(arguments, storage, console)
        _print(lambda each: terminal.show(console, each), shown)
    return verb.exit_code


def _import_terminal() -> ModuleType | None:
    """Return the module that renders for a terminal; None, with a message, if rich is missing."""
    try:
        from kassette_cli.output import terminal

        import_module("aiofiles")
    except ModuleNotFoundError as error:
        if error.name not in ("aiofiles", "rich"):
            raise
        _complain(
            f"{error.name} is not installed, so the output is JSON; pip install 'kassette-py[cli]'"
        )
        return None
    return terminal


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("kassette-py")
    except PackageNotFoundError:
        return "(from a source tree that is not installed)"


class _OutputError(Exception):
    """Standard output cannot be written; the cause, if any, is the OSError."""


def _print(write: Callable[[Iterable[T]], object], items: Iterable[T]) -> None:
    try:
        write(items)
    except OSError as error:
        raise _OutputError(error.strerror) from error


def _write(lines: Iterable[bytes]) -> None:
    """Write all of ``lines``; ``sys.stdout.buffer`` may be unbuffered and then write partially."""
    out = os.fdopen(sys.stdout.fileno(), "wb", closefd=False)
    try:
        out.writelines(lines)
    except Exception:  # not on an interrupt, which must not wait for a full pipe
        out.flush()
        raise
    out.flush()


def _write_at_once(lines: Iterable[bytes]) -> None:
    """Write and flush each of ``lines`` as soon as it is available."""
    out = os.fdopen(sys.stdout.fileno(), "wb", closefd=False)
    for each in lines:
        out.write(each)
        out.flush()


def _explain(error: BaseException) -> tuple[int, str | None]:
    """Return the exit code for ``error`` and the message to print, if any."""
    from kassette import KassetteError
    from kassette_cli.misuse import Misuse

    match error:
        case Misuse():
            return MISUSED, str(error)
        case KassetteError():
            return REFUSED, str(error)
        case KeyboardInterrupt():
            os._exit(INTERRUPTED)
        case _OutputError(__cause__=BrokenPipeError()):
            _abandon(sys.stdout)
            return READER_GONE, None
        case _OutputError():
            _abandon(sys.stdout)
            return REFUSED, f"cannot write to standard output: {error}"
        case Exception():
            return REFUSED, (
                f"this is a bug in kassette, please report it: {type(error).__name__}: {error} "
                f"({_place(error)})"
            )
        case _:
            raise error


def _place(error: BaseException) -> str:
    """Return the file and line where ``error`` was raised, since no traceback is printed."""
    from traceback import extract_tb

    frame = extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _complain(message: str) -> None:
    from kassette_cli.output.escaping import on_one_line

    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison] - closed by `2>&-`
        return
    try:
        sys.stderr.write(f"kassette: {on_one_line(message)}\n")
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)


def _abandon(stream: TextIO | None) -> None:
    """Discard what is still buffered: the interpreter flushes once more when it exits."""
    if stream is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
