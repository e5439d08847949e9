"""What a session notes about itself: process, library, code, and which step raised an error.

Nothing is decided here; ``kassette.notes`` defines notes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from types import CodeType
from typing import Any, Final, NamedTuple, Protocol, cast, final

import orjson

from kassette import BranchPath, Diverged, Machine, format_timestamp
from kassette.notes import shortened
from kassette_io import _clock

VERSION: Final = "0.1.0"
"""The version of this library."""
_MARK: Final = "__kassette_step__"


class Asking(NamedTuple):
    """Who opens a session: a workflow's name, its code, and whether steps must match."""

    workflow: str | None = None
    code: str | None = None
    strict: bool = False


NOBODY: Final = Asking()


def session_notes(code: str | None = None) -> dict[str, Any]:
    """Return the notes on the process and the code that open a session."""
    return {"host": _host(), "pid": os.getpid(), "lib": f"kassette-py/{VERSION}", "code": code}


@cache
def _host() -> str:
    try:
        return os.uname().nodename
    except AttributeError:
        from platform import node  # where there is no uname

        return node()


def fingerprint(fn: Any) -> str | None:
    """Return a short fingerprint of a function's own code; None if it has none.

    The code that it calls is not included. The minor version of Python comes first, because each
    compiles differently.
    """
    while isinstance(fn, partial):
        fn = cast("Any", fn).func
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    digest = sha256()
    for part in _parts(code):
        digest.update(part)
        digest.update(b"\0")
    return f"py{sys.version_info.major}.{sys.version_info.minor}-{digest.hexdigest()[:12]}"


def _parts(code: CodeType) -> Iterator[bytes]:
    yield code.co_code
    for name in (*code.co_names, *code.co_varnames, *code.co_freevars):
        yield name.encode("utf-8", "backslashreplace")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, cast("frozenset[object]", constant)))).encode()
        else:
            yield repr(constant).encode("utf-8", "backslashreplace")


class NotesRunning(Protocol):
    """What a storage can do that keeps which steps are running beside the journal."""

    def note_running(self, run_id: str, session: int, running: bytes) -> None:
        """Write which steps are running, as a JSON array; survives the process. Never raises."""
        ...


def recorder(storage: object, machine: Machine) -> Recorder | None:
    """Return what notes the running steps of a session; None where storage cannot keep it."""
    if not hasattr(storage, "note_running"):
        return None
    return Recorder(cast("NotesRunning", storage), machine)


@final
class Recorder:
    """Notes which steps are running, so that it is known after any death of the process.

    A step is noted before its function is called, and again after each failed attempt. A recorded
    one may stay noted until the next begins: the journal tells that it is over.
    """

    __slots__ = ("_machine", "_running", "_storage")

    def __init__(self, storage: NotesRunning, machine: Machine) -> None:
        self._storage = storage
        self._machine = machine
        self._running: dict[str, dict[str, Any]] = {}

    def begin(self, step_id: str) -> None:
        """Note that a step is about to run."""
        began = format_timestamp(_clock.now())
        self._running[step_id] = {"stepId": step_id, "startedAt": began, "attempt": 1}
        self._write()

    def attempt_failed(self, step_id: str, attempt: int, error: BaseException) -> None:
        """Note that an attempt has failed, and that another is to follow."""
        noted = self._running.get(step_id)
        if noted is not None:
            noted["attempt"] = attempt + 1
            noted["lastError"] = shortened(f"{type(error).__name__}: {error}")
            self._write()

    def succeeded(self, step_id: str) -> None:
        """Forget a step that the journal has."""
        self._running.pop(step_id, None)

    def failed(self, step_id: str) -> None:
        """Note that a step is over and has no result."""
        if self._running.pop(step_id, None) is not None:
            self._write()

    def _write(self) -> None:
        running = list(self._running.values())
        machine = self._machine
        text = orjson.dumps(running[-_MOST_RUNNING:])
        self._storage.note_running(machine.run_id, machine.session, text)


_MOST_RUNNING: Final = 8
"""How many running steps are noted, the last ones: all have to fit into a page."""


def warn_diverged(run_id: str, diverged: Diverged) -> None:
    """Log a warning that workflow and journal diverge."""
    from logging import getLogger

    passed = diverged.passed_over
    getLogger("kassette").warning(
        "workflow and journal of run %r diverge at step %r: %s. A step that was renamed since the "
        "run was recorded is not found in the journal, and runs again under its new name",
        run_id,
        diverged.step_id,
        f"the recorded {', '.join(map(repr, passed))} should have come first"
        if passed
        else "it was recorded before a step that was requested earlier",
    )


class _FailedStep(NamedTuple):
    run_id: str
    step_id: str
    attempts: int
    branch: str


def mark(error: BaseException, run_id: str, step_id: str, attempts: int, path: BranchPath) -> None:
    """Mark ``error`` with the step that raised it, unless it is marked already."""
    with suppress(Exception):
        vars(error).setdefault(_MARK, _FailedStep(run_id, step_id, attempts, ":".join(path)))


def failure_notes(error: BaseException, run_id: str) -> dict[str, Any]:
    """Return the notes on the step of the run that raised ``error`` or one of its causes."""
    seen: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if isinstance(seen, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", seen)
            seen = group.exceptions[0] if len(group.exceptions) == 1 else None
        if seen is None:
            break
        found = getattr(seen, _MARK, None)
        if isinstance(found, _FailedStep) and found.run_id == run_id:
            return {
                "stepId": found.step_id,
                "attempts": found.attempts if found.attempts > 1 else None,
                "branch": found.branch or None,
            }
        seen = seen.__cause__
    return {}


_LONGEST_CHAIN: Final = 20
