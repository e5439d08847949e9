"""What the processes of the kill test do: one workflow of every shape, and its visible effects."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, final

import anyio
from anyio.lowlevel import checkpoint

from kassette import EventPendingError, TerminalRunError
from kassette_io import Context, Failed, LocalStorage, Retry, Storage, Success, Suspended, workflow

from .processes import Channel

RUN_ID = "run"
INPUT = {"topics": 8, "nothing": None}
EVENTS = {"approval": {"by": "ada", "ok": True}, "second-opinion": 0}

VALUES = [
    None,
    False,
    0,
    "",
    [],
    {},
    0.0,
    'quotes " and \\ and \n and \u2028 and é and 🜚',
    2**63 - 1,
    -1.5e-300,
    {"result": {"deep": [None, {"": []}]}, "type": "complete"},
    ["x" * 3_000] * 10,
    "y" * 400_000,
]


@final
class Life:
    """One process of the run. A step's effect is a line in a file, ``<life> <step id>``."""

    def __init__(self, channel: Channel, number: int, effects: str) -> None:
        self._channel = channel
        self._number = number
        self._effects = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._calls: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    async def step(self, ctx: Context, name: str, *, path: str = "", flaky: bool = False) -> Any:
        """Record a step, whose result is the next of ``VALUES``; tell the test of every stage."""
        full = f"{path}{name}"
        self._calls[full] += 1
        step_id = full if self._calls[full] == 1 else f"{full}#{self._calls[full]}"
        value = VALUES[sum(map(ord, step_id)) % len(VALUES)]
        retry = Retry(max_attempts=3, delay=0) if flaky else None
        result = await ctx.step(name, self._act, step_id, value, flaky, retry=retry)
        self._channel.send(["done", step_id])
        return result

    async def _act(self, step_id: str, value: object, flaky: bool) -> object:
        self._channel.send(["begin", step_id])
        await checkpoint()
        if flaky and self._refused[step_id] < 2:
            self._refused[step_id] += 1
            raise ConnectionError(step_id)
        os.write(self._effects, f"{self._number} {step_id}\n".encode())
        return value

    async def pipeline(self, ctx: Context, given: dict[str, Any]) -> list[str]:
        """Loops, retries, branches in branches, a suspension, and one in company: forty steps."""
        seen = [await self.step(ctx, "plan")]
        for _ in range(given["topics"]):
            seen.append(await self.step(ctx, "fetch", flaky=True))
            seen.append(await self.step(ctx, "store"))
        fan = partial(self._branch, seen)
        branches: dict[str, Callable[[Context], Awaitable[object]]] = {
            "left": partial(fan, "left:"),
            "right": partial(fan, "right:"),
            "deep": self._nested,
        }
        await ctx.parallel(branches)
        seen.append(await ctx.suspend("approval", reason="a person has to look"))
        work = partial(self._branch, seen)
        branches = {"work": partial(work, "work:"), "ask": self._ask}
        seen.append(await ctx.parallel(branches))
        for _ in range(4):
            seen.append(await self.step(ctx, "close"))
        return sorted(map(repr, seen))

    async def _branch(self, seen: list[object], path: str, ctx: Context) -> None:
        for _ in range(4):
            seen.append(await self.step(ctx, "work", path=path))

    async def _nested(self, ctx: Context) -> object:
        seen: list[object] = []
        fan = partial(self._branch, seen)
        await ctx.parallel({"a": partial(fan, "deep:a:"), "b": partial(fan, "deep:b:")})
        return [await self.step(ctx, "join", path="deep:", flaky=True), len(seen)]

    async def _ask(self, ctx: Context) -> object:
        before = await self.step(ctx, "ask", path="ask:")
        return [before, await ctx.suspend("second-opinion")]


def live(channel: Channel, *, backend: str, directory: str, number: int, effects: str) -> None:
    """Take the run as far as it goes: to its end, or to its next suspension."""
    life = Life(channel, number, effects)
    anyio.run(live_on, LocalStorage(directory), life, channel, backend=backend)


async def live_on(storage: Storage, life: Life, channel: Channel) -> None:
    """Take the run in ``storage`` as far as it goes; tell the test how that ended."""
    flow = workflow(life.pipeline, storage=storage)
    channel.send(["up", None])
    try:
        outcome = await flow.start(INPUT, run_id=RUN_ID)
    except EventPendingError as pending:
        event = pending.waiting_for
        outcome = await flow.resume(RUN_ID, event, EVENTS[event])
    except TerminalRunError as over:
        channel.send(["over", over.terminal_state])
        return
    match outcome:
        case Success(result=result):
            channel.send(["success", result])
        case Suspended(event=event):
            channel.send(["suspended", event])
        case Failed(error=error):
            channel.send(["failed", repr(error)])
