"""D2 under asyncio's own cancellation: ``Task.cancel``, its counting, ``timeout``, ``TaskGroup``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from typing import Any

import anyio
import pytest

from kassette_io import (
    Context,
    ErrorEntry,
    Failed,
    FencedError,
    Success,
    Suspended,
    TerminalRunError,
    start,
    workflow,
)
from tests.io.storages import Held, HeldForeign, World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


LOOPS = ["asyncio", "uvloop"] if sys.platform == "linux" else ["asyncio"]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Hang:
    """A step that is under way until it is cancelled; once ``past``, it returns."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.past = False

    async def __call__(self, result: Any = None) -> Any:
        self.begun.set()
        if not self.past:
            await asyncio.Event().wait()
        return result


def counted() -> int:
    """Give how many cancellations the current task has been asked for and not told of."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def settled() -> None:
    """Give a stray cancellation every chance to strike."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert counted() == 0


async def strike(timeout: asyncio.Timeout) -> None:
    """Let the timeout pass now; the task inside it has been cancelled on return."""
    timeout.reschedule(0)
    while not timeout.expired():
        await asyncio.sleep(0)


async def test_d2_task_cancel_mid_step(world: World) -> None:
    """If it fails, a cancelled step is recorded, ends the run, or leaves it locked."""
    work, hang = Ledger(), Hang()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return [await ctx.step("a", work.work, "a", 1), await ctx.step("b", hang, 2)]

    task = asyncio.create_task(flow.start(run_id=RUN))
    await hang.begun.wait()
    task.cancel("shutting down")
    with pytest.raises(asyncio.CancelledError, match="shutting down"):
        await task
    assert (task.cancelled(), task.cancelling()) == (True, 1)
    assert await journal_types(world.open()) == ["start", "step"]
    hang.past = True
    assert await flow.start(run_id=RUN) == Success([1, 2], RUN)
    assert work.done == ["a"]


@pytest.mark.parametrize("times", [1, 3])
async def test_d2_task_cancel_mid_append(held: Held, times: int) -> None:
    """If it fails, the entry being written is lost from view and its step is done again, or a
    second request to cancel breaks through to the disk.
    """
    work = Ledger()
    hold = True

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        if hold:
            held.arm()
            armed.set()
        await ctx.step("a", work.note, "a")
        await ctx.step("b", work.note, "b")
        return "done"

    armed = asyncio.Event()
    task = asyncio.create_task(flow.start(run_id=RUN))
    await armed.wait()
    await held.begun()
    for number in range(times):
        task.cancel(f"request {number}")
        await asyncio.sleep(0)
    assert not task.done()
    held.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == times
    assert await journal_types(held.storage) == ["start", "step"]
    hold = False
    assert await flow.start(run_id=RUN) == Success("done", RUN)
    assert work.done == ["a", "b"]


async def test_d2_task_cancel_mid_open(held: Held) -> None:
    """If it fails, a cancelled ``start`` gives out a session that nobody closes, or its lock."""
    held.arm()
    task = asyncio.create_task(start(held.storage, RUN))
    await held.begun()
    task.cancel()
    held.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await journal_types(held.storage) == ["start"]
    await (await start(held.storage, RUN)).complete()


async def test_d2_task_cancel_stops_a_workflow_of_sync_steps(world: World) -> None:
    """If it fails, cancelling a task has no effect until a whole run is done."""
    work = Ledger()
    third = asyncio.Event()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        for number in range(50):
            if number == 3:
                third.set()
            await ctx.step("a", work.note, f"a{number}")

    task = asyncio.create_task(flow.start(run_id=RUN))
    await third.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(work.done) < 50
    assert len(await journal_steps(world.open())) == len(work.done)


async def test_d2_a_timeout_mid_append_is_a_timeout_and_nothing_else(world: World) -> None:
    """If it fails, ``asyncio.timeout`` around a step does not time out, or its cancellation strikes
    later, outside, where nobody asked for it.
    """
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            async with asyncio.timeout(0):
                await ctx.step("a", work.note, "a")
                await ctx.step("b", work.note, "b")
        except TimeoutError:
            work.note("timed out")
        await settled()
        return await ctx.step("c", work.note, "c", "went on")

    assert await flow.start(run_id=RUN) == Success("went on", RUN)
    await settled()
    assert work.done == ["a", "timed out", "c"]
    assert await journal_steps(world.open()) == {"a": None, "c": "went on"}


