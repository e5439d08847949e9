"""How a step's function is called: its context, its time limit, and what a late answer counts for."""

from __future__ import annotations

import contextvars
import gc
import weakref
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint

from kassette_io import (
    BatchStorage,
    Context,
    Entry,
    Failed,
    LocalStorage,
    MemoryStorage,
    Retry,
    RunCancelledError,
    Success,
    Suspended,
    SuspendError,
    UsageError,
    WriteContentionError,
    resume,
    start,
    workflow,
)
from tests.io.storages import Delegating, World
from tests.io.stories import RUN, Clock, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="the workflow")


@pytest.mark.parametrize("beside", [False, True])
async def test_what_a_step_sets_in_its_context_is_gone_when_it_returns(
    world: World, beside: bool
) -> None:
    """If it fails, a workflow sees a variable on its first run that it does not see on replay."""
    seen: list[str] = []

    async def sets() -> str:
        await checkpoint()
        WHO.set("the step")
        await checkpoint()
        return WHO.get()

    def sets_at_once() -> str:
        WHO.set("the sync step")
        return WHO.get()

    async def takes(ctx: Context) -> None:
        assert await ctx.step("a", sets) == "the step"
        seen.append(WHO.get())
        assert await ctx.step("b", sets_at_once) == "the sync step"
        seen.append(WHO.get())

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        if beside:
            async with create_task_group() as group:
                group.start_soon(takes, ctx)
        else:
            await takes(ctx)
        await ctx.suspend("ok")

    await flow.start(run_id=RUN)
    await flow.resume(RUN, "ok", None)
    assert seen == ["the workflow"] * 4


async def test_a_step_sees_the_context_of_its_caller(world: World) -> None:
    """If it fails, a tracer loses the span around a step."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[str]:
        token = WHO.set("the caller")
        try:
            return [await ctx.step("a", WHO.get), await ctx.step("b", later)]
        finally:
            WHO.reset(token)

    async def later() -> str:
        await checkpoint()
        return WHO.get()

    assert await flow.start(run_id=RUN) == Success(["the caller"] * 2, RUN)


@pytest.mark.parametrize("beside", [False, True])
async def test_a_time_limit_bounds_every_attempt(world: World, beside: bool) -> None:
    """If it fails, a call that hangs hangs the run, or the second attempt has no time left."""
    attempts: list[str] = []

    async def hangs_once() -> str:
        attempts.append("begun")
        if len(attempts) == 1:
            await anyio.sleep_forever()
        return "in time"

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        results: list[str] = []

        async def take() -> None:
            retry = Retry(2, delay=0)
            results.append(await ctx.step("a", hangs_once, retry=retry, timeout=1e-6))

        if beside:
            async with create_task_group() as group:
                group.start_soon(take)
        else:
            await take()
        return results

    assert await flow.start(run_id=RUN) == Success(["in time"], RUN)
    assert attempts == ["begun", "begun"]


async def test_a_step_that_takes_too_long_says_so(world: World) -> None:
    """If it fails, a timeout looks like a cancellation, and the run is never settled."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.step("slow", anyio.sleep_forever, timeout=1e-6)

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TimeoutError)
    assert str(outcome.error) == "an attempt of step 'slow' took longer than 1e-06 s"
    assert await journal_types(world.open()) == ["start", "error"]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "3", 1e12])
