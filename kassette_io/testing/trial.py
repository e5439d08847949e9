"""One run of a workflow that is crashed at most once, and recovered until it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any, Final, final

from anyio import CancelScope, get_cancelled_exc_class

from kassette import (
    BranchPath,
    Completed,
    Entry,
    FailedRun,
    StartEntry,
    StepEntry,
    SuspendedRun,
    Tail,
    UsageError,
    check_append,
    run_status,
)
from kassette.entries import ResumeEntry
from kassette.immutable import Immutable
from kassette.replay import Recorded
from kassette_io.loops.waiting import finish
from kassette_io.results import Failed, RunResult, Success, Suspended
from kassette_io.testing.watching import AskedStep, Stubs, WorkflowOrFunction, call, watched

RUN: Final = "run-1"
_SHOWN: Final = 16
_EPOCH: Final = datetime(2026, 1, 31, tzinfo=UTC)


class Under(Enum):
    """How a session is crashed."""

    KILL = "killed"
    CANCEL = "cancelled"


class Kind(Enum):
    """The kind of a crash point."""

    BEFORE = "before the function of"
    IN = "in the function of"
    AFTER = "after the function of"
    ENTRY = "after the entry of"

    @property
    def crashes(self) -> tuple[Under, ...]:
        """Return the ways to crash there that differ from those at neighbouring points."""
        match self:
            case Kind.BEFORE:
                return (Under.KILL,)
            case Kind.IN:
                return (Under.CANCEL,)
            case _:
                return (Under.KILL, Under.CANCEL)


@final
class Point(Immutable):
    """A point of a run: next to the function of step ``at``, or after the entry ``at``."""

    kind: Kind
    at: str | int
    what: str

    def is_at(self, kind: Kind, at: str | int) -> bool:
        """Return whether this is the point ``kind`` at ``at``."""
        return self.kind is kind and self.at == at

    def __str__(self) -> str:
        if self.kind is Kind.ENTRY:
            return f"after entry {self.at} ({self.what})"
        return f"{self.kind.value} step {self.at!r}"


@final
class Crash(Immutable):
    """A crash at a point."""

    under: Under
    point: Point

    def __str__(self) -> str:
        return f"{self.under.value} {self.point}"


@final
class Ending(Immutable):
    """How a run ended: ``outcome`` is its result or error, or None if a crash came after it."""

    status: str
    outcome: Any
    detail: Any

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the run, if one did and is available."""
        if isinstance(self.outcome, Failed):
            return self.outcome.error
        return self.outcome if isinstance(self.outcome, BaseException) else None

    def same(self, other: Ending) -> bool:
        """Return whether another run ended in the same way, as far as that is known."""
        if self.status != other.status:
            return False
        if self.status == "completed" and other.outcome is None:
            return True  # a journal need not record what a workflow returned
        return bool(self.detail == other.detail)

    def __str__(self) -> str:
        match self.outcome:
            case Success():
                return f"Success({self.detail!r})"
            case Failed(error=error):
                return f"Failed({error!r})"
            case Suspended():
                return f"Suspended, waiting for {', '.join(map(repr, self.detail))}"
            case BaseException() as error:
                return f"{error!r}, raised to the caller"
            case _:
                return f"status {self.status!r}"


class _Killed(BaseException):
    """The simulated process is dead; this never reaches a journal."""


