"""That the benchmarks run and report what they measured; never that anything is fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COUNTED = Path("/proc/self/io").exists()
CONTESTANTS = {
    "step": [{"plain loop, inline", "asyncio", "trio"}, {"asyncio, inline", "asyncio", "trio"}],
    "concurrent": [{"plain loop, inline", "asyncio", "trio"}],
    "replay": [{"orjson.loads on each line", "asyncio", "trio", "asyncio, keeping them"}] * 3,
    "typed": [
        {"no type", "dict[str, Any]"},
        {"16 messages", "16 messages, a TypedDict", "16 dataclasses", "16 models"},
    ],
    "growth": [{"asyncio, 10 entries", "asyncio, 100 entries"}, {"plain loop, 100 entries"}],
    "open": [{"size of the file", "start, asyncio", "start, trio", "resume, trio"}] * COUNTED,
    "imports": [
        {"import anyio, orjson", "import kassette_io", "bare Python"},
        {"import anyio, orjson", "import kassette_io"},
        {"from kassette_io import Context, LocalStorage, workflow", "bare Python"},
        {"from kassette_io import Context, LocalStorage, workflow"},
        {"a script that runs nothing", "kassette list of 10 runs"},
    ],
    "look": [
        {"last block of each file", "list --status, in a pipe", "list, as a table"},
        {"last block of each file", "the table's first rows"},
        *[{"dump of 500 steps", "dump of 5000 steps"}] * COUNTED,
    ],
}
"""What each table of a benchmark must hold at least."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def quick_report(name: str, directory: Path) -> dict[str, Any]:
    """Run the quick form of one benchmark; give what it writes as JSON."""
    written = directory / "report.json"
    disk = directory / "disk"
    done = python(
        *("-m", "benchmarks", "--quick", name, "--dir", str(disk), "--json", str(written))
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(written.read_text())
    assert f"file system {report['machine']['file_system']}" in done.stdout
    for table in report["tables"]:
        assert all(row["contestant"] in done.stdout for row in table["rows"])
    assert list(directory.iterdir()) == [written], "the benchmark left something behind"
    return report


@pytest.mark.parametrize("name", CONTESTANTS)
def test_every_benchmark_reports_its_contestants_against_a_floor(name: str, tmp_path: Path) -> None:
    """A table without its floor, or with a figure that no round supports, would say nothing.

    And wall time alone would hide what a second core has paid for.
    """
    tables = quick_report(name, tmp_path)["tables"]
    for table, expected in zip(tables, CONTESTANTS[name], strict=True):
        assert {row["contestant"] for row in table["rows"]} >= expected
    assert name == "open" or all(row["cpu"] is not None for row in tables[0]["rows"])
    for table in tables:
        floor = table["rows"][0]
        assert floor["target"] is None
        for row in table["rows"]:
            assert len(row["rounds"]) == len(floor["rounds"]) >= 2
            assert row["median"] == median(row["rounds"])
            assert row["ratio"] == pytest.approx(row["median"] / floor["median"])
            assert row["ok"] == (None if row["target"] is None else row["ratio"] <= row["target"])
            assert row["peak_mb"] is None or row["peak_mb"] > 1


def test_a_contestant_that_breaks_is_named_and_fails_the_run(tmp_path: Path) -> None:
    """A benchmark whose contestant died must not end as if it had been measured."""
    done = python(
        "-c",
        "import sys; from pathlib import Path; from benchmarks import __main__, inline, step\n"
        "from benchmarks.harness import Contestant\n"
        "step.measure = lambda bench: bench.compete([Contestant('odd one', inline.plain_loop)])\n"
        f"sys.argv = ['benchmarks', '--quick', 'step', '--dir', {str(tmp_path)!r}]\n"
        "sys.exit(__main__.main())",
    )
    assert done.returncode == 1
    assert "'odd one' broke" in done.stderr
    assert "Traceback" in done.stderr


def test_an_unknown_benchmark_is_refused_with_the_choices() -> None:
    """A misspelt name must not run everything, or nothing."""
    done = python("-m", "benchmarks", "stepp")
    assert done.returncode == 2
    assert "stepp" in done.stderr
    assert all(name in done.stderr for name in CONTESTANTS)


def test_a_file_system_in_memory_is_called_out() -> None:
    """An fsync in memory is free: ratios taken there would be mistaken for a disk's."""
    done = python(
        "-c",
        "from benchmarks.machine import Machine\n"
        "told = dict(python='', system='', cores=1, load=0.0, directory='/x')\n"
        "print(Machine(**told, file_system='tmpfs'), Machine(**told, file_system='ext4'))",
    )
    assert done.stdout.count("MEMORY") == 1, done.stderr


def test_the_file_system_is_the_one_of_the_innermost_mount() -> None:
    """With only the root's type told, a tmpfs below it would pass for a disk."""
    done = python(
        "-c",
        "from pathlib import Path\n"
        "from benchmarks.machine import innermost\n"
        "mounts = ['1 0 8:1 / / rw - ext4 /dev/a rw',\n"
        "          '2 1 0:5 / /a\\\\040b rw shared:1 - tmpfs tmpfs rw',\n"
        "          '3 1 8:2 / /a rw - xfs /dev/b rw']\n"
        "print(*[innermost(Path(each), mounts) for each in ('/c', '/a b/d', '/a/b', '/ab')])",
    )
    assert done.stdout.split() == ["ext4", "tmpfs", "xfs", "ext4"], done.stderr
