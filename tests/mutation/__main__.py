"""`python -m tests.mutation [module …]`: break the code in every small way and see a test fail.

For every mutant the tests that call its function run in a forked process, the quick ones first; the
first that fails kills it, and so do a hang and a crash. A survivor is either
listed in ``survivors.toml`` with the reason why no test can or should tell it, or a missing test.
A listed one that is killed is tried again before that is believed: a busy machine kills, too.
Fails if fewer than 95 % are killed, if a survivor is not listed, or if a listed mutant was killed
or is gone.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.mutation import trial
from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
LISTED = Path(__file__).with_name("survivors.toml")
ENOUGH = 0.95
TRIES = 3
DAY = 86_400.0
BLIND = ("tests/core/test_purity.py", "tests/core/test_transcripts.py")
SUITES: dict[str, tuple[str, ...]] = {
    "core": ("tests/core",),
    "local": (
        "tests/io/test_storages.py",
        "tests/io/test_conformance.py",
        "tests/io/test_io_journals.py",
        "tests/io/test_io_racing.py",
        "tests/io/test_threads.py",
        "tests/crash/test_damage.py",
        "tests/crash/test_disk.py",
        "tests/crash/test_disturbed.py",
        "tests/crash/test_forks.py",
        "tests/crash/test_full_disk.py",
        "tests/crash/test_letting_go.py",
        "tests/crash/test_local_storage.py",
        "tests/crash/test_lock.py",
        "tests/crash/test_permissions.py",
        "tests/crash/test_reading_files.py",
    ),
    "remote": (
        "tests/io/test_storages.py",
        "tests/io/test_conformance.py",
        "tests/io/test_io_racing.py",
        "tests/io/test_remote_cancelling.py",
        "tests/io/test_remote_check.py",
        "tests/io/test_remote_crossing.py",
        "tests/io/test_remote_layout.py",
        "tests/io/test_remote_storage.py",
    ),
}
DRIVERS = {
    "kassette_io._local_journal": "local",
    "kassette_io._run_lock": "local",
    "kassette_io.local_storage": "local",
    "kassette_io.remote_storage": "remote",
}

Listed = dict[tuple[str, str, str], str]
"""Why a mutant survives, by module, function and mutant."""


@dataclass(frozen=True)
class Report:
    """What became of one module's mutants; ``tried`` is less than ``made`` if time ran out."""

    module: str
    made: int
    tried: int
    survived: list[tuple[str, str, int]]
    seconds: float

    @property
    def killed(self) -> int:
        return self.tried - len(self.survived)


def _try_all(
    bench: trial.Bench,
    module: str,
    listed: Listed,
    tell: Callable[[str], None],
    *,
    jobs: int,
    until: float,
) -> Report:
    """Try the mutants of a module, some at a time, while there is time; tell of each survivor."""
    begun = time.monotonic()
    path = ROOT / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text())
    mutants = mutants_of(module, tree)
    waiting = list(reversed(mutants))
    running: dict[int, Mutant] = {}
    kills: Counter[tuple[str, str]] = Counter()
    survived: list[tuple[str, str, int]] = []
    while running or (waiting and time.monotonic() < until):
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[trial.fork(partial(bench.judge, mutant, path, tree))] = mutant
        pid, status = os.wait()
        done = running.pop(pid)
        if status == trial.SURVIVED:
            survived.append((done.where, done.key, done.line))
            tell(f"  {module}, line {done.line}, {done.where}: {done.old} -> {done.new}")
        elif (module, done.where, done.key) in listed and kills[done.where, done.key] < TRIES - 1:
            kills[done.where, done.key] += 1
            waiting.append(done)
    tried = len(mutants) - len(waiting)
    return Report(module, len(mutants), tried, survived, time.monotonic() - begun)


def _reports(
    suite: str, modules: Sequence[str], listed: Listed, *, jobs: int, until: float
) -> Iterator[Report]:
    """Try modules on a bench of their own, in a child process."""
    reading, writing = os.pipe()
    log = Path(tempfile.mkdtemp(), "log")
    screen = os.dup(sys.stderr.fileno())

    def work(bench: trial.Bench) -> None:
        for module in modules:
            importlib.import_module(module)
        with tempfile.TemporaryDirectory() as scratch:
            bench.measure(Path(scratch))
        for module in modules:
            report = _try_all(bench, module, listed, tell, jobs=jobs, until=until)
            os.write(writing, json.dumps(asdict(report)).encode() + b"\n")

    def tell(text: str) -> None:
        os.write(screen, f"{text}\n".encode())

    def child() -> int:
        os.close(reading)
        return trial.run_bench(ROOT, _files(SUITES[suite]), work)

    pid = trial.fork(child, log=log)
    os.close(writing)
    os.close(screen)
    with open(reading) as lines:
        for line in lines:
            yield Report(**json.loads(line))
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(log.read_text()[-4000:])
    shutil.rmtree(log.parent)


def _files(suite: Sequence[str]) -> list[str]:
    found = (ROOT / each for each in suite)
    files = [
        path for each in found for path in (each.glob("test_*.py") if each.is_dir() else [each])
    ]
    return sorted(name for path in files if (name := str(path.relative_to(ROOT))) not in BLIND)


def _listed() -> Listed:
    listed: Listed = {}
    for group in tomllib.loads(LISTED.read_text())["survivors"]:
        for key in group["mutants"]:
            listed[group["module"], group["where"], key] = group["reason"]
    return listed


def _modules(names: Sequence[str]) -> list[str]:
    core = sorted(f"kassette.{path.stem}" for path in (ROOT / "kassette").glob("[!_]*.py"))
    every = [*core, *DRIVERS]
    chosen = [each for each in every if each in names or each.rpartition(".")[2] in names]
    if len(chosen) != len(names):
        sys.exit(f"which modules? There are {', '.join(every)}")
    return chosen or every


def main(arguments: Sequence[str]) -> int:
    """Give the exit code: 0 if nothing survived that is not listed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="module", help="as in `machine`; all if none")
    parser.add_argument("--seconds", type=float, default=DAY, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.seconds
    modules = _modules(options.modules)
    listed = _listed()
    os.chdir(ROOT)
    tried = survived = 0
    failed = False
    for suite in SUITES:
        mine = [module for module in modules if DRIVERS.get(module, "core") == suite]
        for report in _reports(suite, mine, listed, jobs=options.jobs, until=until) if mine else ():
            failed |= _judge(report, listed)
            tried += report.tried
            survived += len(report.survived)
    share = (tried - survived) / max(tried, 1)
    print(f"{tried - survived} of {tried} mutants killed, {share:.1%}")
    return int(failed or share < ENOUGH)


def _judge(report: Report, listed: Listed) -> bool:
    """Print what became of a module's mutants; tell whether the list has to be mended."""
    module = report.module
    found = {(module, where, key) for where, key, _ in report.survived}
    unlisted = [each for each in report.survived if (module, *each[:2]) not in listed]
    print(
        f"{module:28} {report.tried:5} of {report.made:4} mutants {report.killed:5} killed "
        f"{len(report.survived):4} survived, {len(unlisted)} of them not listed "
        f"({report.seconds:.0f} s)",
        flush=True,
    )
    for where, key, line in unlisted:
        print(f"  line {line}\n  where = {json.dumps(where)}\n    {chr(39) * 3}{key}{chr(39) * 3},")
    stale = [key for key in listed if key[0] == module and key not in found]
    stale = stale if report.tried == report.made else []
    for _, where, key in stale:
        print(f"  listed, but killed or gone: {where}: {key}")
    return bool(unlisted or stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
