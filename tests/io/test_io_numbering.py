"""D8: which step is which; names, branch paths and occurrence numbers under every timing."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint

from kassette_io import Context, Success, UsageError, start, workflow
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_steps

pytestmark = pytest.mark.anyio

BAD_KEYS = ["", "a:b", "a#1", 7, None, "\ud800"]
GOOD_NAMES = ["llm", "tool:search", " ", "a/b", "ünïcödé ✓", "x" * 1000, "a\nb", "{}"]


async def test_d8_repeats_are_numbered_from_two(world: World) -> None:
    """If it fails, journals of the two implementations no longer fit each other."""
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[Any]:
        names = ["llm", "tool:x", "llm", "llm", "tool:x"]
        return [await ctx.step(name, work.work, name, at) for at, name in enumerate(names)]

    assert await flow.start(run_id=RUN) == Success([0, 1, 2, 3, 4], RUN)
    steps = await journal_steps(world.open())
    assert list(steps.items()) == [
        ("llm", 0),
        ("tool:x", 1),
        ("llm#2", 2),
        ("llm#3", 3),
        ("tool:x#2", 4),
    ]


@pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
async def test_d8_any_text_without_the_separator_is_a_name(world: World, name: str) -> None:
    """If it fails, a name that is allowed breaks the journal or does not replay."""
    for expected in (["live", "live"], []):
        work = Ledger()
        async with await start(world.open(), RUN) as run:
            results = [await run.record(name, work.note, "live", at) for at in (0, None)]
        assert results == [0, None]
        assert work.done == expected


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_d8_a_bad_branch_key_is_refused_before_any_branch_runs(
    world: World, key: Any
) -> None:
    """If it fails, two branches can produce one name, or some branches run before the refusal."""
    ran: list[str] = []

    async def branch(ctx: Context) -> None:
        ran.append("branch")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"fine": branch, key: branch})

    with pytest.raises(UsageError, match="a branch key"):
        await flow.start(run_id=RUN)
    assert ran == []


async def test_d8_one_full_name_from_two_paths_is_refused(world: World) -> None:
    """If it fails, ``x`` + ``tool:search`` and ``x:tool`` + ``search`` share their results."""
    work = Ledger()

    async def outer(ctx: Context) -> None:
        await ctx.step("tool:search", work.work, "x / tool:search")
        await ctx.parallel({"tool": inner})

    async def inner(ctx: Context) -> None:
        await ctx.step("search", work.work, "x:tool / search")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"x": outer})

    with pytest.raises(UsageError, match="the same full name in two branches"):
        await flow.start(run_id=RUN)
    assert work.done == ["x / tool:search"]


async def test_d8_the_context_of_the_parent_is_refused_in_a_branch(world: World) -> None:
    """If it fails, what runs beside a step shifts its number, and replay mixes results up."""
    work = Ledger()
    refused: list[str] = []

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async def branch(own: Context) -> None:
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: ctx.step("a", work.work, "a"),
                lambda: ctx.suspend("e"),
                lambda: ctx.sleep(0),
                lambda: ctx.parallel({"y": nested}),
                lambda: ctx.begin("a"),
            ]
            for call in calls:
                with pytest.raises(UsageError, match="branch 'x' used the context of") as caught:
                    await call()
                refused.append(str(caught.value))
            with pytest.raises(UsageError, match="branch 'x' used the context of"):
                ctx.stream("a", nested)
            await own.parallel({"y": nested})

        async def nested(own: Context) -> None:
            with pytest.raises(UsageError, match="branch 'x:y' used the context of"):
                await ctx.step("a", work.work, "a")
            await own.step("a", work.work, "own")

        await ctx.parallel({"x": branch})
        await ctx.step("a", work.work, "afterwards")

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert len(refused) == 5
    assert work.done == ["own", "afterwards"]


async def test_d8_the_context_of_a_sibling_is_refused(world: World) -> None:
    """If it fails, a branch can record steps under another branch's numbers."""
    contexts: dict[str, Context] = {}
    both = Event()

    async def lends(ctx: Context) -> None:
        contexts["lent"] = ctx
        both.set()

    async def borrows(ctx: Context) -> None:
        await both.wait()
        with pytest.raises(UsageError, match="branch 'b' used the context of 'a'"):
            await contexts["lent"].step("x", print)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": lends, "b": borrows})

    assert await flow.start(run_id=RUN) == Success(None, RUN)


async def test_d8_a_branch_may_use_the_context_of_another_run(world: World) -> None:
    """If it fails, a workflow that runs another one cannot let it report to itself."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async def reports(_: Context) -> None:
            await ctx.step("reported", lambda: 1)

        @workflow(storage=world.open())
        async def inner(own: Context) -> None:
            await own.parallel({"x": reports})

        assert await inner.start(run_id="inner") == Success(None, "inner")

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert await journal_steps(world.open()) == {"reported": 1}


async def test_d8_a_task_of_the_workflow_may_work_for_a_branch(world: World) -> None:
    """If it fails, an adapter whose one worker serves all branches cannot take their steps."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        asked, done = Event(), Event()
        lent: list[Context] = []

        async def worker() -> None:
            await asked.wait()
            await lent[0].step("work", lambda: 1)
            done.set()

        async def branch(own: Context) -> None:
            lent.append(own)
            asked.set()
            await done.wait()

        async with create_task_group() as tasks:
            tasks.start_soon(worker)
            await ctx.parallel({"x": branch})

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert await journal_steps(world.open()) == {"x:work": 1}


