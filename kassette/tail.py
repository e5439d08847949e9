"""Whether an append may follow what a journal ends with; the one check that all storages share.

Rules (D4):
- Session numbers only grow: a ``start`` entry carries a number above every earlier one.
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
    """The end of a journal: its entry count, newest session, and what entry type ended it.

    ``Tail()`` is the end of an empty journal. ``terminal`` is None while the run is not over.
    """

    count: int = 0
    session: int = 0
    terminal: str | None = None

    def then(self, entry: Entry) -> Tail:
        """Give the tail after ``entry`` was appended."""
        return Tail.of_fields(
            self.count + 1,
            max(self.session, entry.session),
            self.terminal or (entry.type if is_terminal(entry) else None),
        )

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Tail:
        """Give the tail of a whole journal."""
        return cls(
            count=len(entries),
            session=max((entry.session for entry in entries), default=0),
            terminal=next((entry.type for entry in entries if is_terminal(entry)), None),
        )


def check_append(tail: Tail, entry: Entry, *, run_id: str) -> None:
    """Allow ``entry`` to follow ``tail``, or say why not.

    Raises FencedError if a newer session has written (or, for a ``start``, one of the same number),
    TerminalRunError if the run is over, UsageError if the session has no ``start`` entry.
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
