"""One open session of a run: asks the machine, performs the effects, reports back; decides nothing.

Rules for every await here:
- An append is waited for to its end; then, the machine being told, a cancellation that arrived
  meanwhile is felt (D2). None begins while a cancellation is pending. A storage that breaks
  off all the same leaves its outcome unknown, and the machine takes the session as lost.
- Effects are performed in the order given; when one fails, the rest is dropped.
- Whatever ends a session releases what storage holds for it (D14).
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast, final, overload

from anyio import CancelScope, Event, sleep
from anyio.lowlevel import checkpoint

from kassette import (
    Append,
    Appended,
    AppendFailed,
    BranchPath,
    Close,
    Command,
    Complete,
    Deliver,
    Effect,
    EnterParallel,
    Fail,
    LeaveParallel,
    Loaded,
    LoadFailed,
    Machine,
    Opened,
    Raise,
    Record,
    Release,
    Reload,
    Replay,
    Resume,
    Retry,
    Return,
    RunStep,
    Start,
    State,
    StepEntry,
    StepFailed,
    StepSucceeded,
    SuspendError,
    UsageError,
    WaitForEvent,
)
from kassette.errors import naming_run
from kassette_io import _clock
from kassette_io._waiting import checkpoint_if_cancelled, drop_pending_cancellation
from kassette_io.storage import SessionStorage
from kassette_io.typed import TypedValue, annotated_value, typed_value

T = TypeVar("T")

OnReplay = Callable[[T], object]
"""Called with a replayed result, before the step returns; may be sync or async."""

_REPLAYS_PER_CHECKPOINT: Final = 64


@final
class Run:
    """An open session. Made by ``start``, ``resume`` and ``fork``; never directly.

    Close it: ``complete``, ``fail`` or ``aclose``, or use it with ``async with``, which closes it
    without ending the run. A session left open keeps the run's lock until it is collected.
    """

    def __init__(self, machine: Machine, storage: SessionStorage) -> None:
        self._machine = machine
        self._storage = storage
        self._replays = 0
        self._released = Event()

    def __repr__(self) -> str:
        machine = self._machine
        return f"<Run {machine.run_id!r} session {machine.session} {machine.state.value}>"

    @property
    def run_id(self) -> str:
        """The run's id, the same in every session."""
        return self._machine.run_id

    @property
    def session(self) -> int:
        """The number of this session."""
        return self._machine.session

    @property
    def metadata(self) -> Any:
        """What the first ``start`` was given as metadata, decoded anew; None if nothing was."""
        return self._machine.metadata

    @property
    def waiting_for(self) -> str | None:
        """The event that this session has suspended on, or is about to; None if it has not."""
        return self._machine.waiting_for

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._machine.state

    @property
    def lost_to(self) -> BaseException | None:
        """The error that took the session away (a fence, a failed disk); None if none did."""
        return self._machine.lost_to

    @overload
    async def record(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        on_replay: OnReplay[T] | None = None,
        result_type: type[T] | None = None,
    ) -> T: ...

    @overload
    async def record(
        self,
        name: str,
        fn: Callable[..., T],
        *args: Any,
        on_replay: OnReplay[T] | None = None,
        result_type: type[T] | None = None,
    ) -> T: ...

    def record(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        """Give the recorded result of this step, or run ``fn(*args)`` and record what it returns.

        ``name`` is non-empty and holds no ``#``; the *n*-th call of a name is the step ``name#n``.
        ``fn`` may be sync (it runs in the event loop) or async. ``on_replay`` is called with a
        replayed result before it is returned. What is returned is what the journal holds (D3),
        rebuilt as ``result_type`` or as ``fn``'s return annotation where that is not plain JSON.

        Raises whatever ``fn`` raises (nothing is recorded then), UsageError for a bad name or a
        result that JSON cannot hold, ReplayMismatchError, FencedError, StorageError,
        SuspendedError, SessionClosedError.
        """
        return self.record_at((), name, fn, args, on_replay=on_replay, result_type=result_type)

    async def record_at(
        self,
        path: BranchPath,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any = None,
        retry: Retry | None = None,
    ) -> Any:
        """Do as ``record`` on branch ``path``; ``retry`` repeats failed calls of ``fn`` (D13)."""
        if result_type is None and callable(fn):
            typed = annotated_value(fn, "return")
        else:
            typed = self._typed(name, fn, result_type)
        match self._handle(Record(name, path))[0]:
            case Replay(entry=entry):
                result = self._value_of(entry, typed)
                if on_replay is not None:
                    shown = on_replay(result)
                    if inspect.isawaitable(shown):
                        await shown
                self._replays += 1
                if self._replays % _REPLAYS_PER_CHECKPOINT == 0:
                    await checkpoint()
                return result
            case RunStep(step_id=step_id):
                return await self._run_step(step_id, fn, args, typed, retry)
            case other:  # pragma: no cover - the machine answers Record with one of the two
                raise AssertionError(other)

    def _typed(self, name: str, fn: Callable[..., Any], result_type: Any) -> TypedValue[Any] | None:
        if not callable(fn):
            if inspect.iscoroutine(fn):
                fn.close()
                raise UsageError(
                    f"step {name!r} was given a coroutine, which can run only once; pass the "
                    "function and its arguments: record(name, fn, *args)",
                    run_id=self.run_id,
                )
            raise UsageError(
                f"step {name!r} was given {fn!r}, which is not a function", run_id=self.run_id
            )
        if result_type is None:
            return annotated_value(fn, "return")
        with naming_run(self.run_id):
            return typed_value(result_type)

    async def _run_step(
        self,
        step_id: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        typed: TypedValue[Any] | None,
        retry: Retry | None,
    ) -> Any:
        try:
            await checkpoint_if_cancelled()
            if retry is not None:
                result = await _call_with_retries(retry, fn, args)
            else:
                result = fn(*args)
                if inspect.isawaitable(result):
                    result = await result
            if typed is not None:
                with naming_run(self.run_id):
                    result = typed.to_plain(result, f"the result of step {step_id!r}")
            effects = self._handle(StepSucceeded(step_id, result))
        except BaseException as error:
            await self._report_failure(StepFailed(step_id), error)
            raise
        settled = cast("Return", await self._do(effects))
        return settled.result if typed is None else self._value_of(settled.entry, typed)

    def _value_of(self, entry: StepEntry, typed: TypedValue[Any] | None) -> Any:
        if typed is None:
            return entry.result
        with naming_run(self.run_id):
            return typed.rebuild(entry.result_json, f"the result of step {entry.step_id!r}")

    async def wait_for_event(
        self, name: str, *, timeout: float | None = None, reason: str | None = None
    ) -> Any:
        """Give the event's payload if it has arrived; suspend the session if not.

        ``timeout`` is in seconds from now; when it has passed, the next ``start`` or ``resume``
        cancels the run. A wait reached again in a later session keeps its first deadline.
        ``reason`` is a note for people. Every wait of a run needs a name of its own.

        Raises SuspendError, which must escape; UsageError for a bad or reused name.
        """
        return await self.wait_at((), name, timeout, reason, None)

    async def wait_at(
        self,
        path: BranchPath,
        name: str,
        timeout: float | None,
        reason: str | None,
        typed: TypedValue[Any] | None,
    ) -> Any:
        """Do as ``wait_for_event`` on branch ``path``."""
        effects = self._handle(WaitForEvent(name, timeout, reason, path))
        resume = cast("Deliver", await self._do(effects)).entry
        if typed is None:
            return resume.value
        with naming_run(self.run_id):
            return typed.rebuild(resume.value_json, f"the value of event {name!r}")

    def enter_parallel(self, keys: tuple[str, ...], path: BranchPath) -> None:
        """Begin a parallel block with one branch for every key."""
        self._handle(EnterParallel(keys, path))

    async def leave_parallel(
        self, keys: tuple[str, ...], path: BranchPath, *, abandoned: bool
    ) -> None:
        """End a parallel block. Raises SuspendError if one of its branches has suspended."""
        await self._report(LeaveParallel(keys, path, abandoned), failing=abandoned)

    async def complete(self) -> None:
        """End the run well, and the session with it.

        Raises SuspendedError after a suspension, SessionClosedError after any other end,
        FencedError or StorageError if it could not be written.
        """
        await self._end(Complete())

    async def fail(self, error: BaseException) -> None:
        """End the run with ``error``, written as its type's name, message and traceback.

        Raises as ``complete`` does.
        """
        from traceback import format_exception

        try:
            message = str(error)
        except Exception:  # its own __str__ is broken; the failure is still worth its entry
            message = "(no message: str() of the error failed)"
        stack = "".join(format_exception(error))
        await self._end(Fail(message, type(error).__name__, stack))

    async def _end(self, command: Complete | Fail) -> None:
        await checkpoint_if_cancelled()
        await self._do(self._handle(command))

    async def aclose(self) -> None:
        """Close the session without ending the run, which stays as its journal says.

        Appends nothing; a later ``start`` goes on. Does nothing on a session that has ended.
        """
        if not self._machine.ended:
            await self._report(Close())

    async def suspended(self) -> str:
        """Wait until the ``suspend`` entries of a session that waits are durable; give the event.

        They come last, once every step that is still running has settled (D7). Raises what took
        the session away if they could not be written.
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
        """Close the session because of ``error``; a coroutine that is being closed cannot wait."""
        if error is None:
            await self.aclose()
        elif not self._machine.ended:
            await self._report_failure(Close(), error)

    def __del__(self) -> None:
        if self._machine.ended or self._machine.state is State.NEW:
            return
        if not sys.is_finalizing():  # a process that ends gives up its locks by itself
            self._storage.abandon(self.run_id, self._machine.session)
        warnings.warn(
            f"{self!r} was never closed; use `async with`, or call complete(), fail() or aclose()",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    # --- the driver ------------------------------------------------------------------------

    async def open(self, command: Start | Resume) -> None:
        """Open the session; what is held is released if that fails or is cancelled."""
        try:
            await self._do(self._handle(command))
        except BaseException as error:
            await self.close_after(error)
            raise

    def _handle(self, command: Command) -> list[Effect]:
        return self._machine.handle(command, now=_clock.now())

    async def _report(self, command: Command, *, failing: bool = False) -> None:
        """Tell the machine, and do what it answers even while being cancelled.

        ``failing`` says that an error is on its way out, before which a later cancellation yields.
        """
        effects = self._handle(command)
        if not effects:
            return
        try:
            with CancelScope(shield=True):
                await self._perform(effects)
        except SuspendError:
            failing = True
            raise
        finally:
            if failing:
                await drop_pending_cancellation()
        await checkpoint_if_cancelled()

    async def _report_failure(self, command: Command, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            self._let_go(command)
        else:
            await self._report(command, failing=True)

    def _let_go(self, command: Command) -> None:
        """Tell the machine, and release without waiting: nobody drives this coroutine any more."""
        if any(isinstance(effect, Release) for effect in self._handle(command)):
            self._storage.abandon(self.run_id, self._machine.session)

    async def _do(self, effects: list[Effect]) -> Return | Deliver | None:
        """Perform ``effects``, then feel a cancellation that waited, inside of what asked for it.

        A suspension goes first: the run has suspended, whoever gave up waiting meanwhile.
        """
        try:
            given = await self._perform(effects)
        except SuspendError:
            await drop_pending_cancellation()
            raise
        except Exception:
            await checkpoint_if_cancelled()
            raise
        await checkpoint_if_cancelled()
        return given

    async def _perform(self, effects: list[Effect]) -> Return | Deliver | None:
        given: Return | Deliver | None = None
        waiting = list(reversed(effects))
        while waiting:
            match waiting.pop():
                case Append(entry=entry):
                    try:
                        offset = await self._storage.append(self.run_id, entry)
                    except BaseException as error:
                        await self._report_failure(AppendFailed(entry, error), error)
                        raise
                    waiting.extend(reversed(self._handle(Appended(entry, offset))))
                case Return() | Deliver() as answer:
                    given = answer
                case Release():
                    await self._storage.release(self.run_id, self._machine.session)
                    self._released.set()
                case Raise(error=error):
                    raise error
                case Reload():
                    waiting.extend(reversed(await self._reload()))
                case Opened():
                    pass
                case RunStep() | Replay():  # pragma: no cover - answers to Record alone
                    raise AssertionError("a step outside record")
        return given

    async def _reload(self) -> list[Effect]:
        try:
            with naming_run(self.run_id):
                entries = await self._storage.read_all(self.run_id)
        except BaseException as error:
            await self._report_failure(LoadFailed(error), error)
            raise
        return self._handle(Loaded(entries))


async def _call_with_retries(retry: Retry, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    attempt = 1
    while True:
        try:
            result = fn(*args)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            delay = retry.delay_after(attempt, error)
            if delay is None:
                raise
        await sleep(delay)
        attempt += 1
