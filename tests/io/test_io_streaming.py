"""A step that comes item by item is recorded whole or not at all, and replayed as the same items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import CancelScope, Event, create_task_group
from anyio.lowlevel import checkpoint
from pydantic import BaseModel

from kassette_io import (
    Context,
    Failed,
    MemoryStorage,
    Recorded,
    StreamTooLargeError,
    Success,
    Suspended,
    UsageError,
    ValueRefusedError,
    workflow,
)
from kassette_io.testing import crash_everywhere
from tests.io.stories import RUN, journal_steps, journal_types

pytestmark = pytest.mark.anyio
ITEMS: list[Any] = [{"text": "a"}, None, 0, "", ["b"]]


class Source:
    """A model that streams; it counts how often it was asked, read and closed."""

    def __init__(self, items: list[Any], broken_at: int | None = None) -> None:
        self.items = items
        self.broken_at = broken_at
        self.said: list[Any] = []

    async def __call__(self) -> AsyncIterator[Any]:
        self.said.append("asked")
        try:
            for number, item in enumerate(self.items):
                await checkpoint()
                if number == self.broken_at:
                    raise ConnectionError("cut off")
                self.said.append(number)
                yield item
        finally:
            self.said.append("closed")


def flow_over(memory: MemoryStorage, source: Source, consume: Any, **how: Any) -> Any:
    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async with ctx.stream("llm", source, **how) as items:
            seen = await consume(items)
        await ctx.suspend("go")
        return [seen, items.result]

    return flow


async def take_all(items: Any) -> list[Any]:
    return [item async for item in items]


async def take_two(items: Any) -> list[Any]:
    seen: list[Any] = []
    async for item in items:
        seen.append(item)
        if len(seen) == 2:
            break
    return seen


@pytest.mark.parametrize("consume", [take_all, take_two])
async def test_the_same_items_come_live_and_on_replay_and_all_are_recorded(
    memory: MemoryStorage, consume: Any
) -> None:
    """If it fails, a consumer that stops early has paid for what nobody has, or sees other items."""
    source = Source(ITEMS)
    flow = flow_over(memory, source, consume)
    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    wanted = ITEMS if consume is take_all else ITEMS[:2]
    assert await flow.resume(RUN, "go", 1) == Success([wanted, ITEMS], RUN)
    assert source.said == ["asked", *range(len(ITEMS)), "closed"]
    assert await journal_steps(memory) == {"llm": ITEMS}


async def test_what_the_consumer_does_to_an_item_is_not_recorded(memory: MemoryStorage) -> None:
    """If it fails, a replay goes on from what a live run has made of the answer meanwhile."""

    async def spoil(items: Any) -> int:
        count = 0
        async for item in items:
            item["text"] = "spoilt"
            count += 1
        return count

    flow = flow_over(memory, Source([{"text": "a"}, {"text": "b"}]), spoil)
    await flow.start(run_id=RUN)
    outcome = await flow.resume(RUN, "go", 1)
    assert outcome == Success([2, [{"text": "a"}, {"text": "b"}]], RUN)


@pytest.mark.parametrize("at", range(len(ITEMS)))
async def test_a_consumer_that_raises_records_nothing(memory: MemoryStorage, at: int) -> None:
    """If it fails, half an answer is replayed for the whole."""
    source = Source(ITEMS)

    async def consume(items: Any) -> None:
        async for _ in items:
            if source.said[-1] == at:
                raise KeyError("the consumer")

    outcome = await flow_over(memory, source, consume).start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, KeyError)
    assert source.said[-1] == "closed"
    assert await journal_types(memory) == ["start", "error"]


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("at", range(len(ITEMS)))
async def test_a_source_that_fails_half_way_records_nothing(
    memory: MemoryStorage, at: int, hidden: bool
) -> None:
    """If it fails, a stream that was cut off is replayed as if the model had said no more."""
    source = Source(ITEMS, broken_at=at)

    async def consume(items: Any) -> None:
        try:
            await take_all(items)
        except ConnectionError:
            if not hidden:
                raise

    outcome = await flow_over(memory, source, consume).start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ConnectionError)
    assert await journal_types(memory) == ["start", "error"]


@pytest.mark.parametrize("turns", range(14))
async def test_a_cancellation_at_every_await_records_the_whole_or_nothing(
    memory: MemoryStorage, turns: int
) -> None:
    """If it fails, a worker that is stopped in mid-stream leaves half an answer, or a lock."""
    source = Source(ITEMS)
    flow = flow_over(memory, source, take_all)
    async with create_task_group() as group:
        scope = CancelScope()

        async def drive() -> None:
            with scope:
                await flow.start(run_id=RUN)

        group.start_soon(drive)
        for _ in range(turns):
            await checkpoint()
        scope.cancel()
    assert source.said.count("asked") == source.said.count("closed")
    recorded = await journal_steps(memory)
    assert recorded in ({}, {"llm": ITEMS})
    if "suspend" not in await journal_types(memory):
        assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await flow.resume(RUN, "go", 1) == Success([ITEMS, ITEMS], RUN)


async def test_every_crash_leaves_the_whole_or_nothing() -> None:
    """If it fails, a process that dies in mid-stream makes the run go on with half an answer."""
    asked = 0

    async def ask() -> AsyncIterator[Any]:
        nonlocal asked
        asked += 1
        for item in ITEMS:
            await checkpoint()
            yield item

    async def flow(ctx: Context) -> Any:
        async with ctx.stream("llm", ask) as items:
            seen = await take_all(items)
        begun = await ctx.begin("half")
        if isinstance(begun, Recorded):
            half = begun.result
        else:
            async with begun:
                await checkpoint()
                half = await begun.succeed("done")
        return [seen, half]

    report = await crash_everywhere(flow)
    assert len(report.crashes) > 8
    assert asked > 3


async def test_a_fold_is_recorded_in_place_of_the_items(memory: MemoryStorage) -> None:
    """If it fails, a journal holds every delta of an answer, or a replay shows nothing of it."""

    class Message(BaseModel):
        text: str

    def fold(items: list[Any]) -> Message:
        return Message(text="".join(items))

    def unfold(message: Any) -> list[str]:
        assert isinstance(message, Message)
        return list(message.text)

    source = Source(["a", "b", "c"])

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async with ctx.stream(
            "llm", source, fold=fold, unfold=unfold, result_type=Message
        ) as items:
            seen = await take_all(items)
        assert isinstance(items.result, Message)
        await ctx.suspend("go")
        return [seen, items.result.text]

    await flow.start(run_id=RUN)
    assert await journal_steps(memory) == {"llm": {"text": "abc"}}
    assert await flow.resume(RUN, "go", 1) == Success([["a", "b", "c"], "abc"], RUN)


async def test_items_of_a_declared_type_come_back_as_that(memory: MemoryStorage) -> None:
    """If it fails, code that works live meets dicts on replay."""

    class Delta(BaseModel):
        text: str

    async def texts(items: Any) -> list[str]:
        return [item.text async for item in items]

    flow = flow_over(memory, Source([Delta(text="a"), Delta(text="b")]), texts, item_type=Delta)

    @workflow(storage=memory, name=flow.name)
    async def looking(ctx: Context) -> Any:
        async with ctx.stream("llm", Source([]), item_type=Delta) as items:
            return [await texts(items), [type(each).__name__ for each in items.result]]

    await flow.start(run_id=RUN)
    found = await looking.resume(RUN, "go", 1)
    assert found == Success([["a", "b"], ["Delta", "Delta"]], RUN)


@pytest.mark.parametrize("how", ["awaited", "opened", "an sdk's"])
async def test_a_source_is_opened_as_sdks_open_theirs(memory: MemoryStorage, how: str) -> None:
    """If it fails, every user writes a wrapper around `client.messages.stream(…)`."""
    said: list[str] = []
    source = Source([1, 2])

    class Response:
        def __aiter__(self) -> AsyncIterator[Any]:
            return source()

        async def close(self) -> None:
            said.append("closed")

    async def awaited() -> Any:
        return Response()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield source()
        said.append("closed")

    ways: dict[str, Callable[[], Any]] = {"awaited": awaited, "opened": opened}
    flow = flow_over(memory, ways.get(how, Response), take_all)  # type: ignore[arg-type]
    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_steps(memory) == {"llm": [1, 2]}
    assert said == ["closed"]


async def test_a_stream_has_a_bound(memory: MemoryStorage) -> None:
    """If it fails, a source that does not end takes the process with it."""
    source = Source(["x" * 10] * 5)
    flow = flow_over(memory, source, take_all, max_bytes=40)
    with pytest.raises(StreamTooLargeError, match="stream 'llm' has more than 40 bytes") as large:
        await flow.start(run_id=RUN)
    assert large.value.run_id == RUN
    assert source.said[-1] == "closed"
    assert await journal_types(memory) == ["start"]
    wide = flow_over(memory, Source(["x" * 10] * 5), take_all, max_bytes=60)
    assert await wide.start(run_id=RUN) == Suspended("go", RUN)


@pytest.mark.parametrize(
    ("source", "how", "said"),
    [
        (Source([{1, 2}]), {}, r"item 0 of stream 'llm'"),
        (lambda: 5, {}, "the source of stream 'llm' returned 5, which is not an async iterable"),
        (Source([1]), {"fold": list}, "stream 'llm' needs both fold and unfold, or neither"),
        (Source([1]), {"result_type": list}, "stream 'llm' has a result_type but no fold"),
    ],
)
async def test_misuse_leaves_the_run_open(
    memory: MemoryStorage, source: Any, how: dict[str, Any], said: str
) -> None:
    """If it fails, a slip burns the run, or is recorded as an answer."""
    with pytest.raises(UsageError, match=said) as refused:
        await flow_over(memory, source, take_all, **how).start(run_id=RUN)
    assert refused.value.run_id == RUN
    assert await journal_types(memory) == ["start"]
    good = flow_over(memory, Source([1]), take_all)
    assert await good.start(run_id=RUN) == Suspended("go", RUN)


async def test_a_step_that_is_no_stream_is_told_from_one(memory: MemoryStorage) -> None:
    """If it fails, a deploy that makes a step a stream iterates over the letters of its result."""

    @workflow(storage=memory, name="w")
    async def before(ctx: Context) -> None:
        await ctx.step("llm", lambda: "text")
        await ctx.suspend("go")

    @workflow(storage=memory, name="w")
    async def after(ctx: Context) -> Any:
        async with ctx.stream("llm", Source([])) as items:
            return await take_all(items)

    await before.start(run_id=RUN)
    with pytest.raises(ValueRefusedError, match="was recorded as 'text', which is not a list of"):
        await after.resume(RUN, "go", 1)


async def test_no_step_is_taken_while_items_come(memory: MemoryStorage) -> None:
    """If it fails, a step between two items is numbered live, and asked for again on replay."""

    async def consume(items: Any) -> None:
        async for _ in items:
            await current["ctx"].step("inner", lambda: 1)

    current: dict[str, Context] = {}

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        current["ctx"] = ctx
        async with ctx.stream("llm", Source([1])) as items:
            await consume(items)

    with pytest.raises(UsageError, match="requested inside of step 'llm'"):
        await flow.start(run_id=RUN)
    assert await journal_types(memory) == ["start"]


async def test_a_stream_beside_a_tool_that_suspends_is_cancelled_and_asked_for_again(
    memory: MemoryStorage,
) -> None:
    """If it fails, the page claims what is not so: only a step's function is held."""
    go = Event()

    async def endless() -> AsyncIterator[int]:
        yield 1
        go.set()
        await anyio.sleep_forever()

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        async def read() -> None:
            async with ctx.stream("llm", endless) as items:
                await take_all(items)

        async def ask() -> None:
            await go.wait()
            await ctx.suspend("go")

        async with create_task_group() as tools:
            tools.start_soon(read)
            tools.start_soon(ask)

    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert await journal_types(memory) == ["start", "suspend"]


@pytest.mark.parametrize("why", ["an item", "the bound", "a timeout"])
async def test_what_broke_a_stream_off_cannot_be_hidden(memory: MemoryStorage, why: str) -> None:
    """If it fails, a consumer that goes on records an answer with a hole in it for the whole."""

    async def endless() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    async def consume(items: Any) -> None:
        with CancelScope() as scope:
            try:
                async for _ in items:
                    if why == "a timeout":
                        scope.cancel()
            except UsageError:
                pass

    source: Any = endless if why == "a timeout" else Source([1, {1} if why == "an item" else 2, 3])
    how = {"max_bytes": 1} if why == "the bound" else {}
    said = {
        "an item": "item 1 of stream 'llm'",
        "the bound": "more than 1 bytes of items",
        "a timeout": "was interrupted inside of its block, which then continued",
    }
    with pytest.raises(UsageError, match=said[why]):
        await flow_over(memory, source, consume, **how).start(run_id=RUN)
    assert await journal_types(memory) == ["start"]
