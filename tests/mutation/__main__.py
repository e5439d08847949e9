"""`python -m tests.mutation [module …]`: break the code in every small way and see a test fail.

For every mutant the tests that run its line run in a forked process, the quick ones first; the
first that fails kills it, and so do a hang and a crash. A survivor is either listed in
``survivors/PACKAGE.toml`` with the reason why no test can or should tell it, or a missing test.
A listed one that is killed is tried again before that is believed: a busy machine kills, too.
Fails if too few of a package's mutants are killed, if a survivor is not listed, or if a listed
mutant was killed or is gone.

With ``--sample N`` it tries N mutants of those not listed, the same ones for the same ``--seed``.
They are drawn by their names, so that a change of the code changes few of them. First the tests
judge that stand in a file which speaks of the module; only for what survives these all tests are
measured. A sample shows its survivors, and fails if less than 90 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from tests.mutation import trial
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.suites import ENOUGH, ROOT, SUITES, Suite, files_of, package_of, path_of

LISTS = Path(__file__).with_name("survivors")
TRIES = 3
DAY = 86_400.0

Name = tuple[str, str, str]
"""A mutant by module, function and key."""
Listed = Mapping[Name, str]
"""Why a mutant survives."""


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


@dataclass(frozen=True)
class Plan:
    """What is to be tried: of every module all, or, if there are any, the mutants ``drawn``."""

    modules: Collection[str]
    listed: Listed
    drawn: Collection[Name]
    jobs: int
    until: float

    def mutants(self, module: str, tree: ast.Module) -> list[Mutant]:
        made = mutants_of(module, tree)
        return [each for each in made if not self.drawn or name_of(each) in self.drawn]


def name_of(mutant: Mutant) -> Name:
    return mutant.module, mutant.where, mutant.key


def draw(modules: Sequence[str], listed: Listed, count: int, seed: str) -> set[Name]:
    """Choose mutants by lot, for each of which only its own name and the seed count."""

    def lot(name: Name) -> bytes:
        return sha256("\n".join((seed, *name)).encode()).digest()

    made = (
        name_of(each)
        for module in modules
        for each in mutants_of(module, ast.parse(path_of(module).read_text()))
    )
    return set(sorted((name for name in made if name not in listed), key=lot)[:count])


def _report(bench: trial.Bench, plan: Plan, module: str, tell: Callable[[str], None]) -> Report:
    """Try the mutants of a module, those of a sample at a glance first; tell of each survivor."""
    begun = time.monotonic()
    path = path_of(module)
    tree = ast.parse(path.read_text())
    mutants = plan.mutants(module, tree)
    if plan.drawn:
        survived, left = _try_all(bench, plan, mutants, path, tree)
    else:
        survived, left = mutants, 0
    if survived:
        if not bench.measured:
            bench.measure()
        survived, more = _try_all(bench, plan, survived, path, tree)
        left += more
    for each in survived:
        if name_of(each) not in plan.listed:
            tell(f"  {module}, line {each.line}, {each.where}: {each.old} -> {each.new}")
    found = [(each.where, each.key, each.line) for each in survived]
    made = len(mutants_of(module, tree)) if plan.drawn else len(mutants)
    return Report(module, made, len(mutants) - left, found, time.monotonic() - begun)


def _try_all(
    bench: trial.Bench, plan: Plan, mutants: Sequence[Mutant], path: Path, tree: ast.Module
) -> tuple[list[Mutant], int]:
    """Try mutants, some at a time, while there is time; return the survivors, and how many wait."""
    waiting = list(reversed(mutants))
    running: dict[int, Mutant] = {}
    kills: Counter[Name] = Counter()
    survived: list[Mutant] = []
    while running or (waiting and time.monotonic() < plan.until):
        while waiting and len(running) < plan.jobs:
            mutant = waiting.pop()
            running[trial.fork(partial(bench.judge, mutant, path, tree))] = mutant
        pid, status = trial.wait()
        done = running.pop(pid)
        name = name_of(done)
        if status == trial.SURVIVED:
            survived.append(done)
        elif name in plan.listed and kills[name] < TRIES - 1:
            kills[name] += 1
            waiting.append(done)
    return sorted(survived, key=mutants.index), len(waiting)


def _reports(suite: Suite, plan: Plan) -> Iterator[Report]:
    """Try a suite's modules on a bench of their own, in a child process."""
    reading, writing = os.pipe()
    log = Path(tempfile.mkdtemp(), "log")
    screen = os.dup(sys.stderr.fileno())

    def work(bench: trial.Bench) -> None:
        for module in suite.modules:
            if module in plan.modules:
                report = _report(bench, plan, module, tell)
                os.write(writing, json.dumps(asdict(report)).encode() + b"\n")

    def tell(text: str) -> None:
        os.write(screen, f"{text}\n".encode())

    def child() -> int:
        os.close(reading)
        return trial.run_bench(ROOT, files_of(suite), suite.modules, work, suite.patience)

    pid = trial.fork(child, log=log)
    os.close(writing)
    os.close(screen)
    try:
        with open(reading) as lines:
            for line in lines:
                yield Report(**json.loads(line))
        _, status = trial.wait(pid)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        raise
    if status:
        code = os.waitstatus_to_exitcode(status)
        sys.exit(f"{log.read_text()[-40_000:]}\nthe bench ended with {code}")
    shutil.rmtree(log.parent)


