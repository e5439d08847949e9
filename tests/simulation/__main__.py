"""The command line: simulate for a time, walk all schedules of a small system, or try the teeth."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from tests.simulation.choices import Scripted, Seeded
from tests.simulation.explore import SYSTEMS, explore, retell
from tests.simulation.mutants import MUTANTS, caught_after, row
from tests.simulation.running import on_disk, run_block, run_schedule, shrunk, trace_of
from tests.simulation.wiring import wired

BLOCK = 250


def main() -> int:
    """Do as the arguments say; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--schedules", type=int, help="how many, instead of how long")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="how many at once (default: 1)")
    parser.add_argument("--exhaustive", action="store_true", help="walk all schedules instead")
    parser.add_argument("--teeth", action="store_true", help="look for broken variants instead")
    given = parser.parse_args()
    if given.exhaustive:
        return walk()
    if given.teeth:
        return bite()
    return simulate(given.seed, given.seconds, given.schedules, given.processes)


def simulate(seed: int, seconds: float, schedules: int | None, processes: int) -> int:
    """Run seeds from ``seed`` on, until the time or their number is up, or one fails."""
    begin = shown = time.monotonic()
    done, failed, first = 0, None, seed
    last = None if schedules is None else seed + schedules
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running: set[Future[tuple[int, int | None]]] = set()
        while True:
            going = failed is None and (last is not None or time.monotonic() - begin < seconds)
            while going and len(running) < 2 * processes and (last is None or first < last):
                size = BLOCK if last is None else min(BLOCK, last - first)
                running.add(pool.submit(run_block, range(first, first + size)))
                first += size
            if not running:
                break
            over, running = wait(running, return_when=FIRST_COMPLETED)
            for number, broken in (each.result() for each in over):
                done += number
                failed = broken if failed is None else failed
            if time.monotonic() - shown >= 30:
                shown = time.monotonic()
                print(f"{done} schedules, {done / (shown - begin):.0f}/s", flush=True)
    took = time.monotonic() - begin
    violations = 0 if failed is None else 1
    print(f"{done} schedules in {took:.1f} s, {done / took:.0f}/s, {violations} violations")
    return 0 if failed is None else tell(failed)


def tell(seed: int) -> int:
    """Print the failed schedule of a seed, shrunk."""
    with wired():
        failure = run_schedule(Seeded(seed), local=on_disk(seed))
        if failure is None:
            print(f"seed {seed} fails no more")
            return 1
        print(f"seed {seed}: {failure.violation}")
        print(f"again: python -m tests.simulation --seed {seed} --schedules 1\n")
        smaller = shrunk(failure)
        print(f"shrunk from {len(failure.script)} to {len(smaller.script)} choices:")
        print("\n".join(trace_of(Scripted(smaller.script), local=failure.local)))
    return 1


def walk() -> int:
    """Walk all schedules of the small systems; print how many states there are."""
    broken = 0
    for title, plan in SYSTEMS.items():
        with wired():
            found = explore(plan)
            story = retell(plan, found.script) if found.failure is not None else []
        print(f"{title:50} {found.schedules:8} schedules {len(found.states):8} states", flush=True)
        if found.failure is not None:
            broken = 1
            print("\n".join([str(found.failure), *story]))
    return broken


def bite() -> int:
    """Print for every mutant how many schedules it took to catch it, as docs/guarantees.md has it."""
    missed = 0
    for mutant in MUTANTS:
        schedules, name = caught_after(mutant)
        missed += schedules is None
        print(row(mutant, schedules, name), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
