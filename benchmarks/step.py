"""One durable step after another, and whether the event loop ever waits for the disk."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import inline, loops
from benchmarks.harness import Bench, Contestant, Perform, Sample, Stopwatch
from benchmarks.report import Table

if TYPE_CHECKING:
    from kassette_io import LocalStorage, Run

TARGETS = {"asyncio": 2.0, "trio": 2.4}
SLOWER_BY = 0.02
TICK = 0.001


def measure(bench: Bench) -> Iterator[Table]:
    names = loops.installed("asyncio", "trio", "uvloop")

    steps = bench.size(300, 20)
    contestants = [
        Contestant("plain loop, inline", inline.plain_loop, {"files": 1, "steps": steps}),
        *(
            Contestant(loop, record, {"loop": loop, "steps": steps}, TARGETS.get(loop))
            for loop in names
        ),
    ]
    title = f"one durable step with a result of 2 KB, {steps} in a row"
    yield Table(title, "ms", 1e3, contestants, bench.compete(contestants))

    steps = bench.size(20, 5)
    contestants = [
        Contestant("asyncio, inline", gap_inline, {"steps": steps}),
        *(Contestant(loop, gap, {"loop": loop, "steps": steps}, 0.5) for loop in names),
    ]
    yield Table(
        "the longest time for which an event loop did nothing but durable steps",
        "ms",
        1e3,
        contestants,
        bench.compete(contestants),
        [f"an fsync takes {SLOWER_BY * 1e3:g} ms longer here than it does, as on a slow disk"],
    )


async def answer(number: int) -> dict[str, Any]:
    """Stand where a model would be called."""
    return inline.BODIES[number % len(inline.BODIES)]


@asynccontextmanager
async def new_run(storage: LocalStorage, directory: Path, run_id: str) -> AsyncIterator[Run]:
    """Open a new run, and leave nothing of it behind."""
    from kassette_io import start

    async with await start(storage, run_id) as run:
        yield run
    (directory / f"{run_id}.jsonl").unlink()


def record(directory: Path, *, loop: str, steps: int) -> Perform:
    from kassette_io import LocalStorage

    storage = LocalStorage(directory)
    run_ids = map("run-{}".format, count())

    async def perform() -> Sample:
        async with new_run(storage, directory, next(run_ids)) as run:
            with Stopwatch() as watch:
                for number in range(steps):
                    await run.record("llm", answer, number)
        return watch.per(steps)

    return lambda: loops.run(loop, perform)


def gap(directory: Path, *, loop: str, steps: int) -> Perform:
    from kassette_io import LocalStorage

    storage = LocalStorage(directory)
    run_ids = map("run-{}".format, count())

    async def perform() -> Sample:
        async with new_run(storage, directory, next(run_ids)) as run:

            async def work() -> None:
                for number in range(steps):
                    await run.record("llm", answer, number)

            return Sample(await longest_gap(work))

    slow_down_the_disk()
    return lambda: loops.run(loop, perform)


def gap_inline(directory: Path, *, steps: int) -> Perform:
    async def work() -> None:
        from anyio.lowlevel import checkpoint

        fd = inline.open_journal(directory / "inline.jsonl")
        for number in range(steps):
            inline.append(fd, number)
            await checkpoint()
        os.close(fd)

    async def perform() -> Sample:
        return Sample(await longest_gap(work))

    slow_down_the_disk()
    return lambda: loops.run("asyncio", perform)


def slow_down_the_disk() -> None:
    """Make every fsync of this process take longer; other threads run meanwhile, as they would."""
    fsync = os.fsync

    def slow(fd: Any) -> None:
        fsync(fd)
        time.sleep(SLOWER_BY)

    os.fsync = slow


async def longest_gap(work: Callable[[], Awaitable[object]]) -> float:
    """Do ``work`` beside a task that wants to run every millisecond; give its longest delay."""
    from anyio import create_task_group, sleep

    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await sleep(TICK)
            longest = max(longest, time.perf_counter() - before - TICK)

    async with create_task_group() as group:
        group.start_soon(tick)
        await work()
        group.cancel_scope.cancel()
    return longest
