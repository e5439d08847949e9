"""D2 for what ends more than a task: Ctrl-C, exits, closed coroutines, loops that went away."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import Event

from kassette_io import (
    Context,
    LocalStorage,
    Success,
    Suspended,
    SuspendError,
    start,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_types

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["step", "workflow", "on_replay"])
async def test_an_exit_is_a_crash_not_a_failure(
    world: World, kind: type[BaseException], where: str
) -> None:
    """If it fails, Ctrl-C ends a run for good, or leaves it locked."""
    leaving = True

    def leave() -> Any:
        if leaving:
            raise kind
        return 2

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        first = await ctx.step("a", lambda: 1, on_replay=lambda _: leave())
        if where == "workflow":
            leave()
        return [first, await ctx.step("b", leave)]

    if where == "on_replay":
        async with await start(world.open(), RUN) as run:
            await run.record("a", lambda: 1)
    with pytest.raises(kind):
        await flow.start(run_id=RUN)
    sessions = ["start", "step"] + (["start"] if where == "on_replay" else [])
    assert await journal_types(world.open()) == sessions
    leaving = False
    assert await flow.start(run_id=RUN) == Success([1, 2], RUN)


async def test_d2_two_exits_inside_of_branches_are_both_raised(world: World) -> None:
    """If it fails, one of two reasons why a process ends is lost."""

    class Stop(BaseException):
        pass

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async def leaves(own: Context) -> None:
            raise Stop("at once")

        async def follows(own: Context) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise Stop("as it was cancelled")

        await ctx.parallel({"follows": follows, "leaves": leaves})

    with pytest.raises(BaseExceptionGroup) as raised:
        await flow.start(run_id=RUN)
    assert raised.group_contains(Stop, match="at once")
    assert raised.group_contains(Stop, match="as it was cancelled")
    assert await journal_types(world.open()) == ["start"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_d2_an_exit_inside_a_branch_is_a_crash_too(
    world: World, kind: type[BaseException], anyio_backend: str
) -> None:
    """If it fails, Ctrl-C in a branch is wrapped beyond recognition, ends the run, or locks it."""
    work = Ledger()
    leaving = True

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> dict[str, Any]:
        done = Event()

        async def works(own: Context) -> Any:
            result = await own.step("work", work.note, "works", 1)
            done.set()
            if leaving:
                await own.step("more", anyio.sleep_forever)
            return result

        async def leaves(own: Context) -> Any:
            await done.wait()
            if leaving:
                raise kind
            return 2

        return await ctx.parallel({"works": works, "leaves": leaves})

    async def run() -> Any:
        return await flow.start(run_id=RUN)

    async def look() -> list[str]:
        return await journal_types(world.open())

    with pytest.raises(kind):
        anyio.run(run, backend=anyio_backend)
    assert anyio.run(look, backend=anyio_backend) == ["start", "step"]
    leaving = False
    outcome = anyio.run(run, backend=anyio_backend)
    assert outcome == Success({"works": 1, "leaves": 2}, RUN)
    assert work.done == ["works"]


async def test_d2_several_exits_at_once_stay_together(world: World) -> None:
    """If it fails, a group of exits from a workflow ends the run as its failure."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        raise BaseExceptionGroup("both", [GeneratorExit(), ValueError("no")])

    with pytest.raises(BaseExceptionGroup):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start"]


async def test_d2_a_branch_that_exits_in_a_group_is_a_crash(world: World) -> None:
    """If it fails, an exit inside a branch's own task group is taken for the branch's failure."""

    async def leaves(ctx: Context) -> None:
        raise BaseExceptionGroup("one", [GeneratorExit()])

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"x": leaves})

    with pytest.raises(GeneratorExit):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start"]


def test_d2_a_task_that_dies_with_its_loop_lets_the_run_go(tmp_path: Path) -> None:
    """If it fails, a workflow whose event loop was thrown away holds its lock until the process
    ends.
    """
    storage = LocalStorage(tmp_path)

    @workflow(storage=storage)
    async def flow(ctx: Context) -> None:
        begun.set()
        await ctx.step("a", asyncio.Event().wait)

    async def until_begun() -> None:
        tasks.append(asyncio.ensure_future(flow.start(run_id=RUN)))
        await begun.wait()
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[Any]] = []
    begun = asyncio.Event()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(until_begun())
    loop.close()
    tasks.clear()
    gc.collect()

    async def again() -> None:
        async with await start(storage, RUN) as run:
            assert run.session == 2

    asyncio.run(again())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_d2_a_coroutine_that_is_closed_lets_the_run_go(world: World) -> None:
    """If it fails, closing a workflow's coroutine raises RuntimeError, or leaves the run locked."""
    begun = asyncio.Event()
    storage = world.open()

    @workflow(storage=storage)
    async def flow(ctx: Context) -> None:
        async def waits() -> None:
            begun.set()
            await asyncio.Event().wait()

        await ctx.step("a", waits)

    coroutine = flow.start(run_id=RUN)
    waits_for = coroutine.send(None)
    while not begun.is_set():
        if waits_for is not None:
            waits_for._asyncio_future_blocking = False
            came = asyncio.ensure_future(begun.wait())
            await asyncio.wait([waits_for, came], return_when=asyncio.FIRST_COMPLETED)
            came.cancel()
        waits_for = coroutine.send(None)
    coroutine.close()
    assert await journal_types(storage) == ["start"]
    async with await start(storage, RUN) as run:
        assert run.session == 2


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["cancelled", "interrupt", "exit"])
async def test_d2_an_error_beside_a_cancellation_does_not_settle_the_run(
    world: World, kind: str, nested: bool
) -> None:
    """If it fails, a worker that is told to stop fails its runs for good, where a clean-up raised."""
    leaving = await way_out(kind)
    stopped = True

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> int:
        done = await ctx.step("a", lambda: 1)
        if stopped:
            group = BaseExceptionGroup("both", [OSError("on the way out"), leaving])
            raise BaseExceptionGroup("outer", [group, OSError()]) if nested else group
        return done

    with pytest.raises(BaseExceptionGroup):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start", "step"]
    stopped = False
    assert await flow.start(run_id=RUN) == Success(1, RUN)


@pytest.mark.parametrize("kind", ["cancelled", "interrupt", "exit"])
async def test_d2_a_cancellation_of_a_run_that_waits_is_not_taken_for_its_wait(
    world: World, kind: str
) -> None:
    """If it fails, a worker that is told to stop goes on, as the run that it worked on waits."""
    leaving = await way_out(kind)
    stopped = True

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            return await ctx.suspend("ok")
        except SuspendError as waits:
            if stopped:
                raise BaseExceptionGroup("all", [waits, OSError(), leaving]) from None
            raise

    with pytest.raises(BaseExceptionGroup):
        await flow.start(run_id=RUN)
    stopped = False
    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)


async def way_out(kind: str) -> BaseException:
    """Give what a workflow is left with: an exit, or what the event loop cancels with."""
    if kind == "interrupt":
        return KeyboardInterrupt()
    if kind == "exit":
        return SystemExit()
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class() as cancelled:
            return cancelled
    raise AssertionError("it was not cancelled")
