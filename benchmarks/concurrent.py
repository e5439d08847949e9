"""Fifty runs at once: what a step costs when the disk is shared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

from benchmarks import inline, loops
from benchmarks.harness import Bench, Contestant, Perform, Sample, Stopwatch
from benchmarks.report import Table
from benchmarks.step import answer, new_run

TARGET = 1.4


def measure(bench: Bench) -> Iterator[Table]:
    runs, steps = bench.size(50, 10), bench.size(20, 3)
    size = {"runs": runs, "steps": steps}
    contestants = [
        Contestant("plain loop, inline", inline.plain_loop, {"files": runs, "steps": steps}),
        *(
            Contestant(loop, record, {"loop": loop, **size}, TARGET)
            for loop in loops.installed("asyncio", "trio")
        ),
        *(
            Contestant(loop, record, {"loop": loop, **size})
            for loop in loops.installed("uvloop")
            if loop == "uvloop"
        ),
    ]
    title = f"one durable step of 2 KB, {steps} in each of {runs} runs at once"
    yield Table(title, "ms", 1e3, contestants, bench.compete(contestants))


def record(directory: Path, *, loop: str, runs: int, steps: int) -> Perform:
    from anyio import create_task_group

    from kassette_io import LocalStorage, Run

    storage = LocalStorage(directory)
    run_ids = map("run-{}".format, count())

    async def work(run: Run) -> None:
        for number in range(steps):
            await run.record("llm", answer, number)

    async def perform() -> Sample:
        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(new_run(storage, directory, next(run_ids)))
                for _ in range(runs)
            ]
            with Stopwatch() as watch:
                async with create_task_group() as group:
                    for run in opened:
                        group.start_soon(work, run)
        return watch.per(runs * steps)

    return lambda: loops.run(loop, perform)
