"""D4: an old session writes between a new session's read and its ``start``; nothing is repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kassette_io import (
    Context,
    Entry,
    EventPendingError,
    FencedError,
    MetadataMismatchError,
    ResumeEntry,
    Run,
    RunCancelledError,
    Storage,
    Success,
    SuspendError,
    TerminalRunError,
    VersionMismatchError,
    resume,
    start,
    workflow,
)
from kassette_io.storages.protocol import as_session_storage
from tests.io.storages import Between, Delegating, World
from tests.io.stories import (
    RUN,
    STAMP,
    Clock,
    Ledger,
    journal_steps,
    journal_types,
    opening,
    recording,
    waiting,
)

pytestmark = pytest.mark.anyio


class Old:
    """A session that is still alive when the new one has read the journal."""

    def __init__(self, world: World, run: Run) -> None:
        self.world = world
        self.run = run

    def writes(self, act: Callable[[Run], Awaitable[object]]) -> Storage:
        """Give a storage on which a new session reads first, and the old one writes then.

        On local disk the old session must have gone away before the new one can open: the lock.
        """

        async def between() -> None:
            await act(self.run)
            if self.world.kind == "local":
                await self.run.aclose()

        return Between(self.world.open(), between)


async def old_session(world: World, **options: Any) -> Old:
    return Old(world, await start(world.open(), RUN, **options))


async def test_d4_a_step_recorded_in_between_is_replayed(world: World) -> None:
    """If it fails, a step that is in the journal is done a second time."""
    work = Ledger()
    old = await old_session(world)
    await old.run.record("a", work.work, "a", 1)
    storage = old.writes(lambda run: run.record("b", work.work, "b by the old session", 2))
    async with await start(storage, RUN) as new:
        assert await new.record("a", work.work, "a again") == 1
        assert await new.record("b", work.work, "b again") == 2
        assert await new.record("c", work.work, "c", 3) == 3
        await new.complete()
    assert work.done == ["a", "b by the old session", "c"]
    types = await journal_types(world.open())
    assert types == ["start", "step", "step", "start", "step", "complete"]
    assert [entry.session for entry in await world.open().read_all(RUN)] == [1, 1, 1, 2, 2, 2]
    await old.run.aclose()


async def test_d4_through_the_wrapper(world: World) -> None:
    """If it fails, a recovered workflow repeats what its predecessor has just recorded."""
    work = Ledger()
    old = await old_session(world, metadata=7)
    storage = old.writes(lambda run: run.record("a", work.work, "old", 1))

    @workflow(storage=storage)
    async def flow(ctx: Context, number: int) -> Any:
        return [number, await ctx.step("a", work.work, "new", 2)]

    assert await flow.start(7, run_id=RUN) == Success([7, 1], RUN)
    assert work.done == ["old"]
    await old.run.aclose()


async def test_d4_the_old_session_is_fenced_with_one_orphaned_step(lockless: World) -> None:
    """If it fails, two sessions do and record the same steps side by side."""
    work = Ledger()
    old = await start(lockless.open(), RUN)
    async with await start(lockless.open(), RUN) as new:
        with pytest.raises(FencedError):
            await old.record("a", work.work, "orphan")
        for name in ("a", "b"):
            with pytest.raises(FencedError):
                await old.record(name, work.work, "never")
        assert await new.record("a", work.work, "new", 1) == 1
    assert work.done == ["orphan", "new"]
    await old.aclose()


async def test_d4_fenced_inside_the_wrapper_the_error_reaches_the_caller(lockless: World) -> None:
    """If it fails, a workflow that lost its run is recorded as failed, or ends as a success."""
    new: list[Run] = []

    @workflow(storage=lockless.open())
    async def flow(ctx: Context) -> str:
        new.append(await start(lockless.open(), RUN))
        try:
            await ctx.step("a", lambda: 1)
        except FencedError:
            if swallows:
                return "did not notice"
            raise
        return "never"

    for swallows in (False, True):  # noqa: B007 - the workflow reads it
        with pytest.raises(FencedError) as caught:
            await flow.start(run_id=RUN)
        assert caught.value.run_id == RUN
        await new.pop().aclose()
    assert await journal_types(lockless.open()) == ["start"] * 4


async def test_d4_fenced_inside_a_branch_the_fence_is_what_is_raised(lockless: World) -> None:
    """If it fails, a branch's own error hides that the run was taken over."""

    async def fails(ctx: Context) -> None:
        raise ValueError("no")

    async def fenced(ctx: Context) -> None:
        async with await start(lockless.open(), RUN):
            await ctx.step("a", lambda: 1)

    @workflow(storage=lockless.open())
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"fails": fails, "fenced": fenced})

    with pytest.raises(FencedError) as caught:
        await flow.start(run_id=RUN)
    assert caught.value.__notes__ == ["branch 'fails' failed as well: ValueError('no')"]


async def test_d4_a_run_completed_in_between_is_over(world: World) -> None:
    """If it fails, a finished run is opened once more and its ``complete`` is not the last entry."""
    old = await old_session(world)
    with pytest.raises(TerminalRunError) as caught:
        await start(old.writes(lambda run: run.complete()), RUN)
    assert caught.value.terminal_state == "complete"
    assert (await journal_types(world.open()))[:2] == ["start", "complete"]
    with pytest.raises(TerminalRunError):
        await start(world.open(), RUN)


async def suspends(run: Run) -> None:
    with pytest.raises(SuspendError):
        await run.wait_for_event("ok", timeout=60)


