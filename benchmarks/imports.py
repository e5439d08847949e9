"""What it costs to begin: imports in fresh interpreters, and the command in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks import machine
from benchmarks.harness import (
    ROOT,
    Bench,
    Contestant,
    Perform,
    Sample,
    WorkerFailed,
    environment,
)
from benchmarks.payloads import write_journal
from benchmarks.report import Table

TARGET = 1.5
ROUNDS = 20
BARE = "pass"
PAIRS = (
    ("import anyio, orjson", "import kassette_io"),
    (
        "from anyio import CancelScope, Event, create_task_group, sleep, to_thread; import orjson",
        "from kassette_io import Context, LocalStorage, workflow",
    ),
)
EMPTY_RUN = """\
import anyio

async def main():
    pass

anyio.run(main)
"""
COMMAND = "import sys; from kassette_cli.main import main; sys.exit(main())"
WATCHED = """\
import atexit
from pathlib import Path
atexit.register(lambda: Path({status!r}).write_text(Path("/proc/self/status").read_text()))
"""


def measure(bench: Bench) -> Iterator[Table]:
    for floor, ours in PAIRS:
        contestants = [
            Contestant(floor, interpreter, {"script": floor}),
            Contestant(ours, interpreter, {"script": ours}, TARGET),
            Contestant("bare Python", interpreter, {"script": BARE}),
        ]
        samples = bench.compete(contestants, rounds=ROUNDS)
        yield Table("imports in a fresh interpreter, all told", "ms", 1e3, contestants, samples)
        net = [less(each, samples[-1]) for each in samples[:-1]]
        yield Table("imports, net of bare Python", "ms", 1e3, contestants[:-1], net)

    contestants = [
        Contestant("a script that runs nothing", interpreter, {"script": EMPTY_RUN}),
        Contestant("kassette list of 10 runs", command, {"runs": 10}, TARGET),
    ]
    samples = bench.compete(contestants, rounds=ROUNDS)
    yield Table("the command in a pipe, all told", "ms", 1e3, contestants, samples)


def less(samples: Sequence[Sample], bare: Sequence[Sample]) -> list[Sample]:
    """Take the medians of ``bare`` off every sample."""
    value = median(each.value for each in bare)
    cpu = median(each.cpu or 0.0 for each in bare)
    return [
        replace(each, value=each.value - value, cpu=(each.cpu or 0.0) - cpu) for each in samples
    ]


def interpreter(directory: Path, *, script: str) -> Perform:
    return started(directory, script)


def command(directory: Path, *, runs: int) -> Perform:
    journals = directory / "journals"
    journals.mkdir()
    for number in range(runs):
        write_journal(journals / f"run-{number}.jsonl", 10)
    return started(directory, COMMAND, "--storage", f"file:{journals}", "list")


def started(directory: Path, code: str, *arguments: str) -> Perform:
    """Prepare processes that run ``code``; a first one, which nobody times, tells its peak memory.

    The kernel's own figure for a child begins with the size of the process that started it.
    """
    script, status = directory / "script.py", directory / "status"
    peak = None
    if machine.STATUS.exists():
        script.write_text(WATCHED.format(status=str(status)) + code)
        process(str(script), *arguments)
        peak = machine.peak_in(status.read_text())
    script.write_text(code)
    return lambda: replace(process(str(script), *arguments), peak=peak)


def process(*arguments: str) -> Sample:
    """Run Python to its end, its output in a pipe, as the shell would start it."""
    before = perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout:
        child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = perf_counter() - before
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise WorkerFailed(f"{arguments} exited with {child.returncode}")
    return Sample(wall, usage.ru_utime + usage.ru_stime)
