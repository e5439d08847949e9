"""Cancelling in the middle of a put or a get: what is known afterwards, and what is left running."""

from __future__ import annotations

import subprocess
import sys
import threading

import anyio
import pytest
from anyio import to_thread

from kassette_io import RemoteStorage, S3ObjectStoreClient, StorageError, start

from .proxy import SILENT, SILENT_BEFORE, Fault, Proxy
from .servers import S3Server
from .support import PREFIX, Counted, Deadlines, journal, raw_journal, step_ids

pytestmark = pytest.mark.anyio


async def until_held(proxy: Proxy) -> None:
    assert await to_thread.run_sync(proxy.held.wait, 30)


def kassette_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("kassette-asyncio")]


@pytest.mark.parametrize("fault", [SILENT, SILENT_BEFORE], ids=["landed", "not landed"])
async def test_d2_a_cancelled_step_is_settled_before_the_cancellation_is_felt(
    bucket: str, proxy: Proxy, s3_server: S3Server, no_pauses: None, fault: Fault
) -> None:
    """Paid-for work whose entry may or may not be there would be done again, or be believed lost.

    The entry lands, so the step gives its result, and the cancellation is felt at the next await.
    """
    before = kassette_threads()
    effects = Counted()
    felt = False
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        deadlines = Deadlines(client)
        run = await start(RemoteStorage(client, prefix=PREFIX), "run-1")
        proxy.script(fault)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def step() -> None:
                    nonlocal felt
                    assert await run.record("one", effects, "one") == {"name": "one", "call": 1}
                    try:
                        await anyio.lowlevel.checkpoint()
                    except anyio.get_cancelled_exc_class():
                        felt = True
                        raise

                group.start_soon(step)
                await until_held(proxy)
                scope.cancel()
                deadlines.expire()
        assert scope.cancelled_caught
        assert felt
        assert step_ids(journal(s3_server, bucket, "run-1")) == ["one"]
        assert await run.record("two", effects, "two") == {"name": "two", "call": 1}
        await run.aclose()
    assert kassette_threads() == before
    async with (
        S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client,
        await start(RemoteStorage(client, prefix=PREFIX), "run-1") as again,
    ):
        assert await again.record("one", effects, "one") == {"name": "one", "call": 1}
        assert await again.record("two", effects, "two") == {"name": "two", "call": 1}
    assert effects.calls == {"one": 1, "two": 1}


async def test_d2_task_cancel_in_the_middle_of_a_put_is_felt_after_it(
    bucket: str, proxy: Proxy, atomic_server: S3Server, no_pauses: None, anyio_backend: str
) -> None:
    """asyncio's own ``Task.cancel``, and a second one from somebody who is in a hurry."""
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        deadlines = Deadlines(client)
        run = await start(RemoteStorage(client, prefix=PREFIX), "run-1")
        results: list[object] = []

        async def step() -> None:
            results.append(await run.record("one", lambda: 1))
            await anyio.lowlevel.checkpoint()
            results.append("not cancelled")

        proxy.script(SILENT)
        if anyio_backend == "asyncio":
            import asyncio

            task = asyncio.create_task(step())
            await until_held(proxy)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            deadlines.expire()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            import trio

            async with trio.open_nursery() as nursery:
                nursery.start_soon(step)
                await until_held(proxy)
                nursery.cancel_scope.cancel()
                deadlines.expire()
        assert results == [1]
        assert step_ids(journal(atomic_server, bucket, "run-1")) == ["one"]
        await run.aclose()


async def test_d2_a_start_that_is_cancelled_leaves_a_run_that_starts_again(
    bucket: str, proxy: Proxy, s3_server: S3Server, no_pauses: None
) -> None:
    """A session whose caller has gone would go on holding what it knows, and lead the next astray."""
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        deadlines = Deadlines(client)
        storage = RemoteStorage(client, prefix=PREFIX)
        proxy.script(SILENT)

        async def open_and_close() -> None:
            async with await start(storage, "run-1"):
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(open_and_close)
            await until_held(proxy)
            group.cancel_scope.cancel()
            deadlines.expire()
        assert raw_journal(s3_server, bucket, "run-1").count(b"\n") == 1
        async with await start(storage, "run-1") as run:
            assert run.session == 2
            await run.record("one", lambda: 1)
            await run.complete()


async def test_a_put_is_heard_out_whoever_cancels_it(
    bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """Under trio the put would go on alone in its thread, and land whenever it liked."""
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        deadlines = Deadlines(client)
        heard: list[StorageError] = []
        proxy.script(SILENT)

        async def put() -> None:
            try:
                await client.put_object("k", b"1", None)
            except StorageError as error:
                heard.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(put)
            await until_held(proxy)
            group.cancel_scope.cancel()
            deadlines.expire()
        assert len(heard) == 1
        assert not heard[0].rolled_back


async def test_a_cancelled_read_lets_go_at_once(
    bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A read decides nothing: waiting a whole deadline for it would only hold up the exit."""
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url, timeout=600) as client:
        proxy.script(SILENT, method="GET")
        async with anyio.create_task_group() as group:
            group.start_soon(start, RemoteStorage(client), "run-1")
            await until_held(proxy)
            group.cancel_scope.cancel()
        proxy.held.clear()
        proxy.script(SILENT, method="GET")
        listing = RemoteStorage(client).list_runs()
        async with anyio.create_task_group() as group:
            group.start_soon(anext, listing)  # type: ignore[arg-type]
            await until_held(proxy)
            group.cancel_scope.cancel()
        assert await client.get_object("k") is None, "the client is as good as before"


PROCESS = """
import sys, threading, anyio
from kassette_io import RemoteStorage, S3ObjectStoreClient, start

backend, bucket, url, closes = sys.argv[1:]

async def main():
    client = S3ObjectStoreClient(bucket, endpoint_url=url, timeout=1)
    storage = RemoteStorage(client, prefix="runs")
    try:
        run = await start(storage, "run-1")
        async with anyio.create_task_group() as group:
            group.start_soon(run.record, "one", lambda: 1)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            group.cancel_scope.cancel()
        await run.aclose()
    finally:
        if closes == "closes":
            await storage.aclose()
    print([t.name for t in threading.enumerate() if t.name.startswith("kassette")])

anyio.run(main, backend=backend)
"""


def test_a_process_that_cancels_a_put_ends_cleanly(
    bucket: str, proxy: Proxy, atomic_server: S3Server, anyio_backend: str
) -> None:
    """A thread or a task left behind keeps the process, or complains on standard error."""
    proxy.script(Fault(), SILENT)
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROCESS, anyio_backend, bucket, proxy.url, "closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert proxy.held.wait(60)
        output, errors = process.communicate("\n", timeout=30)
    assert (process.returncode, output) == (0, "[]\n")
    assert "Unclosed" not in errors
    assert "kassette" not in errors, errors
    assert step_ids(journal(atomic_server, bucket, "run-1")) == ["one"]


def test_a_process_that_forgets_to_close_ends_all_the_same(
    bucket: str, proxy: Proxy, atomic_server: S3Server, anyio_backend: str
) -> None:
    """The background loop of trio must not outlive the program."""
    proxy.script(Fault(), SILENT)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, anyio_backend, bucket, proxy.url, "forgets"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert proxy.held.wait(60)
        process.communicate("\n", timeout=30)
    assert process.returncode == 0
