"""What a step costs at the end of a longer and longer journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks import inline, loops
from benchmarks.harness import Bench, Contestant, Perform, Sample, Stopwatch
from benchmarks.payloads import write_journal
from benchmarks.report import Table
from benchmarks.step import answer

TARGET = 1.15


def measure(bench: Bench) -> Iterator[Table]:
    steps = bench.size(200, 10)
    lengths = (10, 100) if bench.quick else (10, 1_000, 10_000, 50_000)
    for name, prepare, target in (
        ("asyncio", record, TARGET),
        ("plain loop", append_inline, None),
    ):
        contestants = [
            Contestant(
                f"{name}, {length} entries",
                prepare,
                {"length": length, "steps": steps},
                None if length == lengths[0] else target,
            )
            for length in lengths
        ]
        title = f"one durable step of 2 KB at the end of a longer journal, {steps} in a row"
        yield Table(title, "ms", 1e3, contestants, bench.compete(contestants))


def record(directory: Path, *, length: int, steps: int) -> Perform:
    from kassette_io import LocalStorage, start

    path = directory / "growth.jsonl"
    size = write_journal(path, length - 1)
    storage = LocalStorage(directory)

    async def perform() -> Sample:
        async with await start(storage, "growth") as run:
            with Stopwatch() as watch:
                for number in range(steps):
                    await run.record("live", answer, number)
        os.truncate(path, size)
        return watch.per(steps)

    return lambda: loops.run("asyncio", perform)


def append_inline(directory: Path, *, length: int, steps: int) -> Perform:
    path = directory / "growth.jsonl"
    size = write_journal(path, length - 1)

    def perform() -> Sample:
        fd = inline.open_journal(path)
        with Stopwatch() as watch:
            for number in range(steps):
                inline.append(fd, length + number)
        os.close(fd)
        os.truncate(path, size)
        return watch.per(steps)

    return perform
