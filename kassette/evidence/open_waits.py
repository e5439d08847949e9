"""Which events a run still waits for; entries in, waits out."""

from __future__ import annotations

from collections.abc import Iterable

from kassette.entries import Entry, ResumeEntry, SuspendEntry


def open_waits(entries: Iterable[Entry]) -> list[SuspendEntry]:
    """Return the waits whose event has not arrived, each as it was first journaled."""
    waits: dict[str, SuspendEntry] = {}
    for entry in entries:
        if isinstance(entry, SuspendEntry):
            waits.setdefault(entry.waiting_for, entry)
        elif isinstance(entry, ResumeEntry):
            waits.pop(entry.event_name, None)
    return list(waits.values())
