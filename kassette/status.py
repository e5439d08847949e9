"""What a run is doing, told from its journal alone; never from a clock or a process list.

Rules, in order: the last entry that is not a ``start`` decides. complete, error and cancel make a
run completed, failed and cancelled; suspend makes it suspended (a crash during resume leaves a
``start`` behind, which changes nothing), unless more of its kind were to follow (a crash came in
between); anything else, or no entry, leaves it unsettled. The deadline of a suspended run is the
one that is enforced: that of the first wait for its event (D7), none if that had none.
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
    """The workflow returned; the last step's result is usually its answer."""

    status: ClassVar[str] = "completed"

    def to_json(self) -> dict[str, str]:
        """Give the reference's JSON form."""
        return {"status": self.status}


@final
class FailedRun(Immutable, kw_only=True):
    """The workflow raised: ``name`` is the exception's type, ``stack`` its traceback."""

    status: ClassVar[str] = "failed"

    message: str
    name: str | None = None
    stack: str | None = None

    def to_json(self) -> dict[str, str]:
        """Give the reference's JSON form."""
        return _without_none(
            status=self.status, message=self.message, name=self.name, stack=self.stack
        )


@final
class Cancelled(Immutable, kw_only=True):
    """The run was cancelled, for ``reason`` if one was written."""

    status: ClassVar[str] = "cancelled"

    reason: str | None = None

    def to_json(self) -> dict[str, str]:
        """Give the reference's JSON form."""
        return _without_none(status=self.status, reason=self.reason)


@final
class SuspendedRun(Immutable, kw_only=True):
    """The run waits for event ``waiting_for``, until the ISO 8601 instant ``timeout`` if any."""

    status: ClassVar[str] = "suspended"

    waiting_for: str
    timeout: str | None = None

    def to_json(self) -> dict[str, str]:
        """Give the reference's JSON form."""
        return _without_none(status=self.status, waitingFor=self.waiting_for, timeout=self.timeout)


@final
class Unsettled(Immutable):
    """Running, crashed, abandoned or empty: the journal alone cannot tell which."""

    status: ClassVar[str] = "unsettled"

    def to_json(self) -> dict[str, str]:
        """Give the reference's JSON form."""
        return {"status": self.status}


RunStatus: TypeAlias = Completed | FailedRun | Cancelled | SuspendedRun | Unsettled
"""What a run is doing, one class for each of the five states."""


def run_status(entries: Sequence[Entry]) -> RunStatus:
    """Tell what the run with this journal is doing, by the rules in this module's header."""
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
    """Give the metadata (a workflow's input) of a run, or None where there is none."""
    for entry in entries:
        if isinstance(entry, StartEntry):
            return entry.metadata
    return None


def _deadline(wait: SuspendEntry, entries: Sequence[Entry]) -> str | None:
    """Return the deadline of the first wait for the event of ``wait``, which is one of them."""
    event = wait.waiting_for
    return next(
        each.timeout
        for each in entries
        if isinstance(each, SuspendEntry) and each.waiting_for == event
    )


def _without_none(**members: str | None) -> dict[str, str]:
    return {key: value for key, value in members.items() if value is not None}
