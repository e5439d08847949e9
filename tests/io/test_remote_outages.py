"""RemoteStorage while its store gives no usable response, and clients that give what none may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from kassette import PreconditionFailedError, StorageError, UsageError
from kassette.object_append import PATIENCE
from kassette_io import GetObjectResult, RemoteStorage, start
from kassette_io.storages import remote
from tests.io.object_stores import Client, Fault, journal
from tests.io.stories import opening, recording

pytestmark = pytest.mark.anyio

KEY = "run-1/journal.jsonl"


class Clock:
    """What ``anyio`` is to a storage: a clock that goes as fast as it sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def current_time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let pauses take no time, and be as long as they may be."""
    clock = Clock()
    monkeypatch.setattr(remote, "anyio", clock)
    monkeypatch.setattr(remote, "random", lambda: 1.0)
    return clock


class Lister(Client):
    """A client whose listings are cut off, and that can go on where one was, if ``resumes``."""

    def __init__(self, *, resumes: bool) -> None:
        super().__init__()
        self.asked: list[str | None] = []
        if resumes:
            self.list_prefixes_with = self._list_with

    async def _names(self, after: str | None) -> AsyncIterator[str]:
        self.asked.append(after)
        for name in ("a", "b", "c", "d"):
            if self.read_errors:
                error = self.read_errors.popleft()
                if error is not None:
                    raise error
            if after is None or name > after:
                yield name

    async def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        async for name in self._names(None):
            yield name

    async def _list_with(
        self, prefix: str, name: str, *, after: str | None = None
    ) -> AsyncIterator[str]:
        assert (prefix, name) == ("prod/", "journal.jsonl")
        async for each in self._names(after):
            yield each


async def test_an_outage_is_outlasted_and_costs_requests_alone(time: Clock) -> None:
    """A server that restarts would end every session that appends meanwhile, and lose its result."""
    client = Client()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as run:
        client.faults.extend([Fault.RESET] * 8)
        client.read_errors.extend([ConnectionRefusedError()] * 8)
        assert await run.record("llm", lambda: 1) == 1
        assert 5.0 < sum(time.slept) < PATIENCE
        client.read_errors.extend([TimeoutError()] * 9)
        assert len(await storage.read_all("run-1")) == 2
        await run.complete()
    assert len(journal(client, KEY)) == 3


@pytest.mark.parametrize("patience", [60.0, PATIENCE, 2.0, 0.0])
async def test_the_patience_is_a_setting(time: Clock, patience: float) -> None:
    """Nobody could say that an outage of a minute is to be outlasted, or none at all."""
    client = Client()
    storage = RemoteStorage(client) if patience == PATIENCE else None
    storage = storage or RemoteStorage(client, patience=patience)
    await storage.append("run-1", opening())
    error = ConnectionRefusedError("nobody there")
    for act in (storage.append("run-1", recording("llm")), storage.read_all("run-1")):
        began = time.now
        client.faults.append(Fault.RESET)
        client.read_errors.extend([error] * 100)
        with pytest.raises(StorageError, match=r"nobody there.*; no usable response for") as caught:
            await act
        assert caught.value.run_id == "run-1"
        assert caught.value.__cause__ is error
        assert patience <= time.now - began <= patience + 2.0
        client.read_errors.clear()


async def test_a_store_that_has_never_answered_gets_five_seconds(time: Clock) -> None:
    """A mistyped port would be told after half a minute; a server that restarts, given up at once."""
    error = ConnectionRefusedError("nobody there")
    client = Client()
    for act in ("read_all", "append", "create", "list_runs"):
        storage = RemoteStorage(client, patience=60)
        client.read_errors.extend([error] * 100)
        client.faults.append(Fault.RESET)
        began = time.now
        with pytest.raises(StorageError, match="no usable response"):
            match act:
                case "read_all":
                    await storage.read_all("run-1")
                case "append":
                    await storage.append("run-1", opening())
                case "create":
                    await storage.create("run-1", [opening()])
                case _:
                    broken = Lister(resumes=True)
                    broken.read_errors.extend([error] * 100)
                    lists = RemoteStorage(broken, prefix="prod", patience=60).list_runs()
                    assert [name async for name in lists]
        assert 5.0 <= time.now - began <= 7.0
        client.read_errors.clear()
        client.faults.clear()
    assert client.store.objects == {}


@pytest.mark.parametrize("answer", ["found", "missing", "put", "refused", "listed"])
async def test_any_answer_shows_that_the_store_is_there(time: Clock, answer: str) -> None:
    """A store that restarts after its first answer would be taken for a mistyped address."""
    client = Lister(resumes=True)
    storage = RemoteStorage(client, prefix="prod", patience=60)
    match answer:
        case "found":
            client.store.write("prod/run-1/journal.jsonl", b"")
            await storage.read_all("run-1")
        case "missing":
            await storage.read_all("run-1")
        case "put":
            client.faults.append(Fault.NONE)
            await storage.create("run-2", [opening()])
        case "refused":
            client.store.write("prod/run-1/journal.jsonl", b"")
            client.faults.append(Fault.CONFLICT)
            client.read_errors.append(StorageError("403", rolled_back=True))
            with pytest.raises(StorageError, match="403"):
                await storage.create("run-1", [opening()])
        case _:
            assert [name async for name in storage.list_runs()] == ["a", "b", "c", "d"]
    client.read_errors.extend([OSError("unreachable")] * 100)
    began = time.now
    with pytest.raises(StorageError, match="unreachable"):
        await storage.read_all("run-1")
    assert time.now - began >= 60.0


async def test_what_is_certain_is_said_at_once(time: Clock) -> None:
    """Wrong credentials, or a misspelt setting, would be waited for like a network."""
    client = Client()
    storage = RemoteStorage(client)
    for error in (
        StorageError("403", rolled_back=True),
        UsageError("misspelt"),
        PreconditionFailedError("who asked?"),
    ):
        for act in (storage.read_all("run-1"), storage.append("run-1", opening())):
            client.read_errors.append(error)
            with pytest.raises(type(error)) as caught:
                await act
            assert caught.value is error
    assert time.slept == []


async def test_a_misspelt_setting_that_a_put_finds_fails_that_entry_alone(time: Clock) -> None:
    """The caller's mistake would be looked for in the journal, and cost the session its life."""

    class Misspelt(Client):
        async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
            raise UsageError("misspelt")

    client = Misspelt()
    storage = RemoteStorage(client)
    with pytest.raises(UsageError, match="misspelt"):
        await storage.append("run-1", opening())
    assert client.log == ["get"]


