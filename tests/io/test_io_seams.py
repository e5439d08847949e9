"""What adapters build on: the current context, and steps in two halves."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from kassette_io import (
    Attempt,
    Context,
    Failed,
    MemoryStorage,
    Recorded,
    Success,
    Suspended,
    UsageError,
    current_context,
    start,
    workflow,
)
from tests.io.stories import RUN, journal_steps, journal_types

pytestmark = pytest.mark.anyio


async def test_the_current_context_is_the_one_whose_code_is_running(memory: MemoryStorage) -> None:
    """If it fails, an adapter takes its steps in another branch, or inside of a step."""
    seen: dict[str, Any] = {}

    def note(where: str) -> None:
        seen[where] = current_context()

    async def note_later(where: str) -> None:
        await checkpoint()
        note(where)

    @workflow(storage=memory)
    async def child(ctx: Context) -> None:
        seen["child"] = current_context() is ctx

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        seen["workflow"] = current_context() is ctx
        await ctx.step("sync", note, "sync step")
        await ctx.step("async", note_later, "async step")

        async def branch(own: Context) -> None:
            seen["branch"] = current_context() is own
            await own.step("inner", note, "step of a branch")
            seen["branch again"] = current_context() is own

        await ctx.parallel({"a": branch})
        async with create_task_group() as tools:
            tools.start_soon(note_later, "tool")
        seen["tool"] = seen["tool"] is ctx
        begun = await ctx.begin("half")
        assert isinstance(begun, Attempt)
        async with begun as entered:
            assert entered is begun
            note("attempt")
            await begun.succeed(None)
        await child.start()
        seen["after"] = current_context() is ctx

    note("outside")
    assert await flow.start(run_id=RUN) == Success(None, RUN)
    note("afterwards")
    yes = {"workflow", "branch", "branch again", "tool", "after", "child"}
    assert {where for where, what in seen.items() if what is True} == yes
    assert {where for where, what in seen.items() if what is None} == seen.keys() - yes


@pytest.mark.parametrize("end", ["fails", "suspends", "is cancelled"])
async def test_no_context_is_left_behind(memory: MemoryStorage, end: str) -> None:
    """If it fails, an adapter records the work of one run in another that is over."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        if end == "fails":
            raise ValueError
        if end == "suspends":
            await ctx.suspend("go")
        scope.cancel()
        await checkpoint()

    with CancelScope() as scope:
        await flow.start()
    assert current_context() is None
    async with await start(memory, RUN):
        assert current_context() is None


def halves(memory: MemoryStorage, body: Any, **how: Any) -> Any:
    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        begun = await ctx.begin("half", **how)
        if isinstance(begun, Recorded):
            result = begun.result
        else:
            result = await body(ctx, begun)
        await ctx.suspend("go")
        return result

    return flow


async def succeeding(ctx: Context, attempt: Attempt) -> Any:
    async with attempt:
        await checkpoint()
        return await attempt.succeed({"a": (1, 2)} if attempt.step_id != "half" else {"a": [1, 2]})


async def test_a_step_in_two_halves_is_recorded_by_its_second(memory: MemoryStorage) -> None:
    """If it fails, a transport's answer is asked for again, or comes back as something else."""
    flow = halves(memory, succeeding)
    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_steps(memory) == {"half": {"a": [1, 2]}}
    assert await flow.resume(RUN, "go", 1) == Success({"a": [1, 2]}, RUN)


@pytest.mark.parametrize("falsy", [None, 0, "", [], False])
async def test_a_falsy_result_is_one(memory: MemoryStorage, falsy: Any) -> None:
    """If it fails, a step without a result is done again in every session."""

    async def body(ctx: Context, attempt: Attempt) -> Any:
        async with attempt:
            return await attempt.succeed(falsy)

    flow = halves(memory, body)
    await flow.start(run_id=RUN)
    outcome = await flow.resume(RUN, "go", 1)
    assert isinstance(outcome, Success)
    assert outcome.result == falsy
    assert type(outcome.result) is type(falsy)


async def leaving(ctx: Context, attempt: Attempt) -> None:
    async with attempt:
        await checkpoint()


async def raising(ctx: Context, attempt: Attempt) -> None:
    try:
        async with attempt:
            raise KeyError
    except KeyError:
        pass


async def failing(ctx: Context, attempt: Attempt) -> None:
    await attempt.fail()
    await attempt.fail(KeyError())


async def timing_out(ctx: Context, attempt: Attempt) -> None:
    with CancelScope() as scope:
        async with attempt:
            scope.cancel()
            await checkpoint()


async def refusing(ctx: Context, attempt: Attempt) -> None:
    async with attempt:
        with pytest.raises(UsageError, match="the result of step 'half'"):
            await attempt.succeed({1, 2})


@pytest.mark.parametrize("body", [leaving, raising, failing, timing_out, refusing])
async def test_an_attempt_that_ends_otherwise_records_nothing_and_can_be_repeated(
    memory: MemoryStorage, body: Any
) -> None:
    """If it fails, a call that broke off is on record, or is another step when it is repeated."""

    async def twice(ctx: Context, attempt: Attempt) -> Any:
        await body(ctx, attempt)
        again = await ctx.begin("half")
        assert isinstance(again, Attempt)
        assert again.step_id == "half"
        with pytest.raises(UsageError, match="has ended; begin the step again"):
            await attempt.succeed(1)
        return await succeeding(ctx, again)

    assert await halves(memory, twice).start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_steps(memory) == {"half": {"a": [1, 2]}}


