"""RemoteStorage over simulated object stores: requests, races, lost answers, layout, listing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kassette import (
    CompleteEntry,
    FencedError,
    KassetteError,
    PreconditionFailedError,
    StartEntry,
    StepEntry,
    StorageError,
    UsageError,
    WriteContentionError,
)
from kassette.object_append import MAX_ATTEMPTS
from kassette_io import (
    Context,
    RemoteStorage,
    Run,
    Storage,
    Success,
    Suspended,
    fork,
    start,
    workflow,
)
from tests.io.object_stores import Client, Fault, Gate, Store, journal

pytestmark = pytest.mark.anyio

STAMP = "2026-01-31T12:00:00.000Z"
KEY = "run-1/journal.jsonl"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw every pause as zero."""
    monkeypatch.setattr("kassette_io.storages.remote.random", lambda: 0.0)


def started(session: int, writer: str = "w") -> StartEntry:
    return StartEntry(session=session, timestamp=STAMP, writer=writer)


async def names(storage: Storage, run_id: str = "run-1") -> list[str]:
    return [
        each.step_id if isinstance(each, StepEntry) else each.type
        for each in await storage.read_all(run_id)
    ]


def result(value: Any) -> Any:
    return value


# --- requests (D6) ---------------------------------------------------------------------------


async def test_d6_one_get_to_open_one_put_a_step_and_nothing_else() -> None:
    """A run would cost more requests than its entries."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as run:
        assert client.take_log() == ["get", "put"]
        for number in range(5):
            await run.record("llm", result, number)
            assert client.take_log() == ["put"]
        await run.complete()
    assert client.take_log() == ["put"]
    assert len(journal(client, KEY)) == 7


async def test_d6_recovery_reads_once_and_replays_without_requests() -> None:
    """A recovered run would read its journal for every step, or twice on opening."""
    client = Client()
    async with await start(RemoteStorage(client), "run-1") as run:
        await run.record("llm", result, 1)
    client.take_log()
    async with await start(RemoteStorage(client), "run-1") as run:
        assert await run.record("llm", result, 2) == 1
        assert client.take_log() == ["get", "put"]


async def test_d6_the_next_session_of_one_storage_reads_once() -> None:
    """A session's knowledge would outlive it, or opening would read what it has just read."""
    client = Client()
    storage = RemoteStorage(client)
    for _ in range(3):
        async with await start(storage, "run-1") as run:
            await run.record("llm", result, 1)
    assert client.log.count("get") == 3
    assert client.log.count("put") == 3 + 1


async def test_d6_waiting_appends_share_a_put_and_are_told_only_after_it() -> None:
    """Parallel branches would pay a round trip each, or go on before they are durable."""
    client = Client()
    storage = RemoteStorage(client)
    run = await start(storage, "run-1")
    gate = client.gate = Gate()
    done: list[str] = []

    async def record(name: str) -> None:
        await run.record(name, result, name)
        done.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(record, "first")
        await gate.reached.wait()
        client.take_log()
        for name in ("a", "b", "c", "d"):
            group.start_soon(record, name)
        await anyio.wait_all_tasks_blocked()
        assert done == []
        second = client.gate = Gate()
        gate.opened.set()
        await second.reached.wait()
        await anyio.wait_all_tasks_blocked()
        assert done == ["first"]
        assert await names(storage) == ["start", "first"]
        second.opened.set()
    await run.aclose()
    assert client.log.count("put") == 1
    assert sorted(done) == ["a", "b", "c", "d", "first"]
    recorded = await names(storage)
    assert recorded[:2] == ["start", "first"]
    assert sorted(recorded[2:]) == ["a", "b", "c", "d"]


