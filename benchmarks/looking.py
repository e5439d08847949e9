"""What it costs to look: a list of many runs against their last blocks, a dump's peak memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from benchmarks import machine
from benchmarks.harness import (
    ROOT,
    Bench,
    Contestant,
    Perform,
    Sample,
    Stopwatch,
    WorkerFailed,
    environment,
)
from benchmarks.imports import COMMAND, WATCHED
from benchmarks.payloads import TIMESTAMP, write_journal
from benchmarks.report import Table

LIST_TARGET = 3.0
FIRST_TARGET = 0.5
PEAK_TARGET = 1.5
BLOCK = 1 << 16
STEPS = 3
ENDINGS = (
    b"",
    b'{"type":"complete","session":1,"offset":%d,"timestamp":"%b"}\n',
    b'{"type":"suspend","session":1,"offset":%d,"timestamp":"%b",'
    b'"reason":"Waiting for event: go","waitingFor":"go"}\n',
)


def measure(bench: Bench) -> Iterator[Table]:
    runs = bench.size(10_000, 300)
    size = {"runs": runs}
    floor = Contestant("last block of each file", last_blocks, size)
    contestants = [
        floor,
        Contestant("list --status, in a pipe", piped, size, LIST_TARGET),
        Contestant("list, as a table", table, size, LIST_TARGET),
    ]
    samples = bench.compete(contestants)
    yield Table(f"a list of {runs} runs, once it has started", "ms", 1e3, contestants, samples)
    contestants = [floor, Contestant("the table's first rows", first_rows, size, FIRST_TARGET)]
    samples = bench.compete(contestants)
    yield Table(f"first rows of {runs} runs", "ms", 1e3, contestants, samples)

    if not machine.STATUS.exists():
        print(f"\nlook: the peak memory of a dump cannot be known without {machine.STATUS}")
        return
    few, many = bench.size(500, 500), bench.size(500_000, 5_000)
    contestants = [
        Contestant(f"dump of {few} steps", dump, {"steps": few}),
        Contestant(f"dump of {many} steps", dump, {"steps": many}, PEAK_TARGET),
    ]
    samples = bench.compete(contestants, rounds=3)
    yield Table("peak memory of a dump, 2 KB a step", "MB", 1, contestants, samples)


def write_runs(directory: Path, runs: int) -> list[Path]:
    """Write journals of a few kilobytes, as many of them running as ended and waiting."""
    template = directory / "template"
    write_journal(template, STEPS)
    begin = template.read_bytes()
    template.unlink()
    paths = [directory / f"run-{number:06}.jsonl" for number in range(runs)]
    for number, path in enumerate(paths):
        ending = ENDINGS[number % len(ENDINGS)]
        path.write_bytes(begin + (ending and ending % (STEPS + 1, TIMESTAMP.encode())))
    return paths


def last_blocks(directory: Path, *, runs: int) -> Perform:
    names = list(map(str, write_runs(directory, runs)))

    def perform() -> Sample:
        with Stopwatch() as watch:
            for name in names:
                with open(name, "rb", buffering=0) as file:
                    file.seek(max(os.fstat(file.fileno()).st_size - BLOCK, 0))
                    file.read(BLOCK)
        return watch.per(1)

    return perform


def asked(directory: Path, status: list[str] | None) -> Namespace:
    return Namespace(
        verb="list",
        storage=f"file:{directory}",
        limit=None,
        status=status,
        older_than=None,
        ids=False,
    )


def piped(directory: Path, *, runs: int) -> Perform:
    from kassette_cli.table import load
    from kassette_io import LocalStorage

    write_runs(directory, runs)
    arguments = asked(directory, ["completed"])

    def perform() -> Sample:
        with Stopwatch() as watch, open(os.devnull, "wb") as nowhere:
            lines = load("list").lines(arguments, LocalStorage(directory), nowhere.fileno())
            nowhere.writelines(lines)
        return watch.per(1)

    return perform


class Screen(io.StringIO):
    """A terminal that forgets what it shows, and knows when it showed the first run."""

    first: float | None = None

    def write(self, text: str) -> int:
        if self.first is None and "run-000000" in text:
            self.first = perf_counter()
        return len(text)


def show(directory: Path) -> Screen:
    from rich.console import Console

    from kassette_cli.output import terminal
    from kassette_cli.table import load
    from kassette_io import LocalStorage

    screen = Screen()
    console = Console(
        file=screen,
        width=120,
        force_terminal=True,
        color_system="standard",
        markup=False,
        emoji=False,
        highlight=False,
    )
    answer = load("list").shown(asked(directory, None), LocalStorage(directory), console)
    terminal.show(console, answer)
    return screen


def table(directory: Path, *, runs: int) -> Perform:
    write_runs(directory, runs)

    def perform() -> Sample:
        with Stopwatch() as watch:
            show(directory)
        return watch.per(1)

    return perform


def first_rows(directory: Path, *, runs: int) -> Perform:
    write_runs(directory, runs)

    def perform() -> Sample:
        began = perf_counter()
        first = show(directory).first
        assert first is not None
        return Sample(first - began)

    return perform


def dump(directory: Path, *, steps: int) -> Perform:
    write_journal(directory / "run.jsonl", steps)
    script, status = directory / "script.py", directory / "status"
    script.write_text(WATCHED.format(status=str(status)) + COMMAND)
    call = [sys.executable, str(script), "--storage", f"file:{directory}", "dump", "run"]
    env = {**environment(), "PYTHONPATH": str(ROOT)}

    def perform() -> Sample:
        done = subprocess.run(call, env=env, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise WorkerFailed(f"{call} exited with {done.returncode}")
        peak = machine.peak_in(status.read_text())
        return Sample(peak, peak=peak)

    return perform
