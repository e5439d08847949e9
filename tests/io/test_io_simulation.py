"""Random workflows, crashed at random moments until they end; the result is the undisturbed one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio import CancelScope, create_task_group, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from kassette_io import (
    Context,
    EventPendingError,
    Failed,
    MemoryStorage,
    StepEntry,
    Success,
    Suspended,
    SuspendEntry,
    TerminalRunError,
    Workflow,
    workflow,
)
from tests.io.stories import RUN

pytestmark = pytest.mark.anyio

SEEDS = range(50)


@dataclass(frozen=True)
class Node:
    """One act of a made-up workflow."""

    kind: str
    name: str
    inner: tuple[Node, ...] = ()


def plan(dice: random.Random, depth: int = 0) -> tuple[Node, ...]:
    """Make up a workflow: steps, failing steps, sleeps, waits, parallel blocks."""
    kinds = ["sync", "sync", "async", "async", "fails", "sleep", "wait"]
    if depth < 2:
        kinds += ["parallel", "parallel"]
    nodes = []
    for _ in range(dice.randint(1, 4)):
        kind = dice.choice(kinds)
        inner: tuple[Node, ...] = ()
        if kind == "parallel":
            inner = tuple(
                Node("branch", key, plan(dice, depth + 1)) for key in "abc"[: dice.randint(1, 3)]
            )
        name = dice.choice(["llm", "tool:x", "y"])
        nodes.append(Node(kind, f"{name}!" if kind == "fails" else name, inner))
    return tuple(nodes)


@dataclass
class World:
    """What the made-up workflow does to the world, and what it is told."""

    storage: MemoryStorage = field(default_factory=MemoryStorage)
    effects: Counter[str] = field(default_factory=Counter)

    def flow(self, nodes: tuple[Node, ...]) -> Workflow[None, Any]:
        async def body(ctx: Context) -> Any:
            return await self.perform(ctx, nodes, "")

        return workflow(body, storage=self.storage)

    async def perform(self, ctx: Context, nodes: tuple[Node, ...], path: str) -> list[Any]:
        return [await self.act(ctx, node, f"{path}/{number}") for number, node in enumerate(nodes)]

    async def act(self, ctx: Context, node: Node, place: str) -> Any:
        match node.kind:
            case "sync":
                return await ctx.step(node.name, self.effect, place)
            case "async":
                return await ctx.step(node.name, self.slow_effect, place)
            case "fails":
                try:
                    return await ctx.step(node.name, self.failing_effect, place)
                except LookupError as error:
                    return str(error)
            case "sleep":
                return await ctx.sleep(0)
            case "wait":
                return await ctx.suspend(f"event:{place}")
            case _:
                return await ctx.parallel(
                    {branch.name: self.branch(branch, place) for branch in node.inner}
                )

    def branch(self, node: Node, place: str) -> Callable[[Context], Awaitable[Any]]:
        return lambda own: self.perform(own, node.inner, f"{place}:{node.name}")

    def effect(self, place: str) -> str:
        self.effects[place] += 1
        return place

    async def slow_effect(self, place: str) -> str:
        for _ in range(len(place) % 4):
            await checkpoint()
        return self.effect(place)

    async def failing_effect(self, place: str) -> None:
        await checkpoint()
        raise LookupError(place)


async def dispatch(world: World, flow: Workflow[None, Any], dice: random.Random) -> Any:
    """Deliver the run once: begin it, recover it, or answer one of its open questions."""
    try:
        outcome = await flow.start(run_id=RUN)
    except EventPendingError:
        entries = await world.storage.read_all(RUN)
        answered = {getattr(entry, "event_name", None) for entry in entries}
        asked = {each.waiting_for for each in entries if isinstance(each, SuspendEntry)}
        event = dice.choice(sorted(asked - answered))
        outcome = await flow.resume(RUN, event, event)
    assert not isinstance(outcome, Failed), outcome
    return None if isinstance(outcome, Suspended) else outcome


async def told_by_a_fork(world: World, flow: Workflow[None, Any]) -> Any:
    """Replay a run that completed while its caller was being cancelled, to learn its result."""
    entries = await world.storage.read_all(RUN)
    assert entries[-1].type == "complete"
    outcome = await flow.fork(RUN, from_offset=len(entries))
    assert isinstance(outcome, Success)
    return Success(outcome.result, RUN)


async def undisturbed(nodes: tuple[Node, ...]) -> tuple[Any, Counter[str]]:
    world = World()
    flow = world.flow(nodes)
    outcome = None
    while outcome is None:
        outcome = await dispatch(world, flow, random.Random(0))
    return outcome, world.effects


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_run_crashed_anywhere_ends_as_an_undisturbed_one(seed: int) -> None:
    """If it fails, there is a workflow and a moment at which a cancellation changes the result,
    loses an entry, or makes a recorded step run again.
    """
    dice = random.Random(seed)
    nodes = plan(dice)
    expected, once = await undisturbed(nodes)
    world = World()
    flow = world.flow(nodes)
    crashes = 0
    outcomes: list[Any] = []
    while not outcomes:
        before = await world.storage.read_all(RUN)
        settled = {each.result for each in before if isinstance(each, StepEntry)}
        done = {place: times for place, times in world.effects.items() if place in settled}
        crashes += await _crashed(world, flow, dice, outcomes)
        after = await world.storage.read_all(RUN)
        assert after[: len(before)] == before, "an entry was lost or changed"
        assert done.items() <= world.effects.items(), "a recorded step was done again"
    assert outcomes == [expected]
    entries = await world.storage.read_all(RUN)
    ids = [entry.step_id for entry in entries if isinstance(entry, StepEntry)]
    assert len(ids) == len(set(ids)), "a step was recorded twice"
    assert [entry.offset for entry in entries] == list(range(len(entries)))
    assert set(world.effects) == set(once)
    assert all(world.effects[place] <= times + crashes for place, times in once.items())


async def _crashed(
    world: World, flow: Workflow[None, Any], dice: random.Random, outcomes: list[Any]
) -> int:
    """Deliver the run and cancel that after a few turns of the loop; tell if it was in time."""
    ended: list[object] = []

    async def call(scope: CancelScope) -> None:
        outcome: Any = None
        try:
            outcome = await dispatch(world, flow, dice)
        except TerminalRunError:
            with CancelScope(shield=True):
                outcome = await told_by_a_fork(world, flow)
        except get_cancelled_exc_class():
            ended.append("cancelled")
            raise
        ended.append(outcome)
        if outcome is not None:
            outcomes.append(outcome)
        scope.cancel()

    async with create_task_group() as group:
        group.start_soon(call, group.cancel_scope)
        for _ in range(dice.randint(0, 60)):
            await checkpoint()
        group.cancel_scope.cancel()
    return ended == ["cancelled"] or not ended