async def test_runs_do_not_wait_for_each_other() -> None:
    """One slow put would hold up every run of the process."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as slow, await start(storage, "run-2") as quick:
        gate = client.gate = Gate()
        async with anyio.create_task_group() as group:
            group.start_soon(slow.record, "llm", result, 1)
            await gate.reached.wait()
            await quick.record("llm", result, 2)
            gate.opened.set()


# --- races and fencing (D4, D5) ----------------------------------------------------------------


async def test_d4_a_step_of_the_old_session_before_our_start_is_replayed() -> None:
    """The new session would do a step again that the old one has recorded."""
    client = Client()
    old = await start(RemoteStorage(client), "run-1")
    other = Client(client.store)
    gate = other.gate = Gate()
    opened: list[Run] = []

    async def open_it() -> None:
        opened.append(await start(RemoteStorage(other), "run-1"))

    async with anyio.create_task_group() as group:
        group.start_soon(open_it)
        await gate.reached.wait()
        await old.record("llm", result, "old")
        gate.opened.set()
    (new,) = opened
    assert await new.record("llm", result, "new") == "old"
    with pytest.raises(FencedError):
        await old.record("second", result, 1)
    await new.complete()
    assert await names(RemoteStorage(client)) == ["start", "llm", "start", "complete"]


async def test_d5_the_older_session_is_fenced_on_its_next_append_with_one_orphan() -> None:
    """Two machines would go on with one run."""
    client = Client()
    old = await start(RemoteStorage(client), "run-1")
    new = await start(RemoteStorage(Client(client.store)), "run-1")
    did: list[str] = []
    for name in ("orphan", "never"):
        with pytest.raises(FencedError) as caught:
            await old.record(name, did.append, name)
        assert caught.value.active_session == 2
    assert did == ["orphan"]
    await new.complete()


@pytest.mark.parametrize("shared", [False, True])
async def test_d5_of_two_sessions_that_race_to_open_one_owns_the_run(shared: bool) -> None:
    """Both, or neither, would have the run."""
    client = Client()
    first = RemoteStorage(client)
    second = first if shared else RemoteStorage(Client(client.store))
    gate = client.gate = Gate()
    opened: list[Run] = []
    refused: list[FencedError] = []

    async def open_it(storage: RemoteStorage) -> None:
        try:
            opened.append(await start(storage, "run-1"))
        except FencedError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(open_it, first)
        group.start_soon(open_it, second)
        await gate.reached.wait()
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert len(opened) == len(refused) == 1
    await opened[0].complete()
    assert await names(first) == ["start", "complete"]


LANDING = [Fault.LOST, Fault.RESENT]
FALLING = [Fault.RESET, Fault.CONFLICT, Fault.SERVER_ERROR, Fault.LATE]


@pytest.mark.parametrize("fault", LANDING + FALLING)
async def test_a_fault_costs_requests_and_nothing_else(fault: Fault) -> None:
    """A step would be lost, doubled, or taken for a fence."""
    client = Client()
    storage = RemoteStorage(client)
    client.faults.append(fault)
    async with await start(storage, "run-1") as run:
        client.faults.append(fault)
        assert await run.record("llm", result, 1) == 1
        client.store.settle()
        await run.record("tool", result, 2)
        client.faults.append(fault)
        await run.complete()
    assert await names(storage) == ["start", "llm", "tool", "complete"]
    puts = 4 if fault in LANDING else 7
    assert client.log.count("put") == puts
    assert len(set(client.sent)) == 4, "what was put again was not identical"


async def test_d5_a_put_that_lands_after_the_read_back_is_recognised() -> None:
    """The step would be there twice, or its session take itself for fenced."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as run:
        client.faults.append(Fault.LATE)
        gate = client.gate = Gate()
        async with anyio.create_task_group() as group:
            group.start_soon(run.record, "llm", result, 1)
            await gate.reached.wait()
            again = client.gate = Gate()
            gate.opened.set()
            await again.reached.wait()
            client.store.settle()
            assert await names(storage) == ["start", "llm"]
            again.opened.set()
    assert await names(storage) == ["start", "llm"]


async def test_d5_past_the_budget_for_others_it_is_contention_and_a_restart_recovers() -> None:
    """A writer that always loses would hang its run, or leave it beyond recovery."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as run:
        client.take_log()
        client.faults.extend([Fault.CONFLICT] * MAX_ATTEMPTS)
        with pytest.raises(WriteContentionError) as caught:
            await run.record("llm", result, 1)
    assert caught.value.run_id == "run-1"
    assert client.log.count("put") == MAX_ATTEMPTS
    async with await start(storage, "run-1") as run:
        assert await run.record("llm", result, 2) == 2
        await run.complete()
    assert await names(storage) == ["start", "start", "llm", "complete"]


async def test_d5_past_the_patience_it_is_a_storage_error_and_a_restart_recovers() -> None:
    """A store that never answers would hang a run, or leave it beyond recovery."""
    client = Client()
    storage = RemoteStorage(client, patience=0)
    async with await start(storage, "run-1") as run:
        client.take_log()
        client.faults.append(Fault.LATE)
        with pytest.raises(StorageError, match="may have been written") as caught:
            await run.record("llm", result, 1)
    assert caught.value.run_id == "run-1"
    assert not caught.value.rolled_back
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert client.log == ["put", "get"]
    client.store.settle()
    async with await start(storage, "run-1") as run:
        assert await run.record("llm", result, 2) == 1
        await run.complete()
    assert await names(storage) == ["start", "llm", "start", "complete"]


async def test_d5_a_clear_refusal_fails_the_step_and_leaves_the_session() -> None:
    """A put that certainly did nothing would cost the session its life."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as run:
        client.take_log()
        client.faults.append(Fault.DENIED)
        with pytest.raises(StorageError, match="access denied"):
            await run.record("llm", result, 1)
        await run.record("tool", result, 2)
        assert client.take_log() == ["put", "put"]
        await run.complete()
    assert await names(storage) == ["start", "tool", "complete"]


async def test_a_deleted_journal_is_never_created_anew() -> None:
    """A run that was deleted would come back without its beginning."""
    client = Client()
    async with await start(RemoteStorage(client), "run-1") as run:
        del client.store.objects[KEY]
        with pytest.raises(StorageError, match="was deleted while its session was open"):
            await run.record("llm", result, 1)
        with pytest.raises(KassetteError):
            await run.complete()
    assert client.store.objects == {}


