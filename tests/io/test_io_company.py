"""Suspending beside plain tasks: what is paid for is kept, every wait is written, nobody is blamed."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
import sniffio
from anyio import CancelScope, Event
from anyio.lowlevel import checkpoint

from kassette_io import (
    Context,
    Failed,
    MemoryStorage,
    Success,
    Suspended,
    SuspendEntry,
    SuspendError,
    Workflow,
    resume,
    start,
    workflow,
)
from kassette_io.testing import crash_everywhere
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio

Tool = Callable[[], Coroutine[Any, Any, Any]]
Runner = Callable[[list[Tool]], Awaitable[Any]]
"""How a framework runs tools side by side."""


async def anyio_group(tools: list[Tool]) -> None:
    async with anyio.create_task_group() as group:
        for tool in tools:
            group.start_soon(tool)


async def native_group(tools: list[Tool]) -> None:
    if sniffio.current_async_library() == "trio":
        trio = sys.modules["trio"]
        async with trio.open_nursery() as nursery:
            for tool in tools:
                nursery.start_soon(tool)
    else:
        async with asyncio.TaskGroup() as group:
            for tool in tools:
                group.create_task(tool())


async def gathered(tools: list[Tool]) -> None:
    if sniffio.current_async_library() == "trio":
        await native_group(tools)
    else:
        await asyncio.gather(*(tool() for tool in tools))


async def first_failure_cancels(tools: list[Tool]) -> None:
    """Do as runners do that wait for the first exception and cancel the rest."""
    if sniffio.current_async_library() == "trio":
        await native_group(tools)
        return
    tasks = [asyncio.ensure_future(tool()) for tool in tools]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def waited_for(tools: list[Tool]) -> None:
    if sniffio.current_async_library() == "trio":
        await anyio_group(tools)
    else:
        await asyncio.gather(*(asyncio.wait_for(tool(), 3600) for tool in tools))


RUNNERS = [anyio_group, native_group, gathered, first_failure_cancels, waited_for]


@pytest.fixture(autouse=True)
def nobody_is_blamed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where a workflow that did nothing wrong is told that it swallowed a suspension."""
    caplog.set_level(logging.WARNING, "kassette")
    yield
    assert [each.getMessage() for each in caplog.records if each.name == "kassette"] == []


