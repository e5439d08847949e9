"""Which tests judge which module, and how many of its mutants they have to kill.

A suite is collected by one process, which imports all modules that it judges. Each mutant is tried
with the tests of its suite that call its function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
BLIND = (
    "tests/core/test_purity.py",
    "tests/core/test_transcripts.py",
    "tests/testing/test_crash_random.py",
)
"""What looks at files or is kept up to date by hand; and what takes minutes to see little."""


PATIENCE = 6.0
"""Seconds of a processor, as measured with every call noted, which is some times slower."""


class Suite(NamedTuple):
    """Test files, or directories of them, and the modules that they judge.

    A mutant survives that is not killed by as many of the quickest tests as take ``patience``
    seconds: some functions are called by every test there is.
    """

    tests: Sequence[str]
    modules: Sequence[str]
    patience: float = math.inf


def _named(package: str, names: str) -> list[str]:
    return [f"{package}.{name}" for name in names.split()]


def _all_of(package: str) -> list[str]:
    paths = sorted((ROOT / package.replace(".", "/")).glob("[!_]*.py"))
    return [f"{package}.{path.stem}" for path in paths]


SUITES = (
    Suite(["tests/core"], _all_of("kassette")),
    Suite(
        [
            "tests/cli/test_analyses.py",
            "tests/cli/test_pretty.py",
            "tests/cli/test_summaries.py",
            "tests/core/test_diagnosis.py",
        ],
        _all_of("kassette.evidence"),
    ),
    Suite(
        [
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
        ],
        _named("kassette_io.storages", "local_journal run_lock local"),
    ),
    Suite(["tests/io/test_lock_state.py"], _named("kassette_io.storages", "lock_state")),
    Suite(
        [
            "tests/io/test_storages.py",
            "tests/io/test_conformance.py",
            "tests/io/test_io_racing.py",
            "tests/io/test_remote_cancelling.py",
            "tests/io/test_remote_check.py",
            "tests/io/test_remote_crossing.py",
            "tests/io/test_remote_layout.py",
            "tests/io/test_remote_outages.py",
            "tests/io/test_remote_storage.py",
        ],
        _named("kassette_io.storages", "store_check remote"),
    ),
    Suite(
        ["tests/io", "tests/crash/test_letting_go.py"],
        [
            "kassette_io",
            *_named("kassette_io", "_clock attempts branches calling context driver lifecycle"),
            *_named("kassette_io", "noting observing results run settling streaming workflows"),
            *_named("kassette_io.loops", "threads waiting waiting_asyncio waiting_trio"),
            *_named("kassette_io.storages", "memory object_store protocol urls"),
        ],
        PATIENCE,
    ),
    Suite(
        [
            *(f"tests/io/test_io_{name}.py" for name in ("calling", "events", "misuse", "values")),
            *(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/io/test_io_typed*.py")),
            "tests/io/test_io_without_pydantic.py",
        ],
        [
            *_all_of("kassette_io._values"),
            *_named("kassette_io", "declaring typed"),
        ],
        PATIENCE,
    ),
    Suite(
        ["tests/s3"],
        [
            "kassette_io.loops.asyncio_home",
            *_named("kassette_io.storages", "s3 s3_client s3_errors"),
        ],
        PATIENCE,
    ),
    Suite(
        ["tests/testing", "tests/io/test_conformance.py"],
        ["kassette_io.testing", *_all_of("kassette_io.testing"), "kassette_io.pytest_plugin"],
        PATIENCE,
    ),
    Suite(
        ["tests/cli"],
        [
            *_all_of("kassette_cli"),
            *_all_of("kassette_cli.output"),
            *_all_of("kassette_cli.verbs"),
        ],
        PATIENCE,
    ),
)
NOT_JUDGED = {
    ROOT / "kassette" / "__init__.py",
    ROOT / "kassette" / "_lazy.py",
    ROOT / "kassette" / "evidence" / "__init__.py",
    *(ROOT / "kassette_io" / each / "__init__.py" for each in ("_values", "loops", "storages")),
    ROOT / "kassette_cli" / "__init__.py",
    ROOT / "kassette_cli" / "__main__.py",
    *(ROOT / "kassette_cli" / each / "__init__.py" for each in ("output", "verbs")),
}
"""Names that other tests import anyway, and what is run and not imported."""
ENOUGH = {"kassette": 0.95, "kassette_io": 0.90, "kassette_io.testing": 0.90, "kassette_cli": 0.90}
"""The share to be killed, by package."""


def package_of(module: str) -> str:
    """Return the package that the module's mutants count for."""
    return max((each for each in ENOUGH if f"{module}.".startswith(f"{each}.")), key=len)


def path_of(module: str) -> Path:
    """Return the module's file."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def files_of(suite: Suite) -> list[str]:
    """Return the test files of a suite, relative to the root."""
    found = (ROOT / each for each in suite.tests)
    paths = [
        path for each in found for path in (each.glob("test_*.py") if each.is_dir() else [each])
    ]
    return sorted(name for path in paths if (name := str(path.relative_to(ROOT))) not in BLIND)
