"""Which events were delivered to a run, by whom, and what became of each; entries in.

Rules:
- A ``resume`` entry is a delivery that was recorded.
- A session that was opened to deliver an event and recorded none says in its ``start`` what it was
  to deliver. Refused deliveries write nothing, so a journal does not tell of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kassette.entries import Entry, ResumeEntry, StartEntry
from kassette.notes import start_notes_of, text_of


class Delivery(NamedTuple):
    """An event that arrived, and what became of it.

    ``outcome`` is ``recorded``; ``ignored`` (another value was on record, and won); ``repeated``
    (the same value was on record); ``late`` (it cancelled the run); or ``lost`` (the session ended
    before the event was recorded). ``by`` is who sent it, None if that was not said.
    """

    event: str
    at: str
    by: str | None
    session: int
    outcome: str

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "event": self.event,
            "at": self.at,
            "by": self.by,
            "session": self.session,
            "outcome": self.outcome,
            "ignored": self.outcome == "ignored",
        }


def deliveries(entries: Sequence[Entry]) -> Iterator[Delivery]:
    """Yield every delivery that the journal tells of, in order."""
    recorded: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry, ResumeEntry):
            recorded.setdefault(entry.event_name, entry.session)
    for entry in entries:
        if isinstance(entry, ResumeEntry):
            by = text_of(entry, "by")
            yield Delivery(entry.event_name, entry.timestamp, by, entry.session, "recorded")
        elif isinstance(entry, StartEntry):
            notes = start_notes_of(entry)
            delivered = notes.delivers or {}
            event, by = delivered.get("event"), delivered.get("by")
            if not isinstance(event, str) or recorded.get(event) == entry.session:
                continue
            outcome = "repeated" if recorded.get(event, entry.session) < entry.session else "lost"
            if "ignored" in delivered:
                outcome = "ignored"
            elif notes.opened == "cancel":
                outcome = "late"
            by = by if isinstance(by, str) else None
            yield Delivery(event, entry.timestamp, by, entry.session, outcome)
