"""What the processes of the stream tests do: read a stream to its end, and die at one of its items."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio

from kassette_io import Context, LocalStorage, workflow

from .processes import Channel

RUN: Final = "run"
ITEMS: Final[list[Any]] = [{"text": "a"}, None, 0, "", ["b"]]


def read_stream(channel: Channel, *, backend: str, directory: str, die: list[Any] | None) -> None:
    """Drive a workflow that streams; be killed where ``die`` says: who, and at which item."""
    anyio.run(_drive, channel, LocalStorage(directory), die, backend=backend)


async def _drive(channel: Channel, storage: LocalStorage, die: list[Any] | None) -> None:
    def reach(*place: Any) -> None:
        if die == list(place):
            os.kill(os.getpid(), signal.SIGKILL)

    async def source() -> AsyncIterator[Any]:
        channel.send("asked")
        for number, item in enumerate(ITEMS):
            reach("source", number)
            yield item
        reach("source", len(ITEMS))

    @workflow(storage=storage)
    async def flow(ctx: Context) -> Any:
        seen: list[Any] = []
        async with ctx.stream("llm", source) as items:
            async for item in items:
                reach("consumer", len(seen))
                seen.append(item)
            reach("left", 0)
        reach("recorded", 0)
        await ctx.step("after", lambda: None)
        return [seen, items.result]

    outcome: Any = await flow.start(run_id=RUN)
    channel.send(outcome.result)
