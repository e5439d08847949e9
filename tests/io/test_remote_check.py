"""``RemoteStorage.check`` proves what a store keeps of its promises, on stores that break them."""

from __future__ import annotations

import logging

import pytest
from anyio import CancelScope, create_task_group

from kassette import StorageError
from kassette_io import GetObjectResult, RemoteStorage
from tests.io.object_stores import (
    Client,
    ClosingClient,
    CreatesOnIfMatch,
    Fault,
    Gate,
    IgnoresIfMatch,
    IgnoresIfNoneMatch,
    OneEtagForAll,
    ReadsBehind,
    RefusesItsEtags,
    Store,
)

pytestmark = pytest.mark.anyio

OVERWRITES = "it overwrote an object despite `If-None-Match: *`"
STALE_ETAG = "it overwrote an object despite a stale `If-Match`"
CREATES = "it created a missing object despite `If-Match`"
REFUSES = "it refused `If-Match` with the etag that it had just returned"
SAME_ETAG = "it returned the same etag for two versions of an object"
STALE_READ = "a read did not return the last write"
ALL = {OVERWRITES, STALE_ETAG, CREATES, REFUSES, SAME_ETAG, STALE_READ}


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw every pause as zero."""
    monkeypatch.setattr("kassette_io.storages.remote.random", lambda: 0.0)


class KeepsAll(ClosingClient):
    """A client behind a cache that keeps the first answer."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, GetObjectResult | None] = {}

    async def get_object(self, key: str) -> GetObjectResult | None:
        found = await super().get_object(key)
        return self.cache.setdefault(key, found)


class KeepsWhatWasMissing(KeepsAll):
    """Behind a cache that keeps, once, that there was nothing."""

    async def get_object(self, key: str) -> GetObjectResult | None:
        seen = key in self.cache
        found = await super().get_object(key)
        if seen or found is not None:
            self.cache.clear()
        return found


class KeepsWhatWasFirst(KeepsAll):
    """Behind a cache that keeps what it has found, but not that there was nothing."""

    async def get_object(self, key: str) -> GetObjectResult | None:
        found = await super().get_object(key)
        if found is None:
            self.cache.clear()
        return found


class OldContent(ClosingClient):
    """A client that gives the etag of one version with the content of none."""

    async def get_object(self, key: str) -> GetObjectResult | None:
        found = await super().get_object(key)
        return found and GetObjectResult(b"0", found.etag)


class OldEtag(ClosingClient):
    """A client that gives the content of one version with the etag of none."""

    async def get_object(self, key: str) -> GetObjectResult | None:
        found = await super().get_object(key)
        return found and GetObjectResult(found.content, "v0")


class RefusesAnEtagOnce(Store):
    """Refuses the first put under an etag, whatever it is."""

    refused = False

    def holds(self, key: str, etag: str | None) -> bool:
        if etag is None:
            self.refused = False
            return super().holds(key, etag)
        first, self.refused = not self.refused, True
        return not first and key in self.objects and super().holds(key, etag)


async def test_a_good_store_passes_and_nothing_of_it_stays() -> None:
    """Nobody could use any store, or every check would leave litter."""
    client = ClosingClient()
    await RemoteStorage(client, prefix="prod").check()
    assert client.store.objects == {}
    assert client.log.count("put") == 5


@pytest.mark.parametrize(
    ("client", "broken"),
    [
        (ClosingClient(IgnoresIfNoneMatch()), {OVERWRITES}),
        (ClosingClient(IgnoresIfMatch()), {STALE_ETAG}),
        (ClosingClient(CreatesOnIfMatch()), {CREATES}),
        (ClosingClient(RefusesItsEtags()), {REFUSES}),
        (ClosingClient(OneEtagForAll()), {SAME_ETAG}),
        (ReadsBehind(), {STALE_READ}),
        (ReadsBehind(IgnoresIfNoneMatch()), {STALE_READ, OVERWRITES}),
        (KeepsWhatWasMissing(), {STALE_READ}),
        (KeepsWhatWasFirst(), {STALE_READ}),
        (KeepsAll(), {STALE_READ}),
        (OldContent(), {STALE_READ}),
        (OldEtag(), {STALE_READ}),
        (ClosingClient(RefusesAnEtagOnce()), {REFUSES}),
    ],
    ids=lambda value: (
        " and ".join(sorted(value))
        if isinstance(value, set)
        else f"{type(value).__name__} of {type(value.store).__name__}"
    ),
)
async def test_every_broken_promise_is_named_and_no_other(
    client: ClosingClient, broken: set[str]
) -> None:
    """A store that loses entries would pass, or its operator look for the wrong fault."""
    with pytest.raises(StorageError, match="cannot be used for journals") as caught:
        await RemoteStorage(client).check()
    named = str(caught.value).partition("would be lost: ")[2]
    assert sorted(named.split("; ")) == sorted(broken)
    assert type(client).__name__ in str(caught.value)
    assert client.store.objects == {}


