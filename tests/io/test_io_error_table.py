"""The reference's error table, row by row: each error as a driver raises it, with its fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from kassette import StepEntry
from kassette_io import (
    Context,
    EventPendingError,
    FencedError,
    JournalCorruptionError,
    KassetteError,
    LocalStorage,
    MemoryStorage,
    MetadataMismatchError,
    ReplayMismatchError,
    Run,
    RunCancelledError,
    SessionClosedError,
    StorageError,
    Success,
    SuspendedError,
    SuspendError,
    TerminalRunError,
    UsageError,
    VersionMismatchError,
    WriteContentionError,
    resume,
    start,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, STAMP, Clock, Ledger, journal_types, opening

pytestmark = pytest.mark.anyio


def local_path(storage: LocalStorage) -> Path:
    """Give where the run's journal is."""
    return Path(storage.directory, f"{RUN}.jsonl")


async def suspended(world: World, *, timeout: float | None = None) -> None:
    """Leave the run waiting for ``approval``."""
    run = await start(world.open(), RUN, metadata={"n": 1}, version="v1")
    with pytest.raises(SuspendError):
        await run.wait_for_event("approval", timeout=timeout)


async def crashed(world: World) -> None:
    """Leave the run unsettled, with one step recorded."""
    async with await start(world.open(), RUN, metadata={"n": 1}, version="v1") as run:
        await run.record("a", lambda: 1)


