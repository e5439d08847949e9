"""Workflows to test with, and the world that they act on."""

from __future__ import annotations

from typing import Any

from anyio.lowlevel import checkpoint

from kassette_io import Context, MemoryStorage, workflow


class World:
    """What steps act on: calls in order, and mails that were really sent."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.mails: dict[str, str] = {}

    def reset(self) -> None:
        self.calls.clear()
        self.mails.clear()

    async def think(self, question: str) -> str:
        await checkpoint()
        self.calls.append(f"think {question}")
        return f"42 for {question}"

    def send(self, key: str, text: str) -> str:
        self.calls.append(f"send {key}")
        self.mails[key] = text
        return f"sent {text}"


def answering(world: World) -> Any:
    """Give a workflow of two steps, the second of which has an effect."""

    async def answer(ctx: Context, mail: dict[str, str]) -> str:
        text = await ctx.step("think", world.think, mail["question"])
        return await ctx.step("send", world.send, f"{ctx.run_id}-send", text)

    return workflow(answer, storage=MemoryStorage())
