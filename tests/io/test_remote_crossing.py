"""RemoteStorage where requests, loops and sessions cross: who is served, told and forgotten."""

from __future__ import annotations

import asyncio
import gc
from itertools import pairwise

import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from kassette import StorageError, UsageError
from kassette_io import RemoteStorage, start
from kassette_io.storages import remote
from tests.io.object_stores import Client, ClosingClient, Fault, Gate, journal
from tests.io.stories import opening, recording

pytestmark = pytest.mark.anyio

KEY = "run-1/journal.jsonl"


async def test_d6_the_pauses_before_a_retry_are_drawn_and_nothing_else_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writers that lost a race would meet again at once, or every step would wait."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("kassette_io.storages.remote.random", lambda: 0.5)
    monkeypatch.setattr("kassette_io.storages.remote.anyio.sleep", sleep)
    client = Client()
    storage = RemoteStorage(client)
    await storage.append("run-1", opening())
    await storage.append("run-1", recording("one"))
    assert pauses == []
    client.faults.extend([Fault.CONFLICT] * 3)
    await storage.append("run-1", recording("two"))
    assert len(journal(client, KEY)) == 3
    assert pauses
    assert all(earlier < later for earlier, later in pairwise(pauses))
    assert 0 < pauses[0] <= 0.5


async def test_d5_a_read_that_fails_on_opening_ends_in_a_storage_error() -> None:
    """Whoever opens a run while the store is away would wait for ever."""
    client = Client()
    error = ConnectionResetError("reset")
    client.read_errors.extend([error] * 20)
    with pytest.raises(StorageError, match="read") as refused:
        await RemoteStorage(client, patience=0).append("run-1", opening())
    assert refused.value.__cause__ is error
    assert client.store.objects == {}


async def test_d12_a_fork_whose_target_cannot_be_looked_at_is_refused() -> None:
    """A fork would be told that it exists, and nobody would have written it."""
    client = Client()
    storage = RemoteStorage(client)
    await RemoteStorage(client).append("run-1", opening())
    await storage.read_all("run-1")
    client.read_errors.append(StorageError("403", rolled_back=True))
    with pytest.raises(StorageError, match="403"):
        await storage.create("run-1", [opening()])


async def test_d12_a_fork_into_a_name_that_was_seen_to_be_free_is_one_put() -> None:
    """A fork would cost a request that tells nothing new."""
    client = Client()
    storage = RemoteStorage(client)
    assert await storage.read_all("run-1") == []
    client.take_log()
    await storage.create("run-1", [opening()])
    assert client.take_log() == ["put"]


async def test_d12_a_refused_fork_does_not_take_down_what_waits_behind_it() -> None:
    """A step of the run that is there would be refused with the fork that came before it."""
    client = Client()
    storage = RemoteStorage(client)
    await storage.append("run-1", opening())
    gate = client.gate = Gate()

    async def create() -> None:
        with pytest.raises(UsageError):
            await storage.create("run-1", [opening()])

    async with create_task_group() as group:
        group.start_soon(storage.append, "run-1", recording("one"))
        await gate.reached.wait()
        group.start_soon(create)
        await wait_all_tasks_blocked()
        group.start_soon(storage.append, "run-1", recording("two"))
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert len(journal(client, KEY)) == 3


async def test_what_a_read_has_found_is_used_by_the_next_session_alone() -> None:
    """Every later session would open on what is long out of date, and pay for a put in vain."""
    client = Client()
    storage = RemoteStorage(client)
    await storage.append("run-1", opening())
    await storage.release("run-1", 1)
    await storage.read_all("run-1")
    assert await storage.append("run-1", opening(2)) == 1
    await storage.release("run-1", 2)
    await RemoteStorage(client).append("run-1", recording("theirs", session=2))
    client.take_log()
    assert await storage.append("run-1", opening(3)) == 3
    assert client.take_log() == ["get", "put"]


async def test_what_a_read_has_found_does_not_replace_what_an_open_session_knows() -> None:
    """An open session would append to what somebody had read before its last entry."""
    client = Client()
    storage = RemoteStorage(client)
    await storage.append("run-1", opening())
    await storage.read_all("run-1")
    await storage.append("run-1", recording("one"))
    client.take_log()
    assert await storage.append("run-1", opening(2)) == 2
    assert client.take_log() == ["put"]


async def test_a_late_append_of_a_released_session_keeps_no_journal_in_memory() -> None:
    """A server would keep the journal of every run that ended with a step under way."""
    storage = RemoteStorage(Client())
    await storage.append("run-1", opening())
    await storage.release("run-1", 1)
    await storage.append("run-1", recording("late"))
    assert storage._writers == {}


