"""D3 without the pydantic extra: plain values work, and what needs it says so."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from kassette_io import Context, MemoryStorage, Success, UsageError, start, workflow
from tests.io.stories import RUN, journal_types

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _no_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.setitem(sys.modules, "pydantic_core", None)


def declared() -> Any:
    """Give a type that no adapter was ever made of."""

    @dataclass
    class Fresh:
        n: int

    return Fresh


async def test_plain_values_need_no_pydantic(memory: MemoryStorage) -> None:
    """If it fails, the extra is not optional."""

    @workflow(storage=memory, events={"ok": dict[str, Any], "note": str | None})
    async def flow(ctx: Context, number: int) -> list[Any]:
        async def work() -> dict[str, list[int]]:
            return {"n": [number]}

        return [await ctx.step("a", work, result_type=dict), await ctx.suspend("ok")]

    await flow.start(7, run_id=RUN)
    assert await flow.resume(RUN, "ok", {"yes": True}) == Success([{"n": [7]}, {"yes": True}], RUN)


async def test_an_explicit_type_names_the_extra(memory: MemoryStorage) -> None:
    """If it fails, a missing extra ends in an ImportError, or after the step has run."""
    ran: list[int] = []
    async with await start(memory, RUN) as run:
        with pytest.raises(UsageError, match=r"pip install 'kassette-py\[pydantic\]'"):
            await run.record("a", ran.append, 1, result_type=declared())
    assert ran == []
    assert await journal_types(memory) == ["start"]

    async def body(ctx: Context) -> None:
        return None

    with pytest.raises(UsageError, match=r"pip install 'kassette-py\[pydantic\]'"):
        workflow(body, storage=memory, events={"ok": declared()})


async def test_an_annotation_is_a_remark_and_the_value_is_judged(memory: MemoryStorage) -> None:
    """If it fails, annotated functions cannot be steps at all, or their values lose their type."""
    kind = declared()

    def plain() -> Any:
        return {"n": 1}

    def typed() -> Any:
        return kind(1)

    plain.__annotations__["return"] = typed.__annotations__["return"] = kind
    async with await start(memory, RUN) as run:
        assert await run.record("a", plain) == {"n": 1}
        with pytest.raises(UsageError, match="with pydantic installed"):
            await run.record("b", typed)
    assert await journal_types(memory) == ["start", "step"]


def test_pydantic_is_not_loaded_before_it_is_needed() -> None:
    """If it fails, every program pays a quarter of a second for types that it may never declare."""
    script = """
import asyncio, sys
from kassette_io import MemoryStorage, workflow

@workflow(storage=MemoryStorage())
async def flow(ctx, number: int) -> int:
    return await ctx.step("a", lambda: number)

asyncio.run(flow.start(1))
sys.exit(any(name.partition(".")[0] in ("pydantic", "trio", "rich") for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
