"""The context of a workflow function: steps, waits, sleeps and parallel branches of its run.

Rules:
- Steps of a branch belong to the branch's own context. Using the outer context inside a branch is
  refused: concurrent branches would shift its numbering.
- A parallel block waits for every branch (``branches`` decides its outcome).
- A step continues when its task is cancelled because a sibling has suspended.
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
    """The context of a workflow function, or of one branch of it.

    ``run_id`` is the same in every session; ``input`` is what was passed to the first ``start``.
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

        It works as ``Run.record`` does, in this branch. With ``retry``, failed attempts are retried
        in memory; only the result of the successful one is journaled. If none succeeds, the last
        error is raised and the step may be called again. ``timeout`` is the limit of each attempt
        of an async function, in seconds: an attempt that takes longer is cancelled and raises
        TimeoutError.

        Raise what ``Run.record`` raises, and UsageError for the context of another branch or an
        invalid timeout.
        """
        self._check_branch()
        if timeout is not None:
            with naming_run(self.run_id):
                after(_clock.now(), timeout)
        if retry is not None and type(retry) is not Retry:
            raise UsageError(
                f"step {brief(name)} got retry={brief(retry)}; pass a Retry, for example "
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
        """Begin a step whose work is not a function: a stream, a transport, a callback.

        Return ``Recorded`` with the result if the journal has it. Otherwise return an open
        ``Attempt``: do the work inside of ``async with attempt:`` and end it with
        ``await attempt.succeed(value)``. A block that ends without that, or with an exception, has
        failed, and nothing is recorded. ``result_type`` and ``interchangeable`` are those of
        ``step``.

        Unlike a step's function, the work is cancelled with its task when a sibling suspends.

        Raise what ``step`` raises.
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
        """Record a step whose result arrives item by item, and pass on each item immediately.

        ``async with ctx.stream("llm", ask) as items:`` yields an async iterator over the items of
        ``source(*args)``, which is (or awaits to, or opens as an async context manager) an async
        iterable. They are recorded when the block ends normally; remaining items are read first. On
        replay the same items are yielded again. A block that ends with an exception or a
        cancellation records nothing, and neither does one whose source has failed.

        Items are JSON, or of the type ``item_type``. ``fold`` turns the list of items into the
        value to record, of the type ``result_type``, and ``unfold`` turns that into items again.
        ``items.result`` is the recorded value. ``max_bytes`` limits the JSON of all items.
        ``begin`` is for contexts that wrap this one.

        Entering and leaving the block raise what ``step`` raises, whatever ``source`` raises, and
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
        """Return the event's payload if it has arrived; suspend the run if not.

        It works as ``Run.wait_for_event`` does; the payload is decoded as the type declared in
        ``events``. Event names get no branch prefix: pass the same name to ``resume``. ``timeout``
        is seconds or a timedelta from now, an aware datetime, or ISO 8601 text with its offset.

        Raise SuspendError, which must escape; UsageError for an invalid or reused name, an invalid
        timeout, or an empty reason.
        """
        self._check_branch()
        with naming_run(self.run_id):
            name = check_event_name(event_name)
        return await self._run.wait_at(self._path, name, timeout, reason, self._events(name))

    async def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, counted from the first time this call was reached.

        A crash does not restart the delay: the wake time is journaled as the step
        ``delay:{milliseconds}ms``. It never sleeps longer than ``seconds``, even if the clock was
        changed. For waits that may outlive the process, suspend with a timeout and let a timer
        resume the run.

        Raise UsageError for a negative or too large number of seconds.
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
        """Run all branches concurrently, each with its own context; return their results by key.

        Steps of branch ``x`` are named ``x:<name>``. Keys are non-empty and contain neither ``#``
        nor ``:``. The block waits for all branches. If one has suspended, the block suspends;
        otherwise the error of the first failed branch, in the order of the keys, is raised, with
        the others as notes.

        Raise SuspendError, a branch's own error, and UsageError for an invalid key or a value that
        is not an async function.
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
        """Return whether ``other`` is a context of the same run but of another branch."""
        return other._run is self._run and other._path != self._path

    def _check_branch(self) -> None:
        current = current_context()
        if current is not None and current._path and current.is_misplaced(self):
            raise UsageError(
                f"branch {':'.join(current._path)!r} used the context of "
                f"{':'.join(self._path) or 'the workflow'!r}; use the context that is passed to "
                "the branch's function, so that its steps are numbered separately",
                run_id=self.run_id,
            )


def current_context() -> Context | None:
    """Return the context of the workflow in which the current task runs, or None.

    Inside of a branch it is the branch's context. It is None inside of a step's function, where the
    run must not be used, and outside of any workflow. Tasks started by the workflow inherit it.
    """
    context: Context | None = CURRENT.get()
    return context


def _instant(recorded: object) -> datetime:
    """Parse a wake time: ISO 8601, or milliseconds since 1970 as JavaScript writes them."""
    if isinstance(recorded, (int, float)):
        return datetime.fromtimestamp(recorded / 1000, UTC)
    return parse_timestamp(str(recorded))


def _sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the only exception inside nested groups, or the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return error  # pyright: ignore[reportUnknownVariableType]
