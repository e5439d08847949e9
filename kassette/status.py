"""What a run is doing, from its journal alone; never from a clock or a process list.

Rules: the last entry that is not a ``start`` decides. complete, error and cancel make a run
completed, failed and cancelled; suspend makes it suspended (a crash during resume leaves a
``start`` behind, which changes nothing), unless more suspend entries were to follow (a crash came
in between); anything else, or no entry, leaves it unsettled. The deadline of a suspended run is the
one that is enforced: that of the first wait for its event, if that had one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias, final

from kassette.entries import (
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    StartEntry,
    SuspendEntry,
)
from kassette.immutable import Immutable


@final
class Completed(Immutable):
    """The status of a run whose workflow returned.

    ``CompleteEntry.result`` has the returned value, if it was recorded.
    """

    status: ClassVar[str] = "completed"

    def to_json(self) -> dict[str, str]:
        """Return the JSON form of the TypeScript kassette."""
        return {"status": self.status}


@final
class FailedRun(Immutable, kw_only=True):
    """The status of a run whose workflow raised: its error's message, type and traceback.

    ``name`` is the exception's type and ``stack`` its traceback. ``Failed`` is the result of such a
    run in the process that ran it, and has the exception itself.
    """

    status: ClassVar[str] = "failed"

    message: str
    name: str | None = None
    stack: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the JSON form of the TypeScript kassette."""
        return _without_none(
            status=self.status, message=self.message, name=self.name, stack=self.stack
        )


@final
class Cancelled(Immutable, kw_only=True):
    """The status of a run that was cancelled, for ``reason`` if one was recorded."""

    status: ClassVar[str] = "cancelled"

    reason: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the JSON form of the TypeScript kassette."""
        return _without_none(status=self.status, reason=self.reason)


@final
class SuspendedRun(Immutable, kw_only=True):
    """The status of a run that waits for event ``waiting_for``.

    ``timeout`` is the deadline as an ISO 8601 instant, or None. ``Suspended`` is the result of such
    a run in the process that ran it.
    """

    status: ClassVar[str] = "suspended"

    waiting_for: str
    timeout: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the JSON form of the TypeScript kassette."""
        return _without_none(status=self.status, waitingFor=self.waiting_for, timeout=self.timeout)


@final
class Unsettled(Immutable):
    """The status of a run that is running, crashed or abandoned, or has an empty journal.

    The journal alone cannot tell which. ``start`` recovers the run: on a local disk it raises
    WriteContentionError if a session has the run open; on object storage it takes over the run.
    """

    status: ClassVar[str] = "unsettled"

    def to_json(self) -> dict[str, str]:
        """Return the JSON form of the TypeScript kassette."""
        return {"status": self.status}


RunStatus: TypeAlias = Completed | FailedRun | Cancelled | SuspendedRun | Unsettled
"""What a run is doing, one class for each of the five states."""


def run_status(entries: Sequence[Entry]) -> RunStatus:
    """Return what the run with this journal is doing: one of the five states.

    Pass all entries of the journal, in order. No session is opened and nothing is written.
    """
    for entry in reversed(entries):
        match entry:
            case StartEntry():
                continue
            case CompleteEntry():
                return Completed()
            case ErrorEntry():
                return FailedRun(message=entry.message, name=entry.name, stack=entry.stack)
            case CancelEntry():
                return Cancelled(reason=entry.reason)
            case SuspendEntry(more=False):
                return SuspendedRun(
                    waiting_for=entry.waiting_for, timeout=_deadline(entry, entries)
                )
            case _:
                return Unsettled()
    return Unsettled()


def get_metadata(entries: Sequence[Entry]) -> Any:
    """Return the metadata (a workflow's input) of a run, or None if there is none."""
    for entry in entries:
        if isinstance(entry, StartEntry):
            return entry.metadata
    return None


def _deadline(wait: SuspendEntry, entries: Sequence[Entry]) -> str | None:
    """Return the deadline of the first wait for the event of ``wait``."""
    event = wait.waiting_for
    return next(
        each.timeout
        for each in entries
        if isinstance(each, SuspendEntry) and each.waiting_for == event
    )


def _without_none(**members: str | None) -> dict[str, str]:
    return {key: value for key, value in members.items() if value is not None}
