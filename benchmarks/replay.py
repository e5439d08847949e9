"""A long journal replayed to its end, for three shapes of results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from benchmarks import loops
from benchmarks.harness import Bench, Contestant, Perform, Sample, Stopwatch
from benchmarks.payloads import SHAPES, step_name, write_journal
from benchmarks.report import Table

TARGET = 1.0


def measure(bench: Bench) -> Iterator[Table]:
    steps = bench.size(10_000, 200)
    for shape in SHAPES:
        size = {"shape": shape, "steps": steps}
        contestants = [
            Contestant("orjson.loads on each line", load_lines, size),
            *(
                Contestant(loop, replay, {"loop": loop, "keep": False, **size}, TARGET)
                for loop in loops.installed("asyncio", "trio")
            ),
            Contestant("asyncio, keeping them", replay, {"loop": "asyncio", "keep": True, **size}),
        ]
        yield Table(
            f"from start() to the end of {steps} recorded steps, results like {shape!r}",
            "ms",
            1e3,
            contestants,
            bench.compete(contestants),
            ["the floor keeps what it loads; a workflow that does is in the last row"],
        )


def load_lines(directory: Path, *, shape: str, steps: int) -> Perform:
    path = directory / "replay.jsonl"
    write_journal(path, steps, shape)

    def perform() -> Sample:
        with Stopwatch() as watch, path.open("rb") as file:
            entries = [orjson.loads(line) for line in file]
        assert len(entries) == steps + 1
        return watch.per(1)

    return perform


def replay(directory: Path, *, shape: str, steps: int, loop: str, keep: bool) -> Perform:
    from kassette_io import LocalStorage, start

    path = directory / "replay.jsonl"
    size = write_journal(path, steps, shape)
    storage = LocalStorage(directory)

    async def perform() -> Sample:
        kept: list[Any] = []
        with Stopwatch() as watch:
            run = await start(storage, "replay")
            for number in range(steps):
                result = await run.record(step_name(number), answer, number)
                if keep:
                    kept.append(result)
        await run.aclose()
        os.truncate(path, size)
        return watch.per(1)

    return lambda: loops.run(loop, perform)


async def answer(number: int) -> dict[str, Any]:
    raise AssertionError(f"step {number} is recorded, and runs all the same")