async def test_a_time_limit_that_is_no_duration_is_refused(
    memory: MemoryStorage, timeout: Any
) -> None:
    """If it fails, a mistyped limit is no limit."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        await ctx.step("a", lambda: 1, timeout=timeout)

    with pytest.raises(UsageError, match="a duration"):
        await flow.start(run_id=RUN)


# --- an answer that came in time ------------------------------------------------------------------------


def two_questions(storage: Any, busy: Event, go: Event) -> Any:
    @workflow(storage=storage)
    async def flow(ctx: Context) -> dict[str, Any]:
        async def first(branch: Context) -> Any:
            answer = await branch.suspend("first", timeout=3600)
            await branch.step("work", work)
            return answer

        async def second(branch: Context) -> Any:
            return await branch.suspend("second", timeout=60)

        async def work() -> None:
            busy.set()
            await go.wait()

        return await ctx.parallel({"a": first, "b": second})

    return flow


async def test_an_answer_refused_as_busy_counts_from_when_it_was_first_given(
    local: LocalStorage, clock: Clock
) -> None:
    """If it fails, a person who answered in time is told that it was too late, and the run is
    cancelled, because another answer was being worked on.
    """
    busy, go = Event(), Event()
    flow = two_questions(local, busy, go)
    await flow.start(run_id=RUN)
    async with create_task_group() as group:
        group.start_soon(flow.resume, RUN, "first", 1)
        await busy.wait()
        with pytest.raises(WriteContentionError):
            await flow.resume(RUN, "second", 2)
        clock.forward(61)
        go.set()
    assert await flow.resume(RUN, "second", 2) == Success({"a": 1, "b": 2}, RUN)


@pytest.mark.parametrize("seconds", [59, 61])
async def test_the_instant_of_the_answer_decides(
    memory: MemoryStorage, clock: Clock, seconds: int
) -> None:
    """If it fails, a dispatcher that keeps answers in a queue cannot deliver them."""
    go = Event()
    go.set()
    flow = two_questions(memory, Event(), go)
    await flow.start(run_id=RUN)
    given_at = clock.now() + timedelta(seconds=seconds)
    clock.forward(120)
    if seconds < 60:
        outcome = await flow.resume(RUN, "second", 2, given_at=given_at)
        assert outcome == Suspended("first", RUN)
    else:
        with pytest.raises(RunCancelledError):
            await flow.resume(RUN, "second", 2, given_at=given_at)


async def test_another_value_is_another_answer(local: LocalStorage, clock: Clock) -> None:
    """If it fails, an answer that came too late passes for one that came in time."""
    busy, go = Event(), Event()
    flow = two_questions(local, busy, go)
    await flow.start(run_id=RUN)
    async with create_task_group() as group:
        group.start_soon(flow.resume, RUN, "first", 1)
        await busy.wait()
        with pytest.raises(WriteContentionError):
            await flow.resume(RUN, "second", 2)
        clock.forward(61)
        go.set()
    with pytest.raises(RunCancelledError):
        await flow.resume(RUN, "second", 3)


async def test_an_answer_cannot_be_given_without_a_zone_or_in_the_future(
    memory: MemoryStorage, clock: Clock
) -> None:
    """If it fails, a clock that is ahead lets an answer through that came too late."""
    go = Event()
    flow = two_questions(memory, Event(), go)
    await flow.start(run_id=RUN)
    with pytest.raises(UsageError, match="naive"):
        await resume(memory, RUN, "second", 2, given_at=clock.now().replace(tzinfo=None))
    clock.forward(61)
    with pytest.raises(RunCancelledError):
        await resume(memory, RUN, "second", 2, given_at=clock.now() + timedelta(days=1))


# --- many waits ------------------------------------------------------------------------------------------


class Counting(Delegating):
    """Counts the appends, and the entries that they append together."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.appends: list[int] = []

    async def append(self, run_id: str, entry: Entry) -> int:
        self.appends.append(1)
        return await super().append(run_id, entry)

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        self.appends.append(len(entries))
        assert isinstance(self.inner, BatchStorage)
        return await self.inner.append_all(run_id, entries)


@pytest.mark.parametrize("plain", [False, True])
async def test_many_waits_are_one_append_and_an_answer_costs_the_same_however_many_there_are(
    tmp_path: Any, plain: bool, anyio_backend_name: str
) -> None:
    """If it fails, a run that asks two hundred people writes twenty thousand entries."""
    count = 200 if plain and anyio_backend_name == "asyncio" else 50
    storage = Counting(LocalStorage(tmp_path / "journals"))

    @workflow(storage=storage)
    async def flow(ctx: Context) -> int:
        answers: list[Any] = []

        async def ask(number: int, own: Context) -> None:
            answers.append(await own.suspend(f"ok {number}"))

        if plain:
            async with create_task_group() as group:
                for number in range(count):
                    group.start_soon(ask, number, ctx)
        else:
            await ctx.parallel({str(number): partial(ask, number) for number in range(count)})
        return sum(answers)

    outcome: Any = await flow.start(run_id=RUN)
    assert isinstance(outcome, Suspended)
    assert storage.appends == [1, count]
    for number in range(count):
        storage.appends.clear()
        outcome = await flow.resume(RUN, f"ok {number}", number)
        assert storage.appends == [1, 1, 1]
    assert outcome == Success(sum(range(count)), RUN)


# --- what stays behind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["suspends", "fails"])
async def test_a_run_that_ended_in_a_block_is_freed_without_the_collector(
    memory: MemoryStorage, end: str
) -> None:
    """If it fails, a worker that drives many runs grows until the collector happens to come by."""
    kept: list[weakref.ref[Any]] = []

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        kept.append(weakref.ref(ctx._run))

        async def branch(own: Context) -> None:
            if end == "fails":
                raise ValueError("no")
            await own.suspend("ok")

        await ctx.parallel({"x": branch, "y": branch} if end == "fails" else {"x": branch})

    gc.collect()
    gc.disable()
    try:
        outcome: Any = await flow.start(run_id=RUN)
        assert isinstance(outcome, (Failed, Suspended))
        del outcome
        await checkpoint()
        assert kept[0]() is None
    finally:
        gc.enable()


async def test_a_suspended_plain_session_is_no_burden_on_its_steps(world: World) -> None:
    """If it fails, a step that was under way in another task is lost when a session suspends."""
    work = Ledger()
    begun, go = Event(), Event()

    async def slow() -> str:
        begun.set()
        await go.wait()
        return str(work.note("slow", "done"))

    async with await start(world.open(), RUN) as run, create_task_group() as group:
        group.start_soon(run.record, "slow", slow)
        await begun.wait()
        with pytest.raises(SuspendError):
            await run.wait_for_event("ok")
        go.set()
    assert await journal_steps(world.open()) == {"slow": "done"}