def read_lists() -> dict[Name, str]:
    """Return every listed survivor with its reason."""
    listed: dict[Name, str] = {}
    for path in sorted(LISTS.glob("*.toml")):
        for group in tomllib.loads(path.read_text())["survivors"]:
            for key in group["mutants"]:
                listed[group["module"], group["where"], key] = group["reason"]
    return listed


def choose(names: Sequence[str]) -> list[str]:
    """Return the modules of these names or ``_aliases``, all if there are none, in their order."""
    every = [module for suite in SUITES for module in suite.modules]
    known = {(each, alias) for each in every for alias in _aliases(each)}
    if unknown := set(names) - {alias for _, alias in known}:
        sys.exit(f"no module {', '.join(sorted(unknown))}. There are {', '.join(every)}")
    chosen = {module for module, alias in known if alias in names}
    return [each for each in every if not names or each in chosen]


def _aliases(module: str) -> Iterator[str]:
    """Yield the names that stand for a module: its own, its last part, every package around it."""
    yield module
    yield module.rpartition(".")[2]
    parts = module.split(".")
    if path_of(module).name == "__init__.py":
        parts.append("")
    for end in range(1, len(parts)):
        yield ".".join((*parts[:end], "*"))


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: 0 if nothing survived that is not listed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="module",
        help="as in `machine` or `kassette_cli.verbs.*`; or all",
    )
    parser.add_argument("--seconds", type=float, default=DAY, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="try N of them only")
    parser.add_argument("--seed", default="1", help="which ones, for --sample")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    listed = read_lists()
    modules = choose(options.modules)
    drawn = draw(modules, listed, options.sample, options.seed) if options.sample else set()
    if drawn:
        modules = [each for each in modules if each in {module for module, _, _ in drawn}]
    until = time.monotonic() + options.seconds
    plan = Plan(modules, listed, drawn, options.jobs, until)
    killed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    failed = False
    for suite in SUITES:
        for report in _reports(suite, plan) if set(suite.modules) & set(modules) else ():
            failed |= _judge(report, listed) and not drawn
            package = package_of(report.module)
            killed[package] += report.killed
            tried[package] += report.tried
    for package, count in tried.items():
        share = killed[package] / max(count, 1)
        print(f"{package:28} {killed[package]} of {count} mutants killed, {share:.1%}")
        failed |= share < ENOUGH[package] and not drawn
    share = killed.total() / max(tried.total(), 1)
    return int(failed or share < min(ENOUGH.values()))


def _judge(report: Report, listed: Listed) -> bool:
    """Print what became of a module's mutants; return whether the list has to be mended."""
    module = report.module
    found = {(module, where, key) for where, key, _ in report.survived}
    unlisted = [each for each in report.survived if (module, *each[:2]) not in listed]
    print(
        f"{module:32} {report.tried:5} of {report.made:4} mutants {report.killed:5} killed "
        f"{len(report.survived):4} survived, {len(unlisted)} of them not listed "
        f"({report.seconds:.0f} s)",
        flush=True,
    )
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for where, key, line in unlisted:
        groups[where].append(f"    {chr(39) * 3}{key}{chr(39) * 3},  # line {line}")
    for where, keys in groups.items():
        print(f"[[survivors]]\nmodule = {json.dumps(module)}\nwhere = {json.dumps(where)}")
        print('reason = ""\nmutants = [', *keys, "]\n", sep="\n", flush=True)
    stale = [key for key in listed if key[0] == module and key not in found]
    stale = stale if report.tried == report.made else []
    for _, where, key in stale:
        print(f"  listed, but killed or gone: {where}: {key}")
    return bool(unlisted or stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
