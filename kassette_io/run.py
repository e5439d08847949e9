"""One open session of a run: steps, waits and its end, as commands to the machine; decides nothing.

Rules (those for every await are in ``driver``):
- A step's function leaves no trace in the journal until it has returned, so inside of it no other
  step and no parallel block is allowed. A wait is: it ends the step, which runs again afterwards.
- An exception from ``on_replay`` is logged and not raised: an observer cannot influence the run.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast, final, overload
from weakref import ref

from anyio.lowlevel import checkpoint

from kassette import (
    UNSET,
    BranchPath,
    Close,
    Complete,
    Deliver,
    Diverged,
    EnterFunction,
    EnterParallel,
    Fail,
    FailedAttempt,
    LeaveFunction,
    LeaveParallel,
    Machine,
    Raise,
    Record,
    Replay,
    Resume,
    Return,
    RunStep,
    Start,
    State,
    StepEntry,
    StepFailed,
    StepSucceeded,
    SuspendError,
    Unset,
    UsageError,
    ValueRefusedError,
    WaitForEvent,
)
from kassette.errors import naming_run
from kassette.timestamps import Timeout
from kassette_io.attempts import Attempt, Half, Recorded
from kassette_io.calling import (
    Call,
    Flight,
    as_coroutine,
    check_outside,
    context_inside,
    go_inside,
)
from kassette_io.driver import Driver
from kassette_io.loops.waiting import checkpoint_if_cancelled, current_task, finish, fly
from kassette_io.noting import failure_notes, mark, warn_diverged
from kassette_io.observing import Observer
from kassette_io.storages.protocol import SessionStorage
from kassette_io.typed import TypedValue, ValueCodec, annotated_value, typed_value

T = TypeVar("T")

OnReplay = Callable[[T], object]
"""A function, sync or async, that is called with a replayed result before the step returns."""

_REPLAYS_PER_CHECKPOINT: Final = 64
_TURNS_TO_SPEAK_UP: Final = 8


@final
class Run(Driver):
    """An open session, returned by ``start``, ``resume`` and ``fork``; do not create it yourself.

    End it with ``complete``, ``fail`` or ``aclose``, or use it with ``async with``, which closes it
    without ending the run. A session that is not closed holds the run's lock until it is garbage
    collected.
    """

    def __init__(
        self, machine: Machine, storage: SessionStorage, observers: Sequence[Observer] = ()
    ) -> None:
        super().__init__(machine, storage, observers)
        self._replays = 0
        self._home: object = None
        self._branches: dict[BranchPath, ref[Any]] = {}
        """The tasks that run the branches."""
        self.refused_wait: str | None = None

    def __repr__(self) -> str:
        machine = self._machine
        return f"<Run {machine.run_id!r} session {machine.session} {machine.state.value}>"

    @property
    def session(self) -> int:
        """The number of this session."""
        return self._machine.session

    @property
    def metadata(self) -> Any:
        """The metadata passed to the first ``start``, as a new object; None if there was none."""
        return self._machine.metadata

    @property
    def waiting_for(self) -> str | None:
        """The event that this session has suspended on, or is about to; None if it has not."""
        return self._machine.waiting_for

    @property
    def state(self) -> State:
        """The state of the session."""
        return self._machine.state

    @property
    def was_told(self) -> bool:
        """Whether the session's own task has got a SuspendError."""
        return self._machine.was_told(ref(self._home))

    @property
    def lost_to(self) -> BaseException | None:
        """The error with which the session was lost (a fence, a failed disk), or None."""
        return self._machine.lost_to

    @overload
    async def record(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        on_replay: OnReplay[T] | None = None,
        result_type: type[T] | ValueCodec[T] | None = None,
        interchangeable: bool = False,
    ) -> T: ...

    @overload
    async def record(
        self,
        name: str,
        fn: Callable[..., T],
        *args: Any,
        on_replay: OnReplay[T] | None = None,
        result_type: type[T] | ValueCodec[T] | None = None,
        interchangeable: bool = False,
    ) -> T: ...

    @overload
    async def record(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any,
        interchangeable: bool = False,
    ) -> Any: ...

    def record(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any = None,
        interchangeable: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Return the recorded result of this step, or run ``fn(*args)`` and record what it returns.

        ``name`` is non-empty and contains no ``#``; the *n*-th call of a name is the step
        ``name#n``. A failed call does not count: calling it again is the same step again. Calls of
        the same name must not overlap, unless they are ``interchangeable``: the name includes
        everything that the result depends on, so it does not matter which call gets which result.

        ``fn`` may be sync (it runs in the event loop) or async; it runs in a copy of the current
        context and must not use the run. ``on_replay`` is called with a replayed result before it
        is returned; what it raises is logged. The returned value is decoded from the journal, live
        as on replay. It is checked against ``result_type``, a type or a ``ValueCodec``, or else
        against ``fn``'s return annotation, and decoded as that type if it is not plain JSON.

        Raise whatever ``fn`` raises (nothing is recorded then); UsageError for an invalid name, a
        call that overlaps another, or one inside of a step; ValueRefusedError for a result that
        would not come back equal, or a recorded one that no longer fits; SuspendError if another
        task of the session has suspended; and ReplayMismatchError, FencedError, StorageError,
        SuspendedError, SessionClosedError.
        """
        return self.record_at(
            (),
            name,
            Call(fn, args),
            on_replay=on_replay,
            result_type=result_type,
            interchangeable=interchangeable,
        )

    async def record_at(
        self,
        path: BranchPath,
        name: str,
        call: Call,
        *,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any = None,
        interchangeable: bool = False,
    ) -> Any:
        """Record a step as ``record`` does, on branch ``path``."""
        check_outside(self, "step", name)
        fn = call.fn
        if result_type is None and callable(fn):
            typed = annotated_value(fn, "return")
        else:
            typed = self._typed(name, fn, result_type)
        asked = self._ask_for(path, name, interchangeable)
        if isinstance(asked, str):
            call.step_id = asked
            if call.retry is not None:
                call.on_failed_attempt = partial(self._attempt_failed, asked)
            return await self._run_step(path, call, typed)
        result = self._value_of(asked, typed)
        if on_replay is not None:
            await self._show(on_replay, result)
        await self._count_replay()
        return result

    def _ask_for(self, path: BranchPath, name: str, interchangeable: bool) -> StepEntry | str:
        """Return the entry of a recorded step, or the id of a step that has begun."""
        caller = ref(current_task())
        aside = caller != self._branches.get(path)
        effects = self._handle(Record(name, path, caller, interchangeable, aside))
        if isinstance(effects[0], Diverged):
            diverged = cast("Diverged", effects.pop(0))
            warn_diverged(self.run_id, diverged)
            if self._watch is not None:
                self._watch.tell("diverged", diverged.step_id, diverged.passed_over)
        match effects[0]:
            case Replay(entry=entry):
                if self._watch is not None:
                    self._watch.tell("step_replayed", entry)
                return entry
            case RunStep(step_id=step_id):
                if self._recorder is not None:
                    self._recorder.begin(step_id)
                if self._watch is not None:
                    self._watch.tell("step_started", step_id)
                return step_id
            case Raise(error=error):
                try:
                    raise error
                finally:
                    del error  # its traceback leads to this frame
            case other:  # pragma: no cover - the machine answers Record with one of the three
                raise AssertionError(other)

    async def _count_replay(self) -> None:
        self._replays += 1
        if self._replays % _REPLAYS_PER_CHECKPOINT == 0:
            await checkpoint()

    async def _show(self, on_replay: OnReplay[Any], result: Any) -> None:
        try:
            shown = on_replay(result)
            if inspect.isawaitable(shown):
                await shown
        except (Exception, SuspendError):
            from logging import getLogger

            getLogger("kassette").exception(
                "on_replay raised in run %r; the step's result is unaffected", self.run_id
            )

    def _typed(self, name: str, fn: Callable[..., Any], result_type: Any) -> TypedValue | None:
        if not callable(fn):
            if inspect.iscoroutine(fn):
                fn.close()
                raise UsageError(
                    f"step {name!r} got a coroutine, which can run only once; pass the function "
                    "and its arguments instead: record(name, fn, *args)",
                    run_id=self.run_id,
                )
            raise UsageError(
                f"step {name!r} got {fn!r}, which is not a function", run_id=self.run_id
            )
        if result_type is None:
            return annotated_value(fn, "return")
        with naming_run(self.run_id):
            return typed_value(result_type)

    async def _run_step(self, path: BranchPath, call: Call, typed: TypedValue | None) -> Any:
        step_id = call.step_id
        try:
            await checkpoint_if_cancelled()
            context = context_inside(self, step_id)
            if call.is_simple:
                result = context.run(call.fn, *call.args)
                if inspect.isawaitable(result):
                    result = await self._fly(path, partial(as_coroutine, result), context)
            else:
                result = await self._fly(path, call.perform, context)
        except BaseException as error:
            mark(error, self.run_id, step_id, call.attempts, path)
            await self.fail_step(step_id, error)
            raise
        return await self.succeed_step(step_id, result, typed, call.attempts, call.errors)

    async def begin_at(
        self, path: BranchPath, name: str, result_type: Any, interchangeable: bool
    ) -> Recorded | Attempt:
        """Begin a step of branch ``path`` whose work is done by the caller."""
        check_outside(self, "step", name)
        typed = None
        if result_type is not None:
            with naming_run(self.run_id):
                typed = typed_value(result_type)
        asked = self._ask_for(path, name, interchangeable)
        if not isinstance(asked, str):
            await self._count_replay()
            return Recorded(self._value_of(asked, typed))
        half = Half(self, asked, typed)
        attempt = Attempt(self.run_id, asked, half, partial(self._enter, asked))
        self._forgotten[asked] = ref(attempt)
        return attempt

    def _enter(self, step_id: str) -> Callable[[], None]:
        del self._forgotten[step_id]
        return go_inside(self, step_id)

    async def succeed_step(
        self,
        step_id: str,
        result: Any,
        typed: TypedValue | None,
        attempts: int = 1,
        errors: Sequence[FailedAttempt] = (),
    ) -> Any:
        """Record the result of a step that has begun; return it as decoded from the journal."""
        kept = None
        try:
            if typed is not None:
                kept = typed.keep(result, f"the result of step {step_id!r}")
            plain = result if kept is None else kept.plain
            effects = self._handle(StepSucceeded(step_id, plain, attempts, errors))
        except BaseException as error:
            await self.fail_step(step_id, error)
            if isinstance(error, ValueRefusedError):
                raise _after_the_call(error, self.run_id) from error.__cause__
            raise
        settled = cast("Return", await self._perform(effects))
        if self._recorder is not None:
            self._recorder.succeeded(step_id)
        return settled.result if kept is None else kept.value

    def drop_step(self, step_id: str, error: BaseException) -> None:
        """Record, without waiting, that a step has ended without a result."""
        self._forgotten.pop(step_id, None)
        self._let_go(StepFailed(step_id))
        if self._recorder is not None:
            self._recorder.failed(step_id)
        if self._watch is not None:
            self._watch.tell("step_failed", step_id, error)

    async def fail_step(self, step_id: str, error: BaseException) -> None:
        """Record that a step has ended without a result."""
        if self._recorder is not None:
            self._recorder.failed(step_id)
        await self._report_failure(StepFailed(step_id), error)
        if self._watch is not None:
            self._watch.tell("step_failed", step_id, error)

    async def _fly(
        self, path: BranchPath, call: Callable[[], Coroutine[Any, Any, Any]], context: Context
    ) -> Any:
        flight = Flight(path, held=self._machine.has_suspended(path))
        self._flights.add(flight)
        try:
            return await fly(call, context, flight)
        finally:
            self._flights.discard(flight)

    def _value_of(self, entry: StepEntry, typed: TypedValue | None) -> Any:
        if typed is None:
            return entry.result
        with naming_run(self.run_id):
            return typed.rebuild(entry.result_json, f"the result of step {entry.step_id!r}")

    async def wait_for_event(
        self, name: str, *, timeout: Timeout | None = None, reason: str | None = None
    ) -> Any:
        """Return the event's payload if it has arrived; suspend the session if not.

        ``timeout`` is seconds or a timedelta from now, or the instant itself: an aware datetime or
        ISO 8601 text with its offset. When it has passed, the next ``start`` or ``resume`` cancels
        the run. A wait reached again in a later session retains its first deadline. ``reason`` is a
        non-empty note for people. Every wait of a run needs a different name.

        Raise SuspendError, which must escape; UsageError for an invalid or reused name, an invalid
        timeout, or an empty reason.
        """
        return await self.wait_at((), name, timeout, reason, None)

    async def wait_at(
        self,
        path: BranchPath,
        name: str,
        timeout: Timeout | None,
        reason: str | None,
        typed: TypedValue | None,
    ) -> Any:
        """Wait for an event as ``wait_for_event`` does, on branch ``path``."""
        try:
            effects = self._handle(WaitForEvent(name, timeout, reason, path, ref(current_task())))
        except UsageError as error:
            if self.waiting_for is not None:  # the suspension will hide this error
                self.refused_wait = self.refused_wait or str(error)
            raise
        try:
            resume = cast("Deliver", await self._perform(effects)).entry
        except SuspendError:
            if self._watch is not None:
                self._watch.tell("waiting", name)
            raise
        if self._watch is not None:
            self._watch.tell("event_delivered", resume)
        if typed is None:
            return resume.value
        with naming_run(self.run_id):
            return typed.rebuild(resume.value_json, f"the value of event {name!r}")

    def enter_parallel(self, keys: tuple[str, ...], path: BranchPath) -> None:
        """Begin a parallel block with one branch per key."""
        check_outside(self, "parallel block", keys)
        refusals = self._handle(EnterParallel(keys, path, ref(current_task())))
        if refusals:
            raise cast("Raise", refusals.pop()).error

    async def leave_parallel(
        self, keys: tuple[str, ...], path: BranchPath, *, abandoned: bool
    ) -> None:
        """End a parallel block. Raise SuspendError if one of its branches has suspended."""
        caller = ref(current_task())
        await self._report(LeaveParallel(keys, path, abandoned, caller), failing=abandoned)

    def enter_function(self) -> None:
        """Begin the workflow's function in the current task; waits are written when it ends."""
        self._handle(EnterFunction())

    async def leave_function(self) -> str:
        """Write the waits after the function has ended with a suspension; return the event.

        Steps in flight in other tasks finish first and are recorded, even if the tasks are
        cancelled. These tasks get a few iterations of the event loop to wait for events too, so
        that all waits are written together. Raise the error with which the session was lost if they
        could not be written.
        """
        await finish(self._write_waits)
        return await self.suspended()

    async def _write_waits(self) -> None:
        while not self._released.is_set():
            await self._come_to_rest()
            for _ in range(_TURNS_TO_SPEAK_UP):
                await checkpoint()
            if not self._machine.in_flight:
                await self._report(LeaveFunction())
                break

    async def complete(self, result: object | Unset = UNSET) -> None:
        """End the run as completed, and close the session.

        ``result`` is recorded for later readers if it is JSON of at most 1 MiB, and otherwise
        omitted; replay does not need it.

        Raise SuspendedError after a suspension, SessionClosedError after any other end, and
        FencedError or StorageError if the entry could not be written.
        """
        await self._end(Complete(result))

    async def fail(self, error: BaseException) -> None:
        """End the run as failed with ``error``, and close the session.

        The error's type, message and traceback are recorded. Raise what ``complete`` raises.
        """
        from traceback import format_exception

        try:
            message = str(error)
        except Exception:  # its own __str__ is broken; the failure must still be recorded
            message = "(no message: str() of the error failed)"
        stack = "".join(format_exception(error))
        notes = failure_notes(error, self.run_id)
        await self._end(Fail(message, type(error).__name__, stack, notes))

    async def _end(self, command: Complete | Fail) -> None:
        await checkpoint_if_cancelled()
        await self._perform(self._handle(command))
        await checkpoint_if_cancelled()

    async def aclose(self) -> None:
        """Close the session without ending the run.

        A later ``start`` continues it. Nothing is appended, unless the session has suspended and
        steps are in flight: these are recorded first, and then the waits. Do nothing if the session
        has ended.
        """
        try:
            if self._machine.state is State.SUSPENDING:
                await self.come_to_rest()
        finally:
            if not self._machine.ended:
                await self._report(Close())

    async def suspended(self) -> str:
        """Wait until the ``suspend`` entries of a suspended session are durable; return the event.

        They are written last, when every running step has finished. Raise the error with which the
        session was lost if they could not be written.
        """
        await self._released.wait()
        if self.lost_to is not None:
            raise self.lost_to
        return cast("str", self.waiting_for)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close_after(exc)

    async def close_after(self, error: BaseException | None) -> None:
        """Close the session because of ``error``, without waiting if the coroutine is closed."""
        if error is None:
            await self.aclose()
        elif not self._machine.ended:
            try:
                if self._machine.state is State.SUSPENDING and not isinstance(error, GeneratorExit):
                    await self.come_to_rest()
            finally:
                await self._report_failure(Close(), error)

    def __del__(self) -> None:
        if self._machine.ended or self._machine.state is State.NEW:
            return
        if not sys.is_finalizing():  # a process that ends releases its locks by itself
            self._storage.abandon(self.run_id, self._machine.session)
        warnings.warn(
            f"{self!r} was never closed; use `async with`, or call complete(), fail() or aclose()",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    # --- the session ----------------------------------------------------------------------

    async def open(self, command: Start | Resume) -> None:
        """Open the session; release its lock if that fails or is cancelled."""
        self.settle_in()
        try:
            await self._perform(self._handle(command))
            await checkpoint_if_cancelled()
        except BaseException as error:
            await self.close_after(error)
            raise
        self.tell_opened()

    def tell_opened(self) -> None:
        """Notify the observers that the session is open."""
        if self._watch is not None:
            self._watch.tell("opened")

    def settle_in(self) -> None:
        """Set the current task as the session's own."""
        self._home = current_task()
        self.settle_branch(())

    def settle_branch(self, path: BranchPath) -> None:
        """Set the current task as the one that runs branch ``path``."""
        self._branches[path] = ref(current_task())


def _after_the_call(refused: ValueRefusedError, run_id: str) -> ValueRefusedError:
    """Return the error with a note that the step's function has run, and may have cost money."""
    return ValueRefusedError(
        f"{refused}: the step's function was called, and its result is not recorded. The run stays "
        "open; fix the code and start the run again, which runs the step again",
        run_id=run_id,
    )
