"""Runs schedules: one from a seed or a script, or a range of seeds; tells and shrinks a failed one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.simulation.choices import Choices, Scripted, Seeded
from tests.simulation.scenario import Plan, Scenario
from tests.simulation.wiring import wired
from tests.simulation.world import Violation

SHRINKING_RUNS = 1500


class Failure:
    """A schedule that broke a promise; ``script`` makes it happen again."""

    __slots__ = ("local", "script", "violation")

    def __init__(self, violation: Violation, script: list[int], *, local: bool) -> None:
        self.violation = violation
        self.script = script
        self.local = local


def on_disk(seed: int) -> bool:
    """Tell where the schedule of a seed keeps its journals: every other one on an object store."""
    return seed % 2 == 0


def run_schedule(choices: Choices, *, local: bool) -> Failure | None:
    """Run the schedule that ``choices`` makes; only inside of ``wired``."""
    try:
        Scenario(choices, Plan.drawn(choices, local=local)).run()
    except Violation as violation:
        return Failure(violation, choices.taken, local=local)
    return None


def run_seeds(seeds: Sequence[int]) -> tuple[int, int | None]:
    """Run seeds until one fails; give how many were run and the one that failed."""
    for done, seed in enumerate(seeds, 1):
        if run_schedule(Seeded(seed), local=on_disk(seed)) is not None:
            return done, seed
    return len(seeds), None


def run_block(seeds: Sequence[int]) -> tuple[int, int | None]:
    """Do as ``run_seeds`` in a process of its own."""
    with wired():
        return run_seeds(seeds)


def trace_of(choices: Choices, *, local: bool) -> list[str]:
    """Run a schedule and tell it line by line."""
    scenario = Scenario(choices, Plan.drawn(choices, local=local), tracing=True)
    with suppress(Violation):
        scenario.run()
    return scenario.world.trace or []


def shrunk(failure: Failure) -> Failure:
    """Give a shorter, duller schedule that breaks the same promise."""
    best = failure
    left = SHRINKING_RUNS

    def better(script: list[int]) -> bool:
        nonlocal best, left
        left -= 1
        found = run_schedule(Scripted(script), local=failure.local)
        if found is None or found.violation.name != failure.violation.name:
            return False
        best = Failure(found.violation, _without_dull_end(found.script), local=failure.local)
        return True

    improved = better(failure.script)
    while improved and left > 0:
        improved = _drop_pieces(lambda: best.script, better, lambda: left > 0)
        improved |= _lower_numbers(lambda: best.script, better, lambda: left > 0)
    return best


def _without_dull_end(script: list[int]) -> list[int]:
    end = len(script)
    while end and script[end - 1] == 0:
        end -= 1
    return script[:end]


def _drop_pieces(
    script: Callable[[], list[int]], better: Callable[[list[int]], bool], go: Callable[[], bool]
) -> bool:
    improved = False
    size = len(script()) // 2
    while size and go():
        at = len(script()) - size
        while at >= 0 and go():
            if better(script()[:at] + script()[at + size :]):
                improved = True
            at = min(at - size, len(script()) - size)
        size //= 2
    return improved


def _lower_numbers(
    script: Callable[[], list[int]], better: Callable[[list[int]], bool], go: Callable[[], bool]
) -> bool:
    improved = False
    at = len(script()) - 1
    while at >= 0 and go():
        now = script()
        if at < len(now) and now[at]:
            lower = 0
            while lower < now[at] and go():
                if better([*now[:at], lower, *now[at + 1 :]]):
                    improved = True
                    break
                lower = lower + 1 if lower < 3 else now[at]
        at -= 1
    return improved
