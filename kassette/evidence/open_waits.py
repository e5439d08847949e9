"""Which events a run still waits for; entries in, waits out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, final

from kassette.entries import Entry, ResumeEntry, SuspendEntry
from kassette.immutable import Immutable
from kassette.notes import text_of
from kassette.timestamps import has_passed


@final
class OpenWait(Immutable, kw_only=True):
    """A wait whose event has not arrived: since when, until when, and in which branch.

    ``late`` says that the deadline has passed; ``branch`` is None outside of branches, and in
    journals that do not record it.
    """

    event: str
    reason: str
    since: str
    deadline: str | None
    late: bool
    branch: str | None
    offset: int

    @property
    def question(self) -> str:
        """The reason, if the workflow gave one; empty if it only repeats the event."""
        return "" if self.reason == f"Waiting for event: {self.event}" else self.reason

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "event": self.event,
            "reason": self.reason,
            "since": self.since,
            "deadline": self.deadline,
            "late": self.late,
            "branch": self.branch,
            "offset": self.offset,
        }


def open_waits(entries: Iterable[Entry]) -> list[SuspendEntry]:
    """Return the waits whose event has not arrived, each as it was first journaled."""
    waits: dict[str, SuspendEntry] = {}
    for entry in entries:
        if isinstance(entry, SuspendEntry):
            waits.setdefault(entry.waiting_for, entry)
        elif isinstance(entry, ResumeEntry):
            waits.pop(entry.event_name, None)
    return list(waits.values())


def describe_waits(entries: Iterable[Entry], now: datetime) -> tuple[OpenWait, ...]:
    """Return the open waits as they stand at the instant ``now``."""
    return tuple(
        OpenWait(
            event=wait.waiting_for,
            reason=wait.reason,
            since=wait.timestamp,
            deadline=wait.timeout,
            late=wait.timeout is not None and has_passed(wait.timeout, now),
            branch=text_of(wait, "branch"),
            offset=wait.offset or 0,
        )
        for wait in open_waits(entries)
    )
