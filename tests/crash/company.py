"""What the processes of the company tests do: three workflows that pay, and where they die.

A payment is a line in a file, ``<life> <step id> <attempt>``, synced before the step goes on. Steps
that are paid for stay in flight until somebody has suspended or failed, so that it is always a step
under way which a suspension, a failing sibling or a death finds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, final

import anyio
import sniffio
from anyio import CancelScope, Event
from anyio.lowlevel import checkpoint

from kassette import EventPendingError, ResumeEntry, TerminalRunError
from kassette_io import (
    Context,
    Entry,
    Failed,
    LocalStorage,
    Success,
    Suspended,
    SuspendEntry,
    workflow,
)

from .processes import Channel

RUN_ID: Final = "run"
ATTEMPTS: Final = 3
TURNS: Final = 5
"""How many turns of the loop a step is still under way after its sibling has suspended."""

Tool = Callable[[], Coroutine[Any, Any, Any]]


@final
class DeclinedError(Exception):
    """What a payment that is refused and a tool that fails raise."""


# --- dying -----------------------------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_entry(journal: Path, moment: str, offset: int) -> None:
    """Die just ``before`` the write of the entry at ``offset``, or just ``after`` it.

    Only the threads that storage starts are looked at; one write may hold several entries.
    """
    due = "c_call" if moment == "before" else "c_return"

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event == due and called is os.write:
            written = journal.read_bytes().count(b"\n")
            if written + (moment == "before") > offset:
                _die()

    threading.setprofile(look)


@final
class Till:
    """Where one life of a run pays; with ``last`` it dies once that many payments were ever made."""

    def __init__(self, path: Path, life: int, last: int | None) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._path = path
        self._life = life
        self._last = last
        self._attempts: Counter[str] = Counter()

    def pay(self, step_id: str) -> int:
        """Pay for an attempt of ``step_id``; return its number in this life, from 1."""
        self._attempts[step_id] += 1
        os.write(self._fd, f"{self._life} {step_id} {self._attempts[step_id]}\n".encode())
        os.fsync(self._fd)
        if self._last is not None and self._path.read_bytes().count(b"\n") >= self._last:
            _die()
        return self._attempts[step_id]


# --- running tools side by side ----------------------------------------------------------------


async def gathered(tools: Sequence[Tool]) -> None:
    """Run the tools as plain tasks, which go on behind the first exception."""
    await asyncio.gather(*(tool() for tool in tools))


async def grouped(tools: Sequence[Tool]) -> None:
    """Run the tools in the loop's own group, which cancels the rest at the first exception."""
    if sniffio.current_async_library() == "trio":
        trio = sys.modules["trio"]
        async with trio.open_nursery() as nursery:
            for tool in tools:
                nursery.start_soon(tool)
    else:
        async with asyncio.TaskGroup() as group:
            for tool in tools:
                group.create_task(tool())


async def first_failure_cancels(tools: Sequence[Tool]) -> None:
    """Do as agent frameworks do: at the first exception cancel the rest, then raise it bare."""
    if sniffio.current_async_library() == "trio":
        await _cancel_in_a_scope(tools)
        return
    tasks = [asyncio.ensure_future(tool()) for tool in tools]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _cancel_in_a_scope(tools: Sequence[Tool]) -> None:
    trio = sys.modules["trio"]
    raised: list[BaseException] = []

    async def run(tool: Tool, scope: CancelScope) -> None:
        try:
            await tool()
        except trio.Cancelled:
            raise
        except BaseException as error:
            raised.append(error)
            scope.cancel()

    async with anyio.create_task_group() as group:
        for tool in tools:
            group.start_soon(run, tool, group.cancel_scope)
    if raised:
        raise raised[0]


# --- the workflows -----------------------------------------------------------------------------


async def repeats(till: Till, ctx: Context) -> list[object]:
    """Repeat a step by hand whose first attempts are paid for and fail; twice, under one name."""

    async def charge(step_id: str) -> str:
        attempt = till.pay(step_id)
        await checkpoint()
        if attempt < ATTEMPTS:
            raise DeclinedError(step_id)
        return f"{step_id} was paid"

    async def insist(step_id: str) -> str:
        for _ in range(ATTEMPTS - 1):
            try:
                return await ctx.step("charge", charge, step_id)
            except DeclinedError:
                continue
        return await ctx.step("charge", charge, step_id)

    first = await insist("charge")
    answer = await ctx.suspend("once more")
    return [first, answer, await insist("charge#2")]


