"""RemoteStorage over simulated object stores: keys, listing, what it holds, errors it passes on."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest
from anyio import create_task_group

from kassette import (
    JournalCorruptionError,
    StartEntry,
    StepEntry,
    StorageError,
    UsageError,
    encode_entry,
)
from kassette_io import (
    RemoteStorage,
    Storage,
    start,
)
from kassette_io.storages.protocol import SessionStorage
from tests.io.object_stores import Client, ClosingClient

pytestmark = pytest.mark.anyio

STAMP = "2026-01-31T12:00:00.000Z"
KEY = "run-1/journal.jsonl"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw every pause as zero."""
    monkeypatch.setattr("kassette_io.storages.remote.random", lambda: 0.0)


def entry(session: int, name: str) -> StepEntry:
    return StepEntry.of(session=session, timestamp=STAMP, step_id=name, name=name, result=name)


def started(session: int, writer: str = "w") -> StartEntry:
    return StartEntry(session=session, timestamp=STAMP, writer=writer)


async def names(storage: Storage, run_id: str = "run-1") -> list[str]:
    return [
        each.step_id if isinstance(each, StepEntry) else each.type
        for each in await storage.read_all(run_id)
    ]


async def test_release_and_abandon_drop_the_writers_copy() -> None:
    """A long-lived process would keep the journal of every run that it has ever had."""
    storage = RemoteStorage(Client())
    assert isinstance(storage, SessionStorage)
    for run_id in ("run-1", "run-2"):
        await storage.append(run_id, started(1))
        await storage.append(run_id, entry(1, "llm"))
    assert set(storage._writers) == {"run-1", "run-2"}
    await storage.release("run-1", 7)
    await storage.release("unknown", 1)
    assert set(storage._writers) == {"run-1", "run-2"}
    await storage.release("run-1", 1)
    await storage.release("run-1", 1)
    storage.abandon("run-2", 1)
    assert storage._writers == {}


async def test_a_refused_append_leaves_no_writer_behind() -> None:
    """Every mistaken append would cost memory for ever."""
    storage = RemoteStorage(Client())
    with pytest.raises(UsageError, match="no start entry"):
        await storage.append("run-1", entry(1, "llm"))
    assert storage._writers == {}


