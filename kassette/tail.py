"""Whether an append may follow the end of a journal; the check that all storages share.

Rules:
- Session numbers only grow: a ``start`` entry has a higher number than every earlier one.
- Only the newest session may write.
- Nothing follows a terminal entry.
- A journal begins with a ``start`` entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from kassette.entries import Entry, StartEntry, is_terminal
from kassette.errors import FencedError, TerminalRunError, UsageError
from kassette.immutable import Immutable


@final
class Tail(Immutable):
    """The end of a journal: its entry count, newest session, and the type of its terminal entry.

    ``Tail()`` is the end of an empty journal. ``terminal`` is None until the run has ended.
    """

    count: int = 0
    session: int = 0
    terminal: str | None = None

    def then(self, entry: Entry) -> Tail:
        """Return the tail after ``entry`` was appended."""
        return Tail.of_fields(
            self.count + 1,
            max(self.session, entry.session),
            self.terminal or (entry.type if is_terminal(entry) else None),
        )

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Tail:
        """Return the tail of a whole journal."""
        return cls(
            count=len(entries),
            session=max((entry.session for entry in entries), default=0),
            terminal=next((entry.type for entry in entries if is_terminal(entry)), None),
        )


def check_append(tail: Tail, entry: Entry, *, run_id: str) -> None:
    """Check that ``entry`` may follow ``tail``.

    Raise FencedError if a newer session has written (or, for a ``start``, one of the same number),
    TerminalRunError if the run has ended, and UsageError if the session has no ``start`` entry.
    """
    opens = isinstance(entry, StartEntry)
    if tail.count and (entry.session < tail.session or (opens and entry.session == tail.session)):
        raise FencedError(entry.session, tail.session, run_id=run_id)
    if tail.terminal is not None:
        raise TerminalRunError(tail.terminal, run_id=run_id)
    if not opens and (tail.count == 0 or entry.session > tail.session):
        raise UsageError(
            f"run {run_id!r}: session {entry.session} has no start entry; open it with start()",
            run_id=run_id,
        )
