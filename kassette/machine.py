"""The state machine of one session of one run; every state is assigned here and nowhere else.

A machine is made from a plain list of entries. Commands go in, effects come out; time is an
argument; a command costs O(1). A command that is refused raises and changes nothing.

Opening (D4). The driver has read the journal. ``opening`` takes the reference's steps on it; then a
``start`` is appended. If storage gives it another offset than the number of entries read, somebody
wrote in between: the journal, whose prefix the new session has now frozen, is read again, and the
steps are taken again on what stands before our ``start``. A run whose deadline has passed gets a
``cancel`` then, and ``Resume`` appends the payload unless the journal holds one, which wins.

Steps (D8). The full name is the branch path and the name; the occurrence counter belongs to the
path. A recorded step is replayed; any other runs, and its result is returned once it is durable.

Suspending (D7). A wait raises SuspendError in its own branch at once; from then on that branch
may do nothing more, while its siblings go on. The ``suspend`` entries are written when no step
is running and no parallel block is open, so they are the last entries of the session.

Releasing. What storage holds for the session is given up once, when the session ends, and only if
its ``start`` landed: the number of a session that was never opened may be somebody else's.

Losing the session. An append that failed and left nothing behind (``rolled_back``) fails its own
caller only. After any other failure nobody knows what the journal holds, so the session is lost;
it says so to every later call, and a new session finds out by reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, cast, final

from kassette.commands import (
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    EnterParallel,
    Fail,
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
from kassette.effects import (
    Append,
    Deliver,
    Effect,
    Opened,
    Raise,
    Release,
    Reload,
    Replay,
    Return,
    RunStep,
)
from kassette.entries import (
    SUSPEND_TIMEOUT_EXPIRED,
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    is_terminal,
)
from kassette.errors import (
    EventPendingError,
    FencedError,
    InternalError,
    KassetteError,
    ReplayMismatchError,
    RunCancelledError,
    SessionClosedError,
    StorageError,
    SuspendedError,
    SuspendError,
    UsageError,
    with_run_id,
)
from kassette.naming import (
    BranchPath,
    check_branch_key,
    check_event_name,
    check_label,
    check_run_id,
    check_step_name,
    full_step_name,
)
from kassette.opening import check_command, check_not_over, must_cancel
from kassette.replay import Recorded
from kassette.timestamps import after, format_timestamp
from kassette.transitions import ENDED, TRANSITIONS, State
from kassette.values import decode_value, settle_value, writable_text


class _Wait(NamedTuple):
    event_name: str
    reason: str
    deadline: str | None
    path: BranchPath


class _Handler(Protocol):
    def __call__(self, machine: Machine, command: Any, now: datetime, /) -> list[Effect]: ...


@final
class Machine:
    """One session of run ``run_id``, whose journal holds ``entries``.

    Raises UsageError for a run id that cannot be one (D10).
    """

    def __init__(self, run_id: str, entries: Sequence[Entry]) -> None:
        self.run_id = check_run_id(run_id)
        self._state, self._row = State.NEW, TRANSITIONS[State.NEW]
        self._recorded = Recorded(entries)
        self._session = self._recorded.session + 1
        self._opening: Start | Resume = Start()
        self._cancels = False
        self._counters: dict[str, tuple[BranchPath, int]] = {}
        self._running: dict[str, str] = {}
        self._appending: dict[str, Any] = {}
        self._branches: set[BranchPath] = set()
        self._awaited: set[str] = set()
        self._waits: list[_Wait] = []
        self._suspended_paths: set[BranchPath] = set()
        self._lost_to: BaseException | None = None

    @classmethod
    def opened(cls, run_id: str, entries: Sequence[Entry]) -> Machine:
        """Take up the session whose ``start`` is the newest one in ``entries``.

        For a journal whose last session is certainly one's own: a fork just created, or a test.
        Raises UsageError for a journal without a session, TerminalRunError for a run that is over,
        EventPendingError for a suspended one.
        """
        machine = cls(run_id, entries)
        check_not_over(machine._recorded, run_id)
        if not entries:
            raise UsageError("an empty journal has no session to take up", run_id=run_id)
        if machine._recorded.suspended_on is not None:
            raise EventPendingError(machine._recorded.suspended_on, run_id=run_id)
        machine._session = machine._recorded.session
        machine._state, machine._row = State.ACTIVE, TRANSITIONS[State.ACTIVE]
        return machine

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def ended(self) -> bool:
        """Whether the session can do nothing more."""
        return self._state in ENDED

    @property
    def session(self) -> int:
        """The session's number."""
        return self._session

    @property
    def metadata(self) -> Any:
        """The run's metadata, decoded anew; None where there is none."""
        raw = self._recorded.metadata_json
        return None if raw is None else decode_value(raw)

    @property
    def waiting_for(self) -> str | None:
        """The event that the run's status names once this session has suspended, if it waits."""
        return self._waits[-1].event_name if self._waits else None

    @property
    def lost_to(self) -> BaseException | None:
        """The error that ended the session, where one did."""
        return self._lost_to

    def handle(self, command: Command, *, now: datetime) -> list[Effect]:
        """Decide ``command`` at the instant ``now`` (aware).

        Raises a KassetteError where the rules refuse the command; then nothing has changed.
        """
        try:
            if now.tzinfo is None:
                raise UsageError("a naive datetime names no instant; pass one with a time zone")
            if type(command) not in self._row:
                raise self._refusal(command)
            return self._HANDLERS[type(command)](self, command, now)
        except KassetteError as error:
            with_run_id(error, self.run_id)
            raise

    # --- opening ---------------------------------------------------------------------------

    def _open(self, command: Start | Resume, now: datetime) -> list[Effect]:
        recorded = self._recorded
        metadata_json = check_command(command, recorded, self.run_id)
        cancels = must_cancel(command, recorded, self.run_id, now)
        entry = StartEntry(
            session=self._session,
            timestamp=format_timestamp(now),
            version=command.version,
            writer=command.writer,
            metadata_json=metadata_json,
        )
        self._opening, self._cancels = command, cancels
        if metadata_json is not None:
            recorded.metadata_json = metadata_json
        self._go(command, State.OPENING)
        return [Append(entry)]

    def _after_start(self, command: Command, now: datetime) -> list[Effect]:
        """Go on once the own ``start`` is in the journal and nothing unread stands before it."""
        timestamp = format_timestamp(now)
        if self._cancels:
            self._go(command, State.CANCELLING)
            cancel = CancelEntry(
                session=self._session, timestamp=timestamp, reason=SUSPEND_TIMEOUT_EXPIRED
            )
            return [Append(cancel)]
        opening = self._opening
        if isinstance(opening, Resume) and opening.event_name not in self._recorded.resumes:
            self._go(command, State.DELIVERING)
            resume = ResumeEntry.of(
                session=self._session,
                timestamp=timestamp,
                event_name=opening.event_name,
                value=opening.value,
            )
            return [Append(resume)]
        self._go(command, State.ACTIVE)
        return [Opened(self._session)]

    def _loaded(self, command: Loaded, now: datetime) -> list[Effect]:
        if self.ended:
            return []
        entries = command.entries
        newest = max((entry.session for entry in entries), default=0)
        own = next((at for at, entry in enumerate(entries) if self._is_rival(entry)), None)
        if newest > self._session or own is None or not self._is_own(entries[own]):
            return self._lose(command, FencedError(self._session, newest, run_id=self.run_id))
        metadata_json = self._recorded.metadata_json
        self._recorded = Recorded(entries[:own])
        if own == 0:
            self._recorded.metadata_json = metadata_json
        try:
            self._cancels = must_cancel(self._opening, self._recorded, self.run_id, now)
        except KassetteError as error:
            self._go(command, State.CLOSED)
            return [Release(), Raise(with_run_id(error, self.run_id))]
        return self._after_start(command, now)

    def _is_rival(self, entry: Entry) -> bool:
        return isinstance(entry, StartEntry) and entry.session == self._session

    def _is_own(self, entry: Entry) -> bool:
        return isinstance(entry, StartEntry) and entry.writer == self._opening.writer

    def _load_failed(self, command: LoadFailed, now: datetime) -> list[Effect]:
        return [] if self.ended else self._lose(command, command.error)

    # --- reports of appends ----------------------------------------------------------------

    def _appended(self, command: Appended, now: datetime) -> list[Effect]:
        entry = command.entry
        match self._state:
            case State.OPENING if command.offset < self._recorded.count:
                self._lost_to = StorageError(
                    f"the journal of run {self.run_id!r} was deleted or replaced while it was "
                    "opened. Restore it, or delete what is there now and start anew",
                    run_id=self.run_id,
                )
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
                    result = self._appending.pop(entry.step_id, None)
                    return [*self._settle(command, now), Return(entry, result)]
                return []

    def _append_failed(self, command: AppendFailed, now: datetime) -> list[Effect]:
        entry, error = command.entry, command.error
        if isinstance(entry, StepEntry):
            self._appending.pop(entry.step_id, None)
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
        path = command.path
        if self._suspended_paths:
            self._check_path(path)
        name = command.name
        if type(name) is not str:
            check_step_name(name)
        full = full_step_name(path, name)
        known = self._counters.get(full)
        if known is None:
            check_step_name(name)
        owner, count = known or (path, 0)
        if owner != path:
            raise UsageError(
                f"step {full!r} is named by two branches, {list(owner)} and {list(path)}; "
                "rename the step or the branch key"
            )
        count += 1
        step_id = full if count == 1 else f"{full}#{count}"
        entry = self._recorded.steps.get(step_id)
        if entry is None:
            self._counters[full] = (path, count)
            self._running[step_id] = full
            return [RunStep(step_id, full)]
        if entry.name != full:
            raise ReplayMismatchError(step_id, entry.name, full, run_id=self.run_id)
        self._counters[full] = (path, count)
        return [Replay(entry)]

    def _step_succeeded(self, command: StepSucceeded, now: datetime) -> list[Effect]:
        step_id = command.step_id
        name = self._running.get(step_id)
        if name is None:
            raise InternalError(f"step {step_id!r} is not running")
        result_json, result = settle_value(command.result, f"the result of step {step_id!r}")
        entry = StepEntry.of_fields(
            self._session, format_timestamp(now), None, b"{}", step_id, name, result_json
        )
        del self._running[step_id]
        self._appending[step_id] = result
        return [Append(entry)]

    def _step_failed(self, command: StepFailed, now: datetime) -> list[Effect]:
        self._running.pop(command.step_id, None)
        return self._settle(command, now)

    # --- waiting and parallel blocks -------------------------------------------------------

    def _wait(self, command: WaitForEvent, now: datetime) -> list[Effect]:
        self._check_path(command.path)
        event = check_event_name(command.event_name)
        reason = (
            f"Waiting for event: {event}"
            if command.reason is None
            else check_label("a reason", command.reason)
        )
        if event in self._awaited:
            raise UsageError(
                f"event {event!r} is waited for twice; use a name of its own for every wait, "
                f"like '{event}:<item>'"
            )
        recorded = self._recorded
        deadline = (
            None if command.timeout is None else format_timestamp(after(now, command.timeout))
        )
        resume = recorded.resumes.get(event)
        self._awaited.add(event)
        if resume is not None:
            return [Deliver(resume)]
        deadline = recorded.deadlines.get(event, deadline)
        self._waits.append(_Wait(event, reason, deadline, command.path))
        self._suspended_paths.add(command.path)
        error = Raise(SuspendError(event, run_id=self.run_id))
        if self._is_quiet():
            return [*self._suspend(command, now), error]
        self._go(command, State.SUSPENDING)
        return [error]

    def _enter_parallel(self, command: EnterParallel, now: datetime) -> list[Effect]:
        self._check_path(command.path)
        branches = [(*command.path, check_branch_key(key)) for key in command.keys]
        for branch in branches:
            if branch in self._branches:
                raise UsageError(
                    f"branch {':'.join(branch)!r} is running already; two parallel blocks that "
                    "run at once need different keys"
                )
        self._branches.update(branches)
        return []

    def _leave_parallel(self, command: LeaveParallel, now: datetime) -> list[Effect]:
        branches = {(*command.path, key) for key in command.keys}
        self._branches -= branches
        depth = len(command.path) + 1
        waits = [wait for wait in self._waits if wait.path[:depth] in branches]
        if command.abandoned:
            self._forget(command, waits, branches)
            waits = []
        if not waits:
            return self._settle(command, now)
        self._suspended_paths.add(command.path)
        error = SuspendError(waits[-1].event_name, run_id=self.run_id)
        return [*self._settle(command, now), Raise(error)]

    def _forget(
        self, command: LeaveParallel, waits: list[_Wait], branches: set[BranchPath]
    ) -> None:
        """Drop waits of an abandoned block: nothing of them was journaled."""
        self._waits = [wait for wait in self._waits if wait not in waits]
        depth = len(command.path) + 1
        self._suspended_paths = {
            path for path in self._suspended_paths if path[:depth] not in branches
        }
        self._awaited.difference_update(wait.event_name for wait in waits)
        if self._state is State.SUSPENDING and not self._waits:
            self._go(command, State.ACTIVE)

    def _check_path(self, path: BranchPath) -> None:
        for depth in range(len(path) + 1):
            if path[:depth] in self._suspended_paths:
                raise self._suspended_error()

    def _settle(self, command: Command, now: datetime) -> list[Effect]:
        """Write the waits once nothing else can be written any more (D7)."""
        if self._state is State.SUSPENDING and self._is_quiet():
            return self._suspend(command, now)
        return []

    def _is_quiet(self) -> bool:
        return not (self._running or self._appending or self._branches)

    def _suspend(self, command: Command, now: datetime) -> list[Effect]:
        self._go(command, State.SUSPENDED)
        timestamp = format_timestamp(now)
        entries = (
            SuspendEntry(
                session=self._session,
                timestamp=timestamp,
                reason=wait.reason,
                waiting_for=wait.event_name,
                timeout=wait.deadline,
                more=wait is not self._waits[-1],
            )
            for wait in self._waits
        )
        return [*map(Append, entries), Release()]

    # --- closing ---------------------------------------------------------------------------

    def _complete(self, command: Complete, now: datetime) -> list[Effect]:
        entry = CompleteEntry(session=self._session, timestamp=format_timestamp(now))
        self._go(command, State.CLOSING)
        return [Append(entry)]

    def _fail(self, command: Fail, now: datetime) -> list[Effect]:
        entry = ErrorEntry(
            session=self._session,
            timestamp=format_timestamp(now),
            message=writable_text(command.message),
            name=None if command.name is None else writable_text(command.name),
            stack=None if command.stack is None else writable_text(command.stack),
        )
        self._go(command, State.CLOSING)
        return [Append(entry)]

    def _close(self, command: Close, now: datetime) -> list[Effect]:
        if self.ended:
            return []
        nothing_held = self._state in (State.NEW, State.OPENING)
        self._go(command, State.CLOSED)
        return [] if nothing_held else [Release()]

    # --- refusals and transitions ----------------------------------------------------------

    def _suspended_error(self) -> SuspendedError:
        return SuspendedError(
            f"run {self.run_id!r} has suspended, waiting for {self.waiting_for!r}. Something "
            "caught the SuspendError and went on: raise it again (see is_suspend_error)"
        )

    def _refusal(self, command: Command) -> KassetteError:
        asked = type(command).__name__
        if isinstance(command, (Start, Resume)):
            return UsageError("a machine opens one session once; make a new one")
        match self._state:
            case State.SUSPENDING | State.SUSPENDED if not isinstance(
                command, (Loaded, LoadFailed)
            ):
                return self._suspended_error()
            case State.CLOSING | State.CLOSED if not isinstance(command, (Loaded, LoadFailed)):
                return SessionClosedError(
                    f"the session of run {self.run_id!r} is closed; {asked} came after its end"
                )
            case State.LOST if isinstance(self._lost_to, FencedError):
                fenced = self._lost_to
                return FencedError(
                    fenced.rejected_session, fenced.active_session, run_id=self.run_id
                )
            case State.LOST:
                error = SessionClosedError(
                    f"the session of run {self.run_id!r} was lost ({self._lost_to}); "
                    "start the run again, it goes on from its journal"
                )
                error.__cause__ = self._lost_to
                return error
            case State.NEW if not isinstance(
                command, (Appended, AppendFailed, Loaded, LoadFailed, StepSucceeded, StepFailed)
            ):
                return UsageError(f"{asked} needs an open session; start or resume the run first")
            case state:
                return InternalError(f"{asked} has no place in state {state.value!r}")

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
            EnterParallel: _enter_parallel,
            LeaveParallel: _leave_parallel,
            Complete: _complete,
            Fail: _fail,
            Close: _close,
        }
    )