@final
class Trial:
    """A run of ``workflow``; ``calm`` is the uninterrupted run, whose order of steps counts."""

    def __init__(
        self,
        workflow: WorkflowOrFunction,
        input: object,
        answers: Mapping[str, object],
        stubs: Stubs,
        crash: Crash | None,
        calm: Trial | None,
    ) -> None:
        self.crash = crash
        self.crashed = False
        self.swallowed = False
        self.astray: str | None = None
        self.calls: dict[str, int] = {}
        self.recorded: dict[str, Any] = {}
        self.events: dict[str, Any] = {}
        self.points: dict[Point, None] = {}
        self.asked: dict[BranchPath, list[AskedStep]] = {}
        self.journal: list[Entry] = []
        self.stubs = stubs
        self._tail = Tail()
        self._calm = calm
        self._workflow = workflow
        self._input = input
        self._answers = answers
        self._sessions: list[Session] = []

    def story(self) -> list[str]:
        """Return what each session did, one line per session."""
        lines: list[str] = []
        for number, session in enumerate(self._sessions, start=1):
            log = session.log
            if len(log) > _SHOWN:
                log = [f"… {len(log) - _SHOWN} more", *log[-_SHOWN:]]
            lines.append(f"session {number}: {', '.join(log)}")
        return lines

    async def append(self, entry: Entry) -> int:
        """Append as ``MemoryStorage`` does, but without reading the whole journal each time."""
        check_append(self._tail, entry, run_id=RUN)
        offset = len(self.journal)
        self.journal.append(entry.at(offset))
        self._tail = self._tail.then(entry)
        return offset

    async def run(self) -> Ending:
        """Open sessions until the run ends, or waits for an event without an answer."""
        while True:
            session = Session(self)
            opening = self._opening(session)
            if isinstance(opening, Ending):
                return opening
            self._sessions.append(session)
            try:
                outcome = await session.carry(opening)
            except Exception as raised:
                if self.crash is None:
                    raise
                return Ending("raised", raised, repr(raised))
            if outcome is None:
                session.log.append(f"{self.crash}")
                continue
            self.swallowed |= session.crashing
            if isinstance(outcome, Success):
                return Ending("completed", outcome, outcome.result)
            if isinstance(outcome, Failed):
                error = outcome.error
                return Ending("failed", outcome, (type(error).__name__, str(error)))

    def _opening(self, session: Session) -> Callable[[], Awaitable[Any]] | Ending:
        entries = self.journal
        flow = watched(self._workflow, session, session)
        match run_status(entries):
            case SuspendedRun(waiting_for=waiting_for):
                opened = Recorded(entries).open_events()
                event = next((each for each in self._answers if each in opened), None)
                if event is None:
                    return Ending("suspended", Suspended(waiting_for, RUN), sorted(opened))
                session.log.append(f"resume {event!r}")
                return partial(flow.resume, RUN, event, self._answers[event])
            case Completed():
                return Ending("completed", None, None)
            case FailedRun() as failed:
                return Ending("failed", None, (failed.name, failed.message))
            case _:
                session.log.append("start")
                given: Any = self._input
                return partial(flow.start, given, run_id=RUN)

    def note(self, step: AskedStep, position: int) -> None:
        """Compare a requested step with the one that the uninterrupted run requested here."""
        asked = self.asked.setdefault(step.path, [])
        if position == len(asked):
            asked.append(step)
        if self._calm is None or self.astray is not None:
            return
        usual = self._calm.asked.get(step.path, [])
        if position >= len(usual):
            self.astray = f"step {step.step_id!r} was requested; uninterrupted it is not"
        elif usual[position].step_id != step.step_id:
            self.astray = (
                f"step {step.step_id!r} was requested, where the uninterrupted run requests "
                f"{usual[position].step_id!r}"
            )
        elif usual[position].arguments != step.arguments:
            self.astray = (
                f"step {step.step_id!r} was requested with the arguments "
                f"{_shown(step.arguments)}; uninterrupted with {_shown(usual[position].arguments)}"
            )


def _shown(arguments: bytes | None) -> str:
    return "that are not JSON" if arguments is None else arguments.decode()[1:-1] or "(none)"