async def test_d4_a_run_suspended_in_between_is_resumed_not_started(world: World) -> None:
    """If it fails, ``start`` runs past a wait that was journaled a moment before."""
    old = await old_session(world)
    with pytest.raises(EventPendingError) as caught:
        await start(old.writes(suspends), RUN)
    assert caught.value.waiting_for == "ok"
    assert await journal_types(world.open()) == ["start", "suspend", "start"]
    async with await resume(world.open(), RUN, "ok", 1) as run:
        assert await run.wait_for_event("ok") == 1


async def test_d4_a_deadline_that_passed_in_between_cancels(world: World, clock: Clock) -> None:
    """If it fails, a wait that expired while the session opened is run past."""
    old = await old_session(world)

    async def suspends_for_long(run: Run) -> None:
        await suspends(run)
        clock.forward(60)

    with pytest.raises(RunCancelledError):
        await start(old.writes(suspends_for_long), RUN)
    assert await journal_types(world.open()) == ["start", "suspend", "start", "cancel"]


async def answering(world: World, *events: str) -> Storage:
    """Let session 1 wait for the events, and session 2 open; give a storage on which session 2
    answers the first of them once a third one has read the journal.
    """
    storage = as_session_storage(world.open())
    entries: list[Entry] = [opening(1), *map(waiting, events)]
    for entry in entries:
        await storage.append(RUN, entry)
    await storage.release(RUN, 1)
    await storage.append(RUN, opening(2))
    answer = ResumeEntry.of(session=2, timestamp=STAMP, event_name=events[0], value="first")

    async def deliver() -> None:
        await storage.append(RUN, answer)
        await storage.release(RUN, 2)

    return Between(world.open(), deliver)


async def test_d4_an_answer_delivered_in_between_wins(world: World) -> None:
    """If it fails, two answers to one question are journaled, or the later one is acted upon."""
    async with await resume(await answering(world, "ok"), RUN, "ok", "second") as run:
        assert await run.wait_for_event("ok") == "first"
    types = await journal_types(world.open())
    assert types == ["start", "suspend", "start", "resume", "start"]


async def test_d4_another_answer_in_between_does_not_lose_ours(world: World) -> None:
    """If it fails, of two questions answered at the same moment one stays open."""
    async with await resume(await answering(world, "ok", "other"), RUN, "other", "ours") as run:
        assert await run.wait_for_event("ok") == "first"
        assert await run.wait_for_event("other") == "ours"


async def test_d4_a_session_opened_in_between_fences_ours(world: World) -> None:
    """If it fails, a question answered twice at once is acted upon twice."""
    old = await old_session(world)
    await suspends(old.run)

    async def answer() -> None:
        await (await resume(world.open(), RUN, "ok", "winner")).aclose()

    with pytest.raises(FencedError):
        await resume(Between(world.open(), answer), RUN, "ok", "loser")
    async with await resume(world.open(), RUN, "ok", "again") as run:
        assert await run.wait_for_event("ok") == "winner"
    assert (await journal_types(world.open())).count("resume") == 1


async def test_d4_what_was_begun_in_between_is_validated_too(world: World) -> None:
    """If it fails, a run that another caller began at the same moment is joined unchecked."""
    mismatches: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"metadata": 2}, MetadataMismatchError),
        ({"version": "v2", "metadata": 1}, VersionMismatchError),
    ]
    for mismatch, error in mismatches:
        run_id = f"run-{error.__name__}"

        async def begin(run_id: str = run_id) -> None:
            await (await start(world.open(), run_id, metadata=1, version="v1")).aclose()

        with pytest.raises(FencedError):
            await start(Between(world.open(), begin), run_id, **mismatch)
        with pytest.raises(error):
            await start(world.open(), run_id, **mismatch)
        async with await start(world.open(), run_id) as run:
            assert run.metadata == 1


class Newer(Delegating):
    """Lets a newer session open the run after our ``start`` and before our second read."""

    def __init__(self, inner: Storage, world: World) -> None:
        super().__init__(inner)
        self._world = world
        self.reads = 0
        self.newer: Run | None = None

    async def read_all(self, run_id: str) -> Any:
        self.reads += 1
        if self.reads == 2:
            self.newer = await start(self._world.open(), run_id)
        entries = await super().read_all(run_id)
        if self.reads == 1:
            await self.inner.append(run_id, recording("b", 2))
        return entries


async def test_d4_taken_over_while_reading_again_is_fenced(lockless: World) -> None:
    """If it fails, a session that was superseded before it opened begins to work."""
    await lockless.open().append(RUN, opening(1))
    storage = Newer(lockless.open(), lockless)
    with pytest.raises(FencedError) as caught:
        await start(storage, RUN)
    assert (caught.value.rejected_session, caught.value.active_session) == (2, 3)
    assert storage.newer is not None
    await storage.newer.complete()
    assert await journal_steps(lockless.open()) == {"b": 2}


async def test_d4_a_second_read_that_fails_ends_the_session(world: World) -> None:
    """If it fails, a session works on although it does not know what the journal holds."""
    old = await old_session(world)

    class Unreadable(Delegating):
        reads = 0

        async def read_all(self, run_id: str) -> Any:
            self.reads += 1
            if self.reads == 2:
                raise OSError("the cable is out")
            return await super().read_all(run_id)

    storage = Unreadable(old.writes(lambda run: run.record("a", lambda: 1)))
    with pytest.raises(OSError, match="the cable is out"):
        await start(storage, RUN)
    async with await start(world.open(), RUN) as run:
        assert await run.record("a", lambda: 2) == 1
    await old.run.aclose()
