"""D7, D8: parallel branches; what suspends in company, and how their steps are numbered."""

from __future__ import annotations

import gc
import random
import traceback
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import ref

import pytest
from anyio import Event, Semaphore, create_task_group

from kassette_io import (
    Context,
    EventPendingError,
    Failed,
    MemoryStorage,
    RunCancelledError,
    Success,
    Suspended,
    SuspendedRun,
    SuspendEntry,
    SuspendError,
    UsageError,
    ValueRefusedError,
    resume,
    run_status,
    start,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Clock, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio

Branch = Callable[[Context], Awaitable[Any]]


def waits(event: str, *, timeout: float | None = None) -> Branch:
    """Make a branch that waits for one event."""

    async def branch(ctx: Context) -> Any:
        return await ctx.suspend(event, timeout=timeout)

    return branch


async def test_parallel_gives_the_results_by_key_in_the_order_given(world: World) -> None:
    """If it fails, results are mixed up between branches, or an order depends on timing."""
    work = Ledger()
    second = Event()

    async def slow(ctx: Context) -> Any:
        await second.wait()
        return await ctx.step("work", work.work, "slow", None)

    async def fast(ctx: Context) -> Any:
        result = await ctx.step("work", work.work, "fast", False)
        second.set()
        return result

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[Any]:
        return [await ctx.parallel({"b": slow, "a": fast}), await ctx.parallel({})]

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Success)
    assert outcome.result == [{"b": None, "a": False}, {}]
    assert list(outcome.result[0]) == ["b", "a"]
    assert await journal_steps(world.open()) == {"a:work": False, "b:work": None}


async def test_paid_for_work_of_siblings_is_recorded(world: World) -> None:
    """If it fails, a suspending branch throws away what its siblings are about to finish."""
    work = Ledger()
    suspended = Event()

    async def asks(ctx: Context) -> Any:
        await ctx.step("before", work.work, "before")
        try:
            return await ctx.suspend("ok")
        finally:
            suspended.set()

    async def works(ctx: Context) -> Any:
        await ctx.step("first", suspended.wait)
        return await ctx.step("second", work.work, "second", 2)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> dict[str, Any]:
        return await ctx.parallel({"asks": asks, "works": works})

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    types = await journal_types(world.open())
    assert types == ["start", "step", "step", "step", "suspend"]
    assert await flow.resume(RUN, "ok", 1) == Success({"asks": 1, "works": 2}, RUN)
    assert work.done == ["before", "second"]


async def test_d7_several_events_open_resume_in_any_order(world: World) -> None:
    """If it fails, only one of several open questions can be answered, or only in one order."""
    open_events = {"ok:a", "ok:b", "ok:c"}
    order = random.sample(sorted(open_events), 3)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> dict[str, Any]:
        return await ctx.parallel({key: waits(f"ok:{key}") for key in "abc"})

    outcome = await flow.start(run_id=RUN)
    for event in order:
        assert isinstance(outcome, Suspended)
        assert outcome.event in open_events
        status = run_status(await world.open().read_all(RUN))
        assert status == SuspendedRun(waiting_for=outcome.event)
        with pytest.raises(EventPendingError):
            await flow.start(run_id=RUN)
        outcome = await flow.resume(RUN, event, event.upper())
        open_events.remove(event)
        if open_events:
            with pytest.raises(UsageError, match="is waiting for"):
                await flow.resume(RUN, "ok:d", 1)
    assert outcome == Success({"a": "OK:A", "b": "OK:B", "c": "OK:C"}, RUN)


async def test_d7_suspend_entries_are_the_last_of_a_nested_block(world: World) -> None:
    """If it fails, a step follows the wait in the journal, and the status is no longer suspended."""
    work = Ledger()
    suspended = Event()

    async def asks(ctx: Context) -> Any:
        try:
            return await ctx.suspend("inner")
        finally:
            suspended.set()

    async def nested(ctx: Context) -> Any:
        inner = await ctx.parallel({"asks": asks, "works": works})
        return [inner, await ctx.step("after", work.work, "after")]

    async def works(ctx: Context) -> Any:
        await suspended.wait()
        return await ctx.step("work", work.work, "work", "w")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({"nested": nested, "asks": waits("outer"), "works": works})

    assert await flow.start(run_id=RUN) == Suspended("inner", RUN)
    entries = await world.open().read_all(RUN)
    assert [type(each).__name__ for each in entries[-2:]] == ["SuspendEntry"] * 2
    assert isinstance(run_status(entries), SuspendedRun)
    outcome = await flow.resume(RUN, "outer", 1)
    assert isinstance(outcome, Suspended)
    assert outcome.event == "inner"
    assert await flow.resume(RUN, "inner", 2) == Success(
        {"nested": [{"asks": 2, "works": "w"}, None], "asks": 1, "works": "w"}, RUN
    )
    assert sorted(work.done) == ["after", "work", "work"]
    assert set(await journal_steps(world.open())) == {
        "nested:works:work",
        "works:work",
        "nested:after",
    }


