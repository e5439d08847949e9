"""How much of a journal is read to open it; counted by the kernel, in bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks import loops
from benchmarks.harness import Bench, Contestant, Perform, Sample
from benchmarks.payloads import TIMESTAMP, write_journal
from benchmarks.report import Table

COUNTERS = Path("/proc/self/io")
TARGET = 1.01
SUSPEND = (
    b'{"type":"suspend","session":1,"offset":%d,"timestamp":"%b",'
    b'"reason":"Waiting for event: go","waitingFor":"go"}\n'
)


def measure(bench: Bench) -> Iterator[Table]:
    steps = bench.size(10_000, 1_000)
    title = f"bytes read to open a journal of {steps} steps"
    if not COUNTERS.exists():
        print(f"\nopen: {title} cannot be counted without {COUNTERS}")
        return
    size = {"steps": steps}
    contestants = [
        Contestant("size of the file", file_size, size),
        *(
            Contestant(f"{verb}, {loop}", read, {"verb": verb, "loop": loop, **size}, TARGET)
            for verb in ("start", "resume")
            for loop in loops.installed("asyncio", "trio")
        ),
    ]
    yield Table(title, "MB", 1e-6, contestants, bench.compete(contestants, rounds=3))


def file_size(directory: Path, *, steps: int) -> Perform:
    path = directory / "opening.jsonl"
    size = write_journal(path, steps)
    path.unlink()
    return lambda: Sample(size)


def read(directory: Path, *, verb: str, loop: str, steps: int) -> Perform:
    from kassette_io import LocalStorage, resume, start

    path = directory / "opening.jsonl"
    size = write_journal(path, steps)
    if verb == "resume":
        with path.open("ab") as file:
            file.write(SUSPEND % (steps + 1, TIMESTAMP.encode()))
        size = path.stat().st_size
    storage = LocalStorage(directory)

    async def perform() -> Sample:
        before = bytes_read()
        if verb == "resume":
            run = await resume(storage, "opening", "go", True)
        else:
            run = await start(storage, "opening")
        counted = bytes_read() - before
        await run.aclose()
        os.truncate(path, size)
        return Sample(counted)

    return lambda: loops.run(loop, perform)


def bytes_read() -> int:
    """Give the bytes that this process has asked the kernel for so far, in all threads."""
    counters = dict(line.split(": ") for line in COUNTERS.read_text().splitlines())
    return int(counters["rchar"])
