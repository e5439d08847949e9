"""A summary of a run, from its entries or from the head and tail of its journal.

Rules:
- For a journal in a file, the first and the last block suffice; mostly they are the same. Lines in
  another format than this library's give no summary: the journal must be read as a whole, so that
  damage is reported as damage. Results are not decoded, so damage inside of one is not detected.
- The steps of a journal of one block are counted. For a longer one, the offset of its last entry is
  an upper bound, and ``exact`` is False.
- ``sessions`` is the number of the newest session.
- The deadline of a suspended run is omitted: it is that of the first wait for the event, which may
  be anywhere in the journal; ``open_waits`` finds it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, final

from kassette.codec import decode_journal
from kassette.entries import Entry, StepEntry
from kassette.errors import JournalCorruptionError, StorageError
from kassette.immutable import Immutable
from kassette.status import Completed, RunStatus, SuspendedRun, Unsettled, run_status
from kassette.timestamps import instant

BLOCK: Final = 1 << 16
"""The size of a block in bytes."""
UNREADABLE: Final = "unreadable"

_LINE = re.compile(
    rb'\{"type":"([a-z]+)","session":([0-9]{1,18}),"offset":([0-9]{1,18}),"timestamp":"([^"\\]*)"'
)
_TERMINAL = (b"complete", b"error", b"cancel")
_GOING_ON = (b"start", b"step", b"resume")
_COMPLETED, _UNSETTLED = Completed(), Unsettled()
_ANY_TYPE = b'{"type":"'
_STEP = b'{"type":"step",'
_OF_ANY_TYPE = b"\n" + _ANY_TYPE
_OF_A_STEP = b"\n" + _STEP
_FEW_LINES = 32
"""Up to this many entries it is quicker to check each than to search for all steps."""


@final
class RunSummary(Immutable, kw_only=True):
    """The summary of one run; ``status`` is an error if the journal cannot be read."""

    run_id: str
    status: RunStatus | JournalCorruptionError | StorageError
    steps: int | None = None
    exact: bool = True
    sessions: int | None = None
    started: str | None = None
    last_entry: str | None = None

    @property
    def word(self) -> str:
        """The run's state in one word: that of its status, or ``unreadable``."""
        status = self.status
        return UNREADABLE if isinstance(status, Exception) else status.status

    @property
    def waiting_for(self) -> str:
        """The event that a suspended run waits for; empty for any other."""
        return self.status.waiting_for if isinstance(self.status, SuspendedRun) else ""


@final
class Wanted(Immutable, kw_only=True):
    """A selection of runs: those in some states, and with a last entry before an instant."""

    statuses: frozenset[str] | None = None
    before: datetime | None = None

    def __contains__(self, summary: object) -> bool:
        if not isinstance(summary, RunSummary):
            return False
        if self.statuses is not None and summary.word not in self.statuses:
            return False
        if self.before is None:
            return True
        last = instant(summary.last_entry)
        return last is not None and last < self.before


def summarise(run_id: str, entries: Sequence[Entry]) -> RunSummary:
    """Return the summary of a run from all of its entries."""
    return RunSummary(
        run_id=run_id,
        status=_in_brief(run_status(entries)),
        steps=sum(isinstance(entry, StepEntry) for entry in entries),
        sessions=max((entry.session for entry in entries), default=0),
        started=entries[0].timestamp if entries else None,
        last_entry=entries[-1].timestamp if entries else None,
    )


def summarise_ends(run_id: str, head: bytes, block: bytes) -> RunSummary | None:
    """Return the summary of a run from its journal's first and last block; None if more is needed.

    For a journal shorter than ``BLOCK``, both are the whole journal.
    """
    whole = len(head) < BLOCK
    first = _LINE.match(head)
    end = block.rfind(b"\n")
    if first is None or end < 0:
        return None
    begin = block.rfind(b"\n", 0, end) + 1
    last = _LINE.match(block, begin)
    if last is None or (begin == 0 and not whole):
        return None
    session, offset = int(last[2]), int(last[3])
    steps = _count_steps(block, offset + 1) if whole else offset + 1 - session
    if steps is None:
        return None
    line = _deciding_line(block, last, whole=whole)
    if line is None:
        return None
    status = _status_of(block, line)
    over = line[1] in _TERMINAL
    if over and not whole:
        steps -= 1
    started, ended = first[4].decode(), last[4].decode()
    return RunSummary.of_fields(run_id, status, steps, whole, session, started, ended)


def _count_steps(block: bytes, entries: int) -> int | None:
    """Count the steps of a whole journal; None unless all of its lines are in our format."""
    lines = block.count(b"\n")
    if lines != entries:
        return None
    if lines > _FEW_LINES:
        return None if block.count(_OF_ANY_TYPE) != lines - 1 else block.count(_OF_A_STEP)
    steps = begin = 0
    for _ in range(lines):
        if block.startswith(_STEP, begin):
            steps += 1
        elif not block.startswith(_ANY_TYPE, begin):
            return None
        begin = block.find(b"\n", begin) + 1
    return steps


def _deciding_line(
    block: bytes, line: re.Match[bytes] | None, *, whole: bool
) -> re.Match[bytes] | None:
    """Return the last line that is not a start, or the first line; None if not in this block.

    ``line`` is the last line.
    """
    while line is not None:
        begin = line.start()
        if line[1] != b"start" or begin == 0:
            return line
        begin = block.rfind(b"\n", 0, begin - 1) + 1
        line = _LINE.match(block, begin) if begin or whole else None
    return None


def _status_of(block: bytes, line: re.Match[bytes]) -> RunStatus:
    """Return the state of a run after an entry, which is decoded only if its contents matter."""
    if line[1] in _GOING_ON:
        return _UNSETTLED
    end = block.find(b"\n", line.start()) + 1
    if line[1] == b"complete" and block[line.end() : end] == b"}\n":
        return _COMPLETED
    entries = decode_journal(block[line.start() : end], first_offset=int(line[3])).entries
    return _in_brief(run_status(entries))


def _in_brief(status: RunStatus) -> RunStatus:
    if isinstance(status, SuspendedRun):
        return SuspendedRun(waiting_for=status.waiting_for)
    return status
