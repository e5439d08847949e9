"""Sessions that are lost, and errors that are not the workflow's: a failing storage under a run."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import Event, create_task_group

from kassette_io import (
    Context,
    Entry,
    Failed,
    SessionClosedError,
    StorageError,
    Success,
    Suspended,
    SuspendEntry,
    SuspendError,
    UsageError,
    resume,
    start,
    workflow,
)
from tests.io.storages import Delegating, Failing, World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("bug")])
async def test_an_append_whose_outcome_is_unknown_ends_the_session(
    world: World, error: Exception
) -> None:
    """If it fails, a session goes on after an append that may or may not have landed."""
    storage = Failing(world.open())
    work = Ledger()
    run = await start(storage, RUN)
    storage.fails.append(error)
    with pytest.raises(type(error)):
        await run.record("a", work.work, "a")
    assert run.lost_to is error
    with pytest.raises(SessionClosedError, match="was lost") as caught:
        await run.record("b", work.work, "b")
    assert caught.value.__cause__ is error
    assert work.done == ["a"]
    async with await start(world.open(), RUN) as again:
        assert await again.record("a", work.work, "a again", 1) == 1


async def test_a_lost_session_goes_to_the_caller_of_a_workflow(world: World) -> None:
    """If it fails, a storage's failure that the workflow swallowed looks like a success."""
    storage = Failing(world.open())
    gone = OSError("gone")

    @workflow(storage=storage)
    async def flow(ctx: Context) -> str:
        storage.fails.append(gone)
        try:
            await ctx.step("a", lambda: 1)
        except Exception as error:
            if how == "raises another":
                raise ValueError("hidden") from error
        return "fine"

    for how in ("swallows", "raises another"):  # noqa: B007 - the workflow reads it
        with pytest.raises(OSError, match="gone"):
            await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start", "start"]


async def test_a_suspend_that_could_not_be_written_is_no_suspension(world: World) -> None:
    """If it fails, a caller is told that the run waits, and the journal knows of no wait."""
    storage = Failing(world.open())

    @workflow(storage=storage)
    async def flow(ctx: Context) -> Any:
        storage.fails.append(OSError("gone"))
        return await ctx.suspend("ok")

    with pytest.raises(OSError, match="gone"):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start"]
    with pytest.raises(UsageError, match="is not waiting for an event"):
        await resume(world.open(), RUN, "ok", 1)


async def test_an_append_that_left_nothing_behind_costs_one_step_only(world: World) -> None:
    """If it fails, a disk that was full for a moment costs the whole session."""
    storage = Failing(world.open())
    async with await start(storage, RUN) as run:
        storage.fails.append(StorageError("full", run_id=RUN, rolled_back=True))
        with pytest.raises(StorageError, match="full"):
            await run.record("a", lambda: 1)
        assert await run.record("a", lambda: 2) == 2
        storage.fails.append(StorageError("full", run_id=RUN, rolled_back=True))
        with pytest.raises(StorageError, match="full"):
            await run.complete()
        await run.complete()
    assert await journal_steps(world.open()) == {"a": 2}


class DiesBetweenWaits(Delegating):
    """Loses the session before the last ``suspend`` entry of a suspension, once."""

    died = False

    async def append(self, run_id: str, entry: Entry) -> int:
        if isinstance(entry, SuspendEntry) and not entry.more and not self.died:
            self.died = True
            raise OSError("gone")
        return await super().append(run_id, entry)


async def test_a_run_lost_between_two_waits_is_started_again_and_waits_for_both(
    world: World,
) -> None:
    """If it fails, an answer finds no wait, or a deadline passes unseen: its entry was lost."""

    @workflow(storage=DiesBetweenWaits(world.open()))
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel(
            {"a": lambda own: own.suspend("ok:a"), "b": lambda own: own.suspend("ok:b")}
        )

    with pytest.raises(OSError, match="gone"):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start", "suspend"]
    assert isinstance(await flow.start(run_id=RUN), Suspended)
    assert isinstance(await flow.resume(RUN, "ok:b", 2), Suspended)
    assert await flow.resume(RUN, "ok:a", 1) == Success({"a": 1, "b": 2}, RUN)


class FullForSteps(Delegating):
    """Has no room for steps while it is full."""

    full = True

    async def append(self, run_id: str, entry: Entry) -> int:
        if self.full and entry.type == "step":
            raise StorageError("full", run_id=run_id, rolled_back=True)
        return await super().append(run_id, entry)


async def test_a_disk_that_is_full_is_no_failure_of_the_workflow(world: World) -> None:
    """If it fails, a full disk ends runs for good that could go on once it is mended."""
    storage = FullForSteps(world.open())
    hooks: list[object] = []

    @workflow(storage=storage, on_finish=hooks.append, on_error=hooks.append)
    async def flow(ctx: Context) -> Any:
        return await ctx.step("a", lambda: 1)

    with pytest.raises(StorageError, match="full"):
        await flow.start(run_id=RUN)
    assert hooks == []
    assert await journal_types(world.open()) == ["start"]
    storage.full = False
    assert await flow.start(run_id=RUN) == Success(1, RUN)


async def test_a_storage_error_of_another_run_is_the_workflows_own_failure(world: World) -> None:
    """If it fails, a run that touches another storage can never fail on it, and hangs open."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        raise StorageError("somebody else's disk", run_id="other")

    assert isinstance(await flow.start(run_id=RUN), Failed)
    assert await journal_types(world.open()) == ["start", "error"]


async def test_a_suspension_of_another_run_is_not_ours(world: World) -> None:
    """If it fails, a session of another run that suspends inside a workflow suspends or ends it."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async with await start(world.open(), "other") as other:
            return await other.wait_for_event("ok")

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, UsageError)
    assert isinstance(outcome.error.__cause__, SuspendError)
    assert "run 'other' suspended inside of the workflow of run 'run-1'" in str(outcome.error)
    assert await journal_types(world.open()) == ["start", "error"]
    assert await journal_types(world.open(), "other") == ["start", "suspend"]


async def test_d7_a_wait_that_fails_to_be_written_late_is_no_suspension(world: World) -> None:
    """If it fails, a caller is told that the run waits, when the step that held up the wait has
    ended and writing it has failed.
    """
    storage = Failing(world.open())
    begun, go = Event(), Event()

    async def held() -> None:
        begun.set()
        await go.wait()
        storage.fails.append(OSError("gone"))
        raise ValueError("no")

    async def beside(ctx: Context) -> None:
        with pytest.raises(ValueError, match="no"):
            await ctx.step("held", held)

    async with create_task_group() as group:

        @workflow(storage=storage)
        async def flow(ctx: Context) -> Any:
            group.start_soon(beside, ctx)
            await begun.wait()
            go.set()
            return await ctx.suspend("ok")

        with pytest.raises(OSError, match="gone"):
            await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start"]
