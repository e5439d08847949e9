"""A watched workflow: it sees the same context, and is refused for the same mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kassette_io import Context, MemoryStorage, Success, UsageError, workflow
from kassette_io.testing import JournalReplay, crash_everywhere
from tests.testing.test_crash_findings import fetch

pytestmark = pytest.mark.anyio


async def test_steps_are_stubbed_by_id_by_full_name_and_by_name() -> None:
    """A test could stub all calls of a name or none, not the second, and not those of a branch."""

    async def flow(ctx: Context) -> list[str]:
        async def twice(own: Context) -> list[str]:
            return [await own.step("fetch", fetch, page) for page in "abc"]

        async def within(own: Context) -> list[str]:
            both = await own.parallel({"x": twice})
            return [*both["x"], *await twice(own)]

        both = await ctx.parallel({"in": within, "out": twice})
        return [*both["in"], *both["out"]]

    names = {
        "in:x:fetch#2": lambda page: f"by id {page}",
        "in:x:fetch": lambda page: f"by full name {page}",
        "fetch": lambda page: f"by name {page}",
    }
    survived = await crash_everywhere(flow, stubs=names)
    by_name = ["by name a", "by name b", "by name c"]
    expected = ["by full name a", "by id b", "by full name c", *by_name, *by_name]
    assert survived.outcome == Success(expected, "run-1")


async def test_the_context_has_the_input() -> None:
    """A workflow that takes its input from the context could not be tested."""

    async def flow(ctx: Context, topic: str) -> Any:
        return [topic, ctx.input, ctx.run_id]

    survived = await crash_everywhere(flow, "cats")
    assert survived.outcome == Success(["cats", "cats", "run-1"], "run-1")


@pytest.mark.parametrize("step", [(7, fetch), ("fetch", 7), (fetch, "fetch"), ("", fetch)])
async def test_a_mistake_is_refused_as_ever(step: Any, tmp_path: Path) -> None:
    """A test would fail somewhere in our code, where production says what is wrong."""

    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": lambda own: own.step(*step)})

    with pytest.raises(UsageError) as usual:
        await workflow(flow, storage=MemoryStorage()).start(run_id="run-1")
    for testing in (
        crash_everywhere(flow),
        JournalReplay(tmp_path / "run-1.jsonl", mode="once").run(flow),
    ):
        with pytest.raises(UsageError) as refused:
            await testing
        assert str(refused.value) == str(usual.value)
        assert refused.value.run_id == usual.value.run_id


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
