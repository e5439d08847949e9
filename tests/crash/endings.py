"""What the processes of the exit tests do: be interrupted, lose their loop, lose their threads."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from types import FrameType
from typing import Any

import anyio

from kassette import StorageError
from kassette_io import Context, LocalStorage, start, workflow
from kassette_io.loops import threads
from kassette_io.storages import local, local_journal

from .processes import Channel

RUN_ID = "run"
POOL = 200
HAND_OVER = tuple(
    f"kassette_io/loops/{each}.py"
    for each in ("threads", "waiting", "waiting_asyncio", "waiting_trio")
)


class Halting:
    """Stands in for ``os`` in the module that appends: the chosen fsync waits for a word."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._left = number

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        self._left -= 1
        if self._left == 0:
            self._channel.send("in an append")
            self._channel.receive()
        os.fsync(fd)


def record_for_ever(channel: Channel, *, backend: str, directory: str) -> None:
    """Record steps without end, halting inside an append, until interrupted."""
    local_journal.os = Halting(channel, 5)  # type: ignore[assignment,attr-defined]
    try:
        anyio.run(_record_for_ever, channel, LocalStorage(directory), backend=backend)
    except KeyboardInterrupt:
        channel.send("interrupted")


async def _record_for_ever(channel: Channel, storage: LocalStorage) -> None:
    async with await start(storage, RUN_ID) as run:
        while True:
            await run.record("step", channel.send, "step")


def interrupted_at(channel: Channel, *, backend: str, directory: str, number: int) -> None:
    """Record three steps and be interrupted before line ``number`` of the hand-over of jobs."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(HAND_OVER):
            return None
        if event == "line":
            lines += 1
            if lines == number + 1:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    try:
        anyio.run(_three_steps, LocalStorage(directory), trace, backend=backend)
        channel.send("done" if lines <= number else "swallowed")
    except KeyboardInterrupt:
        channel.send("interrupted")


async def _three_steps(storage: LocalStorage, trace: Any) -> None:
    async with await start(storage, RUN_ID) as run:
        sys.settrace(trace)
        for _ in range(3):
            await run.record("step", lambda: 1)
        sys.settrace(None)


def lose_runs_everywhere(channel: Channel, *, backend: str, directory: str) -> None:
    """Have the garbage collector find a lost run at every line that the loop's thread executes."""
    warnings.simplefilter("ignore", ResourceWarning)
    gc.disable()
    storage = LocalStorage(directory)
    lost = 0

    async def work() -> None:
        nonlocal lost
        pool = [await start(storage, f"lost-{number}") for number in range(POOL)]

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lost
            if not frame.f_code.co_filename.endswith(
                (
                    "kassette_io/loops/threads.py",
                    "kassette_io/storages/local.py",
                )
            ):
                return None
            if event == "line" and pool:
                lost += 1
                cycle: list[Any] = [pool.pop()]
                cycle.append(cycle)
                del cycle
                gc.collect()
            return trace

        sys.settrace(trace)
        async with await start(storage, RUN_ID) as run:
            await run.record("step", lambda: 1)
        sys.settrace(None)
        for number in range(len(pool), POOL):
            await storage.release(f"lost-{number}", 1)

    anyio.run(work, backend=backend)
    channel.send(lost)


def lose_the_loop(channel: Channel, *, directory: str) -> None:
    """Close the event loop under an append, and use the storage from another loop."""
    storage = LocalStorage(directory)
    noise: list[str] = []
    threading.excepthook = lambda args: noise.append(repr(args.exc_value))
    busy, free = threading.Event(), threading.Event()

    class Slow(Halting):
        def fsync(self, fd: int) -> None:
            busy.set()
            free.wait()
            os.fsync(fd)

    async def record() -> None:
        run = await start(storage, RUN_ID)
        local_journal.os = Slow(channel, 0)  # type: ignore[assignment,attr-defined]
        await run.record("step", lambda: 1)

    async def until_busy() -> None:
        await asyncio.get_running_loop().run_in_executor(None, busy.wait)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(record())
    loop.run_until_complete(until_busy())
    loop.close()
    local_journal.os = os  # type: ignore[attr-defined]
    free.set()

    async def elsewhere() -> None:
        async with await start(storage, "another") as run:
            await run.record("step", lambda: 1)

    anyio.run(elsewhere)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del task
        gc.collect()
    channel.send(noise)


class Stingy:
    """Lets the system refuse new writer threads, as under a limit on processes."""

    def __init__(self) -> None:
        self.refusals = 0
        really_begin = threading.Thread.start

        def begin(thread: threading.Thread) -> None:
            if self.refusals and thread.name == "kassette-writer":
                self.refusals -= 1
                raise RuntimeError("can't start new thread")
            really_begin(thread)

        threading.Thread.start = begin  # type: ignore[assignment,method-assign]

    def refuse(self, times: int) -> None:
        """Refuse the next ``times`` threads; there is none left from before."""
        local.WRITERS = threads.Threads("kassette-writer")  # type: ignore[attr-defined]
        self.refusals = times


def without_threads(channel: Channel, *, backend: str, directory: str, when: str) -> None:
    """Meet a system that refuses new threads, while ``when``; and go on once it gives them."""
    channel.send(anyio.run(REFUSED[when], LocalStorage(directory), Stingy(), backend=backend))


async def _refused_while_opening(storage: LocalStorage, system: Stingy) -> Any:
    system.refuse(50)
    for run_id in [RUN_ID, "another"] * 10:
        with suppress(StorageError):
            await (await start(storage, run_id)).aclose()
    return await _later(storage, system)


async def _refused_while_working(storage: LocalStorage, system: Stingy) -> Any:
    run = await start(storage, RUN_ID)
    system.refuse(50)
    with suppress(StorageError):
        await run.record("step", lambda: 1)
    await run.aclose()
    return await _later(storage, system)


async def _refused_in_a_workflow(storage: LocalStorage, system: Stingy) -> Any:
    refused = False

    async def pipeline(ctx: Context) -> str:
        nonlocal refused
        if not refused:
            system.refuse(1)
            refused = True
        return await ctx.step("step", str, "done")

    flow = workflow(pipeline, storage=storage)
    with suppress(StorageError):
        return (await flow.start(run_id=RUN_ID)).status
    return (await flow.start(run_id=RUN_ID)).status


async def _later(storage: LocalStorage, system: Stingy) -> Any:
    system.refusals = 0
    async with await start(storage, RUN_ID) as run:
        return await run.record("later", lambda: "success")


REFUSED = {
    "opening": _refused_while_opening,
    "working": _refused_while_working,
    "in a workflow": _refused_in_a_workflow,
}
