"""Which process and which code wrote each session of a run; entries in.

Rules:
- What a session does not note is unknown, and None.
- ``changed`` names what two neighbouring sessions both note and note differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

from kassette.entries import Entry, StartEntry
from kassette.evidence.spans import SessionSpan, Span
from kassette.immutable import Immutable
from kassette.notes import StartNotes, start_notes_of


@final
class Session(Immutable, kw_only=True):
    """A session: its process and code, and which of these differ from the session before."""

    span: SessionSpan
    version: str | None
    notes: StartNotes | None
    changed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        notes, span = self.notes, self.span
        found = None if notes is None or notes.found is None else notes.found.to_json()
        return {
            "session": span.session,
            "offset": span.offset,
            "from": span.begin,
            "to": span.end,
            "steps": span.steps,
            "replays": span.replays,
            "end": span.ending,
            "copied": span.copied,
            "version": self.version,
            "host": None if notes is None else notes.host,
            "pid": None if notes is None else notes.pid,
            "lib": None if notes is None else notes.lib,
            "code": None if notes is None else notes.code,
            "opened": None if notes is None else notes.opened,
            "changed": list(self.changed),
            "found": found,
        }


def describe_sessions(spans: Iterable[Span], entries: Sequence[Entry]) -> Iterator[Session]:
    """Yield the sessions of a journal, whose timeline is ``spans``."""
    before: Session | None = None
    for span in spans:
        if not isinstance(span, SessionSpan):
            continue
        first = entries[span.offset]
        start = first if isinstance(first, StartEntry) else None
        notes = None if start is None else start_notes_of(start)
        version = None if start is None else start.version
        changed = () if before is None else _changed(before, version, notes)
        before = Session(span=span, version=version, notes=notes, changed=changed)
        yield before


def _changed(before: Session, version: str | None, notes: StartNotes | None) -> tuple[str, ...]:
    """Return what is known of both sessions, and differs."""
    pairs = [("version", before.version, version)]
    if notes is not None and before.notes is not None:
        pairs += [
            (name, getattr(before.notes, name), getattr(notes, name))
            for name in ("host", "lib", "code")
        ]
    return tuple(
        name for name, old, new in pairs if old is not None and new is not None and old != new
    )
