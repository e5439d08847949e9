"""The state machine of one session of one run; every state is assigned here and nowhere else.

A machine is created from a list of entries. Commands go in, effects come out; time is an argument;
a command costs O(1). A command that is refused raises and changes nothing.

Opening. The driver has read the journal. ``opening`` applies its rules to it; then a ``start`` is
appended. If the storage returns another offset than the number of entries read, another session has
written in between: the journal, which older sessions can no longer extend, is read again, and the
rules are applied again to the entries before our ``start``. If the run's deadline has passed, a
``cancel`` follows; ``Resume`` appends the payload unless the journal already has one, which wins.

Steps and waits. ``steps`` numbers and replays; ``waits`` tracks who has suspended and was notified.

Suspending. A wait raises SuspendError in its own task immediately. The ``suspend`` entries are
written when the workflow's function has ended, no step is running and no parallel block is open, so
they are the last entries of the session. Without a function (a session driven by hand), the first
wait with nothing in flight is written before it raises.

Releasing. Locks and buffers of the session are released once, when it ends, and only if its
``start`` was written: the number of a session that was never opened may belong to another one.

Losing the session. An append that failed without leaving anything behind (``rolled_back``) only
fails for its own caller. After any other failure the contents of the journal are unknown, so the
session is lost; every later call raises that, and a new session reads what was recorded.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, cast, final

from kassette.commands import (
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    EnterFunction,
    EnterParallel,
    Fail,
    LeaveFunction,
    LeaveParallel,
    Loaded,
    LoadFailed,
    Record,
    Resume,
    Start,
    StepFailed,
    StepSucceeded,
    WaitForEvent,
)
from kassette.effects import Append, Deliver, Effect, Opened, Raise, Release, Reload, Return
from kassette.entries import (
    SUSPEND_TIMEOUT_EXPIRED,
    Entry,
    ResumeEntry,
    StartEntry,
    StepEntry,
    is_terminal,
)
from kassette.errors import (
    EventPendingError,
    FencedError,
    InternalError,
    KassetteError,
    RunCancelledError,
    StorageError,
    UsageError,
    with_run_id,
)
from kassette.marks import cancel_entry, ending_entry, opening_entry, resume_entry
from kassette.naming import BranchPath, check_run_id
from kassette.opening import check_command, check_not_over, must_cancel, own_start
from kassette.refusals import journal_replaced, refusal
from kassette.replay import Recorded
from kassette.steps import Steps
from kassette.timestamps import format_timestamp
from kassette.transitions import ENDED, TRANSITIONS, State
from kassette.values import decode_value
from kassette.waits import Waits


class _Handler(Protocol):
    def __call__(self, machine: Machine, command: Any, now: datetime, /) -> list[Effect]: ...


@final
class Machine:
    """The state machine of one session of run ``run_id``, whose journal has ``entries``.

    Send it commands with ``handle``, and perform the effects that it returns. Raise UsageError for
    an invalid run id.
    """

    def __init__(self, run_id: str, entries: Sequence[Entry]) -> None:
        self.run_id = check_run_id(run_id)
        self._state, self._row = State.NEW, TRANSITIONS[State.NEW]
        self._opening: Start | Resume = Start()
        self._read(Recorded(entries))
        self._session = self._recorded.session + 1
        self._cancels = False
        self._in_function = False
        self._lost_to: BaseException | None = None

    @classmethod
    def opened(cls, run_id: str, entries: Sequence[Entry], *, strict: bool = False) -> Machine:
        """Return a machine for the open session whose ``start`` is the newest in ``entries``.

        Use it only if the last session is certainly your own: for a new fork, or in a test. With
        ``strict``, steps are refused where workflow and journal diverge. Raise UsageError for a
        journal without a session, TerminalRunError for a run that has ended, and EventPendingError
        for a suspended one.
        """
        machine = cls(run_id, entries)
        check_not_over(machine._recorded, run_id)
        if not entries:
            raise UsageError("an empty journal has no session to continue", run_id=run_id)
        if machine._recorded.suspended_on is not None:
            raise EventPendingError(machine._recorded.suspended_on, run_id=run_id)
        machine._session = machine._recorded.session
        machine._steps.strict = strict
        machine._state, machine._row = State.ACTIVE, TRANSITIONS[State.ACTIVE]
        return machine

    @property
    def state(self) -> State:
        """The state of the session."""
        return self._state

    @property
    def ended(self) -> bool:
        """Whether the session has ended."""
        return self._state in ENDED

    @property
    def session(self) -> int:
        """The session's number."""
        return self._session

    @property
    def metadata(self) -> Any:
        """The run's metadata, as a new object; None if there is none."""
        raw = self._recorded.metadata_json
        return None if raw is None else decode_value(raw)

    @property
    def waiting_for(self) -> str | None:
        """The event in the run's status once this session has suspended; None without a wait."""
        return self._waits.waiting_for

    def has_suspended(self, path: BranchPath) -> bool:
        """Return whether the branch ``path``, or one around it, may begin nothing new."""
        return self._state is State.SUSPENDED or self._waits.suspended(path)

    def was_told(self, caller: Hashable) -> bool:
        """Return whether ``caller`` has got a SuspendError of this session."""
        return self._waits.was_told(caller)

    @property
    def in_flight(self) -> bool:
        """Whether a step is running or being appended, or a parallel block is open."""
        return self._steps.in_flight or self._waits.in_parallel

    @property
    def lost_to(self) -> BaseException | None:
        """The error with which the session was lost; None if it was not."""
        return self._lost_to

    def handle(self, command: Command, *, now: datetime) -> list[Effect]:
        """Return the effects of ``command`` at the aware instant ``now``.

        Raise a KassetteError if the command is refused; then nothing has changed.
        """
        try:
            if now.tzinfo is None:
                raise UsageError("a naive datetime is ambiguous; pass one with a time zone")
            if type(command) not in self._row:
                raise refusal(command, self._state, self.run_id, self._waits, self._lost_to)
            return self._HANDLERS[type(command)](self, command, now)
        except KassetteError as error:
            with_run_id(error, self.run_id)
            raise

    # --- opening ---------------------------------------------------------------------------

    def _open(self, command: Start | Resume, now: datetime) -> list[Effect]:
        recorded = self._recorded
        metadata_json = check_command(command, recorded, self.run_id)
        cancels = must_cancel(command, recorded, self.run_id, now)
        entry = opening_entry(command, self._session, now, metadata_json, recorded, cancels)
        self._opening, self._cancels = command, cancels
        self._steps.strict = command.strict
        if metadata_json is not None:
            recorded.metadata_json = metadata_json
        self._go(command, State.OPENING)
        return [Append(entry)]

    def _after_start(self, command: Command, now: datetime) -> list[Effect]:
        """Continue after our ``start`` is in the journal and everything before it was read."""
        if self._cancels:
            self._go(command, State.CANCELLING)
            return [Append(cancel_entry(self._session, now))]
        opening = self._opening
        if isinstance(opening, Resume) and opening.event_name not in self._recorded.resumes:
            self._go(command, State.DELIVERING)
            return [Append(resume_entry(opening, self._session, now))]
        self._go(command, State.ACTIVE)
        return [Opened(self._session)]

    def _loaded(self, command: Loaded, now: datetime) -> list[Effect]:
        if self.ended:
            return []
        entries = command.entries
        own = own_start(entries, self._session, self._opening.writer)
        if own is None:
            newest = max((entry.session for entry in entries), default=0)
            return self._lose(command, FencedError(self._session, newest, run_id=self.run_id))
        metadata_json = self._recorded.metadata_json
        self._read(Recorded(entries[:own]))
        if own == 0:
            self._recorded.metadata_json = metadata_json
        try:
            self._cancels = must_cancel(self._opening, self._recorded, self.run_id, now)
        except KassetteError as error:
            self._go(command, State.CLOSED)
            return [Release(), Raise(with_run_id(error, self.run_id))]
        return self._after_start(command, now)

    def _read(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._steps = Steps(recorded, self.run_id, strict=self._opening.strict)
        self._waits = Waits(recorded, self.run_id)

    def _load_failed(self, command: LoadFailed, now: datetime) -> list[Effect]:
        return [] if self.ended else self._lose(command, command.error)

    # --- reports of appends ----------------------------------------------------------------

    def _appended(self, command: Appended, now: datetime) -> list[Effect]:
        entry = command.entry
        match self._state:
            case State.OPENING if command.offset < self._recorded.count:
                self._lost_to = journal_replaced(self.run_id)
                self._go(command, State.LOST)
                return [Release(), Raise(self._lost_to)]
            case State.OPENING if command.offset != self._recorded.count:
                self._go(command, State.RELOADING)
                return [Reload()]
            case State.OPENING:
                return self._after_start(command, now)
            case State.DELIVERING:
                resume = cast("ResumeEntry", entry)
                self._recorded.resumes[resume.event_name] = resume
                self._go(command, State.ACTIVE)
                return [Opened(self._session)]
            case State.CANCELLING:
                self._go(command, State.CLOSED)
                return [
                    Release(),
                    Raise(RunCancelledError(SUSPEND_TIMEOUT_EXPIRED, run_id=self.run_id)),
                ]
            case State.CLOSING if is_terminal(entry):
                self._go(command, State.CLOSED)
                return [Release()]
            case State.CLOSED if isinstance(entry, StartEntry):
                return [Release()]
            case _:
                if isinstance(entry, StepEntry):
                    result = self._steps.settle(entry.step_id)
                    return [*self._settle(command, now), Return(entry, result)]
                return []

    def _append_failed(self, command: AppendFailed, now: datetime) -> list[Effect]:
        entry, error = command.entry, command.error
        if isinstance(entry, StepEntry):
            self._steps.fail(entry.step_id)
        if self._state in (State.CLOSED, State.LOST):
            return []
        nothing_left = isinstance(error, StorageError) and error.rolled_back
        if not nothing_left or self._state not in (State.ACTIVE, State.SUSPENDING, State.CLOSING):
            return self._lose(command, error)
        if self._state is State.CLOSING and is_terminal(entry):
            self._go(command, State.ACTIVE)
        return self._settle(command, now)

    def _lose(self, command: Command, error: BaseException) -> list[Effect]:
        nothing_held = self._state is State.OPENING
        self._lost_to = error
        self._go(command, State.LOST)
        if nothing_held:
            return []
        if isinstance(command, Loaded):
            return [Release(), Raise(cast("KassetteError", error))]
        return [Release()]

    # --- steps -----------------------------------------------------------------------------

    def _record(self, command: Record, now: datetime) -> list[Effect]:
        if self._state is not State.ACTIVE and self.has_suspended(command.path):
            return [self._waits.refuse(command.caller)]
        return self._steps.record(command, now)

    def _step_succeeded(self, command: StepSucceeded, now: datetime) -> list[Effect]:
        return [Append(self._steps.succeed(command, self._session, format_timestamp(now)))]

    def _step_failed(self, command: StepFailed, now: datetime) -> list[Effect]:
        self._steps.fail(command.step_id)
        return self._settle(command, now)

    # --- waiting and parallel blocks -------------------------------------------------------

    def _wait(self, command: WaitForEvent, now: datetime) -> list[Effect]:
        answer = self._waits.wait(command, now, open=self._state is not State.SUSPENDED)
        if isinstance(answer, Deliver) or self._state is State.SUSPENDED:
            return [answer]
        if self._is_busy():
            self._go(command, State.SUSPENDING)
            return [answer]
        return [*self._suspend(command, now), answer]

    def _enter_function(self, command: EnterFunction, now: datetime) -> list[Effect]:
        self._in_function = True
        return []

    def _leave_function(self, command: LeaveFunction, now: datetime) -> list[Effect]:
        self._in_function = False
        return self._settle(command, now)

    def _enter_parallel(self, command: EnterParallel, now: datetime) -> list[Effect]:
        if self._state is not State.ACTIVE and self.has_suspended(command.path):
            return [self._waits.refuse(command.caller)]
        self._waits.enter(command)
        return []

    def _leave_parallel(self, command: LeaveParallel, now: datetime) -> list[Effect]:
        answer = self._waits.leave(command)
        if self._state is State.SUSPENDING and self._waits.waiting_for is None:
            self._go(command, State.ACTIVE)
        effects = self._settle(command, now)
        return effects if answer is None else [*effects, answer]

    def _settle(self, command: Command, now: datetime) -> list[Effect]:
        """Write the waits when nothing else can be written any more."""
        if self._state is State.SUSPENDING and not self._is_busy():
            return self._suspend(command, now)
        return []

    def _is_busy(self) -> bool:
        return self._in_function or self.in_flight

    def _suspend(self, command: Command, now: datetime) -> list[Effect]:
        self._go(command, State.SUSPENDED)
        passed = self._steps.not_asked_for
        entries = self._waits.entries(self._session, format_timestamp(now), passed)
        return [*map(Append, entries), Release()]

    # --- closing ---------------------------------------------------------------------------

    def _end(self, command: Complete | Fail, now: datetime) -> list[Effect]:
        self._go(command, State.CLOSING)
        return [Append(ending_entry(command, self._session, now, self._steps.not_asked_for))]

    def _close(self, command: Close, now: datetime) -> list[Effect]:
        if self.ended:
            return []
        nothing_held = self._state in (State.NEW, State.OPENING)
        self._go(command, State.CLOSED)
        return [] if nothing_held else [Release()]

    def _go(self, command: Command, to: State) -> None:
        if to not in self._row[type(command)]:
            raise InternalError(
                f"{type(command).__name__} must not lead from {self._state.value!r} to {to.value!r}"
            )
        self._state, self._row = to, TRANSITIONS[to]

    _HANDLERS: ClassVar[Mapping[type[Command], _Handler]] = MappingProxyType(
        {
            Start: _open,
            Resume: _open,
            Appended: _appended,
            AppendFailed: _append_failed,
            Loaded: _loaded,
            LoadFailed: _load_failed,
            Record: _record,
            StepSucceeded: _step_succeeded,
            StepFailed: _step_failed,
            WaitForEvent: _wait,
            EnterFunction: _enter_function,
            LeaveFunction: _leave_function,
            EnterParallel: _enter_parallel,
            LeaveParallel: _leave_parallel,
            Complete: _end,
            Fail: _end,
            Close: _close,
        }
    )