@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_step_in_flight_is_recorded_though_its_caller_is_cancelled(
    world: World, runner: Runner
) -> None:
    """If it fails, a refund that runs beside a tool that asks a person is paid twice."""
    work = Ledger()
    charging, asked = Event(), Event()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> dict[str, Any]:
        results: dict[str, Any] = {}

        async def charge() -> str:
            charging.set()
            await asked.wait()
            for _ in range(5):
                await checkpoint()
            work.note("charged")
            return "charged"

        async def charges() -> None:
            results["charge"] = await ctx.step("charge", charge)

        async def asks() -> None:
            await charging.wait()
            try:
                results["answer"] = await ctx.suspend("ok")
            finally:
                asked.set()

        await runner([charges, asks])
        return results

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert await journal_types(world.open()) == ["start", "step", "suspend"]
    outcome = await flow.resume(RUN, "ok", True)
    assert outcome == Success({"charge": "charged", "answer": True}, RUN)
    assert work.done == ["charged"]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_five_tools_of_which_two_suspend(world: World, runner: Runner) -> None:
    """If it fails, a wait of one of several tools is not written, so its answer has no place; or a
    tool is paid for again in a later session.
    """
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[Any]:
        results: dict[int, Any] = {}

        def tool(number: int) -> Tool:
            async def pay() -> int:
                for _ in range(number):
                    await checkpoint()
                work.note(f"tool {number}")
                return number

            async def call() -> None:
                paid = await ctx.step(f"tool {number}", pay)
                answer = await ctx.suspend(f"approve {number}") if number in (1, 3) else None
                results[number] = paid, answer

            return call

        await runner([tool(number) for number in range(5)])
        return [results[number] for number in range(5)]

    outcome: Any = await flow.start(run_id=RUN)
    answered: list[str] = []
    while isinstance(outcome, Suspended):
        answered.append(outcome.event)
        outcome = await flow.resume(RUN, outcome.event, outcome.event)
    expected = [(n, f"approve {n}" if n in (1, 3) else None) for n in range(5)]
    assert outcome == Success(expected, RUN)
    assert sorted(answered) == ["approve 1", "approve 3"]
    assert sorted(work.done) == [f"tool {number}" for number in range(5)]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_every_wait_of_a_group_is_written(world: World, runner: Runner) -> None:
    """If it fails, only one of several questions can be answered."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[Any]:
        answers: dict[str, Any] = {}

        def asks(event: str) -> Tool:
            async def ask() -> None:
                answers[event] = await ctx.suspend(event)

            return ask

        await runner([asks(event) for event in "abc"])
        return [answers[event] for event in "abc"]

    assert isinstance(await flow.start(run_id=RUN), Suspended)
    waits = [e for e in await world.open().read_all(RUN) if isinstance(e, SuspendEntry)]
    assert sorted(each.waiting_for for each in waits) == ["a", "b", "c"]
    assert [each.more for each in waits] == [True, True, False]
    for event in ("b", "c"):
        assert isinstance(await flow.resume(RUN, event, event), Suspended)
    assert await flow.resume(RUN, "a", "a") == Success(["a", "b", "c"], RUN)


@pytest.mark.parametrize("runner", RUNNERS)
async def test_a_sibling_that_goes_on_is_told_of_the_suspension(
    world: World, runner: Runner
) -> None:
    """If it fails, a task that caught nothing is accused of it, or begins work nobody waits for."""
    told: list[str] = []
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        suspended = Event()

        async def asks() -> None:
            try:
                await ctx.suspend("ok")
            finally:
                suspended.set()

        async def works() -> None:
            with CancelScope(shield=True):
                await suspended_or_cancelled(suspended)
                try:
                    await ctx.step("next", work.work, "next")
                except SuspendError as error:
                    told.append(error.event_name)
                    raise

        await runner([asks, works])

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert (told, work.done) == (["ok"], [])


async def suspended_or_cancelled(suspended: Event) -> None:
    """Wait for the suspension, though a framework cancels the task natively because of it."""
    while not suspended.is_set():
        with suppress(asyncio.CancelledError):
            await suspended.wait()


@pytest.mark.parametrize("runner", [anyio_group, native_group, first_failure_cancels])
async def test_a_cancellation_for_another_reason_cancels_the_step(
    world: World, runner: Runner
) -> None:
    """If it fails, a step that nobody waits for any more holds up a workflow that has failed."""
    ended: list[str] = []
    begun = Event()

    async def hangs() -> None:
        try:
            begun.set()
            await Event().wait()
        finally:
            ended.append("cancelled")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async def works() -> None:
            await ctx.step("hangs", hangs)

        async def fails() -> None:
            await begun.wait()
            raise ValueError("no")

        await runner([works, fails])

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert ended == ["cancelled"]
    assert await journal_types(world.open()) == ["start", "error"]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_the_step_of_a_cancelled_caller_gives_its_result_first(
    world: World, runner: Runner
) -> None:
    """If it fails, a tool whose call was kept cannot ask for the approval that follows."""
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        charging, asked = Event(), Event()

        async def charge() -> str:
            charging.set()
            await asked.wait()
            return work.note("charge", "charged")  # type: ignore[no-any-return]

        async def charges() -> None:
            paid = ctx.step("charge", charge, on_replay=lambda _: charging.set())
            assert await paid == "charged"
            await ctx.suspend("confirm")

        async def asks() -> None:
            await charging.wait()
            try:
                await ctx.suspend("ok")
            finally:
                asked.set()

        await runner([charges, asks])

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Suspended)
    assert await journal_types(world.open()) == ["start", "step", "suspend", "suspend"]
    assert isinstance(await flow.resume(RUN, "ok", True), Suspended)
    assert await flow.resume(RUN, "confirm", True) == Success(None, RUN)
    assert work.done == ["charge"]


async def test_a_step_of_branches_inside_a_tool_is_kept_too(world: World) -> None:
    """If it fails, a tool that works in branches loses what they have paid for."""
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        charging, asked = Event(), Event()

        async def charge() -> None:
            charging.set()
            await asked.wait()
            work.note("charge")

        async def branch(own: Context) -> None:
            await own.step("charge", charge, on_replay=lambda _: charging.set())

        async def charges() -> None:
            await ctx.parallel({"x": branch})

        async def asks() -> None:
            await charging.wait()
            try:
                await ctx.suspend("ok")
            finally:
                asked.set()

        await native_group([charges, asks])

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert await journal_steps(world.open()) == {"x:charge": None}
    assert await flow.resume(RUN, "ok", True) == Success(None, RUN)
    assert work.done == ["charge"]


async def test_a_plain_session_is_told_in_company_as_well(world: World) -> None:
    """If it fails, an adapter on a plain session cannot tell a suspension from a mistake."""
    async with await start(world.open(), RUN) as run:
        with pytest.raises(SuspendError):
            await run.wait_for_event("ok")
        told: list[str] = []

        async def sibling() -> None:
            try:
                await run.record("next", lambda: 1)
            except SuspendError as error:
                told.append(error.event_name)

        await anyio_group([sibling])
    assert told == ["ok"]
    async with await resume(world.open(), RUN, "ok", 1) as run:
        assert await run.wait_for_event("ok") == 1


def with_tools(runner: Runner, attempts: list[int]) -> Workflow[None, Any]:
    """Make a workflow that repeats a step by hand and runs tools of which two suspend."""

    @workflow(storage=MemoryStorage())
    async def flow(ctx: Context) -> list[str]:
        async def flaky() -> str:
            attempts.append(1)
            if len(attempts) % 3:
                raise ConnectionError("again")
            return "steady"

        answers: list[str] = []
        while not answers:
            with suppress(ConnectionError):
                answers.append(await ctx.step("flaky", flaky))

        def tool(number: int) -> Tool:
            async def call() -> None:
                await ctx.step(f"tool {number}", checkpoint)
                if number < 2:
                    answers.append(await ctx.suspend(f"ok {number}"))

            return call

        await runner([tool(number) for number in range(3)])
        return sorted(answers)

    return flow


@pytest.mark.parametrize("runner", [native_group, gathered])
async def test_crash_everywhere_finds_nothing(runner: Runner) -> None:
    """If it fails, there is an entry after which a crash loses or repeats what a tool has done."""
    attempts: list[int] = []
    survived = await crash_everywhere(
        with_tools(runner, attempts),
        answers={"ok 0": "yes", "ok 1": "no"},
        reset=attempts.clear,
        strict=False,
    )
    assert survived.outcome == Success(["no", "steady", "yes"], "run-1")
    assert len(survived.crashes) > 20