async def five_tools(
    run_tools: Callable[[Sequence[Tool]], Awaitable[None]], till: Till, ctx: Context
) -> dict[str, object]:
    """Run three tools that pay beside two that ask a person, and pay for what is allowed.

    Each tool lets the next one go on, so that all are at known places when one suspends: the three
    have paid for what they are about to return, and so has the one that was answered. What they
    return is recorded one by one.
    """
    results: dict[str, object] = {}
    begun: set[str] = set()
    all_begun = Event()
    paid = [Event() for _ in range(3)]
    asked = {"room": Event(), "car": Event()}
    ended = {"room": Event(), "car": Event()}

    def begin(step_id: str) -> None:
        begun.add(step_id)
        if len(begun) == len(paid):
            all_begun.set()

    async def pay(step_id: str, earlier: Event) -> str:
        till.pay(step_id)
        begin(step_id)
        await earlier.wait()
        return await _finish(step_id)

    async def pays(number: int, earlier: Event) -> None:
        name = f"pay {number}"
        results[name] = await ctx.step(name, pay, name, earlier, on_replay=lambda _: begin(name))
        paid[number].set()

    async def act(event: str, other: Event) -> str:
        till.pay(f"act on {event}")
        asked[event].set()
        await other.wait()
        return await _finish(f"act on {event}")

    async def asks(event: str, earlier: Event, other: Event) -> None:
        if not earlier.is_set():  # or the group could cancel this before it has asked
            await earlier.wait()
        try:
            answer = await ctx.suspend(event)
            acted = ctx.step(
                f"act on {event}", act, event, other, on_replay=lambda _: asked[event].set()
            )
            results[event] = [answer, await acted]
        finally:
            asked[event].set()
            ended[event].set()

    paying = [partial(pays, at, earlier) for at, earlier in enumerate([asked["car"], *paid[:2]])]
    await run_tools(
        [
            *paying,
            partial(asks, "room", all_begun, asked["car"]),
            partial(asks, "car", asked["room"], ended["room"]),
        ]
    )
    return dict(sorted(results.items()))


async def framework(till: Till, ctx: Context) -> list[object]:
    """Run tools of which one suspends, then some of which one fails, and make up for that."""
    results: list[object] = []
    booking, asked = Event(), Event()

    async def book(step_id: str) -> str:
        till.pay(step_id)
        booking.set()
        await asked.wait()
        return await _finish(step_id)

    async def books() -> None:
        results.append(await ctx.step("book", book, "book", on_replay=lambda _: booking.set()))

    async def asks() -> None:
        await booking.wait()
        try:
            results.append(await ctx.suspend("approval"))
        finally:
            asked.set()

    await first_failure_cancels([books, asks])
    charged, insuring = Event(), Event()

    async def at_once(step_id: str) -> str:
        till.pay(step_id)
        return await _finish(step_id)

    async def charges() -> None:
        results.append(await ctx.step("charge", at_once, "charge"))
        charged.set()

    async def insure() -> None:
        till.pay("insure")
        insuring.set()
        await Event().wait()

    async def insures() -> None:
        await ctx.step("insure", insure)

    async def fails() -> None:
        await charged.wait()
        await insuring.wait()
        raise DeclinedError("no seats")

    try:
        await first_failure_cancels([charges, insures, fails])
    except DeclinedError as error:
        results.append(str(error))
        results.append(await ctx.step("refund", at_once, "refund"))
    return sorted(results, key=repr)


async def _finish(step_id: str) -> str:
    for _ in range(TURNS):
        await checkpoint()
    return f"{step_id} was paid"


WORKFLOWS: Final[dict[str, Callable[[Till, Context], Awaitable[object]]]] = {
    "repeats": repeats,
    "five tools, gathered": partial(five_tools, gathered),
    "five tools, grouped": partial(five_tools, grouped),
    "framework": framework,
}


# --- one life ----------------------------------------------------------------------------------


def live(
    channel: Channel,
    *,
    backend: str,
    directory: str,
    flow: str,
    life: int,
    death: tuple[str, int] | None,
) -> None:
    """Take the run as far as it goes, to its end or its next suspension, or die on the way.

    ``death`` is the moment, ``before`` or ``after`` an entry or once it has ``paid``, and the
    offset of the entry or how many payments there are then.
    """
    teller = logging.Handler()
    teller.emit = lambda record: channel.send(["warned", record.getMessage()])  # type: ignore[method-assign]
    logging.getLogger("kassette").addHandler(teller)
    moment, number = death or ("never", 0)
    root = Path(directory)
    if moment in {"before", "after"}:
        die_at_entry(root / f"{RUN_ID}.jsonl", moment, number)
    till = Till(root / "payments", life, number if moment == "paid" else None)
    anyio.run(_live, channel, LocalStorage(root), flow, till, backend=backend)


async def _live(channel: Channel, storage: LocalStorage, name: str, till: Till) -> None:
    pays = WORKFLOWS[name]

    async def body(ctx: Context) -> object:
        return await pays(till, ctx)

    flow = workflow(body, storage=storage, name=name)
    outcome: Any
    try:
        outcome = await flow.start(run_id=RUN_ID)
    except EventPendingError:
        event = _first_open_wait(await storage.read_all(RUN_ID))
        outcome = await flow.resume(RUN_ID, event, {"answer to": event})
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


def _first_open_wait(entries: list[Entry]) -> str:
    answered = {each.event_name for each in entries if isinstance(each, ResumeEntry)}
    waits = [each.waiting_for for each in entries if isinstance(each, SuspendEntry)]
    return next(each for each in waits if each not in answered)