async def test_d5_a_deleted_and_restarted_run_is_not_written_by_its_old_session() -> None:
    """Session 1 of the deleted run would write into session 1 of the new one."""
    client = Client()
    async with await start(RemoteStorage(client), "run-1") as old:
        await old.record("llm", result, 1)
        del client.store.objects[KEY]
        async with await start(RemoteStorage(Client(client.store)), "run-1") as new:
            with pytest.raises(StorageError, match="recreated by another writer"):
                await old.record("tool", result, 1)
            await new.complete()
    assert await names(RemoteStorage(client)) == ["start", "complete"]


# --- forks (D12) ---------------------------------------------------------------------------------


async def test_d12_a_fork_is_one_get_of_the_source_and_one_put() -> None:
    """A crash in the middle would leave half a journal."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1", metadata={"q": 1}) as run:
        await run.record("llm", result, 1)
        await run.record("tool", result, 2)
        await run.complete()
    client.take_log()
    async with await fork(storage, "run-2", source="run-1", from_step_id="tool") as branch:
        assert client.take_log() == ["get", "put"]
        assert await branch.record("llm", result, 9) == 1
        assert branch.metadata == {"q": 1}
        await branch.record("tool", result, 3)
        assert client.take_log() == ["put"]
    assert await names(storage, "run-2") == ["start", "llm", "start", "tool"]


@pytest.mark.parametrize("fault", [Fault.NONE, *LANDING, *FALLING])
async def test_d12_a_fork_into_a_run_that_exists_is_refused(fault: Fault) -> None:
    """A fork would overwrite a run, or write behind it."""
    client = Client()
    storage = RemoteStorage(client)
    for run_id in ("run-1", "run-2"):
        await storage.append(run_id, started(1))
    before = client.store.objects["run-2/journal.jsonl"]
    client.faults.append(fault)
    with pytest.raises(UsageError, match="already has a journal"):
        await fork(RemoteStorage(client), "run-2", source="run-1", from_offset=1)
    assert client.store.objects["run-2/journal.jsonl"] == before


async def test_d12_a_fork_takes_the_place_of_a_run_that_was_deleted_since_it_was_read() -> None:
    """What this storage once read of the target would refuse a name that is free."""
    client = Client()
    storage = RemoteStorage(client)
    for run_id in ("run-1", "run-2"):
        await RemoteStorage(client).append(run_id, started(1))
    await storage.read_all("run-2")
    del client.store.objects["run-2/journal.jsonl"]
    async with await fork(storage, "run-2", source="run-1", from_offset=1) as forked:
        await forked.record("llm", result, 1)
    assert await names(storage, "run-2") == ["start", "start", "llm"]


# --- the workflow wrapper ------------------------------------------------------------------------


async def test_a_workflow_crashes_recovers_suspends_resumes_and_is_forked() -> None:
    """A run could not go on on another machine."""
    store = Store()
    did: list[str] = []
    power = ["on"]

    def act(name: str) -> str:
        did.append(name)
        if name == "second" and not power:
            raise KeyboardInterrupt
        return name

    async def agent(ctx: Context, question: str) -> str:
        first = await ctx.step("first", act, "first")
        both = await ctx.parallel(
            {key: lambda branch: branch.step("draft", act, "draft") for key in ("x", "y")}
        )
        await ctx.step("second", act, "second")
        verdict = await ctx.suspend("approval")
        return f"{question} {first} {len(both)} {verdict}"

    def machine() -> Any:
        return workflow(agent, storage=RemoteStorage(Client(store), prefix="prod"))

    power.clear()
    with pytest.raises(KeyboardInterrupt):
        await machine().start("why?", run_id="run-1")
    power.append("on")
    assert await machine().start("why?", run_id="run-1") == Suspended("approval", "run-1")
    assert did == ["first", "draft", "draft", "second", "second"]
    assert await machine().resume("run-1", "approval", "yes") == Success(
        "why? first 2 yes", "run-1"
    )
    assert len(did) == 5
    branch = await machine().fork("run-1", from_step_id="second", run_id="run-2")
    assert branch == Suspended("approval", "run-2")
    assert did[5:] == ["second"]
    reader = RemoteStorage(Client(store), prefix="prod")
    assert [each async for each in reader.list_runs()] == ["run-1", "run-2"]
    entries = await reader.read_all("run-1")
    assert [each.offset for each in entries] == list(range(len(entries)))
    assert isinstance(entries[-1], CompleteEntry)


async def test_a_precondition_error_never_leaves_the_storage() -> None:
    """A workflow would have to know what an etag is."""
    client = Client()
    client.faults.extend([Fault.CONFLICT] * MAX_ATTEMPTS)
    with pytest.raises(WriteContentionError) as caught:
        await RemoteStorage(client).append("run-1", started(1))
    assert not isinstance(caught.value, PreconditionFailedError)