async def test_d7_failed_and_suspended_is_suspended_until_answered(world: World) -> None:
    """If it fails, a branch's failure ends a run that a person was asked to decide upon."""

    async def fails(ctx: Context) -> Any:
        raise ValueError("no")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({"fails": fails, "asks": waits("ok")})

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    match await flow.resume(RUN, "ok", 1):
        case Failed(error=ValueError(args=("no",))):
            pass
        case other:
            pytest.fail(f"unexpected {other!r}")


async def test_the_first_failed_branch_is_raised_with_the_others_noted(world: World) -> None:
    """If it fails, what is raised depends on timing, or the other failures vanish."""
    later = Event()

    async def slow(ctx: Context) -> Any:
        await later.wait()
        raise ValueError("first by key")

    async def fast(ctx: Context) -> Any:
        later.set()
        raise KeyError("second")

    async def grouped(ctx: Context) -> Any:
        async with create_task_group() as group:
            group.start_soon(ctx.step, "a", failing)

    async def failing() -> None:
        raise OSError("third")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({"slow": slow, "fast": fast, "grouped": grouped})

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert outcome.error.args == ("first by key",)
    fast_note, grouped_note = outcome.error.__notes__
    assert fast_note == "branch 'fast' failed as well: KeyError('second')"
    assert grouped_note.startswith("branch 'grouped' failed as well: ExceptionGroup(")
    assert "OSError('third')" in grouped_note


async def test_the_error_of_a_branch_is_freed_once_it_is_handled(memory: MemoryStorage) -> None:
    """If it fails, what a failed branch held (a response, a connection) stays until the collector."""
    freed: list[bool] = []

    class Lost(Exception):
        """One that can be watched."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        async def fails(own: Context) -> None:
            raise Lost

        kept: Any = None
        try:
            await ctx.parallel({"fails": fails})
        except Lost as error:
            kept = ref(error)
        freed.append(kept() is None)

    gc.disable()
    try:
        await flow.start(run_id=RUN)
    finally:
        gc.enable()
    assert freed == [True]


async def test_a_failed_branch_does_not_stop_its_siblings(world: World) -> None:
    """If it fails, one branch's error throws away work of others that was paid for."""
    work = Ledger()
    failed = Event()

    async def fails(ctx: Context) -> Any:
        failed.set()
        raise ValueError("no")

    async def works(ctx: Context) -> Any:
        await failed.wait()
        await ctx.step("a", work.work, "a")
        return await ctx.step("b", work.work, "b")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({"fails": fails, "works": works})

    assert isinstance(await flow.start(run_id=RUN), Failed)
    assert work.done == ["a", "b"]
    assert list(await journal_steps(world.open())) == ["works:a", "works:b"]


async def test_d7_a_group_of_suspensions_inside_a_branch_suspends_the_block(
    world: World,
) -> None:
    """If it fails, a task group in a branch makes its suspension a failure of the branch."""

    async def grouped(ctx: Context) -> Any:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await ctx.suspend("ok"))

        async with create_task_group() as group:
            group.start_soon(ask)
        return answers

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            return await ctx.parallel({"x": grouped})
        except BaseException as error:
            raised.append(error)
            raise

    raised: list[BaseException] = []
    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert [type(error) for error in raised] == [SuspendError]
    assert await flow.resume(RUN, "ok", 1) == Success({"x": [1]}, RUN)


async def test_d7_a_branch_that_suspends_inside_a_semaphore_lets_it_go(world: World) -> None:
    """If it fails, a limit on concurrency deadlocks as soon as one branch has to wait."""
    work = Ledger()
    limit = Semaphore(1)

    async def limited(ctx: Context, key: str) -> Any:
        async with limit:
            await ctx.step("work", work.work, key)
            return await ctx.suspend(f"ok:{key}")

    def branch(key: str) -> Branch:
        return lambda ctx: limited(ctx, key)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({key: branch(key) for key in "abc"})

    outcome = await flow.start(run_id=RUN)
    for key in "abc":
        assert isinstance(outcome, Suspended)
        outcome = await flow.resume(RUN, f"ok:{key}", key)
    assert outcome == Success({"a": "a", "b": "b", "c": "c"}, RUN)
    assert sorted(work.done) == ["a", "b", "c"]


