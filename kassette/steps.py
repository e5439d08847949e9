"""The steps of one session: numbering, replay and results; no waits, no session state.

Rules:
- The full name of a step is its branch path and its name. The occurrence counter belongs to the
  path, so concurrent branches never shift it.
- A recorded step is replayed. Any other step runs, and its result is returned when it is durable.
- A failed step releases its number, so that calling it again is the same step again, in this
  session and in every later one; unless a later call of that name on that path has begun, in this
  session or, according to the journal, in an earlier one.
- Calls of the same name on the same path must not overlap: their numbers would depend on timing,
  and after a crash each could get the other's result. A caller whose step names include everything
  that the result depends on may declare its calls ``interchangeable``. These use the lowest number
  that a failed call has released: it does not matter which call gets which.
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
    """The calls of a full name: how many, and which of them are running or being appended."""

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

    def __init__(self, recorded: Recorded, run_id: str, *, strict: bool) -> None:
        self._recorded = recorded
        self._run_id = run_id
        self.strict = strict
        self._lanes = Lanes(recorded.steps)
        self._names: dict[str, _Name] = {}
        self._open: dict[str, _Open] = {}
        self._failed: list[str] = []

    @property
    def in_flight(self) -> bool:
        """Whether a step is running, or its result is being appended."""
        return bool(self._open)

    @property
    def not_asked_for(self) -> list[str]:
        """The recorded steps that the workflow has not requested in this session."""
        return self._lanes.not_asked_for()

    def record(self, command: Record, now: datetime) -> list[Effect]:
        """Number the step, and replay or run it; report a divergence of workflow and journal.

        Raise UsageError for an invalid name, one that two branches share, or overlapping calls;
        ReplayMismatchError if the journal has another step under the id, or, in a strict session,
        if workflow and journal diverge.
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
                f"step {full!r} has the same full name in two branches, {list(name.path)} and "
                f"{list(path)}; rename the step or a branch key"
            )
        elif name.open and not command.interchangeable:
            raise UsageError(
                f"step {full!r} was called again before its first call had ended; after a crash "
                "each call could get the other's result. Give concurrent steps different names, "
                "or run them as branches of `parallel`"
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
        passed: tuple[str, ...] = ()
        if entry is None:
            lane, passed = self._lanes.runs(step_id, path, caller, aside=aside)
            diverges = bool(passed)
        else:
            lane, diverges = "", self._lanes.replays(entry, path, caller, aside=aside)
        if not diverges:
            return lane, ()
        if self.strict:
            expected = passed[0] if passed else step_id
            raise ReplayMismatchError(
                step_id, expected, step_id, passed_over=passed, run_id=self._run_id
            )
        return lane, (Diverged(step_id, passed),)

    def succeed(self, command: StepSucceeded, session: int, timestamp: str) -> StepEntry:
        """Return the entry that records the result of a running step.

        Raise UsageError if the result is not JSON, and InternalError if the step is not running.
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
        """Return the result of a step whose entry has become durable."""
        step = self._open.pop(step_id, None)
        if step is None:
            return None
        step.name.open -= 1
        return step.result

    def fail(self, step_id: str) -> None:
        """Record that a step has failed, or that its result was not written."""
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
