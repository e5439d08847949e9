"""Tests run on mutants, in forked processes: the judge of nothing but killed or survived.

A *bench* is a process that has collected the tests of one suite. For a mutant inside a function it
forks, gives the function the mutated code, and runs the tests that run its line, the quick ones
first, until one fails. A mutant that an import makes is imported anew, and the tests with it. A Python
process that a test starts is a fork as well (``children``), so it has the mutant, and what it runs
counts as run by the test.

A test that hangs kills, too. How long it may take is a multiple of what it took without a mutant,
and more if the machine is busier than it was then.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import json
import math
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, chain, zip_longest
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NoReturn

import pytest

from tests.mutation.children import NOT_HERE, forked
from tests.mutation.mutants import Mutant

SURVIVED, KILLED = 0, 1
COLLECTING = 5.0
"""Seconds that it takes to import a suite of tests, or to run a test, at most."""
WHILE = 20.0
"""Seconds for which tests are run of which it is not known what they take."""
FAILING = 3
"""So many tests may fail without a mutant."""
MEMORY = 4 << 30
WANTED = ("anyio._backends._asyncio", "anyio._backends._trio", "hypothesis.stateful")
OPTIONS = ["-x", "-q", "--tb=short", "--timeout=0", "-s"]
OPTIONS += [f"--deselect={each}" for each in NOT_HERE]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
PLAIN = "--assert=plain"
"""Pytest would rewrite our plugin's package, and import it from the disk to do so."""
for plugin in ("randomly", "cacheprovider", "faulthandler"):
    OPTIONS += ["-p", f"no:{plugin}"]


class Imported(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports ``name`` from a tree instead of from its file."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name = name
        self.path = path
        self.code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self.path))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        exec(self.code, module.__dict__)


