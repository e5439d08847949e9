"""A fake driver: performs a machine's effects against a list of entries, so tests read as stories."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from kassette import (
    Append,
    Appended,
    AppendFailed,
    BranchPath,
    CancelEntry,
    Command,
    CompleteEntry,
    Deliver,
    Effect,
    Entry,
    ErrorEntry,
    Loaded,
    Machine,
    Raise,
    Record,
    Release,
    Reload,
    Replay,
    Resume,
    ResumeEntry,
    Return,
    RunStep,
    Start,
    StartEntry,
    State,
    StepEntry,
    StepFailed,
    StepSucceeded,
    SuspendEntry,
    Tail,
    WaitForEvent,
    check_append,
)
from kassette.values import encode_value

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
STAMP = "2026-01-31T12:00:00.000Z"
RUN = "run-1"


def later(seconds: float) -> datetime:
    """Give the instant ``seconds`` after NOW."""
    return NOW + timedelta(seconds=seconds)


# --- entries, as a journal would hold them -------------------------------------------------


def start(session: int = 1, **fields: Any) -> StartEntry:
    """Make a start entry; ``metadata=`` takes a plain value."""
    if "metadata" in fields:
        fields["metadata_json"] = encode_value(fields.pop("metadata"))
    return StartEntry(session=session, timestamp=STAMP, **fields)


def step(step_id: str, result: object = None, *, session: int = 1, name: str = "") -> StepEntry:
    """Make a step entry; its name is the id without the number unless given."""
    return StepEntry.of(
        session=session,
        timestamp=STAMP,
        step_id=step_id,
        name=name or step_id.split("#", maxsplit=1)[0],
        result=result,
    )


def suspend(
    event: str, *, session: int = 1, timeout: str | None = None, more: bool = False
) -> SuspendEntry:
    """Make a suspend entry."""
    return SuspendEntry(
        session=session,
        timestamp=STAMP,
        reason=f"Waiting for event: {event}",
        waiting_for=event,
        timeout=timeout,
        more=more,
    )


def resume(event: str, value: object = None, *, session: int = 2) -> ResumeEntry:
    """Make a resume entry."""
    return ResumeEntry.of(session=session, timestamp=STAMP, event_name=event, value=value)


def complete(session: int = 1) -> CompleteEntry:
    """Make a complete entry."""
    return CompleteEntry(session=session, timestamp=STAMP)


def error(message: str = "boom", *, session: int = 1) -> ErrorEntry:
    """Make an error entry."""
    return ErrorEntry(session=session, timestamp=STAMP, message=message, name="ValueError")


def cancel(session: int = 1) -> CancelEntry:
    """Make a cancel entry."""
    return CancelEntry(session=session, timestamp=STAMP, reason="suspend_timeout_expired")


def journal(*entries: Entry) -> list[Entry]:
    """Put entries at their offsets."""
    return [entry.at(offset) for offset, entry in enumerate(entries)]


# --- the driver ----------------------------------------------------------------------------


class Session:
    """One machine over a shared journal, driven as a real driver would drive it.

    It reads the journal when it is made. ``do`` performs the effects, appends included, and gives
    those that were performed; ``tell`` only asks the machine. ``fails`` holds errors that the next
    appends raise. ``stored`` decides as the built-in storages do (D4).
    """

    def __init__(self, stored: list[Entry], *, now: datetime = NOW, run_id: str = RUN) -> None:
        self.stored = stored
        self.now = now
        self.machine = Machine(run_id, list(stored))
        self.fails: list[BaseException] = []
        self.performed: list[Effect] = []
        self.ran: list[str] = []
        self.replayed: list[str] = []

    def tell(self, command: Command) -> list[Effect]:
        """Hand a command to the machine; perform nothing."""
        return self.machine.handle(command, now=self.now)

    def do(self, command: Command) -> list[Effect]:
        """Hand a command to the machine and perform what it answers; raises what it raises."""
        before = len(self.performed)
        self.perform(self.tell(command))
        return self.performed[before:]

    def perform(self, effects: list[Effect]) -> None:
        """Perform effects in order; the rest is dropped when one fails."""
        waiting = list(reversed(effects))
        while waiting:
            effect = waiting.pop()
            self.performed.append(effect)
            self.show(effect)
            match effect:
                case Append(entry=entry):
                    waiting.extend(reversed(self._append(entry)))
                case Reload():
                    waiting.extend(reversed(self.tell(Loaded(list(self.stored)))))
                case Raise(error=raised):
                    raise raised
                case _:
                    pass

    def show(self, effect: Effect) -> None:
        """Be told of an effect before it is performed."""

    def _append(self, entry: Entry) -> list[Effect]:
        try:
            if self.fails:
                raise self.fails.pop(0)
            check_append(Tail.of(self.stored), entry, run_id=self.machine.run_id)
        except BaseException as failure:
            self.perform(self.tell(AppendFailed(entry, failure)))
            raise
        self.stored.append(entry.at(len(self.stored)))
        return self.tell(Appended(entry, len(self.stored) - 1))

    # what a workflow does

    def step(self, name: str, result: object = None, path: BranchPath = ()) -> Any:
        """Replay a step, or run it with ``result``; give what the caller of the step gets."""
        match self.do(Record(name, path)):
            case [Replay(entry=entry)]:
                self.replayed.append(entry.step_id)
                return entry.result
            case [RunStep(step_id=step_id)]:
                self.ran.append(step_id)
                return self.succeed(step_id, result)
            case other:
                raise AssertionError(other)

    def begin(self, name: str, path: BranchPath = ()) -> str:
        """Begin a step that runs live; give its id."""
        (effect,) = self.do(Record(name, path))
        assert isinstance(effect, RunStep)
        return effect.step_id

    def succeed(self, step_id: str, result: object = None) -> Any:
        """End a running step well; give what its caller gets."""
        try:
            effects = self.tell(StepSucceeded(step_id, result))
        except BaseException:
            self.do(StepFailed(step_id))
            raise
        before = len(self.performed)
        self.perform(effects)
        returned = [each for each in self.performed[before:] if isinstance(each, Return)]
        return returned[0].entry.result

    def wait(self, event: str, path: BranchPath = (), **options: Any) -> Any:
        """Wait for an event; give its payload, or raise SuspendError."""
        (effect,) = self.do(WaitForEvent(event, path=path, **options))
        assert isinstance(effect, Deliver)
        return effect.entry.value

    def state(self) -> State:
        """Tell where the session stands; a call, which type checkers do not take for settled."""
        return self.machine.state

    @property
    def released(self) -> int:
        """How often the session gave up what it held."""
        return sum(isinstance(effect, Release) for effect in self.performed)


def opened(stored: list[Entry] | None = None, *, now: datetime = NOW, **fields: Any) -> Session:
    """Open a session by ``start``; ``fields`` are those of the command."""
    session = Session([] if stored is None else stored, now=now)
    session.do(Start(writer=f"w{session.machine.session}", **fields))
    return session


def resumed(
    stored: list[Entry], event: str, value: object = None, *, now: datetime = NOW, **fields: Any
) -> Session:
    """Open a session by ``resume``."""
    session = Session(stored, now=now)
    session.do(Resume(event, value, writer=f"w{session.machine.session}", **fields))
    return session


def types(entries: list[Entry]) -> list[str]:
    """Give the types of entries."""
    return [entry.type for entry in entries]


def snapshot(machine: Machine) -> dict[str, Any]:
    """Give everything a machine knows, as it is now."""
    return {name: _frozen(value) for name, value in vars(machine).items()}


def _frozen(value: Any) -> Any:
    if type(value).__module__ in (
        "kassette.replay",
        "kassette.steps",
        "kassette.waits",
        "kassette.lanes",
    ):
        fields = getattr(type(value), "__slots__", ()) if not isinstance(value, tuple) else ()
        return {name: _frozen(getattr(value, name)) for name in fields} or value
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    if isinstance(value, (list, set)):
        return copy.copy(value)
    return value