@final
class Session:
    """A session of a trial: its storage, its observer, and what crashes it."""

    def __init__(self, trial: Trial) -> None:
        self.log: list[str] = []
        self.crashing = False
        self._trial = trial
        self._dead = False
        self._positions: dict[BranchPath, int] = {}
        self._cancel: Callable[[], object] = _nothing

    # --- living and dying ------------------------------------------------------------------

    async def carry(self, opening: Callable[[], Awaitable[Any]]) -> RunResult[Any] | None:
        """Run the session; return its outcome, or None if it crashed."""
        carried = self._in_a_task if _is_asyncio() else self._in_a_scope
        outcome = await carried(opening)
        return None if self._dead else outcome

    async def _in_a_scope(self, opening: Callable[[], Awaitable[Any]]) -> Any:
        try:
            with CancelScope() as scope:
                self._cancel = scope.cancel
                return await opening()
        except get_cancelled_exc_class():
            raise  # somebody cancels the whole trial, not the session
        except BaseException as error:
            self._check_crashing(error)
        return None

    async def _in_a_task(self, opening: Callable[[], Awaitable[Any]]) -> Any:
        """Run in a task, whose ``cancel`` takes effect once, as is usual in asyncio."""
        import asyncio

        task = asyncio.ensure_future(opening())
        self._cancel = task.cancel
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise  # somebody cancels the whole trial, not the session
        try:
            return task.result()
        except BaseException as error:
            self._check_crashing(error)
        return None

    def _check_crashing(self, error: BaseException) -> None:
        if not self.crashing or isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error

    def _reach(self, kind: Kind, at: str | int, what: str) -> None:
        trial = self._trial
        if self._dead:
            raise _Killed
        if trial.crash is None:
            trial.points[Point(kind, at, what)] = None
        elif not trial.crashed and trial.crash.point.is_at(kind, at):
            trial.crashed = self.crashing = True
            self._cancel()
            if trial.crash.under is Under.KILL:
                self._dead = True
                raise _Killed

    # --- its observer ----------------------------------------------------------------------

    def now(self) -> datetime:
        """See ``Observer.now``: the same instant in every run."""
        return _EPOCH

    def asked(self, step: AskedStep) -> None:
        """See ``Observer.asked``."""
        if self.crashing:
            return
        position = self._positions.get(step.path, 0)
        self._positions[step.path] = position + 1
        self._trial.note(step, position)

    async def call(self, step: AskedStep, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """See ``Observer.call``."""
        trial, step_id = self._trial, step.step_id
        self._reach(Kind.BEFORE, step_id, step_id)
        self.log.append(f"ran {step_id!r}")
        trial.calls[step_id] = trial.calls.get(step_id, 0) + 1
        self._reach(Kind.IN, step_id, step_id)
        name = step.among(trial.stubs)
        try:
            return await call(fn if name is None else trial.stubs[name], args)
        finally:
            self._reach(Kind.AFTER, step_id, step_id)

    # --- its storage -----------------------------------------------------------------------

    async def append(self, run_id: str, entry: Entry) -> int:
        """See ``Storage.append``."""
        if self._dead:
            raise _Killed
        offset = await finish(self._trial.append, entry)
        what: str = entry.type
        if isinstance(entry, StepEntry):
            what = f"step {entry.step_id!r}"
            self._trial.recorded[what] = entry.result
        elif isinstance(entry, ResumeEntry):
            what = f"event {entry.event_name!r}"
            self._trial.events[what] = entry.value
        if not isinstance(entry, StartEntry):
            self.log.append(f"journaled {what}")
        self._reach(Kind.ENTRY, offset, what)
        return offset

    async def read_all(self, run_id: str) -> list[Entry]:
        """See ``Storage.read_all``."""
        return list(self._trial.journal)

    async def list_runs(self) -> AsyncIterator[str]:
        """See ``Storage.list_runs``."""
        yield RUN

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """See ``SessionStorage.create``; not supported, because a trial does not fork."""
        raise UsageError("crash_everywhere does not support forking a run")

    async def release(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.release``; does nothing, as there is no lock."""

    def abandon(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.abandon``; does nothing, as there is no lock."""


def _nothing() -> None:
    pass


def _is_asyncio() -> bool:
    return get_cancelled_exc_class().__module__.partition(".")[0] == "asyncio"
