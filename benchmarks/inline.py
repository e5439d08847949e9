"""The floor under every durable step: encode, write and fsync in a plain loop, nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import orjson

from benchmarks.harness import Perform, Sample, Stopwatch
from benchmarks.payloads import payload

BODIES = [payload("mixed", number) for number in range(64)]


def append(fd: int, offset: int) -> None:
    """Write one step durably, as the journal has it."""
    entry = {
        "type": "step",
        "session": 1,
        "offset": offset,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "stepId": f"llm#{offset}",
        "name": "llm",
        "result": BODIES[offset % len(BODIES)],
    }
    os.write(fd, orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
    os.fsync(fd)


def open_journal(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def plain_loop(directory: Path, *, files: int, steps: int) -> Perform:
    """Prepare ``steps`` steps on each of ``files`` journals, by turns."""

    def perform() -> Sample:
        paths = [directory / f"inline-{number}.jsonl" for number in range(files)]
        fds = [open_journal(path) for path in paths]
        with Stopwatch() as watch:
            for offset in range(steps):
                for fd in fds:
                    append(fd, offset)
        for fd, path in zip(fds, paths, strict=True):
            os.close(fd)
            path.unlink()
        return watch.per(files * steps)

    return perform
