"""D2: cancelled scopes on either loop leave a journal that recovers, wherever they strike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class

from kassette_io import (
    Context,
    EventPendingError,
    Success,
    Suspended,
    fork,
    resume,
    start,
    workflow,
)
from tests.io.storages import Held, World
from tests.io.stories import RUN, Clock, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


class Hang:
    """A step that is under way until it is cancelled; once ``past``, it returns."""

    def __init__(self) -> None:
        self.begun = Event()
        self.past = False

    async def __call__(self, result: Any = None) -> Any:
        self.begun.set()
        if not self.past:
            await anyio.sleep_forever()
        return result


async def cancel(
    call: Callable[[], Awaitable[object]],
    begun: Callable[[], Awaitable[object]],
    then: Callable[[], object] = lambda: None,
) -> None:
    """Make ``call``, wait until it has ``begun``, cancel it; it must end by the cancellation.

    ``then`` runs after the cancellation was delivered and before the call has ended.
    """
    ended: list[object] = []

    async def run() -> None:
        try:
            ended.append(await call())
        except BaseException as error:
            ended.append(type(error))
            raise

    async with create_task_group() as group:
        group.start_soon(run)
        await begun()
        group.cancel_scope.cancel()
        then()
    assert ended == [get_cancelled_exc_class()]


async def test_d2_mid_step(world: World) -> None:
    """If it fails, a cancelled step is recorded, ends the run, or leaves it locked."""
    work, hang = Ledger(), Hang()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return [await ctx.step("a", work.work, "a", 1), await ctx.step("b", hang, 2)]

    await cancel(lambda: flow.start(run_id=RUN), hang.begun.wait)
    assert await journal_types(world.open()) == ["start", "step"]
    hang.past = True
    assert await flow.start(run_id=RUN) == Success([1, 2], RUN)
    assert work.done == ["a"]


async def test_mid_append_the_entry_lands_and_is_not_repeated(held: Held) -> None:
    """If it fails, a step whose entry was being written is done a second time, or a third entry
    is written after the cancellation.
    """
    work = Ledger()
    hold = True

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        await ctx.step("a", work.note, "a")
        if hold:
            held.arm()
            armed.set()
        await ctx.step("b", work.note, "b")
        await ctx.step("c", work.note, "c")
        return "done"

    armed = Event()

    async def begun() -> None:
        await armed.wait()
        await held.begun()

    await cancel(lambda: flow.start(run_id=RUN), begun, held.let_go)
    assert await journal_types(held.storage) == ["start", "step", "step"]
    hold = False
    assert await flow.start(run_id=RUN) == Success("done", RUN)
    assert work.done == ["a", "b", "c"]


async def test_d2_mid_append_inside_the_workflow_the_session_goes_on(held: Held) -> None:
    """If it fails, a timeout in a workflow that strikes during an append costs it the session, or
    the live path takes the timeout's turn where replay will take the result's.
    """
    work = Ledger()
    scopes: list[CancelScope] = []
    armed = Event()

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        held.arm()
        with CancelScope() as scope:
            scopes.append(scope)
            armed.set()
            await ctx.step("a", work.note, "a")
            work.note("given")
            await anyio.lowlevel.checkpoint()
            work.note("never")
        assert scope.cancelled_caught
        return await ctx.step("a", work.note, "a again", 2)

    outcomes: list[Any] = []

    async def call() -> None:
        outcomes.append(await flow.start(run_id=RUN))

    async with create_task_group() as group:
        group.start_soon(call)
        await armed.wait()
        await held.begun()
        scopes[0].cancel()
        held.let_go()
    assert outcomes == [Success(2, RUN)]
    assert work.done == ["a", "given", "a again"]
    assert await journal_steps(held.storage) == {"a": None, "a#2": 2}


@pytest.mark.parametrize("deadline", ["move_on_after", "fail_after", "cancelled"])
async def test_d2_a_scope_that_is_over_stops_a_workflow_of_sync_steps(
    world: World, deadline: str
) -> None:
    """If it fails, a timeout around steps that never wait for anything has no effect at all."""
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> str:
        async def many() -> None:
            for number in range(20):
                await ctx.step("a", work.note, f"a{number}")

        if deadline == "fail_after":
            try:
                with anyio.fail_after(0):
                    await many()
            except TimeoutError:
                return await ctx.step("after", lambda: "stopped")
        with anyio.move_on_after(0 if deadline == "move_on_after" else None) as scope:
            if deadline == "cancelled":
                scope.cancel()
            await many()
        return await ctx.step("after", lambda: "stopped" if scope.cancelled_caught else "ran on")

    assert await flow.start(run_id=RUN) == Success("stopped", RUN)
    assert len(work.done) < 20
    assert len(await journal_steps(world.open())) == len(work.done) + 1


async def test_d2_a_cancelled_workflow_of_sync_steps_stops(world: World) -> None:
    """If it fails, a shutdown waits for a whole run whose steps never wait for anything."""
    work = Ledger()
    third = Event()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        for number in range(50):
            if number == 3:
                third.set()
            await ctx.step("a", work.note, f"a{number}")

    await cancel(lambda: flow.start(run_id=RUN), third.wait)
    assert len(work.done) < 50
    assert len(await journal_steps(world.open())) == len(work.done)
    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert work.done == [f"a{number}" for number in range(50)]


async def test_d2_mid_open(held: Held) -> None:
    """If it fails, a cancelled ``start`` gives out a session that nobody closes, or its lock."""
    held.arm()
    await cancel(lambda: start(held.storage, RUN, metadata=1), held.begun, held.let_go)
    assert await journal_types(held.storage) == ["start"]
    async with await start(held.storage, RUN, metadata=1) as run:
        assert (run.session, run.metadata) == (2, 1)


async def test_d2_mid_read(world: World) -> None:
    """If it fails, a session that was cancelled before it began holds something."""
    with CancelScope() as scope:
        scope.cancel()
        await start(world.open(), RUN)
    assert scope.cancelled_caught
    assert await journal_types(world.open()) == []
    await (await start(world.open(), RUN)).complete()


async def test_d2_mid_resume_the_answer_is_not_lost_on_a_second_try(held: Held) -> None:
    """If it fails, an answer whose delivery was cancelled can neither be found nor be repeated."""

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        return await ctx.suspend("ok")

    await flow.start(run_id=RUN)
    held.arm()
    await cancel(lambda: resume(held.storage, RUN, "ok", "first"), held.begun, held.let_go)
    types = await journal_types(held.storage)
    assert types[:3] == ["start", "suspend", "start"]
    outcome = await flow.resume(RUN, "ok", "second")
    assert outcome == Success("first" if "resume" in types else "second", RUN)
    assert (await journal_types(held.storage)).count("resume") == 1


async def test_d2_mid_suspend(held: Held) -> None:
    """If it fails, cancelling while the wait is written leaves a run that is neither."""
    armed = Event()

    async def arm() -> None:
        held.arm()
        armed.set()

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        if not armed.is_set():
            await arm()
        return await ctx.suspend("ok")

    async def begun() -> None:
        await armed.wait()
        await held.begun()

    await cancel(lambda: flow.start(run_id=RUN), begun, held.let_go)
    assert await journal_types(held.storage) == ["start", "suspend"]
    with pytest.raises(EventPendingError):
        await flow.start(run_id=RUN)
    assert await flow.resume(RUN, "ok", 1) == Success(1, RUN)


async def test_d2_mid_complete(held: Held) -> None:
    """If it fails, a run that was complete when its caller went away runs again."""
    armed = Event()

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> None:
        held.arm()
        armed.set()

    async def begun() -> None:
        await armed.wait()
        await held.begun()

    await cancel(lambda: flow.start(run_id=RUN), begun, held.let_go)
    assert await journal_types(held.storage) == ["start", "complete"]


async def test_d2_mid_fork(held: Held) -> None:
    """If it fails, a fork that was cancelled while it was copied blocks its own target."""
    async with await start(held.storage, "source") as run:
        await run.record("a", lambda: 1)
        await run.record("b", lambda: 2)
    held.arm()
    await cancel(
        lambda: fork(held.storage, RUN, source="source", from_step_id="b"),
        held.begun,
        held.let_go,
    )
    before = await journal_types(held.storage)
    async with await start(held.storage, RUN) as run:
        assert await run.record("a", lambda: "again") == (1 if "step" in before else "again")
        await run.complete()


async def test_d2_mid_parallel(world: World) -> None:
    """If it fails, cancelling branches loses what they have done, or writes what they have not."""
    work, hang = Ledger(), Hang()

    async def done(ctx: Context) -> Any:
        return await ctx.step("work", work.work, "done", "d")

    async def hangs(ctx: Context) -> Any:
        await ctx.step("work", work.work, "before", "b")
        return await ctx.step("hang", hang, "h")

    async def asks(ctx: Context) -> Any:
        return await ctx.suspend("ok")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({"done": done, "hangs": hangs, "asks": asks})

    async def both() -> None:
        await hang.begun.wait()
        while "done" not in work.done:
            await anyio.lowlevel.checkpoint()
        while len(await journal_types(world.open())) < 3:
            await anyio.lowlevel.checkpoint()

    await cancel(lambda: flow.start(run_id=RUN), both)
    assert await journal_types(world.open()) == ["start", "step", "step"]
    hang.past = True
    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert await flow.resume(RUN, "ok", 1) == Success({"done": "d", "hangs": "h", "asks": 1}, RUN)
    assert sorted(work.done) == ["before", "done"]


async def test_d2_a_parallel_block_that_timed_out_can_be_tried_again(world: World) -> None:
    """If it fails, a timeout around branches of which one suspends leaves the run suspended on a
    wait that is in no journal, or its keys and events taken.
    """
    hang = Hang()

    async def hangs(ctx: Context) -> Any:
        return await ctx.step("hang", hang, "h")

    async def asks(ctx: Context) -> Any:
        return await ctx.suspend("ok")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async with create_task_group() as group:
            group.start_soon(ctx.parallel, {"hangs": hangs, "asks": asks})
            await hang.begun.wait()
            group.cancel_scope.cancel()
        hang.past = True
        await ctx.step("between", lambda: None)
        return await ctx.parallel({"hangs": hangs, "asks": asks})

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    types = await journal_types(world.open())
    assert types == ["start", "step", "step", "suspend"]


async def test_d2_mid_sleep(world: World, clock: Clock) -> None:
    """If it fails, a cancelled sleep begins anew, or counts as slept."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> str:
        await ctx.sleep(3600)
        return "awake"

    async def asleep() -> None:
        while len(await journal_types(world.open())) < 2:
            await anyio.lowlevel.checkpoint()

    await cancel(lambda: flow.start(run_id=RUN), asleep)
    assert await journal_steps(world.open()) == {"delay:3600000ms": "2026-01-31T13:00:00.000Z"}
    clock.forward(3600)
    assert await flow.start(run_id=RUN) == Success("awake", RUN)