class Fresh:
    """A plugin: runs the quick tests first."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def pytest_configure(self) -> None:
        prepare(self.bench.modules)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = self.bench.quick(items)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        limit(self.bench.usual(nodeid))


class Bench:
    """A plugin: collects the tests of a suite, then runs ``work`` instead of them."""

    def __init__(
        self,
        root: Path,
        modules: Sequence[str],
        work: Callable[[Bench], None],
        patience: float = math.inf,
    ) -> None:
        self.root = root.resolve()
        self.modules = modules
        self.work = work
        self.patience = patience
        self.items: list[pytest.Item] = []
        self.files: list[str] = []
        self.durations: dict[str, float] = {}
        self.costs: dict[str, float] = {}
        self.measured = False
        self.load = 1.0
        self.running: defaultdict[tuple[str, int], list[str]] = defaultdict(list)

    def pytest_configure(self) -> None:
        prepare(self.modules)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        self.files = sorted({item.nodeid.split("::")[0] for item in session.items})
        self.work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print(report.nodeid, report.longreprtext, sep="\n")

    def measure(self) -> None:
        """Run every test once on the code as it stands; note what it takes and what it runs.

        A test that fails once, as on a machine that is too busy, judges nothing.
        """
        sources = {str(sys.modules[name].__file__) for name in self.modules}
        with tempfile.TemporaryDirectory() as scratch:
            found, log = Path(scratch, "found"), Path(scratch, "log")
            wait(fork(lambda: _cover(self.items, sources, found, Path(scratch)), log=log))
            text = found.read_text() if found.exists() else "{}"
            measured = json.loads(text)
            failed = measured.get("failed", self.items)
            if len(failed) > FAILING:
                named = "\n".join(map(str, failed))
                raise SystemExit(f"the tests fail as they are:\n{named}\n{log.read_text()}")
        self.items = [item for item in self.items if item.nodeid not in failed]
        self.measured, self.load = True, load()
        self.durations, self.costs = measured["durations"], measured["costs"]
        for nodeid, lines in measured["ran"].items():
            for filename, line in lines:
                self.running[filename, line].append(sys.intern(nodeid))

    def tests(self, mutant: Mutant, path: Path) -> list[pytest.Item]:
        """Return the tests that can tell a mutant, the quick ones first.

        As long as nothing is measured, those in the files that speak of its module.
        """
        if not self.measured:
            files = self.own(mutant.module)
            return [item for item in self.items if item.nodeid.split("::")[0] in files]
        nodeids = {each for line in mutant.span for each in self.running.get((str(path), line), ())}
        return self.quick([item for item in self.items if item.nodeid in nodeids])

    def usual(self, nodeid: str) -> float:
        """Return the seconds that a test usually takes, on a machine as busy as it is now."""
        return self.durations.get(nodeid, COLLECTING) * max(1.0, load() / self.load)

    def own(self, module: str) -> list[str]:
        """Return the files that speak of a module."""
        word = module.rpartition(".")[2].strip("_")
        return [
            name for name in self.files if word in name or word in (self.root / name).read_text()
        ]

    def quick(self, items: Sequence[pytest.Item]) -> list[pytest.Item]:
        """Sort tests by what they cost, and leave out those beyond our patience."""
        ordered = sorted(items, key=lambda item: self.costs.get(item.nodeid, 0.0))
        sums = accumulate(self.costs.get(item.nodeid, 0.0) for item in ordered)
        return [item for item, spent in zip(ordered, sums, strict=True) if spent <= self.patience]

    def judge(self, mutant: Mutant, path: Path, tree: ast.Module) -> int:
        """Try the mutant in this process, which is of no other use after that."""
        mutant.apply()
        try:
            code = compile(tree, str(path), "exec")
        except (SyntaxError, ValueError):
            return KILLED
        if not mutant.at_import and replace_code(mutant, code):
            return self._run(self.tests(mutant, path))
        limit(COLLECTING)
        own = self.own(mutant.module)
        others = [name for name in self.files if name not in own] if self.measured else []
        for files in (own, others):
            if files and self._import_and_run(Imported(mutant.module, path, code), files) == KILLED:
                return KILLED
        return SURVIVED

    def _run(self, items: Sequence[pytest.Item]) -> int:
        """Run tests until one fails, or, as long as nothing is measured, for a while."""
        begun = time.monotonic()
        with forked():
            for item, following in zip_longest(items, items[1:]):
                if not self.measured and time.monotonic() - begun > WHILE:
                    break
                limit(self.usual(item.nodeid))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if item.session.testsfailed:
                    return KILLED
        return SURVIVED

    def _import_and_run(self, module: Imported, files: list[str]) -> int:
        for name, loaded in list(sys.modules.items()):
            if self._is_ours(name, getattr(loaded, "__file__", None)):
                del sys.modules[name]
        sys.meta_path.insert(0, module)
        with forked():
            code = pytest.main([*OPTIONS, PLAIN, *files], plugins=[Fresh(self)])
        passed = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        return SURVIVED if code in passed else KILLED

    def _is_ours(self, name: str, file: str | None) -> bool:
        """Return whether a module is one of the project or its tests, whatever pytest calls it."""
        if file is None or name == "__main__" or name.startswith("tests.mutation"):
            return False
        return Path(file).is_relative_to(self.root) and "site-packages" not in file


def run_bench(
    root: Path,
    files: Sequence[str],
    modules: Sequence[str],
    work: Callable[[Bench], None],
    patience: float,
) -> int:
    """Collect the tests in ``files``, import ``modules``, and do ``work`` with them.

    A mutant that tests of ``patience`` seconds have not killed, the quick ones first, survives.
    """
    return int(pytest.main([*OPTIONS, *files], plugins=[Bench(root, modules, work, patience)]))


def prepare(modules: Sequence[str]) -> None:
    """Import what every child would import anew, and let Hypothesis end at the first failure.

    Pytest has to be there already: it wants to be the one that imports its plugins.
    """
    for name in (*WANTED, *modules):
        importlib.import_module(name)
    from hypothesis import Phase, settings

    settings.register_profile("mutation", settings(), phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutation")


def limit(usual: float) -> None:
    """End this process if what usually takes so many seconds hangs, busily or not."""
    signal.setitimer(signal.ITIMER_PROF, 2 + 8 * usual)
    signal.setitimer(signal.ITIMER_REAL, 4 * load() + min(12 * usual, 40 + 3 * usual))


def load() -> float:
    """Return how many processes there are for each processor, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def replace_code(mutant: Mutant, code: CodeType) -> bool:
    """Give the mutant's function the code that was compiled from the mutated tree, if it can be."""
    found: Any = sys.modules[mutant.module]
    for name in mutant.owner.split("."):
        found = vars(found).get(name)
    function = getattr(found, "__func__", getattr(found, "fget", found))
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType):
        return False
    name, line = function.__code__.co_qualname, function.__code__.co_firstlineno
    changed = next(
        (each for each in _codes(code) if (each.co_qualname, each.co_firstlineno) == (name, line)),
        None,
    )
    if changed is None or changed.co_freevars != function.__code__.co_freevars:
        return False
    function.__code__ = changed
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _cover(
    items: Sequence[pytest.Item], sources: Collection[str], found: Path, scratch: Path
) -> int:
    """Run the tests and write down what each takes and which lines of ``sources`` it runs."""
    seen: set[tuple[str, int]] = set()

    def tell() -> None:
        whole = scratch / f"{os.getpid()}.ran"
        part = whole.with_suffix(".part")  # a child may be killed while it writes
        part.write_text(json.dumps(list(seen)))
        part.replace(whole)

    def told(path: Path) -> list[tuple[str, int]]:
        ran = json.loads(path.read_text())
        path.unlink()
        return [tuple(each) for each in ran]

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        return trace_lines if frame.f_code.co_filename in sources else None

    def trace_lines(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace_lines

    threading.settrace(trace)
    durations: dict[str, float] = {}
    costs: dict[str, float] = {}
    ran: dict[str, list[tuple[str, int]]] = {}
    failed: list[str] = []
    with forked(at_exit=tell):
        for item, following in zip_longest(items, items[1:]):
            failures = item.session.testsfailed
            seen.clear()
            sys.settrace(trace)
            begun, busy = time.perf_counter(), sum(os.times()[:4])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            durations[item.nodeid] = time.perf_counter() - begun
            costs[item.nodeid] = sum(os.times()[:4]) - busy
            sys.settrace(None)
            children = chain.from_iterable(map(told, scratch.glob("*.ran")))
            ran[item.nodeid] = list({*seen, *children})
            if item.session.testsfailed > failures:
                failed.append(item.nodeid)
    found.write_text(
        json.dumps({"durations": durations, "costs": costs, "ran": ran, "failed": failed})
    )
    return SURVIVED


def fork(work: Callable[[], int], *, log: Path | None = None) -> int:
    """Run ``work`` in a child; give its process id."""
    pid = os.fork()
    if pid == 0:
        _work(work, log)
    return pid


def wait(pid: int | None = None) -> tuple[int, int]:
    """Wait for a child, any one if None; end what it has started, and give id and status."""
    of, which = (os.P_ALL, 0) if pid is None else (os.P_PID, pid)
    ended = os.waitid(of, which, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    with suppress(ProcessLookupError):
        os.killpg(ended.si_pid, signal.SIGKILL)
    return os.waitpid(ended.si_pid, 0)


def _work(work: Callable[[], int], log: Path | None) -> NoReturn:
    """Do ``work`` and end. What got out of here would go on as a second bench."""
    code = KILLED
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        out = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(ValueError, OSError):  # a test may have closed it
            sys.stdout.flush()
        os._exit(code)