async def test_a_listing_goes_on_where_it_was_cut_off(time: Clock) -> None:
    """A long listing would end in the middle, give runs twice, or begin anew again and again."""
    client = Lister(resumes=True)
    errors = [OSError("refused")] * 3
    client.read_errors.extend([*errors, None, None, *errors, None, None, None, StorageError("503")])
    storage = RemoteStorage(client, prefix="prod", patience=0.5)  # for each outage of its own
    assert [name async for name in storage.list_runs()] == ["a", "b", "c", "d"]
    assert client.asked == [None, None, None, None, "b", "b", "b", "c"]


async def test_a_listing_that_cannot_go_on_is_begun_again_or_fails(time: Clock) -> None:
    """Runs would be given twice, or left out, by a client that knows no more than to list."""
    client = Lister(resumes=False)
    client.read_errors.extend([OSError("refused")] * 3)
    storage = RemoteStorage(client, prefix="prod")
    assert [name async for name in storage.list_runs()] == ["a", "b", "c", "d"]
    client.read_errors.extend([None, OSError("cut off")])
    seen: list[str] = []
    with pytest.raises(StorageError, match=r"cannot list the runs.*cut off"):
        async for name in storage.list_runs():
            seen.append(name)
    assert seen == ["a"]
    client.read_errors.append(StorageError("403", rolled_back=True))
    with pytest.raises(StorageError, match="403"):
        [name async for name in storage.list_runs()]


# --- what no client may give -----------------------------------------------------------------


class Answers(Client):
    """A client that gives ``got`` for every object, and ``put`` for every write that is done."""

    def __init__(self, got: object = None, put: object = None) -> None:
        super().__init__()
        self._got = got
        self._answer = put

    async def get_object(self, key: str) -> Any:
        found = await super().get_object(key)
        return self._got if self._answer is None else found

    async def put_object(self, key: str, content: bytes, etag: str | None) -> Any:
        tag = await super().put_object(key, content, etag)
        return tag if self._got is not None else self._answer


@pytest.mark.parametrize(
    "given",
    [
        GetObjectResult("", "e"),  # type: ignore[arg-type]
        GetObjectResult("{}", "e"),  # type: ignore[arg-type]
        GetObjectResult(None, "e"),  # type: ignore[arg-type]
        GetObjectResult(b"", None),  # type: ignore[arg-type]
        b"",
        {"content": b"", "etag": "e"},
    ],
    ids=repr,
)
async def test_a_client_that_gives_no_bytes_is_told_so(time: Clock, given: object) -> None:
    """A client after the reference's, which gives text, would end in a TypeError deep inside."""
    storage = RemoteStorage(Answers(got=given))
    for act in (
        storage.read_all("run-1"),
        storage.append("run-1", opening()),
        start(storage, "run-1"),
        storage.check(),
    ):
        with pytest.raises(UsageError, match=r"Answers\.get_object returned.*object's bytes"):
            await act
    assert time.slept == []


async def test_any_kind_of_bytes_will_do() -> None:
    """A client that reads into a buffer would be refused, or its journal compare unequal."""
    client = Client()
    await RemoteStorage(client).append("run-1", opening())
    content = client.store.objects[KEY].content
    for kind in (bytearray, memoryview):
        given = GetObjectResult(kind(content), "e")  # type: ignore[arg-type]
        assert len(await RemoteStorage(Answers(got=given)).read_all("run-1")) == 1


async def test_a_put_that_gives_no_etag_has_landed_all_the_same(time: Clock) -> None:
    """The next append would go out on the condition that there is no object: a false fence."""

    class Forgets(Client):
        async def put_object(self, key: str, content: bytes, etag: str | None) -> Any:
            await super().put_object(key, content, etag)

    client = Forgets()
    storage = RemoteStorage(client)
    async with await start(storage, "run-1") as run:
        assert await run.record("llm", lambda: 1) == 1
        await run.complete()
    assert len(journal(client, KEY)) == 3
