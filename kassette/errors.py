"""Every error kassette raises, and how to tell a suspension; nothing here acts on one.

The tree says who acts next:

    KassetteError (BaseException)      one ``except KassetteError`` catches every kassette throw
    ├── SuspendError                   nobody: control flow, the only one that is not an Exception
    ├── UsageError                     you: the call was wrong, nothing was written
    │   ├── TerminalRunError           you: the run is over; a dispatcher may treat it as done
    │   ├── MetadataMismatchError      you: recover with the input the run began with
    │   ├── ValueRefusedError          you: a value is not JSON or not of its declared type
    │   └── EventPendingError          you: deliver the event with ``resume``
    ├── SuspendedError                 your workflow: it swallowed a SuspendError
    ├── SessionClosedError             your workflow: it used a session that had ended
    ├── VersionMismatchError           your deploy: the code is not the one that wrote the journal
    ├── ReplayMismatchError            your deploy: the step asked for is not the one recorded
    ├── RunCancelledError              nobody: a deadline passed, the run is over
    ├── FencedError                    nobody: a newer session took the run over
    ├── WriteContentionError           the world: somebody else is writing, try again later
    ├── PreconditionFailedError        the world: an object changed under a conditional put
    ├── StorageError                   the world: mend disk, permissions or network, start again
    ├── JournalCorruptionError         the world: the journal is damaged, restore or fork it
    └── InternalError                  us: please report it

Rule (D1): every ordinary error is also an ``Exception``. ``SuspendError`` is not, so that the
``except Exception`` an agent loop wraps around its tools cannot swallow a suspension.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar, cast, final

_E = TypeVar("_E", bound="KassetteError")


def _rebuild(cls: type[KassetteError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class KassetteError(BaseException):
    """The root of everything kassette raises.

    ``run_id`` is the run concerned, or None where none is known. Not an ``Exception``: see the
    rule in this module's header.
    """

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


@final
class SuspendError(KassetteError):
    """The workflow waits for ``event_name``; let it escape.

    Raised by ``wait_for_event`` and ``ctx.suspend``. A bare ``except:`` or an
    ``except BaseException:`` around a step must raise it again.
    """

    def __init__(self, event_name: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"suspended: waiting for event {event_name!r}. This is control flow, not a failure: "
            "if an `except BaseException:` or a bare `except:` caught it, raise it again",
            run_id=run_id,
        )
        self.event_name = event_name


class UsageError(KassetteError, Exception):
    """The caller asked for something that the rules do not allow; nothing was written."""


@final
class TerminalRunError(UsageError):
    """``start`` or ``resume`` on a run that is over.

    ``terminal_state`` is the type of the entry that ended it: ``"complete"``, ``"error"`` or
    ``"cancel"``. A dispatcher that delivers a job twice can treat ``"complete"`` as done.
    """

    def __init__(self, terminal_state: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"run {run_id!r} is over (its journal ends with {terminal_state!r}). "
            "Fork it to try again from a step, or start a new run id",
            run_id=run_id,
        )
        self.terminal_state = terminal_state


@final
class MetadataMismatchError(UsageError):
    """Recovery with metadata (a workflow's input) other than the journal holds."""

    def __init__(
        self, stored_metadata: object, provided_metadata: object, *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"run {run_id!r} began with other metadata (input) than was given now. "
            "Leave it out to recover with what the journal holds, or use a new run id",
            run_id=run_id,
        )
        self.stored_metadata = stored_metadata
        self.provided_metadata = provided_metadata


@final
class ValueRefusedError(UsageError):
    """A value that the journal cannot hold, or a recorded one that its declared type cannot read.

    A mistake in using kassette, or of a deploy, and never the workflow's failure: a workflow that
    lets it escape leaves its run open, so that mended code can go on (D3.3, D3.4).
    """


@final
class StreamTooLargeError(UsageError):
    """A stream gave more than its bound allows to be held; nothing of it is recorded.

    The run stays open. Raise the bound, or record less in several steps.
    """


@final
class EventPendingError(UsageError):
    """``start`` on a run that is suspended on ``waiting_for``; use ``resume``."""

    def __init__(self, waiting_for: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"run {run_id!r} is suspended, waiting for event {waiting_for!r}. "
            "Deliver the event with resume()",
            run_id=run_id,
        )
        self.waiting_for = waiting_for


class SuspendedError(KassetteError, Exception):
    """A session method was called after the session had suspended.

    Almost always an ``except`` swallowed the SuspendError; let it escape.
    """


class SessionClosedError(KassetteError, Exception):
    """A session method was called after ``complete()``, ``fail()`` or ``aclose()``."""


@final
class VersionMismatchError(KassetteError, Exception):
    """The caller's version differs from the first version in the journal."""

    def __init__(
        self, stored_version: str, current_version: str, *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"run {run_id!r} was recorded by version {stored_version!r}, this code is version "
            f"{current_version!r}. Run it with the code that wrote it, or fork it",
            run_id=run_id,
        )
        self.stored_version = stored_version
        self.current_version = current_version


@final
class RunCancelledError(KassetteError, Exception):
    """The run was cancelled; ``reason`` says why (``"suspend_timeout_expired"``)."""

    def __init__(self, reason: str, *, run_id: str | None = None) -> None:
        super().__init__(f"run {run_id!r} was cancelled: {reason}", run_id=run_id)
        self.reason = reason


@final
class ReplayMismatchError(KassetteError, Exception):
    """The workflow asks for another step than the journal holds at this place.

    ``expected_name`` is the recorded name, ``actual_name`` the one of the current call. In a strict
    session (``on_divergence="raise"``) ``passed_over`` are the recorded steps that the workflow
    should have asked for first; without any, the step was recorded before one that was asked for
    earlier.
    """

    def __init__(
        self,
        step_id: str,
        expected_name: str,
        actual_name: str,
        *,
        passed_over: Sequence[str] | None = None,
        run_id: str | None = None,
    ) -> None:
        if passed_over is None:
            what = f"recorded as {expected_name!r}, asked for as {actual_name!r}"
        elif passed_over:
            what = f"asked for before {', '.join(map(repr, passed_over))}, which is on record"
        else:
            what = "asked for after a step that was recorded later"
        super().__init__(
            f"step {step_id!r} of run {run_id!r}: {what}. The workflow's shape has changed since "
            "the run was recorded. Run it with the code that recorded it, or fork it before the "
            "change; for new runs, change the version",
            run_id=run_id,
        )
        self.step_id = step_id
        self.expected_name = expected_name
        self.actual_name = actual_name
        self.passed_over = tuple(passed_over or ())


@final
class FencedError(KassetteError, Exception):
    """A newer session owns the run; this one (``rejected_session``) must stop."""

    def __init__(
        self, rejected_session: int, active_session: int, *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"session {rejected_session} of run {run_id!r} was fenced: session {active_session} "
            "has taken the run over. Stop here; the newer session goes on",
            run_id=run_id,
        )
        self.rejected_session = rejected_session
        self.active_session = active_session


class WriteContentionError(KassetteError, Exception):
    """No exclusive write access: a lock is held, or conditional writes kept losing."""


class PreconditionFailedError(KassetteError, Exception):
    """An ``ObjectStoreClient`` conditional put found another version of the object."""


class StorageError(KassetteError, Exception):
    """The disk or the network refused an operation; the cause is chained.

    ``rolled_back`` is True only where it is certain that nothing of the refused entry remains, so
    that the session may go on. Otherwise the session is over, and a new ``start`` finds out from
    the journal what landed.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, rolled_back: bool = False
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.rolled_back = rolled_back


@final
class JournalCorruptionError(KassetteError, Exception):
    """A line of the journal cannot be read; ``line`` counts from 1. Nothing is ever repaired."""

    def __init__(self, reason: str, *, line: int, run_id: str | None = None) -> None:
        super().__init__(reason, run_id=run_id)
        self.line = line

    def __str__(self) -> str:
        """Name the run as soon as it is known; a decoder sees lines, not run ids."""
        journal = "journal" if self.run_id is None else f"journal of run {self.run_id!r}"
        return (
            f"{journal}, line {self.line}: {self.args[0]}. Nothing was changed; "
            "restore the journal from a copy, or copy the lines before this one into a new run's"
        )


class InternalError(KassetteError, Exception):
    """A rule of the library itself was broken. Please report it with the journal."""


@contextmanager
def naming_run(run_id: str) -> Generator[None]:
    """Name the run on every kassette error that leaves the block without one."""
    try:
        yield
    except KassetteError as error:
        with_run_id(error, run_id)
        raise


def with_run_id(error: _E, run_id: str) -> _E:
    """Name the run on an error raised below the layer that knows it; returns the same error."""
    if error.run_id is None:
        error.run_id = run_id
    return error


def is_suspend_error(error: object) -> TypeGuard[BaseException]:
    """Return whether ``error`` is, or as an exception group holds at any depth, a SuspendError.

    The question to ask before swallowing anything: if it answers True, raise ``error`` again.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(map(is_suspend_error, group.exceptions))
    return isinstance(error, SuspendError)


def is_precondition_failed_error(error: object) -> TypeGuard[PreconditionFailedError]:
    """Tell whether ``error`` reports a conditional put that found another version."""
    return isinstance(error, PreconditionFailedError)
