"""Steps in flight when their caller is cancelled, and what a session does about them as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group
from anyio.lowlevel import checkpoint

from kassette import SuspendedRun, run_status
from kassette_io import (
    Context,
    Failed,
    LocalStorage,
    MemoryStorage,
    StepEntry,
    Success,
    Suspended,
    SuspendError,
    UsageError,
    resume,
    start,
    workflow,
)
from tests.io.stories import RUN, journal_types

pytestmark = pytest.mark.anyio
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Payment:
    """A call that can be paid for, and ends when it is let go."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.go = Event()

    async def __call__(self) -> str:
        self.said.append("called")
        await self.go.wait()
        self.said.append("paid")
        return "charged"


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await checkpoint()


# --- the caller is cancelled ------------------------------------------------------------------


@ASYNCIO
@pytest.mark.parametrize("how", ["group", "cancel"])
async def test_a_cancellation_in_the_turn_in_which_a_step_ends_is_felt_at_the_next_await(
    memory: MemoryStorage, how: str
) -> None:
    """If it fails, a tool goes on and pays although its sibling has failed."""
    paid: list[int] = []

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        found = asyncio.get_running_loop().create_future()

        async def look() -> str:
            await found
            return "looked"

        async def careful() -> None:
            await ctx.step("look", look)
            await ctx.step("charge", paid.append, 1)

        async def broken() -> None:
            await turns()
            found.set_result(None)
            await asyncio.sleep(0)
            if how == "cancel":
                task.cancel()
            else:
                raise ValueError("refused")

        async with asyncio.TaskGroup() as group:
            task = group.create_task(careful())
            group.create_task(broken())

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed if how == "group" else Success)
    assert paid == []
    assert (await journal_types(memory))[:2] == ["start", "step"]


@pytest.mark.parametrize("where", ["own task", "branch", "tool"])
async def test_r2_a_step_beside_a_tool_that_suspends_is_run_to_its_end_wherever_it_is_taken(
    memory: MemoryStorage, where: str
) -> None:
    """If it fails, what a model was paid for is asked and paid again after every approval."""
    pay = Payment()

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async def charge(own: Context) -> str:
            return await own.step("charge", pay)

        async def ask() -> None:
            await turns()
            pay.go.set()
            await ctx.suspend("go")

        async with create_task_group() as tools:
            tools.start_soon(ask)
            if where == "own task":
                await charge(ctx)
            elif where == "branch":
                await ctx.parallel({"a": charge})
            else:
                tools.start_soon(charge, ctx)
        return "ok"

    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_types(memory) == ["start", "step", "suspend"]
    assert await flow.resume(RUN, "go", True) == Success("ok", RUN)
    assert pay.said == ["called", "paid"]


async def test_r2_a_wait_in_a_block_of_a_tool_is_written_when_another_tool_suspends(
    memory: MemoryStorage,
) -> None:
    """If it fails, the answer to a question that was shown to somebody is refused."""
    pay, waits = Payment(), Event()

    @workflow(storage=memory)
    async def flow(ctx: Context) -> str:
        async def first(own: Context) -> None:
            waits.set()
            await own.suspend("A")

        async def slow(own: Context) -> None:
            await own.step("slow", pay)

        async def research() -> None:
            await ctx.parallel({"a": first, "b": slow})

        async def ask() -> None:
            await waits.wait()
            await turns()
            pay.go.set()
            await ctx.suspend("B")

        async with create_task_group() as tools:
            tools.start_soon(research)
            tools.start_soon(ask)
        return "ok"

    assert await flow.start(run_id=RUN) == Suspended("B", RUN)
    assert await journal_types(memory) == ["start", "step", "suspend", "suspend"]
    assert await flow.resume(RUN, "A", 1) == Suspended("B", RUN)
    assert await flow.resume(RUN, "B", 1) == Success("ok", RUN)
    assert pay.said == ["called", "paid"]


# --- the session ends -------------------------------------------------------------------------


async def test_d7_a_run_that_suspends_is_not_let_go_before_its_steps_have_ended(
    memory: MemoryStorage,
) -> None:
    """If it fails, a worker that is told to stop drops what was paid for, and the wait with it."""
    pay, ended, left = Payment(), Event(), Event()

    async with create_task_group() as outer:

        @workflow(storage=memory)
        async def flow(ctx: Context) -> None:
            async def charge() -> None:
                await ctx.step("charge", pay)

            outer.start_soon(charge)
            await turns()
            ended.set()
            await ctx.suspend("go")

        scope = CancelScope()

        async def drive() -> None:
            with scope:
                await flow.start(run_id=RUN)
                await checkpoint()
            left.set()

        outer.start_soon(drive)
        await ended.wait()
        await turns()
        scope.cancel()
        await turns()
        assert not left.is_set()
        pay.go.set()
        await left.wait()
    assert await journal_types(memory) == ["start", "step", "suspend"]
    assert pay.said == ["called", "paid"]