async def test_d8_tasks_of_a_branch_may_use_its_context(world: World) -> None:
    """If it fails, a task group inside a branch cannot do steps."""
    work = Ledger()

    async def branch(ctx: Context) -> None:
        async with create_task_group() as group:
            group.start_soon(ctx.step, "a", work.work, "a")
            group.start_soon(ctx.step, "b", work.work, "b")

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"x": branch})

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert set(await journal_steps(world.open())) == {"x:a", "x:b"}


async def test_d8_another_workflow_inside_a_branch_has_its_own_contexts(world: World) -> None:
    """If it fails, a workflow cannot be started from within a branch of another one."""
    work = Ledger()
    storage = world.open()

    @workflow(storage=storage)
    async def inner(ctx: Context) -> dict[str, Any]:
        await ctx.step("a", work.work, "inner")
        return await ctx.parallel({"x": lambda own: own.step("a", work.work, "branch", 1)})

    @workflow(storage=storage)
    async def outer(ctx: Context) -> dict[str, Any]:
        async def branch(own: Context) -> Any:
            return (await inner.start(run_id=f"{own.run_id}.inner")).status

        return await ctx.parallel({"x": branch})

    assert await outer.start(run_id=RUN) == Success({"x": "success"}, RUN)
    assert await journal_steps(world.open(), f"{RUN}.inner") == {"a": None, "x:a": 1}
    assert await journal_steps(world.open()) == {}


async def test_d8_the_same_keys_in_sequence_count_on(world: World) -> None:
    """If it fails, the second round of a loop over parallel branches replays the first round."""
    rounds = 3

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[Any]:
        results = []
        for number in range(rounds):

            async def branch(own: Context, number: int = number) -> Any:
                return await own.step("work", lambda: number)

            results.append(await ctx.parallel({"x": branch}))
        return results

    assert await flow.start(run_id=RUN) == Success([{"x": 0}, {"x": 1}, {"x": 2}], RUN)
    assert list(await journal_steps(world.open())) == ["x:work", "x:work#2", "x:work#3"]


async def test_d8_two_blocks_at_once_need_different_keys(world: World) -> None:
    """If it fails, which of two equal branches gets which number is a matter of timing."""
    entered, leave = Event(), Event()

    async def first(ctx: Context) -> str:
        entered.set()
        await leave.wait()
        return "first"

    async def second(ctx: Context) -> str:
        return "second"

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async with create_task_group() as group:
            group.start_soon(ctx.parallel, {"x": first})
            await entered.wait()
            with pytest.raises(UsageError, match="branch 'x' is already running"):
                await ctx.parallel({"y": second, "x": second})
            assert await ctx.parallel({"y": second}) == {"y": "second"}
            leave.set()
        assert await ctx.parallel({"x": second}) == {"x": "second"}

    assert await flow.start(run_id=RUN) == Success(None, RUN)


ORDERS = list(itertools.permutations("abc"))


@pytest.mark.parametrize("order", ORDERS, ids="".join)
async def test_the_timing_of_siblings_does_not_shift_numbers(
    world: World, order: Sequence[str]
) -> None:
    """If it fails, a recovery in which branches overtake each other pairs results wrongly."""
    work = Ledger()
    first, last = {"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 3, "c": 3}
    counts, sequence = first, list(order)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        turns = {key: [Event() for _ in range(counts[key])] for key in "abc"}

        def branch(key: str) -> Callable[[Context], Awaitable[list[Any]]]:
            before = sequence[sequence.index(key) - 1] if key != sequence[0] else None

            async def run(own: Context) -> list[Any]:
                results = []
                for number, mine in enumerate(turns[key]):
                    if before is not None and number < counts[before]:
                        await turns[before][number].wait()
                    name = f"{key}{number}"
                    results.append(await own.step("work", work.work, name, name))
                    mine.set()
                return results

            return run

        results = await ctx.parallel({key: branch(key) for key in "abc"})
        if counts is first:
            raise KeyboardInterrupt
        return results

    with pytest.raises(KeyboardInterrupt):
        await flow.start(run_id=RUN)
    assert len(work.done) == 6
    counts, sequence = last, list(order[::-1])
    expected = {key: [f"{key}0", f"{key}1", f"{key}2"] for key in "abc"}
    assert await flow.start(run_id=RUN) == Success(expected, RUN)
    assert len(work.done) == 9
    assert await journal_steps(world.open()) == {
        f"{key}:work" + (f"#{number + 1}" if number else ""): f"{key}{number}"
        for key in "abc"
        for number in range(3)
    }


async def test_a_step_that_failed_gives_its_number_back(world: World) -> None:
    """If it fails, a step that is repeated by hand is paid for again in the next session."""
    work = Ledger()

    async def failing() -> Any:
        await checkpoint()
        work.note("fails")
        raise ValueError("no")

    async with await start(world.open(), RUN) as run:
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                await run.record("x", failing)
        assert await run.record("x", work.note, "third", 3) == 3
    async with await start(world.open(), RUN) as run:
        assert await run.record("x", failing) == 3
        assert await run.record("x", work.note, "next", 4) == 4
    assert work.done == ["fails", "fails", "third", "next"]
    assert await journal_steps(world.open()) == {"x": 3, "x#2": 4}