async def test_what_reads_have_found_is_remembered_up_to_a_number_and_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that looks at every run would keep all of their journals."""
    client = Client()
    storage = RemoteStorage(client)
    for number in range(1100):
        await storage.read_all(f"run-{number}")
    assert len(storage._read) == 1024
    for run_id in ("a", "b", "c"):
        await RemoteStorage(client).append(run_id, started(1))
    size = len(client.store.objects["a/journal.jsonl"].content)
    monkeypatch.setattr("kassette_io.storages.remote._REMEMBERED_BYTES", 2 * size)
    for run_id in ("a", "b", "a", "c"):
        await storage.read_all(run_id)
    assert list(storage._read) == ["a", "c"]
    monkeypatch.setattr("kassette_io.storages.remote._REMEMBERED_BYTES", size - 1)
    client.take_log()
    async with await start(storage, "b"):
        assert client.take_log() == ["get", "put"], "however long a journal is, it is read once"


async def test_d6_many_openings_at_once_read_each_journal_once() -> None:
    """A service that starts many runs together would pay for a second read of most of them."""
    client = Client()
    storage = RemoteStorage(client)

    async def open_and_end(run_id: str) -> None:
        await (await start(storage, run_id)).complete()

    async with create_task_group() as group:
        for number in range(100):
            group.start_soon(open_and_end, f"run-{number}")
    assert client.log.count("get") == 100
    assert client.log.count("put") == 200
    assert (len(storage._read), storage._writers) == (0, {})


async def test_d10_bad_run_ids_are_refused_before_any_request() -> None:
    """A run id would reach out of its prefix."""
    client = Client()
    storage = RemoteStorage(client)
    for run_id in ("", ".hidden", "a/b", "../x", "ü"):
        with pytest.raises(UsageError):
            await storage.read_all(run_id)
        with pytest.raises(UsageError):
            await storage.append(run_id, started(1))
        with pytest.raises(UsageError):
            await storage.create(run_id, [started(1)])
    assert client.log == []


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("", KEY),
        ("/", KEY),
        ("prod", f"prod/{KEY}"),
        ("/prod/", f"prod/{KEY}"),
        ("team/prod/", f"team/prod/{KEY}"),
    ],
)
async def test_d9_the_key_of_a_run(prefix: str, key: str) -> None:
    """Another program, or an earlier version, would not find the journal."""
    client = Client()
    storage = RemoteStorage(client, prefix=prefix)
    await storage.append("run-1", started(1))
    assert list(client.store.objects) == [key]
    assert [each async for each in storage.list_runs()] == ["run-1"]
    assert await names(storage) == ["start"]


async def test_list_runs_gives_the_run_ids_below_the_prefix() -> None:
    """Runs of other prefixes, or names that are no run ids, would be listed."""
    client = Client()
    for name in (
        "prod/run-1",
        "prod/run-2",
        "production/run-3",
        "run-4",
        "prod/.check",
        "prod/a b",
    ):
        client.store.write(f"{name}/journal.jsonl", b"")
    client.store.write("prod/readme.txt", b"")
    storage = RemoteStorage(client, prefix="prod")
    assert [each async for each in storage.list_runs()] == ["run-1", "run-2"]
    assert [each async for each in RemoteStorage(client, prefix="none").list_runs()] == []


async def test_list_runs_begins_with_the_first_page() -> None:
    """A listing of a million runs would ask for all of them before it shows one."""
    client = Client(page=2)
    for number in range(9):
        client.store.write(f"run-{number}/journal.jsonl", b"")
    runs: Any = RemoteStorage(client).list_runs()
    async with aclosing(runs) as found:
        assert [await anext(found), await anext(found)] == ["run-0", "run-1"]
        assert client.take_log() == ["list"]
        assert await anext(found) == "run-2"
        assert client.take_log() == ["list"]


# --- errors of the store -----------------------------------------------------------------------


async def test_read_errors_carry_the_run_and_their_cause() -> None:
    """Somebody who reads a log would not know which run could not be read, or why."""
    client = Client()
    storage = RemoteStorage(client, patience=0)
    cause = OSError("unreachable")
    client.read_errors.append(cause)
    with pytest.raises(StorageError, match="unreachable") as caught:
        await storage.read_all("run-1")
    assert caught.value.run_id == "run-1"
    assert caught.value.__cause__ is cause
    for given in (StorageError("no such bucket", rolled_back=True), UsageError("no such setting")):
        client.read_errors.append(given)
        with pytest.raises(type(given)) as refused:
            await storage.read_all("run-1")
        assert refused.value is given
        assert given.run_id == "run-1"


async def test_a_damaged_journal_is_reported_with_run_and_line_and_left_alone() -> None:
    """A run would be continued on a journal that cannot be read."""
    client = Client()
    damaged = encode_entry(started(1), 0) + b"nonsense\n" + encode_entry(entry(1, "llm"), 2)
    client.store.write(KEY, damaged)
    storage = RemoteStorage(client)
    with pytest.raises(JournalCorruptionError, match="run-1") as caught:
        await start(storage, "run-1")
    assert caught.value.line == 2
    with pytest.raises(JournalCorruptionError, match="run-1"):
        await storage.append("run-1", started(2))
    assert client.store.objects[KEY].content == damaged


async def test_a_listing_that_fails_is_a_storage_error() -> None:
    """A caller that handles our errors would meet those of some HTTP library."""

    class Unlistable(Client):
        def list_prefixes(self, prefix: str) -> Any:
            return self

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            raise self.read_errors.popleft() or StopAsyncIteration

    client = Unlistable()
    client.read_errors.extend([OSError("unreachable"), StorageError("no such bucket")])
    storage = RemoteStorage(client, patience=0)
    for message in ("unreachable", "no such bucket"):
        with pytest.raises(StorageError, match=message):
            assert [each async for each in storage.list_runs()]


async def test_three_methods_make_a_client() -> None:
    """Somebody's own client would need more than the protocol says."""

    class Minimal:
        def __init__(self) -> None:
            self.inner = Client()
            self.get_object = self.inner.get_object
            self.put_object = self.inner.put_object
            self.list_prefixes = self.inner.list_prefixes

    client = Minimal()
    async with RemoteStorage(client) as storage:
        await storage.check()
        async with await start(storage, "run-1") as run:
            await run.complete()
        assert [each async for each in storage.list_runs()] == ["run-1"]
    closing = ClosingClient()
    async with RemoteStorage(closing):
        assert not closing.closed
    assert closing.closed