@ASYNCIO
async def test_d7_nor_by_a_native_cancellation(memory: MemoryStorage) -> None:
    """If it fails, the same is lost to `Task.cancel`, which a web server stops its handlers with."""
    pay, ended = Payment(), Event()

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        async def ask() -> None:
            await turns()
            await ctx.suspend("go")

        try:
            await asyncio.gather(ctx.step("charge", pay), ask())
        finally:
            ended.set()

    task = asyncio.create_task(flow.start(run_id=RUN))
    await ended.wait()
    await turns()
    task.cancel()
    await turns()
    assert not task.done()
    pay.go.set()
    await asyncio.wait([task])
    assert await journal_types(memory) == ["start", "step", "suspend"]
    assert pay.said == ["called", "paid"]


@ASYNCIO
async def test_d3_3_a_mistake_ends_the_session_when_what_is_in_flight_is_recorded(
    memory: MemoryStorage,
) -> None:
    """If it fails, a framework that tries its tools again pays for one of them at every start."""
    pay = Payment()

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        tries = 0

        async def fails() -> None:
            nonlocal tries
            tries += 1
            await turns(3)
            if tries == 1:
                raise KeyError("a tool")
            pay.go.set()

        for _ in range(2):
            try:
                return await asyncio.gather(ctx.step("pay", pay), fails())
            except KeyError:
                continue
        return None

    with pytest.raises(UsageError, match="called again before its first call had ended"):
        await flow.start(run_id=RUN)
    assert await journal_types(memory) == ["start", "step"]
    assert pay.said == ["called", "paid"]


@ASYNCIO
@pytest.mark.parametrize("closing", ["with", "aclose"])
async def test_d7_without_the_wrapper_a_session_that_suspends_ends_its_steps_first(
    memory: MemoryStorage, closing: str
) -> None:
    """If it fails, a paid result is lost and nobody can answer, as the run does not wait."""
    pay = Payment()

    async def both(run: Any) -> None:
        with pytest.raises(SuspendError):
            await asyncio.gather(run.record("charge", pay), run.wait_for_event("go"))
        asyncio.get_running_loop().call_soon(pay.go.set)

    if closing == "with":
        async with await start(memory, RUN) as run:
            await both(run)
    else:
        run = await start(memory, RUN)
        await both(run)
        await run.aclose()
    entries = await memory.read_all(RUN)
    assert [entry.type for entry in entries] == ["start", "step", "suspend"]
    assert run_status(entries) == SuspendedRun(waiting_for="go")
    assert pay.said == ["called", "paid"]


def test_d7_a_loop_that_ends_while_a_run_suspends_closes_its_session(tmp_path: Any) -> None:
    """If it fails, a program that is done with its loop leaves the run locked, and a warning."""
    begun = asyncio.Event()

    @workflow(storage=LocalStorage(tmp_path))
    async def flow(ctx: Context) -> None:
        async def ask() -> None:
            await turns()
            await ctx.suspend("go")

        try:
            await asyncio.gather(ctx.step("charge", anyio.sleep_forever), ask())
        finally:
            begun.set()

    async def main() -> None:
        task = asyncio.create_task(flow.start(run_id=RUN))
        await begun.wait()
        await turns()
        assert not task.done()

    asyncio.run(main())

    async def again() -> int:
        async with await start(LocalStorage(tmp_path), RUN) as run:
            return run.session

    assert asyncio.run(again()) == 2


# --- what two tools ask for -------------------------------------------------------------------


async def test_d7_an_event_that_two_tools_wait_for_is_refused_before_anybody_is_asked(
    memory: MemoryStorage,
) -> None:
    """If it fails, somebody approves, and the run refuses to go on with that for ever."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        async with create_task_group() as tools:
            tools.start_soon(ctx.suspend, "approval")
            tools.start_soon(ctx.suspend, "approval")

    with pytest.raises(UsageError, match="two waits have the event name 'approval'"):
        await flow.start(run_id=RUN)
    assert await journal_types(memory) == ["start"]


async def test_r1_two_tools_may_sleep_for_the_same_time(memory: MemoryStorage) -> None:
    """If it fails, polling in two tools is called a mistake in naming steps."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> str:
        async with create_task_group() as tools:
            tools.start_soon(ctx.sleep, 0.001)
            tools.start_soon(ctx.sleep, 0.001)
        return "slept"

    assert await flow.start(run_id=RUN) == Success("slept", RUN)
    entries = await memory.read_all(RUN)
    steps = sorted(entry.step_id for entry in entries if isinstance(entry, StepEntry))
    assert steps == ["delay:1ms", "delay:1ms#2"]