async def test_d7_a_deadline_is_kept_from_the_first_suspend(world: World, clock: Clock) -> None:
    """If it fails, every crash or answer beside a wait puts its deadline off."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel({"a": waits("ok:a"), "b": waits("ok:b", timeout=60)})

    await flow.start(run_id=RUN)
    clock.forward(59)
    assert await flow.resume(RUN, "ok:a", 1) == Suspended("ok:b", RUN)
    entries = await world.open().read_all(RUN)
    deadlines = [
        each.timeout
        for each in entries
        if isinstance(each, SuspendEntry) and each.waiting_for == "ok:b"
    ]
    assert deadlines == ["2026-01-31T12:01:00.000Z"] * 2
    clock.forward(1)
    with pytest.raises(RunCancelledError):
        await flow.resume(RUN, "ok:b", 2)
    assert (await journal_types(world.open()))[-2:] == ["start", "cancel"]


async def test_d7_an_answer_in_time_beats_the_deadline(world: World, clock: Clock) -> None:
    """If it fails, a run whose question was answered in time is cancelled later all the same."""
    crash = True

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        answer = await ctx.suspend("ok", timeout=60)
        if crash:
            raise SystemExit(1)
        return answer

    await flow.start(run_id=RUN)
    clock.forward(59.999)
    with pytest.raises(SystemExit):
        await flow.resume(RUN, "ok", 1)
    clock.forward(3600)
    crash = False
    assert await flow.start(run_id=RUN) == Success(1, RUN)


async def test_d7_without_the_wrapper_a_wait_in_a_group_is_written_last(world: World) -> None:
    """If it fails, the plain session writes the wait before a running step's result."""
    begun, go = Event(), Event()
    run = await start(world.open(), RUN)

    async def working() -> str:
        begun.set()
        await go.wait()
        return "worked"

    async with create_task_group() as group:
        group.start_soon(run.record, "work", working)
        await begun.wait()
        with pytest.raises(SuspendError):
            await run.wait_for_event("ok")
        assert await journal_types(world.open()) == ["start"]
        assert run.waiting_for == "ok"
        go.set()
    assert await run.suspended() == "ok"
    assert await journal_types(world.open()) == ["start", "step", "suspend"]
    run = await resume(world.open(), RUN, "ok", 1)
    assert await run.record("work", working) == "worked"
    await run.complete()


@pytest.mark.parametrize("nested", [False, True])
async def test_an_error_in_a_branch_beside_a_suspension_that_is_not_ours_is_not_lost(
    memory: MemoryStorage, nested: bool
) -> None:
    """If it fails, a payment that failed goes unnoticed, as another run happened to wait beside it."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async def pays(own: Context) -> None:
            lost: Exception = LookupError("the payment")
            if nested:
                lost = ExceptionGroup("tools", [lost])
            raise BaseExceptionGroup("both", [SuspendError("ok", run_id="another"), lost])

        return await ctx.parallel({"pays": pays})

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert "the payment" in "".join(traceback.format_exception(outcome.error))
    assert await journal_types(memory) == ["start", "error"]


async def _call_unwritable(ctx: Context, mended: bool) -> Any:
    return await ctx.step("call", lambda: "a result" if mended else {"a": [object()]})


async def _call_badly_named(ctx: Context, mended: bool) -> Any:
    return await ctx.step("call" if mended else "call#2", lambda: "a result")


async def _ask_for_nothing(ctx: Context, mended: bool) -> Any:
    return None if mended else await ctx.suspend("")


@pytest.mark.parametrize(
    ("errs", "expected"),
    [
        (_call_unwritable, ValueRefusedError),
        (_call_badly_named, UsageError),
        (_ask_for_nothing, UsageError),
    ],
)
async def test_a_mistake_is_raised_over_the_error_of_an_earlier_branch(
    world: World,
    errs: Callable[[Context, bool], Awaitable[Any]],
    expected: type[UsageError],
) -> None:
    """If it fails, a workflow that handles the error never hears of the mistake, or one that does
    not ends for good, where mended code could go on: a value that cannot be kept is a note on it.
    """
    mended = False

    async def fails(ctx: Context) -> Any:
        raise ValueError("no")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            return await ctx.parallel({"fails": fails, "errs": lambda own: errs(own, mended)})
        except ValueError as error:
            return str(error)

    with pytest.raises(UsageError) as raised:
        await flow.start(run_id=RUN)
    assert type(raised.value) is expected
    assert raised.value.__notes__ == ["branch 'fails' failed as well: ValueError('no')"]
    assert await journal_types(world.open()) == ["start"]
    mended = True
    assert await flow.start(run_id=RUN) == Success("no", RUN)