async def test_what_reads_have_found_beyond_the_size_is_the_last_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that looks at two huge runs would keep both."""
    client = Client()
    for run_id in ("a", "b"):
        await RemoteStorage(client).append(run_id, opening())
    monkeypatch.setattr("kassette_io.storages.remote._REMEMBERED_BYTES", 1)
    storage = RemoteStorage(client)
    for run_id in ("a", "b"):
        await storage.read_all(run_id)
    assert list(storage._read) == ["b"]


@pytest.mark.parametrize("prefix", ["X", "/X/", "X/aX"])
async def test_d9_only_slashes_are_taken_from_a_prefix(prefix: str) -> None:
    """Two prefixes would name one place, and their runs be one another's."""
    client = Client()
    await RemoteStorage(client, prefix=prefix).append("run-1", opening())
    assert list(client.store.objects) == [f"{prefix.strip('/')}/{KEY}"]


def test_no_opening_that_is_closed_by_hand_leaves_a_writer() -> None:
    """A server whose clients go away would keep the journals that they were about to open.

    Three of them open one run, each having read what the one before it wrote; all are closed while
    the first one's answer is on its way.
    """

    async def main() -> None:
        client = Client()
        storage = RemoteStorage(client)
        openings = []
        gates = []
        for session in (1, 2, 3):
            gates.append(Gate(landed=True))
            if session == 1:
                client.gate = gates[0]
            append = storage.append("run-1", opening(session))
            waits_for = append.send(None)
            while session == 1 and not gates[0].reached.is_set():
                await asyncio.sleep(0)
            openings.append((append, waits_for))
        for append, _ in openings:
            append.close()
        gates[0].opened.set()
        while storage._writers:
            if all(each.served_on is None for each in storage._writers.values()):
                break
            await asyncio.sleep(0)
        assert storage._writers == {}
        assert len(journal(client, KEY)) == 3

    asyncio.run(main())


def test_an_append_that_is_closed_by_hand_is_silent() -> None:
    """Closing a coroutine would raise an error of the library's own."""

    async def main() -> None:
        client = Client()
        gate = client.gate = Gate()
        append = RemoteStorage(client).append("run-1", opening())
        while not gate.reached.is_set():
            waits_for = append.send(None)
            while not (gate.reached.is_set() or waits_for is None or waits_for.done()):
                await asyncio.sleep(0)
        append.close()
        gate.opened.set()

    asyncio.run(main())


# --- storages that share a client -----------------------------------------------------------


async def test_a_client_is_closed_with_the_last_of_its_storages() -> None:
    """Closing one storage would take the client from under the sessions of another, or leak it."""
    client = ClosingClient()
    one, other = RemoteStorage(client, prefix="a"), RemoteStorage(client, prefix="b")
    async with await start(other, "run-1") as run:
        async with one:
            await (await start(one, "run-1")).complete()
        assert not client.closed
        await run.complete()
    await other.aclose()
    assert client.closed


async def test_a_storage_that_is_gone_holds_no_client_open() -> None:
    """A storage that somebody made for one look would keep the client from ever being closed."""
    client = ClosingClient()
    async with RemoteStorage(client):
        await RemoteStorage(client).read_all("run-1")
        gc.collect()
    assert client.closed


async def test_a_storage_may_be_closed_twice_and_opened_again() -> None:
    """Its second life would end with the client left open, or closed under another storage."""
    client = ClosingClient()
    one, other = RemoteStorage(client), RemoteStorage(client)
    await one.aclose()
    await one.aclose()
    assert not client.closed
    async with one:
        await other.aclose()
        assert not client.closed
    assert client.closed
    client.closed = False
    async with other:
        pass
    assert client.closed
    assert remote._OPEN.get(id(client)) is None


async def test_storages_of_different_clients_do_not_wait_for_each_other() -> None:
    """A client would stay open because of somebody else's."""
    clients = ClosingClient(), ClosingClient()
    storages = [RemoteStorage(each) for each in clients]
    await storages[0].aclose()
    assert [each.closed for each in clients] == [True, False]
    await storages[1].aclose()


def test_a_loop_that_is_closed_in_the_middle_of_a_put_is_not_waited_for() -> None:
    """The next loop would wait for ever for a task that nobody runs, or lose what it has learnt."""
    client = Client()
    storage = RemoteStorage(client)
    gates: list[Gate] = []

    async def begin() -> None:
        gates.append(Gate())
        client.gate = gates[0]
        append = asyncio.ensure_future(storage.append("run-1", opening()))
        waiting.append(append)
        await gates[0].reached.wait()

    async def go_on() -> None:
        assert await storage.append("run-1", opening()) == 0
        waiting.clear()
        gates.clear()
        old.clear()
        gc.collect()
        client.take_log()
        assert await storage.append("run-1", recording("one")) == 1
        assert client.take_log() == ["put"]

    waiting: list[asyncio.Future[int]] = []
    old = [asyncio.new_event_loop()]
    old[0].run_until_complete(begin())
    old[0].close()
    asyncio.run(go_on())
    assert len(journal(client, KEY)) == 2
