"""A real server that goes away and comes back, under sessions and readers that are at work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import anyio
import pytest

from kassette import Entry
from kassette_io import (
    Context,
    RemoteStorage,
    S3ObjectStoreClient,
    Success,
    Suspended,
    start,
    workflow,
)
from kassette_io.storages import remote

from .conftest import PLENTY
from .servers import S3Server, free_port, ministack
from .support import PREFIX, Counted, journal, step_ids, types

pytestmark = pytest.mark.anyio

LONG = 300.0
"""Seconds within which even a busy machine has started a server again."""


class Restarting:
    """A server that keeps its objects on disk, and that can be taken away."""

    def __init__(self, run: Callable[[], AbstractContextManager[S3Server]]) -> None:
        self._run = run
        self._stack = ExitStack()
        self.server = self._stack.enter_context(run())

    def stop(self) -> None:
        self._stack.close()

    def start(self) -> None:
        self._stack.enter_context(self._run())


@pytest.fixture
def restarting(tmp_path: Path) -> Iterator[Restarting]:
    """A server of the test's own, with a bucket."""
    made = Restarting(partial(ministack, tmp_path, port=free_port(), on_disk=True))
    made.server.ask("PUT", "/bucket")
    made.server.ask("PUT", "/bucket/so-that-the-bucket-is-kept", b"1")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
async def there(
    anyio_backend: str, restarting: Restarting, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RemoteStorage]:
    """A storage that has all the time a busy machine needs, also for its first look."""
    monkeypatch.setattr(remote, "FIRST_CONTACT", LONG)
    client = S3ObjectStoreClient("bucket", endpoint_url=restarting.server.url, timeout=PLENTY)
    async with RemoteStorage(client, prefix=PREFIX, patience=LONG) as storage:
        yield storage


class Refused:
    """Notes that a request has failed: somebody has met the outage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.met = anyio.Event()
        sleep = anyio.sleep

        async def noting(seconds: float) -> None:
            self.met.set()
            await sleep(seconds)

        monkeypatch.setattr("kassette_io.storages.remote.anyio.sleep", noting)


@pytest.mark.parametrize("what", ["start", "step", "complete"])
async def test_an_append_outlasts_a_restart(
    there: RemoteStorage, restarting: Restarting, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Every session that appends while its server restarts would be lost, with what it has paid."""
    effects = Counted()
    refused = Refused(monkeypatch)

    async def outage() -> None:
        await refused.met.wait()
        await anyio.to_thread.run_sync(restarting.start)

    async with anyio.create_task_group() as group:

        async def go_down(now: str) -> None:
            if now == what:
                await anyio.to_thread.run_sync(restarting.stop)
                group.start_soon(outage)

        await go_down("start")
        async with await start(there, "run-1") as run:
            await go_down("step")
            assert await run.record("one", effects, "one") == {"name": "one", "call": 1}
            await go_down("complete")
            await run.complete()
    entries: list[Entry] = journal(restarting.server, "bucket", "run-1")
    assert types(entries) == ["start", "step", "complete"]
    assert effects.calls == {"one": 1}


async def test_a_workflow_that_is_resumed_outlasts_a_restart(
    there: RemoteStorage, restarting: Restarting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that somebody gave would be refused because a server was restarting."""
    effects = Counted()

    async def ask(ctx: Context) -> object:
        await ctx.step("one", effects, "one")
        verdict = await ctx.suspend("go")
        await ctx.step("two", effects, "two")
        return verdict

    flow = workflow(ask, storage=there)
    assert await flow.start(run_id="run-1") == Suspended("go", "run-1")
    refused = Refused(monkeypatch)
    await anyio.to_thread.run_sync(restarting.stop)

    async def outage() -> None:
        await refused.met.wait()
        await anyio.to_thread.run_sync(restarting.start)

    async with anyio.create_task_group() as group:
        group.start_soon(outage)
        assert await flow.resume("run-1", "go", 42) == Success(42, "run-1")
    assert effects.calls == {"one": 1, "two": 1}
    assert step_ids(journal(restarting.server, "bucket", "run-1")) == ["one", "two"]


async def test_readers_outlast_a_restart(
    there: RemoteStorage, restarting: Restarting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher that looks what there is to do would fall over with its store."""
    async with await start(there, "run-1") as run:
        await run.complete()
    refused = Refused(monkeypatch)
    await anyio.to_thread.run_sync(restarting.stop)
    found: list[object] = []

    async def read() -> None:
        found.append([entry.type for entry in await there.read_all("run-1")])

    async def listing() -> None:
        found.append([run_id async for run_id in there.list_runs()])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(listing)
        await refused.met.wait()
        await anyio.to_thread.run_sync(restarting.start)
    assert sorted(map(str, found)) == ["['run-1']", "['start', 'complete']"]
