"""What a workflow function works with: steps, waits, sleeps and parallel branches of its run.

Rules:
- Steps of a branch belong to the branch's own context (D8). Calling the surrounding context from
  inside a branch is refused: what runs beside it would shift its numbering.
- A parallel block waits for every branch (``branches`` says what becomes of it).
- A step goes on when its task is cancelled because a sibling has suspended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, final, overload

from anyio import create_task_group, sleep

from kassette import (
    BranchPath,
    Retry,
    SuspendError,
    UsageError,
    format_timestamp,
    parse_timestamp,
)
from kassette.brief import brief
from kassette.errors import naming_run
from kassette.naming import check_branch_key, check_event_name
from kassette.timestamps import Timeout, after
from kassette_io import _clock
from kassette_io.attempts import Attempt, Begin, Recorded
from kassette_io.branches import Block, check_branches
from kassette_io.calling import CURRENT, Call
from kassette_io.run import OnReplay, Run
from kassette_io.streaming import MAX_BYTES, Form, Stream
from kassette_io.typed import TypedValue, ValueCodec

T = TypeVar("T")
Events = Callable[[str], TypedValue | None]


@final
class Context:
    """The durable side of one workflow function, or of one branch of it.

    ``run_id`` is the same in every session; ``input`` is what ``start`` was first given.
    """

    def __init__(self, run: Run, input: Any, events: Events, path: BranchPath = ()) -> None:
        self.input = input
        self._run = run
        self._events = events
        self._path = path

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.run_id

    @overload
    async def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_replay: OnReplay[T] | None = None,
        result_type: type[T] | ValueCodec[T] | None = None,
        interchangeable: bool = False,
    ) -> T: ...

    @overload
    async def step(
        self,
        name: str,
        fn: Callable[..., T],
        *args: Any,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_replay: OnReplay[T] | None = None,
        result_type: type[T] | ValueCodec[T] | None = None,
        interchangeable: bool = False,
    ) -> T: ...

    @overload
    async def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any,
        interchangeable: bool = False,
    ) -> Any: ...

    async def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_replay: OnReplay[Any] | None = None,
        result_type: Any = None,
        interchangeable: bool = False,
    ) -> Any:
        """Return the recorded result of this step, or run ``fn(*args)`` and record what it returns.

        Does as ``Run.record``, in this branch. With ``retry``, failed attempts are repeated in
        memory; only the result of the one that succeeds is journaled (D13), and if none does, the
        last error is raised and the step may be tried again. ``timeout``, in seconds, bounds each
        attempt of an async function: one that takes longer is cancelled and raises TimeoutError.

        Raises as ``Run.record`` does, and UsageError for the context of another branch or a timeout
        that is no duration.
        """
        self._check_branch()
        if timeout is not None:
            with naming_run(self.run_id):
                after(_clock.now(), timeout)
        if retry is not None and type(retry) is not Retry:
            raise UsageError(
                f"step {brief(name)} was given retry={brief(retry)}; pass a Retry, as in "
                "retry=Retry(3)",
                run_id=self.run_id,
            )
        return await self._run.record_at(
            self._path,
            name,
            Call(fn, args, retry, timeout),
            on_replay=on_replay,
            result_type=result_type,
            interchangeable=interchangeable,
        )

    async def begin(
        self, name: str, *, result_type: Any = None, interchangeable: bool = False
    ) -> Recorded | Attempt:
        """Begin a step whose work is no function to call: a stream, a transport, a callback.

        Returns ``Recorded`` with the result if the journal has it. If not, returns an open
        ``Attempt``: do the work inside of ``async with attempt:`` and end it with
        ``await attempt.succeed(value)``. A block that is left without it, or by an exception, has
        failed, and nothing is recorded. ``result_type`` and ``interchangeable`` are those of
        ``step``.

        Unlike a step's function, the work is cancelled with its task when a sibling suspends.

        Raises as ``step`` does.
        """
        self._check_branch()
        return await self._run.begin_at(self._path, name, result_type, interchangeable)

    def stream(
        self,
        name: str,
        source: Callable[..., Any],
        *args: Any,
        fold: Callable[[list[Any]], Any] | None = None,
        unfold: Callable[[Any], Iterable[Any]] | None = None,
        item_type: Any = None,
        result_type: Any = None,
        max_bytes: int = MAX_BYTES,
        begin: Begin | None = None,
    ) -> Stream:
        """Record a step whose result comes item by item, and hand every item on as it comes.

        ``async with ctx.stream("llm", ask) as items:`` gives an async iterator over the items of
        ``source(*args)``, which is (or awaits to, or opens as an async context manager) an async
        iterable. They are recorded when the block is left in peace: what was not taken by then is
        read first. On replay the same items come again. A block that is left by an exception or a
        cancellation records nothing, and neither does one whose source has failed.

        Items are JSON, or what ``item_type`` declares. ``fold`` makes the recorded value of them,
        as ``result_type`` declares it, ``unfold`` makes items of that again. ``items.result`` is
        what was recorded. At most ``max_bytes`` of items are held.
        ``begin`` is for contexts that stand for this one.

        Raises as ``step`` does when it is entered and left, whatever ``source`` raises, and
        StreamTooLargeError.
        """
        self._check_branch()
        return Stream(
            partial(self.begin, name) if begin is None else begin,
            name,
            partial(source, *args),
            Form(fold, unfold, item_type, result_type, max_bytes),
            self.run_id,
        )

    async def suspend(
        self, event_name: str, *, timeout: Timeout | None = None, reason: str | None = None
    ) -> Any:
        """Give the event's payload if it has arrived; suspend the run if not.

        Does as ``Run.wait_for_event``; the payload is rebuilt as the type that ``events`` declares.
        Event names are not prefixed with the branch: they are what ``resume`` is called with.

        Raises SuspendError, which must escape; UsageError for a bad or reused name, a timeout that
        names no instant, an empty reason.
        """
        self._check_branch()
        with naming_run(self.run_id):
            name = check_event_name(event_name)
        return await self._run.wait_at(self._path, name, timeout, reason, self._events(name))

    async def sleep(self, seconds: float) -> None:
        """Wait until ``seconds`` after the first time this was reached, across crashes.

        Never longer than ``seconds``, whatever became of the clock meanwhile.

        The wake time is journaled as the step ``delay:{milliseconds}ms`` (D13). For waits that may
        outlive the process, suspend with a timeout and let a timer resume the run.

        Raises UsageError for a number that is no duration.
        """
        with naming_run(self.run_id):
            wake = after(_clock.now(), seconds)
        name = f"delay:{round(seconds * 1000)}ms"
        recorded = await self.step(
            name, format_timestamp, wake, result_type=Any, interchangeable=True
        )
        remaining = (_instant(recorded) - _clock.now()).total_seconds()
        await sleep(min(max(remaining, 0), seconds))

    async def parallel(
        self, branches: Mapping[str, Callable[[Context], Awaitable[T]]]
    ) -> dict[str, T]:
        """Run every branch at once, each with a context of its own; give their results by key.

        Steps of branch ``x`` are named ``x:<name>``. Keys are non-empty and hold neither ``#`` nor
        ``:``. All branches are waited for. If one has suspended, the block suspends; otherwise the
        error of the first failed branch in the order of the keys is raised, with the others noted
        on it.

        Raises SuspendError, a branch's own error, UsageError for a bad key, or for what is no async
        function.
        """
        self._check_branch()
        with naming_run(self.run_id):
            check_branches(branches)
            keys = tuple(map(check_branch_key, branches))
        run, path = self._run, self._path
        run.enter_parallel(keys, path)
        block = Block(run)

        async def perform(key: str, fn: Callable[[Context], Awaitable[T]]) -> None:
            own = (*path, key)
            context = Context(run, self.input, self._events, own)
            CURRENT.set(context)
            run.settle_branch(own)
            await block.perform(key, partial(fn, context))

        abandoned = True
        try:
            try:
                async with create_task_group() as group:
                    for key, fn in zip(keys, branches.values(), strict=True):
                        group.start_soon(perform, key, fn)
                abandoned = False
            except BaseExceptionGroup as group_error:
                raise _sole(group_error) from None
            finally:
                await self._leave(keys, block, abandoned=abandoned)
            failure = block.failure(keys)
            if failure is not None:
                raise failure
            return dict(zip(branches, map(block.results.__getitem__, keys), strict=True))
        finally:
            failure = None
            block.forget()

    async def _leave(self, keys: tuple[str, ...], block: Block, *, abandoned: bool) -> None:
        if not abandoned:
            block.note_missing(keys)
        try:
            await self._run.leave_parallel(keys, self._path, abandoned=abandoned)
        except SuspendError:
            if not block.has_mistake:
                raise

    def is_misplaced(self, other: Context) -> bool:
        """Return whether ``other`` is a context of the same run, and of another branch."""
        return other._run is self._run and other._path != self._path

    def _check_branch(self) -> None:
        current = current_context()
        if current is not None and current._path and current.is_misplaced(self):
            raise UsageError(
                f"branch {':'.join(current._path)!r} used the context of "
                f"{':'.join(self._path) or 'the workflow'!r}; use the context that the branch "
                "function is given, so that its steps get numbers of their own",
                run_id=self.run_id,
            )


def current_context() -> Context | None:
    """Return the context of the workflow that the current task works for.

    Inside of a branch it is the branch's; None inside of a step's function, where the run must not
    be used, and outside of any workflow. Tasks that the workflow starts have the workflow's.
    """
    context: Context | None = CURRENT.get()
    return context


def _instant(recorded: object) -> datetime:
    """Read a wake time: ISO 8601, or milliseconds since 1970 as JavaScript writes them."""
    if isinstance(recorded, (int, float)):
        return datetime.fromtimestamp(recorded / 1000, UTC)
    return parse_timestamp(str(recorded))


def _sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the only exception inside nested groups, or the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return error  # pyright: ignore[reportUnknownVariableType]