async def test_a_store_without_any_condition_is_told_everything() -> None:
    """A store that ignores conditions in silence would lose entries in silence."""

    class Careless(Store):
        def holds(self, key: str, etag: str | None) -> bool:
            return True

    client = ClosingClient(Careless())
    with pytest.raises(StorageError) as caught:
        await RemoteStorage(client).check()
    assert {each for each in ALL if each in str(caught.value)} == {OVERWRITES, STALE_ETAG, CREATES}
    assert client.store.objects == {}


async def test_the_scratch_objects_are_no_runs() -> None:
    """A listing beside a check would show a run that nobody started."""
    client = Client()
    storage = RemoteStorage(client, prefix="prod")
    await storage.check()
    assert len(client.store.objects) == 1
    assert all(key.startswith("prod/.check/") for key in client.store.objects)
    assert [each async for each in storage.list_runs()] == []


async def test_what_cannot_be_removed_is_logged_and_changes_no_verdict(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Credentials that may not delete would turn a good store into a bad one."""

    class Keeps(ClosingClient):
        async def delete_object(self, key: str) -> None:
            raise StorageError("403: access denied")

    with caplog.at_level(logging.WARNING, "kassette"):
        await RemoteStorage(Keeps()).check()
    assert "access denied" in caplog.text
    assert {record.name for record in caplog.records} == {"kassette"}


async def test_a_check_that_is_cancelled_leaves_nothing() -> None:
    """Every check that its operator breaks off would leave litter."""
    client = ClosingClient()
    with CancelScope() as scope:
        gate = client.gate = Gate(landed=True)
        async with create_task_group() as group:
            group.start_soon(RemoteStorage(client).check)
            await gate.reached.wait()
            assert len(client.store.objects) == 1
            scope.cancel()
    assert client.store.objects == {}


async def test_an_error_in_the_middle_is_raised_and_the_scratch_object_removed() -> None:
    """A check that cannot be made would pass, or leave litter."""
    client = ClosingClient()
    client.read_errors.extend([None, StorageError("403", rolled_back=True)])
    with pytest.raises(StorageError, match="403"):
        await RemoteStorage(client).check()
    assert client.log == ["get", "put", "get", "delete"]
    assert client.store.objects == {}


async def test_a_check_outlasts_a_moment_without_answers(no_pause: None) -> None:
    """A good store would be turned away because a server was restarting."""
    client = ClosingClient()
    client.read_errors.extend([OSError("refused"), None, TimeoutError()])
    await RemoteStorage(client).check()
    assert client.store.objects == {}


@pytest.mark.parametrize("on", ["get", "put"])
async def test_where_nothing_was_written_nothing_is_said_to_stay(
    on: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A bucket that is not there would be said to keep scratch objects."""
    client = ClosingClient()
    if on == "get":
        client.read_errors.append(StorageError("404: NoSuchBucket", rolled_back=True))
    else:
        client.faults.append(Fault.DENIED)
    with pytest.raises(StorageError, match=r"NoSuchBucket|access denied"):
        await RemoteStorage(client).check()
    assert "delete" not in client.log
    assert caplog.text == ""


async def test_what_may_have_been_written_is_removed() -> None:
    """A put whose answer was lost would leave litter."""
    client = ClosingClient()
    client.faults.append(Fault.LOST)
    with pytest.raises(StorageError, match="cannot check"):
        await RemoteStorage(client).check()
    assert client.store.objects == {}


async def test_a_store_that_creates_nothing_under_its_condition_is_told_so() -> None:
    """Its refusal would come out as an error about a version that nobody expected."""

    class CreatesNothing(Store):
        def holds(self, key: str, etag: str | None) -> bool:
            return etag is not None and super().holds(key, etag)

    with pytest.raises(StorageError, match="refused to create a missing object"):
        await RemoteStorage(ClosingClient(CreatesNothing())).check()


async def test_an_error_of_somebody_elses_client_is_a_storage_error() -> None:
    """The command would take it for a bug of its own."""
    client = ClosingClient()
    client.faults.append(Fault.RESET)
    with pytest.raises(StorageError, match="cannot check ClosingClient: ConnectionResetError"):
        await RemoteStorage(client).check()
