"""Contestants in processes of their own, whose rounds alternate; what they do is not known here.

Rules:
- Every contestant is one worker process that imports no more than it needs, so that CPU time and
  peak memory are its own.
- Rounds alternate, A B C A B C …, so that whatever else the machine does falls on all alike. Every
  contestant has one round before that does not count.
- A round times its own work, and leaves behind what it found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent


class WorkerFailed(Exception):
    """A contestant broke; its own traceback stands on standard error."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: the figure, its CPU time where it is a time, the process's peak memory in MB."""

    value: float
    cpu: float | None = None
    peak: float | None = None


Perform = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of a table.

    ``prepare(directory, **arguments)`` runs in the worker and gives what performs one round.
    ``target`` is the highest ratio to the floor that is promised, if any is.
    """

    name: str
    prepare: Callable[..., Perform]
    arguments: dict[str, Any] = field(default_factory=dict)
    target: float | None = None


class Stopwatch:
    """Wall time and CPU time of a block, every thread of the process included."""

    def __enter__(self) -> Self:
        self._cpu = process_time()
        self._wall = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = perf_counter() - self._wall
        self.cpu = process_time() - self._cpu

    def per(self, times: int) -> Sample:
        return Sample(self.wall / times, self.cpu / times)


@dataclass(frozen=True, slots=True)
class Bench:
    """How much to measure, and where."""

    directory: Path
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """Give the one that applies."""
        return quick if self.quick else full

    def compete(self, contestants: Sequence[Contestant], *, rounds: int = 9) -> list[list[Sample]]:
        """Let the contestants take turns; give the samples of each, in order of the rounds."""
        samples: list[list[Sample]] = [[] for _ in contestants]
        with TemporaryDirectory(dir=self.directory) as directory, ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(each, Path(directory, str(number))))
                for number, each in enumerate(contestants)
            ]
            for worker in workers:
                worker.perform()
            for _ in range(self.size(rounds, 2)):
                for worker, taken in zip(workers, samples, strict=True):
                    taken.append(worker.perform())
        return samples


class Worker:
    """The process of one contestant (``benchmarks.worker``): a line in, one round, a line out."""

    def __init__(self, contestant: Contestant, directory: Path) -> None:
        directory.mkdir()
        prepare = contestant.prepare
        arguments = json.dumps(contestant.arguments)
        self._name = contestant.name
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.worker"),
                *(prepare.__module__, prepare.__name__, arguments, str(directory.resolve())),
            ],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def perform(self) -> Sample:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(f"{self._name!r} did not come up") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise WorkerFailed(f"{self._name!r} broke")
        return Sample(**json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()


def environment() -> dict[str, str]:
    """Give the surroundings of a measured process: bytecode is cached, as everywhere in use."""
    left_out = {"PYTHONDONTWRITEBYTECODE", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG"}
    return {name: value for name, value in os.environ.items() if name not in left_out}