async def test_d2_mid_retry(world: World) -> None:
    """If it fails, the wait between two attempts cannot be cancelled, or ends the run."""
    from kassette_io import Retry

    failed = Event()

    def failing() -> None:
        failed.set()
        raise OSError("busy")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.step("a", failing, retry=Retry(2, delay=3600))

    await cancel(lambda: flow.start(run_id=RUN), failed.wait)
    assert await journal_types(world.open()) == ["start"]


async def test_d2_mid_on_replay(world: World) -> None:
    """If it fails, an ``on_replay`` that waits cannot be cancelled, or ends the run."""
    hang = Hang()
    async with await start(world.open(), RUN) as run:
        await run.record("a", lambda: 1)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> int:
        return await ctx.step("a", lambda: 2, on_replay=hang)

    await cancel(lambda: flow.start(run_id=RUN), hang.begun.wait)
    hang.past = True
    assert await flow.start(run_id=RUN) == Success(1, RUN)


async def test_d2_mid_hook_the_result_stands(world: World) -> None:
    """If it fails, cancelling a slow hook undoes a run that is complete."""
    hang = Hang()

    @workflow(storage=world.open(), on_finish=hang)
    async def flow(ctx: Context) -> int:
        return 1

    await cancel(lambda: flow.start(run_id=RUN), hang.begun.wait)
    assert await journal_types(world.open()) == ["start", "complete"]
