"""Tests run on mutants, in forked processes: the judge of nothing but killed or survived.

A *bench* is a process that has collected the tests of one suite. For a mutant inside a function it
forks, gives the function the mutated code, and runs the tests that call it, the quick ones first,
until one fails. A mutant that an import makes is imported anew, and the tests with it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NoReturn

import pytest

from tests.mutation.mutants import Mutant

SURVIVED, KILLED = 0, 1
MEMORY = 4 << 30
PROJECT = ("kassette", "kassette_io", "core", "conftest", "tests.core", "tests.io", "tests.crash")
OPTIONS = ["-x", "-q", "--tb=short", "--timeout=0", "-s"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
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

    def __init__(self, durations: dict[str, float]) -> None:
        self.durations = durations

    def pytest_configure(self) -> None:
        do_not_shrink()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.durations.get(item.nodeid, 0.0))


class Bench:
    """A plugin: collects the tests of a suite, then runs ``work`` instead of them."""

    def __init__(self, root: Path, work: Callable[[Bench], None]) -> None:
        self.root = root
        self.work = work
        self.items: list[pytest.Item] = []
        self.files: list[str] = []
        self.durations: dict[str, float] = {}
        self.covering: dict[str, set[str]] = {}

    def pytest_configure(self) -> None:
        do_not_shrink()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        self.files = sorted({item.nodeid.split("::")[0] for item in session.items})
        self.work(self)
        return True

    def measure(self, scratch: Path) -> None:
        """Run every test once on the code as it stands; note durations and called functions."""
        found, log = scratch / "coverage.json", scratch / "log"
        _, status = os.waitpid(fork(lambda: _cover(self.items, found), log=log), 0)
        if status:
            raise SystemExit(f"the tests fail as they are:\n{log.read_text()}")
        measured = json.loads(found.read_text())
        self.durations = measured["durations"]
        for nodeid, codes in measured["called"].items():
            for filename, qualname in codes:
                self.covering.setdefault(f"{filename}:{qualname}", set()).add(nodeid)

    def tests(self, mutant: Mutant, path: Path) -> list[pytest.Item]:
        """Give the tests that can tell a mutant, the quick ones first."""
        nodeids = self.covering.get(f"{path}:{mutant.where}", set())
        items = [item for item in self.items if mutant.at_import or item.nodeid in nodeids]
        return sorted(items, key=lambda item: self.durations[item.nodeid])

    def judge(self, mutant: Mutant, path: Path, tree: ast.Module) -> int:
        """Try the mutant in this process, which is of no other use after that."""
        mutant.apply()
        try:
            code = compile(tree, str(path), "exec")
        except (SyntaxError, ValueError):
            return KILLED
        if not mutant.at_import and replace_code(mutant, code):
            return self._run(self.tests(mutant, path))
        limit(sum(self.durations.values()))
        own = [name for name in self.files if mutant.module.rpartition(".")[2].strip("_") in name]
        for files in (own, [name for name in self.files if name not in own]):
            if files and self._import_and_run(Imported(mutant.module, path, code), files) == KILLED:
                return KILLED
        return SURVIVED

    def _run(self, items: Sequence[pytest.Item]) -> int:
        """Run tests until one fails."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            limit(self.durations[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                return KILLED
        return SURVIVED

    def _import_and_run(self, module: Imported, files: list[str]) -> int:
        for name in list(sys.modules):
            if name in PROJECT or name.startswith(tuple(f"{each}." for each in PROJECT)):
                del sys.modules[name]
        sys.meta_path.insert(0, module)
        code = pytest.main([*OPTIONS, *files], plugins=[Fresh(self.durations)])
        return SURVIVED if code == pytest.ExitCode.OK else KILLED


def run_bench(root: Path, files: Sequence[str], work: Callable[[Bench], None]) -> int:
    """Collect the tests in ``files`` and do ``work`` with them."""
    for name in ("anyio._backends._asyncio", "anyio._backends._trio", "hypothesis.stateful"):
        importlib.import_module(name)
    return int(pytest.main([*OPTIONS, *files], plugins=[Bench(root, work)]))


def do_not_shrink() -> None:
    """Let Hypothesis end at the first failure; what fails is not of interest."""
    from hypothesis import Phase, settings

    settings.register_profile("mutation", settings(), phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutation")


def limit(usual: float) -> None:
    """End this process if what usually takes so many seconds hangs, busily or not."""
    signal.setitimer(signal.ITIMER_PROF, 2 + 8 * usual)
    signal.setitimer(signal.ITIMER_REAL, 4 + 12 * usual)


def replace_code(mutant: Mutant, code: CodeType) -> bool:
    """Give the mutant's function the code that was compiled from the mutated tree, if it can be."""
    changed = next((each for each in _codes(code) if each.co_qualname == mutant.where), None)
    found: Any = sys.modules[mutant.module]
    for name in mutant.where.split("."):
        found = vars(found).get(name)
    function = getattr(found, "__func__", getattr(found, "fget", found))
    function = getattr(function, "__wrapped__", function)
    if changed is None or not isinstance(function, FunctionType):
        return False
    if changed.co_freevars != function.__code__.co_freevars:
        return False
    function.__code__ = changed
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _cover(items: Sequence[pytest.Item], found: Path) -> int:
    seen: set[CodeType] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    threading.setprofile(profile)
    durations: dict[str, float] = {}
    called: dict[str, list[tuple[str, str]]] = {}
    for item, following in zip(items, [*items[1:], None], strict=True):
        seen.clear()
        sys.setprofile(profile)
        begun = time.perf_counter()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        durations[item.nodeid] = time.perf_counter() - begun
        sys.setprofile(None)
        called[item.nodeid] = [
            (each.co_filename, each.co_qualname.split(".<locals>")[0]) for each in list(seen)
        ]
        if item.session.testsfailed:
            return KILLED
    found.write_text(json.dumps({"durations": durations, "called": called}))
    return SURVIVED


def fork(work: Callable[[], int], *, log: Path | None = None) -> int:
    """Run ``work`` in a child; give its process id."""
    pid = os.fork()
    if pid == 0:
        _work(work, log)
    return pid


def _work(work: Callable[[], int], log: Path | None) -> NoReturn:
    code = KILLED
    try:
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
        sys.stdout.flush()
        os._exit(code)
