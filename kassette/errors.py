"""Every error that kassette raises, and how to detect a suspension; nothing here handles one.

The tree says who acts next:

    KassetteError (BaseException)      one ``except KassetteError`` catches all of them
    ├── SuspendError                   nobody: control flow, the only one that is not an Exception
    ├── UsageError                     you: the call was wrong, nothing was written
    │   ├── TerminalRunError           you: the run is over; a dispatcher may treat it as done
    │   ├── MetadataMismatchError      you: recover with the input the run began with
    │   ├── ValueRefusedError          you: a value is not JSON or not of its declared type
    │   └── EventPendingError          you: deliver the event with ``resume``
    ├── SuspendedError                 your workflow: it swallowed a SuspendError
    ├── SessionClosedError             your workflow: it used a session that had ended
    ├── VersionMismatchError           your deploy: the code is not the one that wrote the journal
    ├── ReplayMismatchError            your deploy: the recorded step is not the requested one
    ├── RunCancelledError              nobody: a deadline passed, the run has ended
    ├── FencedError                    nobody: a newer session has taken over the run
    ├── WriteContentionError           operations: another session is writing, retry later
    ├── PreconditionFailedError        operations: an object changed before a conditional write
    ├── StorageError                   operations: fix disk, permissions or network, start again
    ├── JournalCorruptionError         operations: the journal is damaged, restore it
    └── InternalError                  us: please report it

Rule: every ordinary error is also an ``Exception``. ``SuspendError`` is not, so that the
``except Exception`` around the tools of an agent loop cannot swallow a suspension.
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
    """The base class of every error that kassette raises.

    ``run_id`` is the run concerned, or None if it is not known. It derives from ``BaseException``
    because ``SuspendError`` must not be an ``Exception``; all other subclasses are.
    """

    def __init__(self, message: str, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


@final
class SuspendError(KassetteError):
    """Control flow: the workflow waits for ``event_name``; let this exception escape.

    ``wait_for_event`` and ``ctx.suspend`` raise it when the event has not arrived; in a workflow
    that waits in one task, steps of other tasks raise it too. It is not an ``Exception``. A bare
    ``except:`` or an ``except BaseException:`` around such a call must raise it again.
    """

    def __init__(self, event_name: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"suspended: waiting for event {event_name!r}. This is control flow, not a failure: "
            "if an `except BaseException:` or a bare `except:` caught it, raise it again",
            run_id=run_id,
        )
        self.event_name = event_name


class UsageError(KassetteError, Exception):
    """The caller made a mistake, such as an invalid argument; nothing was written."""


@final
class TerminalRunError(UsageError):
    """``start`` or ``resume`` was called for a run that has ended.

    ``terminal_state`` is the type of the entry that ended it: ``"complete"``, ``"error"`` or
    ``"cancel"``. A dispatcher that delivers a job twice can treat ``"complete"`` as done.
    """

    def __init__(self, terminal_state: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"run {run_id!r} is over (its journal ends with {terminal_state!r}). "
            "Fork it to retry from a step, or use a new run id",
            run_id=run_id,
        )
        self.terminal_state = terminal_state


@final
class MetadataMismatchError(UsageError):
    """The metadata (a workflow's input) passed on recovery differs from the recorded one.

    ``stored_metadata`` is the recorded one, ``provided_metadata`` the one passed.
    """

    def __init__(
        self, stored_metadata: object, provided_metadata: object, *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"run {run_id!r} was started with different metadata (input) than given now. "
            "Omit it to recover with the recorded one, or use a new run id",
            run_id=run_id,
        )
        self.stored_metadata = stored_metadata
        self.provided_metadata = provided_metadata


@final
class ValueRefusedError(UsageError):
    """A value that cannot be journaled, or a recorded one that does not fit its declared type.

    The message names the path inside the value. It is a mistake in using kassette or of a
    deployment, never a failure of the workflow: if it escapes from a workflow, the run stays open,
    so that corrected code can continue it.
    """


@final
class StreamTooLargeError(UsageError):
    """The items of a stream exceed its ``max_bytes``; nothing of the stream is recorded.

    The run stays open. Raise ``max_bytes``, or split the stream into several steps.
    """


@final
class EventPendingError(UsageError):
    """``start`` was called for a run that is waiting for ``waiting_for``; use ``resume``."""

    def __init__(self, waiting_for: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"run {run_id!r} is suspended, waiting for event {waiting_for!r}. "
            "Deliver the event with resume()",
            run_id=run_id,
        )
        self.waiting_for = waiting_for


class SuspendedError(KassetteError, Exception):
    """The session was used after it had suspended, so its code must have caught the SuspendError.

    Let SuspendError escape. Not to be confused with ``Suspended``, which is a result.
    """


class SessionClosedError(KassetteError, Exception):
    """The session was used after ``complete()``, ``fail()``, ``aclose()``, or after it was lost."""


@final
class VersionMismatchError(KassetteError, Exception):
    """The workflow's version differs from the first version in the journal.

    ``stored_version`` is the recorded one, ``current_version`` that of the calling code.
    """

    def __init__(
        self, stored_version: str, current_version: str, *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"run {run_id!r} was recorded by version {stored_version!r}, but this code is version "
            f"{current_version!r}. Run it with the code that recorded it, or fork it",
            run_id=run_id,
        )
        self.stored_version = stored_version
        self.current_version = current_version


@final
class RunCancelledError(KassetteError, Exception):
    """A wait's deadline had passed, so the run has been cancelled and has ended.

    ``reason`` is ``"suspend_timeout_expired"``.
    """

    def __init__(self, reason: str, *, run_id: str | None = None) -> None:
        super().__init__(f"run {run_id!r} was cancelled: {reason}", run_id=run_id)
        self.reason = reason


@final
class ReplayMismatchError(KassetteError, Exception):
    """The workflow requests another step than the journal has at this point.

    ``expected_name`` is the recorded name, ``actual_name`` the one of the current call. In a strict
    session (``on_divergence="raise"``) ``passed_over`` are the recorded steps that the workflow
    should have requested first; if it is empty, the step was recorded before one that was requested
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
            what = f"is recorded as {expected_name!r}, but was requested as {actual_name!r}"
        elif passed_over:
            what = f"was requested before the recorded {', '.join(map(repr, passed_over))}"
        else:
            what = "was requested after a step that is recorded later"
        super().__init__(
            f"step {step_id!r} of run {run_id!r} {what}. The workflow has changed since the run "
            "was recorded. Run it with the code that recorded it, or fork it before the change; "
            "for new runs, change the version",
            run_id=run_id,
        )
        self.step_id = step_id
        self.expected_name = expected_name
        self.actual_name = actual_name
        self.passed_over = tuple(passed_over or ())


@final
class FencedError(KassetteError, Exception):
    """A newer session (``active_session``) owns the run; this one must stop.

    The entry of ``rejected_session`` was not written.
    """

    def __init__(
        self, rejected_session: int, active_session: int, *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"session {rejected_session} of run {run_id!r} was fenced: session {active_session} "
            "has taken over the run. Stop using this session; the newer one continues the run",
            run_id=run_id,
        )
        self.rejected_session = rejected_session
        self.active_session = active_session


class WriteContentionError(KassetteError, Exception):
    """Another session has the run: its lock is held, or conditional writes were refused.

    Retry later; the lock is released when that session ends or its process dies.
    """


class PreconditionFailedError(KassetteError, Exception):
    """A conditional write of an ``ObjectStoreClient`` found another version of the object.

    ``RemoteStorage`` handles it; a client raises it.
    """


class StorageError(KassetteError, Exception):
    """The disk or the network failed; the cause is chained.

    ``rolled_back`` is True only if it is certain that nothing of the refused entry was stored, so
    that the session can continue. Otherwise the session has ended, and a new ``start`` reads from
    the journal what was stored.
    """

    def __init__(
        self, message: str, *, run_id: str | None = None, rolled_back: bool = False
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.rolled_back = rolled_back


@final
class JournalCorruptionError(KassetteError, Exception):
    """A line of the journal cannot be read; ``line`` counts from 1.

    A journal is never repaired automatically, apart from a torn last line.
    """

    def __init__(self, reason: str, *, line: int, run_id: str | None = None) -> None:
        super().__init__(reason, run_id=run_id)
        self.line = line

    def __str__(self) -> str:
        """Return the message with the run id, which is added after decoding."""
        journal = "journal" if self.run_id is None else f"journal of run {self.run_id!r}"
        return (
            f"{journal}, line {self.line}: {self.args[0]}. Nothing was changed; restore the "
            "journal from a backup, or copy the lines before this one to a new run's journal"
        )


class InternalError(KassetteError, Exception):
    """A bug in kassette. Please report it with the journal."""


@contextmanager
def naming_run(run_id: str) -> Generator[None]:
    """Set the run id of every kassette error that leaves the block without one."""
    try:
        yield
    except KassetteError as error:
        with_run_id(error, run_id)
        raise


def with_run_id(error: _E, run_id: str) -> _E:
    """Set the run id of an error that has none, and return the same error."""
    if error.run_id is None:
        error.run_id = run_id
    return error


def is_suspend_error(error: object) -> TypeGuard[BaseException]:
    """Return whether ``error`` is a SuspendError, or an exception group that contains one.

    Call it before you swallow a ``BaseException``: if it returns True, raise ``error`` again.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(map(is_suspend_error, group.exceptions))
    return isinstance(error, SuspendError)


def is_precondition_failed_error(error: object) -> TypeGuard[PreconditionFailedError]:
    """Return whether ``error`` reports a conditional write that found another version."""
    return isinstance(error, PreconditionFailedError)
