"""D2 as a sweep: one run, cancelled at every turn of the loop and at every fsync in turn."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope, create_task_group
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import checkpoint

from kassette_io import (
    Context,
    EventPendingError,
    LocalStorage,
    Storage,
    Success,
    Suspended,
    TerminalRunError,
    Workflow,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import Ledger, journal_steps

pytestmark = pytest.mark.anyio

RESULT = [7, 1, 2, 3, 4]


class Job:
    """A run with everything in it, and the ledger of what it did to the world."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self.work = Ledger()
        self.run_id = run_id
        self.storage = storage
        self.flow: Workflow[int, Any] = workflow(self._body, storage=storage)

    async def _body(self, ctx: Context, number: int) -> Any:
        first = await ctx.step("sync", self.work.note, "sync", 1)
        second = await ctx.step("async", self.work.work, "async", 2)
        await ctx.sleep(0)
        branches = await ctx.parallel({"works": self._works, "asks": self._asks})
        return [number, first, second, branches["works"], branches["asks"]]

    async def _works(self, ctx: Context) -> Any:
        return await ctx.step("work", self.work.work, "branch", 3)

    async def _asks(self, ctx: Context) -> Any:
        return await ctx.suspend("ok")

    async def run(self) -> Any:
        """Bring the run to its end, from wherever it is, as a dispatcher would."""
        try:
            outcome = await self.flow.start(7, run_id=self.run_id)
        except EventPendingError as pending:
            return await self.flow.resume(self.run_id, pending.waiting_for, 4)
        except TerminalRunError as over:
            assert over.terminal_state == "complete"
            return Success(RESULT, self.run_id)
        if isinstance(outcome, Suspended):
            return await self.flow.resume(self.run_id, outcome.event, 4)
        return outcome

    async def cancelled_and_finished(
        self, strike: Callable[[CancelScope], Awaitable[object]]
    ) -> bool:
        """Run it, cancelled as ``strike`` does, then to its end; tell whether it struck in time."""
        outcomes: list[Any] = []

        async def call() -> None:
            outcomes.append(await self.run())

        async with create_task_group() as group:
            group.start_soon(call)
            await strike(group.cancel_scope)
        in_time = not outcomes
        before = await journal_steps(self.storage, self.run_id)
        if in_time:
            outcomes.append(await self.run())
        assert outcomes == [Success(RESULT, self.run_id)]
        after = await journal_steps(self.storage, self.run_id)
        assert before.items() <= after.items(), "a recorded step was lost"
        assert set(after) == {"sync", "async", "delay:0ms", "works:work"}
        for name, step_id in (("sync", "sync"), ("async", "async"), ("branch", "works:work")):
            assert self.work.done.count(name) <= (1 if step_id in before else 2)
        offsets = [entry.offset for entry in await self.storage.read_all(self.run_id)]
        assert offsets == list(range(len(offsets)))
        return in_time


@pytest.mark.parametrize("kind", ["memory", "three-methods"])
async def test_at_every_turn_of_the_loop(kind: str, tmp_path: Path) -> None:
    """If it fails, there is a moment at which a cancellation loses an entry, repeats a recorded
    step, leaves the run locked, or is swallowed.
    """
    storage = World(kind, tmp_path).open()
    turns, in_time = 0, True
    while in_time:
        job = Job(storage, f"run-{turns}")

        async def strike(scope: CancelScope, turns: int = turns) -> None:
            for _ in range(turns):
                await checkpoint()
            scope.cancel()

        in_time = await job.cancelled_and_finished(strike)
        turns += 1
    assert turns > 20


async def test_at_every_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, there is a write to disk during which a cancellation does one of these."""
    storage = LocalStorage(tmp_path)
    fsync = os.fsync
    number, in_time = 0, True
    async with BlockingPortal() as portal:
        while in_time:
            job = Job(storage, f"run-{number}")
            state: dict[str, Any] = {"left": number}

            async def strike(scope: CancelScope, state: dict[str, Any] = state) -> None:
                state["scope"] = scope

            def striking(fd: int, state: dict[str, Any] = state) -> None:
                if state["left"] == 0:
                    portal.call(state["scope"].cancel)
                state["left"] -= 1
                fsync(fd)

            monkeypatch.setattr(os, "fsync", striking)
            in_time = await job.cancelled_and_finished(strike)
            monkeypatch.setattr(os, "fsync", fsync)
            number += 1
    assert number == 12, "one more than the run has fsyncs"
