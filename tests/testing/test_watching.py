"""A watched workflow: it sees the same context, and is refused for the same mistakes."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kassette_io import (
    Attempt,
    Context,
    MemoryStorage,
    Success,
    UsageError,
    current_context,
    workflow,
)
from kassette_io.testing import JournalReplay, crash_everywhere
from kassette_io.testing.watching import WorkflowOrFunction
from tests.testing.test_crash_findings import fetch

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run-1.jsonl"


async def test_steps_are_stubbed_by_id_by_full_name_and_by_name(path: Path) -> None:
    """A test could stub all calls of a name or none, not the second, and not those of a branch."""

    async def thrice(own: Context) -> list[str]:
        return [await own.step("fetch", fetch, page) for page in "abc"]

    async def flow(ctx: Context) -> list[str]:
        async def within(own: Context) -> list[str]:
            both = await own.parallel({"x": thrice})
            return [*both["x"], *await thrice(own)]

        return (await ctx.parallel({"in": within}))["in"]

    stubs = {
        "in:x:fetch#2": lambda page: f"by id {page}",
        "in:x:fetch": lambda page: f"by full name {page}",
        "fetch": lambda page: f"by name {page}",
    }
    by_name = ["by name a", "by name b", "by name c"]
    assert await JournalReplay(path, mode="once").run(flow, stubs=stubs) == Success(
        ["by full name a", "by id b", "by full name c", *by_name], "run-1"
    )


async def test_the_context_has_the_input() -> None:
    """A workflow that takes its input from the context could not be tested."""

    async def flow(ctx: Context, topic: str) -> Any:
        return [topic, ctx.input, ctx.run_id]

    survived = await crash_everywhere(flow, "cats")
    assert survived.outcome == Success(["cats", "cats", "run-1"], "run-1")


@pytest.mark.parametrize("step", [(7, fetch), ("fetch", 7), (fetch, "fetch"), ("", fetch)])
async def test_a_mistake_is_refused_as_ever(step: Any, path: Path) -> None:
    """A test would fail somewhere in our code, where production says what is wrong."""

    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": lambda own: own.step(*step)})

    await refused_as_ever(flow, path)


async def test_a_step_in_halves_without_a_name_is_refused_as_ever(path: Path) -> None:
    """A test would fail somewhere in our code, where production says what is wrong."""

    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": lambda own: own.begin(7)})  # type: ignore[arg-type]

    await refused_as_ever(flow, path)


async def test_a_context_of_elsewhere_is_refused_as_ever(path: Path) -> None:
    """Steps of branches would get each other's numbers in production, and pass in a test."""

    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": lambda own: ctx.step("fetch", fetch, "a")})

    await refused_as_ever(flow, path)


async def refused_as_ever(flow: WorkflowOrFunction, path: Path) -> None:
    """Check that a test says of a mistake what production says."""
    with pytest.raises(UsageError) as usual:
        await workflow(flow, storage=MemoryStorage()).start(run_id="run-1")  # type: ignore[arg-type]
    for testing in (
        lambda: crash_everywhere(flow),
        lambda: JournalReplay(path, mode="once").run(flow),
    ):
        with pytest.raises(UsageError) as refused:
            await testing()
        assert str(refused.value) == str(usual.value)
        assert refused.value.run_id == usual.value.run_id


async def test_the_current_context_is_the_one_that_the_workflow_has(path: Path) -> None:
    """An adapter would take its steps behind the test's back, or find no workflow around it."""
    seen: list[bool] = []

    async def flow(ctx: Context) -> None:
        async def branch(own: Context) -> None:
            seen.append(current_context() is own)

        seen.append(current_context() is ctx)
        await ctx.parallel({"a": branch})

    await JournalReplay(path, mode="once").run(flow)
    assert seen == [True, True]


async def test_a_step_in_halves_is_replayed_or_not_begun(path: Path) -> None:
    """Work that is no function, say a stream, would be paid for in every test."""
    did: list[str] = []

    async def flow(ctx: Context) -> Any:
        begun = await ctx.begin("half")
        if isinstance(begun, Attempt):
            async with begun:
                did.append("work")
                return await begun.succeed(7)
        return begun.result

    async def longer(ctx: Context) -> Any:
        first = await flow(ctx)
        with suppress(BaseException):
            return [first, await flow(ctx)]
        with suppress(BaseException):
            return [first, await flow(ctx)]

    assert await JournalReplay(path, mode="once").run(flow) == Success(7, "run-1")
    assert await JournalReplay(path).run(flow) == Success(7, "run-1")
    assert did == ["work"]
    with pytest.raises(AssertionError, match="requested:  step 'half#2', with"):
        await JournalReplay(path).run(longer)
    assert did == ["work"]
    survived = await crash_everywhere(flow)
    assert survived.outcome == Success(7, "run-1")
    assert "killed before the function of step 'half'" in survived.crashes


async def test_an_attempt_that_may_not_be_made_is_let_go_of(path: Path) -> None:
    """A replay that has parted would warn of an attempt that the workflow never got to see."""

    did: list[str] = []

    async def flow(ctx: Context) -> None:
        await ctx.begin("half")
        did.append("begun")

    await JournalReplay(path, mode="once").run(one)
    with pytest.raises(AssertionError, match="requested:  step 'half'") as caught:
        await JournalReplay(path).run(flow)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del caught
        gc.collect()
    assert [str(each.message) for each in warned if "attempt" in str(each.message)] == []
    assert did == []


async def one(ctx: Context) -> None:
    await ctx.step("one", fetch, "a")


async def test_a_stream_is_watched(path: Path) -> None:
    """A workflow that streams could not be tested, or would stream in every test."""

    async def words(text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word

    async def flow(ctx: Context, text: str) -> list[str]:
        async with ctx.stream("say", words, text) as items:
            return [item async for item in items]

    expected = Success(["a", "b"], "run-1")
    assert await JournalReplay(path, mode="once").run(flow, "a b") == expected
    replay = JournalReplay(path)
    assert await replay.run(flow) == expected
    assert replay.asked == {"say": "replayed"}


def sync(ctx: Context) -> None:
    pass


async def two(ctx: Context, one: int, other: int) -> None:
    pass


@pytest.mark.parametrize("given", [sync, two])
async def test_a_function_that_is_no_workflow_s_is_named(given: Any) -> None:
    """The error would name a function of ours, and be another one than in production."""
    with pytest.raises(UsageError) as usual:
        workflow(given, storage=MemoryStorage())
    with pytest.raises(UsageError) as refused:
        await crash_everywhere(given)
    assert str(refused.value) == str(usual.value)
    assert str(refused.value).startswith(f"{given.__name__} ")
