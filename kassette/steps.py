"""The steps of one session: numbered, replayed, begun and settled; no waits, no session state.

Rules:
- The full name of a step is its branch path and its name. The occurrence counter belongs to the
  path (D8), so what runs beside it can never shift it.
- A recorded step is replayed. Any other runs, and its result is returned once it is durable.
- A step that failed gives its number back, so that repeating it by hand is the same step again,
  in this session and in every later one. It does not where a later call of that name on that path
  has begun, in this session or, as the journal shows, in an earlier one.
- Calls of one name on one path may not overlap: their numbers would depend on who is faster, and
  after a crash each could get the other's result. A caller whose name already says everything that
  the result depends on may declare its calls ``interchangeable``. These take the lowest number
  that a failed call has given back: it does not matter which call gets which.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, final

from kassette.commands import Record, StepSucceeded
from kassette.effects import Diverged, Effect, Replay, RunStep
from kassette.entries import StepEntry
from kassette.errors import InternalError, ReplayMismatchError, UsageError
from kassette.lanes import INTERCHANGEABLE, Lanes
from kassette.naming import BranchPath, check_step_name, full_step_name
from kassette.notes import MOST_IDS, step_notes
from kassette.replay import Recorded
from kassette.timestamps import format_timestamp
from kassette.values import settle_value


@final
class _Name:
    """How often a full name was called, and which of its steps are open (running or appending)."""

    __slots__ = ("count", "failed", "open", "path")

    def __init__(self, path: BranchPath) -> None:
        self.path = path
        self.count = 0
        self.open = 0
        self.failed: set[int] = set()


@final
class _Open:
    """A step that is running, or whose result is being appended."""

    __slots__ = ("began", "full", "lane", "name", "number", "result", "returned")

    def __init__(self, full: str, name: _Name, number: int, began: datetime, lane: str) -> None:
        self.full = full
        self.name = name
        self.number = number
        self.began = began
        self.lane = lane
        self.returned = False
        self.result: Any = None


@final
class Steps:
    """The steps of a session of run ``run_id`` over the journal ``recorded``."""

    __slots__ = ("_failed", "_lanes", "_names", "_open", "_recorded", "_run_id", "strict")

    def __init__(self, recorded: Recorded, run_id: str, *, strict: bool = False) -> None:
        self._recorded = recorded
        self._run_id = run_id
        self.strict = strict
        self._lanes = Lanes(recorded.steps)
        self._names: dict[str, _Name] = {}
        self._open: dict[str, _Open] = {}
        self._failed: list[str] = []

    @property
    def in_flight(self) -> bool:
        """Whether a step is running, or its result is on its way into the journal."""
        return bool(self._open)

    @property
    def not_asked_for(self) -> list[str]:
        """The recorded steps that the workflow has not asked for in this session."""
        return self._lanes.not_asked_for()

    def record(self, command: Record, now: datetime) -> list[Effect]:
        """Number the step and replay it or have it run; report if workflow and journal part here.

        Raises UsageError for a bad name, one that two branches share, or overlapping calls;
        ReplayMismatchError if the journal holds another step under the id, or, in a strict session,
        where workflow and journal part.
        """
        path = command.path
        short = command.name
        if type(short) is not str:
            short = check_step_name(short)
        full = full_step_name(path, short)
        name = self._names.get(full)
        if name is None:
            check_step_name(short)
            name = _Name(path)
        elif name.path != path:
            raise UsageError(
                f"step {full!r} is named by two branches, {list(name.path)} and {list(path)}; "
                "rename the step or the branch key"
            )
        elif name.open and not command.interchangeable:
            raise UsageError(
                f"step {full!r} was called again before its first call had ended; after a crash "
                "each call could get the other's result. Give steps that run at once names of "
                "their own, or run them as branches of `parallel`"
            )
        number = min(name.failed) if command.interchangeable and name.failed else name.count + 1
        step_id = full if number == 1 else f"{full}#{number}"
        entry = self._recorded.steps.get(step_id)
        if entry is not None and entry.name != full:
            raise ReplayMismatchError(step_id, entry.name, full, run_id=self._run_id)
        lane, parting = self._lane(command, step_id, entry)
        name.count = max(name.count, number)
        name.failed.discard(number)
        self._names[full] = name
        if entry is not None:
            return [*parting, Replay(entry)]
        name.open += 1
        self._open[step_id] = _Open(full, name, number, now, lane)
        return [*parting, RunStep(step_id, full)]

    def _lane(
        self, command: Record, step_id: str, entry: StepEntry | None
    ) -> tuple[str, tuple[Diverged, ...]]:
        if command.interchangeable:
            if entry is not None:
                self._lanes.asked(step_id)
            return INTERCHANGEABLE, ()
        path, caller, aside = command.path, command.caller, command.aside
        lane = ""
        passed: tuple[str, ...] = ()
        if entry is None:
            lane, passed = self._lanes.runs(step_id, path, caller, aside=aside)
            parts = bool(passed)
        else:
            parts = self._lanes.replays(entry, path, caller, aside=aside)
        if not parts:
            return lane, ()
        if self.strict:
            expected = passed[0] if passed else step_id
            raise ReplayMismatchError(
                step_id, expected, step_id, passed_over=passed, run_id=self._run_id
            )
        return lane, (Diverged(step_id, passed),)

    def succeed(self, command: StepSucceeded, session: int, timestamp: str) -> StepEntry:
        """Return the entry that records the result of a running step.

        Raises UsageError if JSON cannot hold the result, InternalError for a step that is not
        running.
        """
        step_id = command.step_id
        step = self._open.get(step_id)
        if step is None or step.returned:
            raise InternalError(f"step {step_id!r} is not running")
        result_json, step.result = settle_value(command.result, f"the result of step {step_id!r}")
        step.returned = True
        beside = [each for each, other in self._open.items() if not other.returned]
        failed, self._failed = self._failed, []
        notes = step_notes(
            format_timestamp(step.began),
            attempts=command.attempts,
            errors=command.errors,
            running=beside,
            failed=failed,
            lane=step.lane,
        )
        return StepEntry.of_fields(session, timestamp, None, notes, step_id, step.full, result_json)

    def settle(self, step_id: str) -> Any:
        """Return the result of a step whose entry is durable now."""
        step = self._open.pop(step_id, None)
        if step is None:
            return None
        step.name.open -= 1
        return step.result

    def fail(self, step_id: str) -> None:
        """Take note that a step has failed, or that its result was not written."""
        step = self._open.pop(step_id, None)
        if step is None:
            return
        name = step.name
        name.open -= 1
        name.failed.add(step.number)
        if len(self._failed) < MOST_IDS:
            self._failed.append(step_id)
        last = self._recorded.last_number(step.full)
        while name.count in name.failed and name.count > last:
            name.failed.remove(name.count)
            name.count -= 1