MISUSES: dict[str, Callable[[Run], Awaitable[object]]] = {
    "an empty name": lambda run: run.record("", print),
    "the reserved character": lambda run: run.record("a#2", print),
    "a number for a name": lambda run: run.record(cast("str", 7), print),
    "half a character": lambda run: run.record("half \ud800", print),
    "no function": lambda run: run.record("no function", cast("Callable[[], None]", 7)),
    "an unwritable result": lambda run: run.record("unwritable", lambda: float("nan")),
    "an unfit result": lambda run: run.record("unfit", lambda: "x", result_type=date),
    "an impossible type": lambda run: run.record(
        "impossible", print, result_type=cast("Any", print)
    ),
    "an empty event name": lambda run: run.wait_for_event(""),
    "no event name": lambda run: run.wait_for_event(cast("str", None)),
    "a past deadline": lambda run: run.wait_for_event("e", timeout=-1),
    "no number": lambda run: run.wait_for_event("e", timeout=float("nan")),
    "no end": lambda run: run.wait_for_event("e", timeout=float("inf")),
    "text for a timeout": lambda run: run.wait_for_event("e", timeout="soon"),
    "a truth for a timeout": lambda run: run.wait_for_event("e", timeout=True),
    "an instant of nowhere": lambda run: run.wait_for_event("e", timeout="2026-02-01T00:00:00"),
    "an empty reason": lambda run: run.wait_for_event("e", reason=""),
    "a number for a reason": lambda run: run.wait_for_event("e", reason=cast("str", 7)),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
async def test_row_usage_error(world: World, misuse: Callable[[Run], Awaitable[object]]) -> None:
    """If it fails, a wrong call is not named as one, writes something, or ends the session."""
    storage = world.open()
    async with await start(storage, RUN) as run:
        with pytest.raises(UsageError) as caught:
            await misuse(run)
        assert caught.value.run_id == RUN
        assert await journal_types(storage) == ["start"]
        assert await run.record("goes on", lambda: 1) == 1


@pytest.mark.parametrize("event", ["", "half \ud800", None])
async def test_row_usage_error_of_a_workflows_wait(world: World, event: Any) -> None:
    """If it fails, nobody learns which of many runs has waited for an event without a name."""
    refused: list[UsageError] = []

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        try:
            await ctx.suspend(event)
        except UsageError as error:
            refused.append(error)

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert [each.run_id for each in refused] == [RUN]


@pytest.mark.parametrize("outcome", ["complete", "error", "cancel"])
async def test_row_terminal_run_error(world: World, outcome: str, clock: Clock) -> None:
    """If it fails, a run that is over runs again, or a dispatcher cannot tell done from failed."""
    if outcome == "cancel":
        await suspended(world, timeout=1)
        clock.forward(1)
        with pytest.raises(RunCancelledError):
            await start(world.open(), RUN)
    else:
        run = await start(world.open(), RUN)
        await (run.complete() if outcome == "complete" else run.fail(ValueError("no")))
    before = await world.open().read_all(RUN)
    openings: list[Callable[[], Awaitable[object]]] = [
        lambda: start(world.open(), RUN),
        lambda: resume(world.open(), RUN, "approval", 1),
    ]
    for again in openings:
        with pytest.raises(TerminalRunError) as caught:
            await again()
        assert isinstance(caught.value, UsageError)
        assert (caught.value.terminal_state, caught.value.run_id) == (outcome, RUN)
    assert await world.open().read_all(RUN) == before


async def test_row_metadata_mismatch_error(world: World) -> None:
    """If it fails, a run recovers with another input than it began with."""
    await crashed(world)
    for other in (None, {}, {"n": 2}, {"n": True}):
        with pytest.raises(MetadataMismatchError) as caught:
            await start(world.open(), RUN, metadata=other)
        assert isinstance(caught.value, UsageError)
        assert caught.value.stored_metadata == {"n": 1}
        assert caught.value.provided_metadata == other
        assert caught.value.run_id == RUN
    assert await journal_types(world.open()) == ["start", "step"]


async def test_row_event_pending_error(world: World) -> None:
    """If it fails, ``start`` runs past a wait that nobody has answered."""
    await suspended(world)
    with pytest.raises(EventPendingError) as caught:
        await start(world.open(), RUN)
    assert isinstance(caught.value, UsageError)
    assert (caught.value.waiting_for, caught.value.run_id) == ("approval", RUN)
    assert await journal_types(world.open()) == ["start", "suspend"]


async def test_row_suspend_error(world: World) -> None:
    """If it fails, ``except Exception`` swallows a suspension, or nobody knows what it waits for."""
    run = await start(world.open(), RUN)
    with pytest.raises(SuspendError) as caught:
        await run.wait_for_event("approval")
    assert isinstance(caught.value, KassetteError)
    assert not isinstance(caught.value, Exception)
    assert (caught.value.event_name, caught.value.run_id) == ("approval", RUN)


async def test_row_suspended_error(world: World) -> None:
    """If it fails, work is done and recorded after the run has suspended."""
    run = await start(world.open(), RUN)
    with pytest.raises(SuspendError):
        await run.wait_for_event("approval")
    for late in (
        lambda: run.record("late", lambda: 1),
        lambda: run.wait_for_event("other"),
        run.complete,
        lambda: run.fail(ValueError("no")),
    ):
        with pytest.raises(SuspendedError, match="raise it again") as caught:
            await late()
        assert caught.value.run_id == RUN
    await run.aclose()
    assert await journal_types(world.open()) == ["start", "suspend"]


@pytest.mark.parametrize("end", ["complete", "fail", "aclose"])
async def test_row_session_closed_error(world: World, end: str) -> None:
    """If it fails, a session writes on after its end, or a run ends twice."""
    run = await start(world.open(), RUN)
    await {"complete": run.complete, "fail": lambda: run.fail(OSError()), "aclose": run.aclose}[
        end
    ]()
    before = await world.open().read_all(RUN)
    for late in (
        lambda: run.record("late", lambda: 1),
        lambda: run.wait_for_event("other"),
        run.complete,
        lambda: run.fail(ValueError("no")),
    ):
        with pytest.raises(SessionClosedError) as caught:
            await late()
        assert caught.value.run_id == RUN
    await run.aclose()
    assert await world.open().read_all(RUN) == before


async def test_row_version_mismatch_error(world: World) -> None:
    """If it fails, code of another shape replays the journal, or a refusal writes into it."""
    await crashed(world)
    with pytest.raises(VersionMismatchError) as caught:
        await start(world.open(), RUN, version="v2")
    assert (caught.value.stored_version, caught.value.current_version) == ("v1", "v2")
    assert caught.value.run_id == RUN
    assert await journal_types(world.open()) == ["start", "step"]
    await (await start(world.open(), RUN)).aclose()
    await (await start(world.open(), RUN, version="v1")).complete()


@pytest.mark.parametrize("by", ["start", "resume"])
async def test_row_run_cancelled_error(world: World, clock: Clock, by: str) -> None:
    """If it fails, a wait outlives its deadline, or its end is not in the journal."""
    await suspended(world, timeout=60)
    clock.forward(60)
    again = start(world.open(), RUN) if by == "start" else resume(world.open(), RUN, "approval", 1)
    with pytest.raises(RunCancelledError) as caught:
        await again
    assert (caught.value.reason, caught.value.run_id) == ("suspend_timeout_expired", RUN)
    assert await journal_types(world.open()) == ["start", "suspend", "start", "cancel"]


async def test_row_replay_mismatch_error(world: World) -> None:
    """If it fails, a step gets the result that was recorded for another one."""
    storage = world.open()
    await storage.append(RUN, opening(1))
    entry = StepEntry.of(session=1, timestamp=STAMP, step_id="a", name="other", result=1)
    await storage.append(RUN, entry)
    if isinstance(storage, LocalStorage):
        await storage.release(RUN, 1)
    work = Ledger()
    async with await start(world.open(), RUN) as run:
        with pytest.raises(ReplayMismatchError) as caught:
            await run.record("a", work.note, "a")
    error = caught.value
    assert (error.step_id, error.expected_name, error.actual_name) == ("a", "other", "a")
    assert error.run_id == RUN
    assert work.done == []


async def test_row_fenced_error(lockless: World) -> None:
    """If it fails, a session that was superseded goes on, or does more than one orphaned step."""
    work = Ledger()
    old = await start(lockless.open(), RUN)
    async with await start(lockless.open(), RUN) as new:
        with pytest.raises(FencedError) as caught:
            await old.record("a", work.note, "old")
        assert (caught.value.rejected_session, caught.value.active_session) == (1, 2)
        assert caught.value.run_id == RUN
        for late in (
            lambda: old.record("b", work.note, "b"),
            lambda: old.wait_for_event("e"),
            old.complete,
        ):
            with pytest.raises(FencedError) as again:
                await late()
            assert (again.value.rejected_session, again.value.active_session) == (1, 2)
        assert await new.record("a", work.note, "new", 1) == 1
    assert work.done == ["old", "new"]
    assert await journal_types(lockless.open()) == ["start", "start", "step"]


async def test_row_write_contention_error(local: LocalStorage) -> None:
    """If it fails, a second session of a live run opens, here or through another storage."""
    async with await start(local, RUN) as run:
        for other in (local, LocalStorage(local.directory)):
            with pytest.raises(WriteContentionError, match="is open in") as caught:
                await start(other, RUN)
            assert caught.value.run_id == RUN
        assert await run.record("a", lambda: 1) == 1
        await run.complete()
    assert await journal_types(local) == ["start", "step", "complete"]


DAMAGED = (
    b'{"type":"start","session":1,"offset":0,"timestamp":"2026-01-31T12:00:00.000Z"}\n'
    b'{"type":"step","session":1,"offset":1,"timest\n'
    b'{"type":"complete","session":1,"offset":2,"timestamp":"2026-01-31T12:00:00.000Z"}\n'
)


async def test_row_journal_corruption_error(local: LocalStorage) -> None:
    """If it fails, a damaged journal is run upon or repaired, or nobody learns where it is."""
    path = local_path(local)
    path.parent.mkdir()
    path.write_bytes(DAMAGED)
    for storage in (local, MemoryStorage({RUN: DAMAGED})):
        for again in (start, partial(resume, event_name="e", value=1)):
            with pytest.raises(JournalCorruptionError) as caught:
                await again(storage, RUN)
            assert (caught.value.line, caught.value.run_id) == (2, RUN)
        with pytest.raises(JournalCorruptionError, match=f"journal of run '{RUN}', line 2: "):
            await storage.read_all(RUN)
        with pytest.raises(JournalCorruptionError, match=f"journal of run '{RUN}', line 2: "):
            await storage.append(RUN, opening())
    assert path.read_bytes() == DAMAGED
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_row_storage_error(local: LocalStorage) -> None:
    """If it fails, a directory that cannot be made or read ends in an OSError from deep inside."""
    Path(local.directory).write_text("a file, where the directory should be")
    for refused in (lambda: start(local, RUN), lambda: local.append(RUN, opening())):
        with pytest.raises(StorageError) as caught:
            await refused()
        assert caught.value.run_id == RUN
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StorageError, match="cannot list the runs"):
        [run_id async for run_id in local.list_runs()]


