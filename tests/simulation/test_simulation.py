"""A short simulation with every change; `nox -s simulate` goes on for as long as it is told to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.simulation.choices import Scripted, Seeded
from tests.simulation.explore import SYSTEMS, explore, retell
from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.running import on_disk, run_schedule, run_seeds, shrunk, trace_of
from tests.simulation.wiring import wired

SMALL = ("disk, a step, a crash", "store, a step, two crashes")


@pytest.mark.parametrize("first", [0, 1], ids=["disk", "store"])
def test_no_schedule_breaks_a_promise(first: int) -> None:
    """Broken, some order of crashes, faults and rivals loses, doubles or makes up an entry.

    ``python -m tests.simulation --seed N --schedules 1`` tells the schedule that failed.
    """
    with wired():
        assert run_seeds(range(first, 2400, 2)) == (1200, None)


@pytest.mark.parametrize("title", SMALL)
def test_every_schedule_of_a_small_system(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken, two sessions can meet in a way that no random schedule happened to try."""
    with wired():
        found = explore(SYSTEMS[title])
    with capsys.disabled():
        print(f"\n{title}: {len(found.states)} states, {found.schedules} schedules")
    assert (found.failure, found.complete) == (None, True)
    assert len(found.states) > 1000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("title", sorted(SYSTEMS.keys() - set(SMALL)))
def test_every_schedule_of_a_larger_system(title: str) -> None:
    """Broken, two sessions can meet in a way that no random schedule happened to try."""
    with wired():
        found = explore(SYSTEMS[title])
    assert (found.failure, found.complete) == (None, True)


@pytest.mark.parametrize(
    ("title", "mutant"),
    [
        (SMALL[0], "no lock"),
        (SMALL[0], "what a dead process left is not synced"),
        (SMALL[1], "no fencing check"),
        (SMALL[1], "no new read on an offset mismatch"),
    ],
)
def test_the_walk_misses_nothing(title: str, mutant: str) -> None:
    """Broken, states that differ are taken for the same, and the walk leaves out what matters."""
    broken = next(each for each in MUTANTS if each.title == mutant)
    with wired(), planted(broken):
        found = explore(SYSTEMS[title])
        story = retell(SYSTEMS[title], found.script)
    assert found.failure is not None
    assert f"VIOLATION of {found.failure}" in story[-1]


def test_a_seed_is_a_schedule() -> None:
    """Broken, a failure found at night cannot be looked at in the morning.

    Another interpreter, with another hash seed, has to tell the very same story.
    """
    seeds = range(24)
    with wired():
        here = [trace_of(Seeded(seed), local=on_disk(seed)) for seed in seeds]
    there = subprocess.run(
        [sys.executable, "-c", TELL, str(len(seeds))],
        env={"PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert there.stdout.splitlines() == [line for story in here for line in story]


TELL = """
import sys
from tests.simulation.choices import Seeded
from tests.simulation.running import on_disk, trace_of
from tests.simulation.wiring import wired
with wired():
    for seed in range(int(sys.argv[1])):
        print(*trace_of(Seeded(seed), local=on_disk(seed)), sep="\\n")
"""


def test_a_failure_is_shrunk_and_told() -> None:
    """Broken, a failure shows as hundreds of lines about what has nothing to do with it."""
    mutant = next(each for each in MUTANTS if each.title == "fsync is dropped")
    with wired(), planted(mutant):
        seed, failure = next(
            (seed, found)
            for seed in range(0, 200, 2)
            if (found := run_schedule(Seeded(seed), local=True)) and len(found.script) > 40
        )
        small = shrunk(failure)
        story = trace_of(Scripted(small.script), local=True)
        before = trace_of(Seeded(seed), local=True)
    assert len(small.script) < len(failure.script) / 3
    assert len(story) <= len(before)
    assert "VIOLATION of what_is_told_is_durable" in story[-1]
    assert any("acknowledged: start of session 1" in line for line in story)
