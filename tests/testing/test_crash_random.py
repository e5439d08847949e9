"""Random sound workflows, crashed everywhere: kassette itself must give no cause for complaint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple

import pytest
from anyio.lowlevel import checkpoint

from kassette_io import Context, Retry
from kassette_io.testing import crash_everywhere

pytestmark = pytest.mark.anyio


class Do(NamedTuple):
    """An instruction of a workflow: what to do, how long, and in which branches."""

    what: str
    rounds: int
    branches: list[list[Do]]


def program(random: Random, depth: int = 0) -> list[Do]:
    """Make up a workflow: up to three instructions in a row, and up to three branches at once."""
    kinds = ["async", "sync", "flaky", "failing", "sleep", "suspend", *["parallel"] * (2 - depth)]
    return [
        Do(
            what,
            random.randint(0, 3),
            [program(random, depth + 1) for _ in range(random.randint(1, 3))]
            if what == "parallel"
            else [],
        )
        for what in random.choices(kinds, k=random.randint(1, 3))
    ]


class Machine:
    """Runs programs, and remembers the events that they wait for."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.failed: set[str] = set()

    async def work(self, rounds: int) -> int:
        for _ in range(rounds):
            await checkpoint()
        return rounds

    async def flaky(self, place: str) -> str:
        await checkpoint()
        if place not in self.failed:
            self.failed.add(place)
            raise OSError("not yet")
        return place

    async def fail(self) -> None:
        await checkpoint()
        raise ValueError("never")

    async def run(self, ctx: Context, todo: list[Do], place: str) -> list[Any]:
        results: list[Any] = []
        for number, do in enumerate(todo):
            here = f"{place}.{number}"
            match do.what:
                case "async":
                    results.append(await ctx.step("work", self.work, do.rounds))
                case "sync":
                    results.append(await ctx.step("work", str, do.rounds))
                case "flaky":
                    results.append(await ctx.step("flaky", self.flaky, here, retry=Retry(3)))
                case "failing":
                    with pytest.raises(ValueError, match="never"):
                        await ctx.step("fail", self.fail)
                case "sleep":
                    await ctx.sleep(do.rounds)
                case "suspend":
                    self.events.append(here)
                    results.append(await ctx.suspend(here))
                case _:
                    branches = {
                        f"b{at}": self.branch(branch, f"{here}.{at}")
                        for at, branch in enumerate(do.branches)
                    }
                    results.append(await ctx.parallel(branches))
        return results

    def branch(self, todo: list[Do], place: str) -> Callable[[Context], Awaitable[list[Any]]]:
        async def run(ctx: Context) -> list[Any]:
            return await self.run(ctx, todo, place)

        return run


def waits(todo: list[Do], place: str) -> list[str]:
    """Give the events that a program may wait for."""
    found: list[str] = []
    for number, do in enumerate(todo):
        here = f"{place}.{number}"
        found += [here] if do.what == "suspend" else []
        for at, branch in enumerate(do.branches):
            found += waits(branch, f"{here}.{at}")
    return found


async def crash(seed: int) -> None:
    random = Random(seed)
    todo = program(random)
    machine = Machine()
    answered = [event for event in waits(todo, "e") if random.random() < 0.8]

    async def flow(ctx: Context) -> list[Any]:
        return await machine.run(ctx, todo, "e")

    survived = await crash_everywhere(
        flow, answers={event: f"{event}!" for event in answered}, reset=machine.failed.clear
    )
    assert survived.outcome.status == "success" or set(machine.events) - set(answered)


@pytest.mark.parametrize("seed", range(12))
async def test_random_workflows_survive(seed: int) -> None:
    """A workflow that keeps every rule would be harmed by a crash, or blamed for one."""
    await crash(seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(5, 10))
async def test_many_random_workflows_survive(hundred: int) -> None:
    """A combination of waits, branches and crashes that nobody thought of would lose work."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        await crash(seed)