async def test_row_internal_error_never_reaches_a_well_behaved_caller(world: World) -> None:
    """If it fails, calls in a wrong order are reported as a bug of the library."""
    run = await start(world.open(), RUN)
    await run.record("a", lambda: 1)
    await run.complete()
    for late in (run.complete, run.aclose, lambda: run.fail(OSError()), run.aclose):
        try:
            await late()
        except SessionClosedError as error:
            assert error.run_id == RUN


async def test_every_error_of_a_branch_names_the_run(world: World) -> None:
    """If it fails, an error from the workflow's own side does not say which run it concerns."""

    @workflow(storage=world.open())
    async def work(ctx: Context) -> None:
        async def uses_parent(branch: Context) -> None:
            await ctx.step("a", lambda: 1)

        await ctx.parallel({"x": uses_parent})

    with pytest.raises(UsageError, match="used the context of 'the workflow'") as caught:
        await work.start(run_id=RUN)
    assert caught.value.run_id == RUN


async def test_one_except_clause_catches_every_kassette_error() -> None:
    """If it fails, a caller who wants all of them has to know the list by heart."""
    import kassette_io

    errors = [
        getattr(kassette_io, name)
        for name in kassette_io.__all__
        if name.endswith("Error") and not name.startswith("is_")
    ]
    assert len(errors) == 19
    for error in errors:
        assert issubclass(error, KassetteError)
        assert issubclass(error, Exception) != (error in (KassetteError, SuspendError))