@pytest.mark.parametrize("times", [1, 3])
async def test_r1_interchangeable_calls_that_are_repeated_are_paid_for_as_often_as_they_are_wanted(
    memory: MemoryStorage, times: int
) -> None:
    """If it fails, a model is asked once more after every suspension."""
    paid: list[int] = []
    asked = 0

    async def call() -> str:
        nonlocal asked
        asked += 1
        me = asked
        await turns(me)
        if me <= times:
            raise ConnectionError
        paid.append(me)
        return "said"

    @workflow(storage=memory)
    async def flow(ctx: Context) -> list[str]:
        answers: list[str] = []

        async def tool() -> None:
            while True:
                try:
                    answers.append(await ctx.step("llm", call, interchangeable=True))
                    return
                except ConnectionError:
                    continue

        async with create_task_group() as tools:
            tools.start_soon(tool)
            tools.start_soon(tool)
        await ctx.suspend("go")
        return answers

    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await flow.resume(RUN, "go", 1) == Success(["said", "said"], RUN)
    assert len(paid) == 2


# --- misuse -----------------------------------------------------------------------------------


async def not_a_branch() -> None:
    raise AssertionError("nobody calls it")


MISUSE: dict[str, tuple[Callable[[Context], Awaitable[Any]], str]] = {
    "a number of attempts": (
        lambda ctx: ctx.step("a", not_a_branch, retry=3),  # type: ignore[call-overload]
        r"step 'a' got retry=3; pass a Retry",
    ),
    "no branches": (
        lambda ctx: ctx.parallel(None),  # type: ignore[arg-type]
        "parallel got None; pass a dict",
    ),
    "a list of branches": (
        lambda ctx: ctx.parallel([not_a_branch]),  # type: ignore[arg-type]
        "pass a dict of branch keys",
    ),
    "no function": (
        lambda ctx: ctx.parallel({"b": not_a_branch, "a": None}),  # type: ignore[dict-item]
        "branch 'a' is None, which is not a function",
    ),
    "a coroutine": (
        lambda ctx: ctx.parallel({"a": not_a_branch()}),  # type: ignore[dict-item]
        "branch 'a' is a coroutine; pass the async function",
    ),
    "a sync function": (
        lambda ctx: ctx.parallel({"a": lambda _: 5}),  # type: ignore[dict-item, return-value]
        "branch 'a' returned 5, not an awaitable; declare it with `async def`",
    ),
}


@pytest.mark.parametrize(("misuse", "said"), MISUSE.values(), ids=MISUSE)
async def test_misuse_leaves_the_run_open(
    memory: MemoryStorage, misuse: Callable[[Context], Awaitable[Any]], said: str
) -> None:
    """If it fails, a slip of the pen burns a run that is half done, as its failure."""
    mended = False

    @workflow(storage=memory)
    async def flow(ctx: Context) -> str:
        await ctx.step("paid", lambda: 1)
        if not mended:
            await misuse(ctx)
        return "ok"

    with pytest.raises(UsageError, match=said) as refused:
        await flow.start(run_id=RUN)
    assert refused.value.run_id == RUN
    mended = True
    assert await flow.start(run_id=RUN) == Success("ok", RUN)


async def test_misuse_an_instant_that_is_none(memory: MemoryStorage) -> None:
    """If it fails, a queue that hands on the text of an instant is answered with a traceback."""
    with pytest.raises(UsageError, match="given_at must be an aware datetime, not '2026'"):
        await resume(memory, RUN, "go", 1, given_at="2026")  # type: ignore[arg-type]


@ASYNCIO
async def test_a_task_that_was_cancelled_before_can_tell_a_stray_cancellation(
    memory: MemoryStorage,
) -> None:
    """If it fails, the second run in a task ends with a cancellation that nobody has asked for."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def drive() -> Any:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            return await flow.start(run_id=RUN)

    task = asyncio.create_task(drive())
    await turns()
    task.cancel()
    outcome = await task
    assert isinstance(outcome, Failed)
    assert "was cancelled, but the workflow itself was not" in str(outcome.error)


@ASYNCIO
async def test_a_branch_whose_future_was_cancelled_has_failed(memory: MemoryStorage) -> None:
    """If it fails, a workflow goes on without the result of a branch, or ends in a KeyError."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async def awaits(own: Context) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async def works(own: Context) -> int:
            return await own.step("works", lambda: 1)

        return await ctx.parallel({"awaits": awaits, "works": works})

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert "was cancelled, but branch 'awaits' itself was not" in str(outcome.error)
    assert await journal_types(memory) == ["start", "step", "error"]
