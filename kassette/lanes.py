"""Detects where workflow and journal diverge: a renamed, removed or moved step; it only reports.

A lane is the sequence of steps that one task requests on one branch. Within a lane the order of
steps depends only on recorded results, so a replay requests them in the order of the journal; the
order between lanes is not known.

Rules:
- The task that runs a branch is its main lane. Other tasks are numbered in the order of their first
  request. A step's note names its lane: the branch path, ``#`` and that number; nothing for the
  workflow's own task.
- Another task takes over the recorded lane of the first recorded step that it requests. Until then
  nothing is known about it, and nothing is reported.
- A step that runs while its lane has recorded steps that were not requested passes these over.
- A step that is replayed after a later one of its lane is out of order.
- Recorded steps whose notes say that they ran concurrently with another (one task may have several
  attempts open), or that others failed before them, have no order.
- Steps without notes (of the TypeScript kassette, or of older releases) are in no lane.
- Interchangeable calls are in no lane: which call gets which number means nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from itertools import islice
from typing import Final, final

from kassette.entries import StepEntry
from kassette.naming import BranchPath
from kassette.notes import MOST_IDS, is_begun_only, step_notes_of

INTERCHANGEABLE: Final = "#"
"""The recorded lane of interchangeable calls, which have none."""


@final
class Lanes:
    """The lanes of a session over the steps ``recorded``, by their ids in the journal's order."""

    __slots__ = ("_asked", "_callers", "_last", "_next", "_recorded", "_was")

    def __init__(self, recorded: Mapping[str, StepEntry]) -> None:
        self._recorded = recorded
        self._was: _Past | None = None
        self._asked: set[str] = set()
        self._callers: dict[tuple[BranchPath, Hashable], str] = {}
        self._next: dict[BranchPath, int] = {}
        self._last: dict[str, int] = {}

    def replays(self, entry: StepEntry, path: BranchPath, caller: Hashable, *, aside: bool) -> bool:
        """Record a replayed step; return whether it is out of order in its lane."""
        past = self._past()
        step_id = entry.step_id
        self._asked.add(step_id)
        lane = past.lanes.get(step_id)
        if lane is None:
            return False
        past.open[lane].pop(step_id, None)
        if aside:
            lane = self._callers.setdefault((path, caller), lane)
        if step_id in past.unordered:
            return False
        at, last = entry.offset or 0, self._last.get(lane, -1)
        self._last[lane] = max(at, last)
        return at < last

    def asked(self, step_id: str) -> None:
        """Record a replayed step that is in no lane."""
        self._asked.add(step_id)

    def runs(
        self, step_id: str, path: BranchPath, caller: Hashable, *, aside: bool
    ) -> tuple[str, tuple[str, ...]]:
        """Return the lane of a step that is about to run, and the recorded steps it passes over."""
        if aside:
            known = self._callers.get((path, caller))
            if known is None:
                return self._new(path, caller), ()
            lane = known
        else:
            lane = ":".join(path)
        if not self._recorded:
            return lane, ()
        past = self._past()
        if step_id in past.unordered:
            return lane, ()
        passed = (each for each in past.open.get(lane, ()) if each not in past.unordered)
        return lane, tuple(islice(passed, MOST_IDS))

    def not_asked_for(self) -> list[str]:
        """Return the recorded steps that the session has not requested, in journal order."""
        if len(self._asked) == len(self._recorded):
            return []
        left = (step_id for step_id in self._recorded if step_id not in self._asked)
        return list(islice(left, MOST_IDS))

    def _new(self, path: BranchPath, caller: Hashable) -> str:
        number = self._next.get(path, 1)
        taken = self._past().lanes.values() if self._recorded and number == 1 else ()
        branch = ":".join(path)
        for lane in taken:
            before, _, digits = lane.rpartition("#")
            if before == branch and digits.isdecimal() and len(digits) < _MAX_DIGITS:
                number = max(number, int(digits) + 1)
        self._next[path] = number + 1
        lane = self._callers[path, caller] = f"{branch}#{number}"
        return lane

    def _past(self) -> _Past:
        if self._was is None:
            self._was = _Past(self._recorded)
        return self._was


@final
class _Past:
    """The recorded steps by lane; ``open`` are those not requested yet."""

    __slots__ = ("lanes", "open", "unordered")

    def __init__(self, recorded: Mapping[str, StepEntry]) -> None:
        self.lanes: dict[str, str] = {}
        self.open: dict[str, dict[str, None]] = defaultdict(dict)
        self.unordered: set[str] = set()
        for step_id, entry in recorded.items():
            lane = MAIN if is_begun_only(entry.extra_json) else self._lane(entry)
            if lane is not None:
                self.lanes[step_id] = lane
                self.open[lane][step_id] = None

    def _lane(self, entry: StepEntry) -> str | None:
        notes = step_notes_of(entry)
        self.unordered.update(notes.running, notes.failed)
        if notes.started_at is None or notes.lane == INTERCHANGEABLE:
            return None
        return notes.lane


MAIN: Final = ""
"""The lane of the workflow's own task."""
_MAX_DIGITS: Final = 19
