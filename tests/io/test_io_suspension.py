"""D1: a suspension gets through everything that user code wraps around it, on either loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio

from kassette_io import (
    Context,
    EventPendingError,
    Failed,
    KassetteError,
    Success,
    Suspended,
    SuspendedError,
    SuspendedRun,
    SuspendError,
    UsageError,
    is_suspend_error,
    run_status,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


async def waits_then_answers(
    world: World, body: Callable[[Context], Awaitable[Any]], result: object
) -> None:
    """Run ``body`` to its suspension on ``ok``, answer 42, and see it return ``result``."""
    flow = workflow(body, storage=world.open())
    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    entries = await world.open().read_all(RUN)
    assert run_status(entries) == SuspendedRun(waiting_for="ok", timeout=None)
    assert await flow.resume(RUN, "ok", 42) == Success(result, RUN)


async def test_except_exception_lets_a_suspension_through(world: World) -> None:
    """If it fails, the ``except Exception`` around an agent's tools swallows its suspensions."""

    async def body(ctx: Context) -> Any:
        try:
            return await ctx.suspend("ok")
        except Exception:
            return "swallowed"

    await waits_then_answers(world, body, 42)


async def test_d1_except_kassette_error_catches_a_suspension(world: World) -> None:
    """If it fails, the one clause that is promised to catch all of kassette's errors does not."""
    caught: list[KassetteError] = []

    async def body(ctx: Context) -> Any:
        try:
            return await ctx.suspend("ok")
        except KassetteError as error:
            caught.append(error)
            raise

    await waits_then_answers(world, body, 42)
    assert [(type(error), error.run_id) for error in caught] == [(SuspendError, RUN)]


async def test_a_swallowed_suspension_still_suspends(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a bare ``except`` turns a wait into a finished run; or nobody is warned."""

    async def body(ctx: Context) -> str:
        try:
            await ctx.suspend("ok")
        except BaseException:
            return "made up"
        return "answered"

    with caplog.at_level(logging.WARNING, "kassette"):
        await waits_then_answers(world, body, "answered")
    assert [record.name for record in caplog.records] == ["kassette"]
    assert "raise it again" in caplog.text
    assert RUN in caplog.text
    assert "'ok'" in caplog.text


@pytest.mark.parametrize("late", ["step", "suspend", "sleep", "parallel"])
async def test_d1_after_a_swallowed_suspension_the_next_call_says_so(
    world: World, late: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, work is done after the run has suspended, and is done again on resuming."""
    work = Ledger()
    raised: list[BaseException] = []

    async def nothing(_: Context) -> None:
        work.note("branch")

    async def body(ctx: Context) -> str:
        try:
            await ctx.suspend("ok")
        except BaseException:
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "step": lambda: ctx.step("late", work.note, "step"),
                "suspend": lambda: ctx.suspend("other"),
                "sleep": lambda: ctx.sleep(0),
                "parallel": lambda: ctx.parallel({"x": nothing}),
            }
            try:
                await calls[late]()
            except SuspendedError as error:
                raised.append(error)
                raise
        return "answered"

    await waits_then_answers(world, body, "answered")
    assert work.done == []
    assert [type(error) for error in raised] == [SuspendedError]
    assert "swallowed" in caplog.text or "caught the SuspendError" in caplog.text
    assert await journal_types(world.open()) == ["start", "suspend", "start", "resume", "complete"]


async def test_d1_a_suspension_replaced_by_another_error_still_suspends(world: World) -> None:
    """If it fails, a ``finally`` that fails after a wait ends the run for good."""

    async def body(ctx: Context) -> Any:
        answered = False
        try:
            answer = await ctx.suspend("ok")
            answered = True
        finally:
            if not answered:
                raise ValueError("clean-up went wrong")
        return answer

    await waits_then_answers(world, body, 42)


async def test_d1_a_suspension_passes_through_a_step_that_waits(world: World) -> None:
    """If it fails, a wait inside a step is recorded as its result, or the step counts as failed."""
    work = Ledger()

    async def body(ctx: Context) -> Any:
        async def asks() -> Any:
            work.note("asks")
            return await ctx.suspend("ok")

        return await ctx.step("asks", asks)

    await waits_then_answers(world, body, 42)
    assert work.done == ["asks", "asks"]
    assert await journal_steps(world.open()) == {"asks": 42}


def in_anyio_group(ctx: Context, work: Ledger) -> Callable[[], Awaitable[Any]]:
    answers: dict[str, Any] = {}

    async def wait() -> None:
        answers["ok"] = await ctx.suspend("ok")

    async def run() -> Any:
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
        return answers["ok"]

    return run


def in_nested_anyio_groups(ctx: Context, work: Ledger) -> Callable[[], Awaitable[Any]]:
    async def run() -> Any:
        async with anyio.create_task_group() as outer:
            outer.start_soon(anyio.lowlevel.checkpoint)
            async with anyio.create_task_group() as inner:
                inner.start_soon(anyio.lowlevel.checkpoint)
                return await in_anyio_group(ctx, work)()

    return run


GROUPS = {"group": in_anyio_group, "nested groups": in_nested_anyio_groups}


@pytest.mark.parametrize("shape", GROUPS.values(), ids=GROUPS)
async def test_a_suspension_in_a_task_group_is_a_suspension(
    world: World, shape: Callable[[Context, Ledger], Callable[[], Awaitable[Any]]]
) -> None:
    """If it fails, the exception group around a suspension counts as the failure of the run."""

    async def body(ctx: Context) -> Any:
        return await shape(ctx, Ledger())()

    await waits_then_answers(world, body, 42)