async def test_d2_a_timeout_that_strikes_the_last_append_leaves_nothing_behind(
    held: Held,
) -> None:
    """If it fails, a step that landed just in time brings down what runs after the timeout."""
    outcomes: list[str] = []
    entered = asyncio.Event()
    timeouts: list[asyncio.Timeout] = []

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        held.arm()
        try:
            async with asyncio.timeout(None) as timeout:
                timeouts.append(timeout)
                entered.set()
                await ctx.step("a", lambda: 1)
        except TimeoutError:
            outcomes.append("timed out")
        await settled()
        return await ctx.step("b", lambda: 2)

    task = asyncio.create_task(flow.start(run_id=RUN))
    await entered.wait()
    await held.begun()
    await strike(timeouts[0])
    held.let_go()
    assert await task == Success(2, RUN)
    assert outcomes == []
    assert await journal_steps(held.storage) == {"a": 1, "b": 2}


async def test_d2_a_timeout_around_a_suspension_does_not_hide_it(world: World) -> None:
    """If it fails, a wait inside ``asyncio.timeout`` is lost, or cancels what comes after it."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            async with asyncio.timeout(0):
                return await ctx.suspend("ok")
        except TimeoutError:
            return "timed out"

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    await settled()
    assert await journal_types(world.open()) == ["start", "suspend"]


async def test_d2_a_task_group_that_fails_mid_append_raises_its_failure(held: Held) -> None:
    """If it fails, the group's own failure is lost, or its parent is cancelled later for nothing."""
    entered = asyncio.Event()

    async def fails() -> None:
        await entered.wait()
        await held.begun()
        asyncio.get_running_loop().call_soon(held.let_go)
        raise ValueError("no")

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        held.arm()
        messages: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                entered.set()
                await ctx.step("a", lambda: 1)
        except* ValueError as caught:
            messages = [str(each) for each in caught.exceptions]
        await settled()
        return await ctx.step("b", lambda: messages)

    assert await flow.start(run_id=RUN) == Success(["no"], RUN)
    await settled()
    assert await journal_steps(held.storage) == {"a": 1, "b": ["no"]}


async def test_d2_wait_for_mid_append_times_out_cleanly(world: World) -> None:
    """If it fails, ``asyncio.wait_for`` around a step breaks the session."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ctx.step("a", Hang()), timeout=0)
        await settled()
        return await ctx.step("b", lambda: 2)

    assert await flow.start(run_id=RUN) == Success(2, RUN)
    steps = await journal_steps(world.open())
    assert steps in ({"b": 2}, {"b": 2, "a": None})


async def test_d2_a_cancellation_that_a_workflow_catches_lets_it_clean_up(world: World) -> None:
    """If it fails, a workflow cannot record its clean-up after it was cancelled."""
    hang = Hang()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            await ctx.step("a", hang)
        except asyncio.CancelledError:
            await ctx.step("clean up", counted)
            raise

    task = asyncio.create_task(flow.start(run_id=RUN))
    await hang.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await journal_steps(world.open()) == {"clean up": 1}


async def test_d2_a_cancellation_that_a_workflow_swallows_does_not_come_back(
    world: World,
) -> None:
    """If it fails, a workflow that decided to go on after a cancellation is cancelled once more."""
    hang = Hang()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            await ctx.step("a", hang)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        await settled()
        return await ctx.step("b", lambda: "went on")

    task = asyncio.create_task(flow.start(run_id=RUN))
    await hang.begun.wait()
    task.cancel()
    assert await task == Success("went on", RUN)


async def cancelled_child() -> None:
    """Await a task that somebody has cancelled."""
    child = asyncio.ensure_future(asyncio.Event().wait())
    child.cancel("the child alone")
    await child


@pytest.mark.parametrize("inside", ["the workflow", "a step", "a group"])
async def test_d2_a_cancellation_of_what_a_workflow_awaits_is_its_failure(
    world: World, inside: str
) -> None:
    """If it fails, ``start`` raises a cancellation that nobody asked for. The caller's own task
    ends with it, and the job is delivered again, and again: no start of the run ever settles it.
    """
    told: list[Failed] = []

    @workflow(storage=world.open(), on_error=told.append)
    async def flow(ctx: Context) -> None:
        if inside == "the workflow":
            await cancelled_child()
        elif inside == "a step":
            await ctx.step("a", cancelled_child)
        else:
            async with asyncio.TaskGroup():
                await asyncio.gather(ctx.step("a", cancelled_child))

    outcome = await flow.start(run_id=RUN)
    await settled()
    assert isinstance(outcome, Failed)
    assert told == [outcome]
    assert isinstance(outcome.error.__cause__, asyncio.CancelledError)
    entry = (await world.open().read_all(RUN))[-1]
    assert isinstance(entry, ErrorEntry)
    assert "but the workflow itself was not" in entry.message
    assert "the child alone" in str(entry.stack)
    with pytest.raises(TerminalRunError):
        await flow.start(run_id=RUN)


async def test_d2_a_cancelled_child_can_be_caught_and_the_workflow_goes_on(world: World) -> None:
    """If it fails, a workflow cannot expect that what it awaits is cancelled."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            await ctx.step("a", cancelled_child)
        except asyncio.CancelledError:
            return await ctx.step("b", lambda: "went on")

    assert await flow.start(run_id=RUN) == Success("went on", RUN)
    assert await journal_steps(world.open()) == {"b": "went on"}