async def test_an_attempt_that_is_dropped_warns_and_lets_its_step_go(memory: MemoryStorage) -> None:
    """If it fails, a run with a forgotten attempt never suspends, and nobody knows why."""

    async def dropping(ctx: Context, attempt: Attempt) -> None:
        return None

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert await halves(memory, dropping).start(run_id=RUN) == Suspended("go", RUN)
        gc.collect()
    said = [str(each.message) for each in caught if each.category is ResourceWarning]
    assert said == [
        "the attempt of step 'half' was begun but never entered; use `async with attempt:` around the work"
    ]


async def test_a_forgotten_attempt_lets_its_step_go_at_once(memory: MemoryStorage) -> None:
    """If it fails, whoever forgets an attempt cannot begin the step again in the same session."""

    async def again(ctx: Context, attempt: Attempt) -> Any:
        attempts.append(repr(attempt))
        second = await ctx.begin("same")
        assert repr(second) == "<Attempt of step 'same', open>"
        with pytest.warns(ResourceWarning, match="step 'same' was begun but never entered"):
            del second
            gc.collect()
        third = await ctx.begin("same")
        assert isinstance(third, Attempt)
        assert third.step_id == "same"
        await third.fail()
        assert repr(third) == "<Attempt of step 'same', ended>"
        return await succeeding(ctx, attempt)

    attempts: list[str] = []
    assert await halves(memory, again).start(run_id=RUN) == Suspended("go", RUN)
    assert attempts == ["<Attempt of step 'half', open>"]


async def test_nothing_else_is_done_between_the_halves(memory: MemoryStorage) -> None:
    """If it fails, what is done there is on record live, and never asked for on replay."""

    async def body(ctx: Context, attempt: Attempt) -> None:
        async with attempt:
            await ctx.step("inner", lambda: 1)

    with pytest.raises(UsageError, match="'inner' was requested inside of step 'half'"):
        await halves(memory, body).start(run_id=RUN)

    async def entered_twice(ctx: Context, attempt: Attempt) -> None:
        async with attempt:
            await attempt.__aenter__()

    async def entered_late(ctx: Context, attempt: Attempt) -> None:
        await attempt.fail()
        await attempt.__aenter__()

    for body_of_two in (entered_twice, entered_late):
        with pytest.raises(UsageError, match="has already been entered"):
            await halves(memory, body_of_two).start(run_id=RUN)
    assert await journal_types(memory) == ["start", "start", "start"]


async def test_calls_of_one_name_may_not_overlap_in_halves_either(memory: MemoryStorage) -> None:
    """If it fails, two transports that run at once swap their answers after a crash."""

    async def body(ctx: Context, attempt: Attempt) -> None:
        async with attempt:
            pass
        with pytest.raises(UsageError, match="has ended; begin the step again"):
            await attempt.succeed(1)
        first = await ctx.begin("same")
        with pytest.raises(UsageError, match="called again before its first call had ended"):
            await ctx.begin("same")
        assert isinstance(first, Attempt)
        with pytest.raises(UsageError, match="has not been entered; do the work"):
            await first.succeed(1)
        second = await ctx.begin("same", interchangeable=True)
        assert isinstance(second, Attempt)
        await first.fail()
        await second.fail()

    assert await halves(memory, body).start(run_id=RUN) == Suspended("go", RUN)


async def test_a_declared_type_is_kept_in_halves(memory: MemoryStorage) -> None:
    """If it fails, an adapter has to write and read its framework's types by hand."""

    async def body(ctx: Context, attempt: Attempt) -> Any:
        async with attempt:
            return len(await attempt.succeed((1, 2)))

    flow = halves(memory, body, result_type=tuple[int, int])
    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_steps(memory) == {"half": [1, 2]}
    outcome = await flow.resume(RUN, "go", 1)
    assert outcome == Success([1, 2], RUN) or outcome == Success((1, 2), RUN)


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancellation_at_every_await_of_a_half(memory: MemoryStorage, turns: int) -> None:
    """If it fails, a worker that is stopped leaves a step open, and the run locked."""
    flow = halves(memory, succeeding)
    async with create_task_group() as group:
        scope = CancelScope()

        async def drive() -> None:
            with scope:
                await flow.start(run_id=RUN)

        group.start_soon(drive)
        for _ in range(turns):
            await checkpoint()
        scope.cancel()
    if "suspend" not in await journal_types(memory):
        assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_steps(memory) == {"half": {"a": [1, 2]}}


async def test_an_ordinary_error_between_the_halves_fails_the_workflow(
    memory: MemoryStorage,
) -> None:
    """If it fails, an error of the work is hidden behind that of the step."""

    async def body(ctx: Context, attempt: Attempt) -> None:
        async with attempt:
            raise ConnectionError("the real one")

    outcome = await halves(memory, body).start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ConnectionError)