async def test_d1_a_suspension_in_the_loops_own_groups_is_a_suspension(
    world: World, anyio_backend: str
) -> None:
    """If it fails, asyncio's TaskGroup or trio's nursery breaks suspending."""

    async def body(ctx: Context) -> Any:
        if anyio_backend == "asyncio":
            async with asyncio.TaskGroup() as outer:
                outer.create_task(asyncio.sleep(0))
                async with asyncio.TaskGroup() as inner:
                    task = inner.create_task(ctx.suspend("ok"))
            return task.result()
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await ctx.suspend("ok"))

        async with trio.open_nursery() as nursery, trio.open_nursery() as inner_nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            inner_nursery.start_soon(wait)
        return answers[0]

    await waits_then_answers(world, body, 42)


async def test_d1_work_beside_a_suspension_in_a_group_is_not_lost(world: World) -> None:
    """If it fails, a step that finished before its sibling suspended runs again on resuming."""
    work = Ledger()

    async def body(ctx: Context) -> Any:
        done = anyio.Event()
        answers: dict[str, Any] = {}

        async def paid() -> None:
            answers["paid"] = await ctx.step("paid", work.work, "paid", 7)
            done.set()

        async def wait() -> None:
            await done.wait()
            answers["ok"] = await ctx.suspend("ok")

        async with anyio.create_task_group() as group:
            group.start_soon(paid)
            group.start_soon(wait)
        return [answers["paid"], answers["ok"]]

    await waits_then_answers(world, body, [7, 42])
    assert work.done == ["paid"]


async def test_d1_a_group_that_also_holds_a_failure_suspends(world: World) -> None:
    """If it fails, a run that waits for an answer is ended by what broke beside the wait."""

    async def body(ctx: Context) -> Any:
        try:
            answer = await ctx.suspend("ok")
        except BaseException as suspension:
            raise BaseExceptionGroup("both", [suspension, ValueError("beside")]) from None
        return answer

    await waits_then_answers(world, body, 42)


async def test_d1_a_group_without_a_suspension_is_a_failure(world: World) -> None:
    """If it fails, any exception group counts as a suspension, and the failure is never seen."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ctx.step, "a", failing)

    async def failing() -> None:
        raise ValueError("no")

    match await flow.start(run_id=RUN):
        case Failed(error=ExceptionGroup(exceptions=(ValueError(),)) as error, run_id="run-1"):
            assert not is_suspend_error(error)
        case other:
            pytest.fail(f"unexpected {other!r}")
    assert await journal_types(world.open()) == ["start", "error"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_d1_gather_records_what_still_runs_and_suspends_last(world: World) -> None:
    """If it fails, a step that was under way when its sibling suspended is lost and paid twice."""
    work = Ledger()
    begun, go = asyncio.Event(), asyncio.Event()

    async def paid() -> str:
        begun.set()
        await go.wait()
        return str(work.note("paid", "paid"))

    async def body(ctx: Context) -> Any:
        async def wait() -> Any:
            await begun.wait()
            asyncio.get_running_loop().call_soon(go.set)
            return await ctx.suspend("ok")

        return list(await asyncio.gather(ctx.step("paid", paid), wait()))

    await waits_then_answers(world, body, ["paid", 42])
    assert work.done == ["paid"]
    types = await journal_types(world.open())
    assert types == ["start", "step", "suspend", "start", "resume", "complete"]


async def test_a_suspended_run_is_resumed_not_started(world: World) -> None:
    """If it fails, a dispatcher that delivers the job once more runs past the wait."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.suspend("ok", reason="a person must look")

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    with pytest.raises(EventPendingError):
        await flow.start(run_id=RUN)
    with pytest.raises(UsageError, match="is waiting for 'ok', not for 'other'"):
        await flow.resume(RUN, "other", 1)
    with pytest.raises(UsageError, match="there is no run 'nobody'"):
        await flow.resume("nobody", "ok", 1)
    assert await journal_types(world.open()) == ["start", "suspend"]
    assert await flow.resume(RUN, "ok", None) == Success(None, RUN)


async def test_a_resume_is_safe_to_repeat_and_the_first_value_wins(world: World) -> None:
    """If it fails, a redelivered answer overwrites the one that the run has acted upon."""
    work = Ledger()
    crash = True

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        answer = await ctx.suspend("ok")
        await ctx.step("act", work.note, "act")
        if crash:
            raise KeyboardInterrupt
        return answer

    await flow.start(run_id=RUN)
    with pytest.raises(KeyboardInterrupt):
        await flow.resume(RUN, "ok", "first")
    crash = False
    assert await flow.resume(RUN, "ok", "second") == Success("first", RUN)
    assert work.done == ["act"]
    types = await journal_types(world.open())
    assert types == ["start", "suspend", "start", "resume", "step", "start", "complete"]


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, 0.0])
async def test_d3_a_falsy_payload_is_a_payload(world: World, value: object) -> None:
    """If it fails, an answer of no, zero or nothing is taken for no answer, and the run waits."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[object]:
        return [await ctx.suspend("ok")]

    await flow.start(run_id=RUN)
    outcome = await flow.resume(RUN, "ok", value)
    assert outcome == Success([value], RUN)
    assert isinstance(outcome, Success)
    assert type(outcome.result[0]) is type(value)


async def test_an_event_name_serves_one_wait(world: World) -> None:
    """If it fails, a second wait of the same name gets the answer to another question."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        first = await ctx.suspend("ok")
        with pytest.raises(UsageError, match="two waits have the event name"):
            await ctx.suspend("ok")
        second = await ctx.suspend("ok:2")
        return [first, second]

    await flow.start(run_id=RUN)
    assert await flow.resume(RUN, "ok", 1) == Suspended("ok:2", RUN)
    assert await flow.resume(RUN, "ok:2", 2) == Success([1, 2], RUN)