@pytest.mark.parametrize("how", ["all tasks", "a scope", "a scope around another"])
async def test_d2_whoever_cancels_the_workflow_too_does_not_fail_it(world: World, how: str) -> None:
    """If it fails, a deploy that cancels every task, helpers included, ends its runs for good."""
    begun = asyncio.Event()
    children: list[asyncio.Future[Any]] = []

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        children.append(asyncio.ensure_future(asyncio.Event().wait()))
        begun.set()
        with anyio.CancelScope() if how == "a scope around another" else nullcontext():
            await children[0]

    scope = anyio.CancelScope()

    async def call() -> None:
        with scope:
            await flow.start(run_id=RUN)

    task = asyncio.create_task(call())
    await begun.wait()
    await asyncio.sleep(0)
    if how == "all tasks":
        children[0].cancel()
        task.cancel()
    else:
        scope.cancel()
    await asyncio.wait([task])
    assert task.cancelled() == (how == "all tasks")
    assert scope.cancelled_caught == (how != "all tasks")
    assert await journal_types(world.open()) == ["start"]


async def test_d2_a_scope_that_is_about_to_cancel_the_workflow_does_not_fail_it(
    world: World,
) -> None:
    """If it fails, it is up to the order of two cancellations whether a run ends for good."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        child = asyncio.get_running_loop().create_future()
        child.cancel()
        scope.cancel()
        await child

    with anyio.CancelScope() as scope:
        with pytest.raises(asyncio.CancelledError):
            await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start"]


async def test_d7_a_cancelled_sibling_of_a_wait_does_not_hide_the_wait(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a framework that cancels a tool beside one that waits for a person fails the run,
    or is said to have swallowed the wait.
    """

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        asks = asyncio.ensure_future(ctx.suspend("ok"))
        await asyncio.gather(asks, return_exceptions=True)
        await cancelled_child()

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert caplog.messages == []


async def test_d2_a_worker_told_to_stop_while_waits_are_written_stops(held: Held) -> None:
    """If it fails, a worker that is cancelled at the wrong moment goes on for ever."""

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        held.arm()
        armed.set()
        await ctx.suspend("ok")

    armed = asyncio.Event()
    served: list[object] = []

    async def worker() -> None:
        served.append(await flow.start(run_id=RUN))
        await asyncio.Event().wait()

    task = asyncio.create_task(worker())
    await armed.wait()
    await held.begun()
    task.cancel()
    await settled()
    assert not task.done()
    held.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert served == []
    assert await journal_types(held.storage) == ["start", "suspend"]


async def test_d2_a_timeout_that_strikes_a_refused_append_leaves_nothing_behind() -> None:
    """If it fails, a fence or a full disk met under a timeout is followed by a cancellation that
    nobody asked for.
    """
    held = HeldForeign()
    run = await start(held, RUN)
    held.arm()

    async def record() -> None:
        async with asyncio.timeout(None) as timeout:
            timeouts.append(timeout)
            await run.record("a", lambda: 1)

    async def call() -> str:
        try:
            await record()
        except (FencedError, TimeoutError) as error:
            seen.append(type(error))
        await settled()
        return "went on"

    timeouts: list[asyncio.Timeout] = []
    seen: list[type[BaseException]] = []
    task = asyncio.create_task(call())
    await held.begun()
    async with await start(held, RUN):
        await strike(timeouts[0])
        held.let_go()
        assert await task == "went on"
    assert len(seen) == 1
    with pytest.raises(FencedError):
        await run.complete()


async def test_d2_task_cancel_mid_suspend(held: Held) -> None:
    """If it fails, a run that was cancelled while its wait was written is neither waiting nor
    recoverable.
    """
    entered = asyncio.Event()

    @workflow(storage=held.storage)
    async def flow(ctx: Context) -> Any:
        if not entered.is_set():
            held.arm()
            entered.set()
        return await ctx.suspend("ok")

    task = asyncio.create_task(flow.start(run_id=RUN))
    await entered.wait()
    await held.begun()
    task.cancel()
    held.let_go()
    outcomes: list[Any] = [*await asyncio.gather(task, return_exceptions=True)]
    assert isinstance(outcomes[0], asyncio.CancelledError) or outcomes == [Suspended("ok", RUN)]
    assert await journal_types(held.storage) == ["start", "suspend"]
    assert await flow.resume(RUN, "ok", 1) == Success(1, RUN)
