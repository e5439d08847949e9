"""The three operations against real servers, and what one put is on the wire."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import AsyncExitStack

import anyio
import pytest

from kassette import PreconditionFailedError, StorageError, UsageError
from kassette_io import RemoteStorage, S3ObjectStoreClient

from .conftest import SHORT
from .proxy import (
    CLOSED_BEFORE,
    ERROR_AFTER,
    LOST,
    LOST_BY_RESET,
    RESENT,
    RESET_BEFORE,
    SILENT,
    SLOW_DOWN,
    TRUNCATED,
    Proxy,
    refusal,
)
from .servers import S3Server

pytestmark = pytest.mark.anyio

UNCLEAR = {
    "closed": LOST,
    "reset": LOST_BY_RESET,
    "500 after": ERROR_AFTER,
    "closed before": CLOSED_BEFORE,
    "reset before": RESET_BEFORE,
    "silent": SILENT,
    "503": SLOW_DOWN,
    "429": refusal(429, "TooManyRequests"),
    "408": refusal(408, "RequestTimeout"),
    "400 that passes": refusal(400, "RequestTimeout"),
}


async def test_get_gives_what_put_wrote_and_its_etag_without_quotes(
    client: S3ObjectStoreClient, s3_server: S3Server
) -> None:
    """An etag in quotes would be refused as If-Match by some stores; another one by all."""
    etag = await client.put_object("a/b", b"one\n\x00\xff", None)
    found = await client.get_object("a/b")
    assert found is not None
    assert (found.content, found.etag) == (b"one\n\x00\xff", etag)
    assert etag
    assert '"' not in etag


async def test_a_missing_key_is_none(client: S3ObjectStoreClient, s3_server: S3Server) -> None:
    """A new run would fail instead of beginning."""
    assert await client.get_object("nothing/here") is None


async def test_both_conditions_are_put_and_refused_as_one_error(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server
) -> None:
    """A stale or second writer would overwrite a journal; 412, 409 and 404 must read alike."""
    etag = await client.put_object("k", b"1", None)
    with pytest.raises(PreconditionFailedError):
        await client.put_object("k", b"2", None)
    second = await client.put_object("k", b"2", etag)
    with pytest.raises(PreconditionFailedError):
        await client.put_object("k", b"3", etag)
    with pytest.raises(PreconditionFailedError):
        await client.put_object("missing", b"3", second)
    conditions = [
        (each.headers.get("if-none-match"), each.headers.get("if-match")) for each in proxy.seen
    ]
    assert conditions == [("*", None), ("*", None), (None, etag), (None, etag), (None, second)]
    found = await client.get_object("k")
    assert found is not None
    assert found.content == b"2"


async def test_what_counts_as_a_refused_condition(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """The status decides, and where a provider sends another one, its code."""
    for status, code in (
        (412, "PreconditionFailed"),
        (409, "ConditionalRequestConflict"),
        (404, "NoSuchKey"),
        (412, "Unheard"),
        (400, "PreconditionFailed"),
        (404, "404"),
    ):
        proxy.script(refusal(status, code))
        with pytest.raises(PreconditionFailedError):
            await client.put_object("k", b"1", "0" * 32)


async def test_d5_an_unclear_put_is_sent_once_and_claims_nothing(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A put repeated below us comes back as a false 412; one called certain would be lost."""
    for name, fault in UNCLEAR.items():
        proxy.forget()
        proxy.script(fault)
        with pytest.raises(StorageError) as caught:
            await client.put_object(f"k {name}", b"1", None)
        assert not caught.value.rolled_back, name
        assert proxy.methods() == ["PUT"], name


async def test_a_clear_refusal_is_certain(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A session would be given up although nothing was written and the step may be tried again."""
    proxy.script(refusal(403, "AccessDenied"))
    with pytest.raises(StorageError) as caught:
        await client.put_object("k", b"1", None)
    assert caught.value.rolled_back


async def test_no_put_waits_for_100_continue(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """aiohttp waits for that answer for ever."""
    await client.put_object("k", b"1" * 5000, None)
    assert "expect" not in proxy.seen[0].headers
    assert "aws-chunked" not in proxy.seen[0].headers.get("content-encoding", "")


@pytest.mark.parametrize("kind", ["aiobotocore", "botocore"])
async def test_d5_a_config_of_the_users_does_not_bring_the_repeats_back(
    bucket: str, proxy: Proxy, atomic_server: S3Server, kind: str
) -> None:
    """Merging configurations loses the HTTP session class, and with it the one switch there is."""
    from aiobotocore.config import AioConfig
    from botocore.config import Config

    made = AioConfig if kind == "aiobotocore" else Config
    config = made(retries={"max_attempts": 5}, user_agent_extra="mine/1", read_timeout=SHORT)
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url, config=config) as client:
        for fault in (LOST, LOST_BY_RESET, ERROR_AFTER, SILENT):
            proxy.forget()
            proxy.script(fault)
            with pytest.raises(StorageError):
                await client.put_object(f"k{fault}", b"1", None)
            assert proxy.methods() == ["PUT"]
            assert "mine/1" in proxy.seen[0].headers["user-agent"]


async def test_reading_is_repeated_while_the_store_is_unwell(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server, no_pauses: None
) -> None:
    """One lost answer would stop a run from opening although nothing is at stake."""
    await client.put_object("a/k", b"0123456789", None)
    for fault in (LOST, LOST_BY_RESET, ERROR_AFTER, SLOW_DOWN, TRUNCATED):
        proxy.forget()
        proxy.script(fault, fault, method="GET")
        found = await client.get_object("a/k")
        assert found is not None
        assert found.content == b"0123456789"
        proxy.script(fault, method="GET")
        assert [name async for name in client.list_prefixes("")] == ["a"]
        assert proxy.count("GET") == 5


async def test_reading_gives_up_with_a_clear_error(
    client: S3ObjectStoreClient, bucket: str, proxy: Proxy, atomic_server: S3Server, no_pauses: None
) -> None:
    """Half a journal would be taken for a whole one, or a raw aiohttp error would escape."""
    await client.put_object("a/k", b"0123456789", None)
    for fault in (TRUNCATED, SLOW_DOWN, LOST):
        proxy.script(*[fault] * 4, method="GET")
        with pytest.raises(StorageError, match=f"read a/k in bucket '{bucket}' at {proxy.url}"):
            await client.get_object("a/k")
        assert proxy.unused() == 0


async def test_reading_has_a_deadline_and_a_refusal_is_not_repeated(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A store that never answers would hang the workflow; one that says no would be asked again."""
    proxy.script(SILENT, SILENT, SILENT, SILENT, method="GET")
    with pytest.raises(StorageError, match=r"no answer within|timeout"):
        await client.get_object("k")
    proxy.forget()
    proxy.script(refusal(403, "AccessDenied"), method="GET")
    with pytest.raises(StorageError, match="AccessDenied"):
        await client.get_object("k")
    assert proxy.methods() == ["GET"]


async def test_listing_is_paged_and_starts_with_the_first_page(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server
) -> None:
    """A bucket of many runs would be read to its end before the first is shown, or cut off."""
    names = [f"run-{number:02}" for number in range(7)] + ["z:a@b+c"]
    for name in names:
        await client.put_object(f"runs/{name}/journal.jsonl", b"1", None)
    await client.put_object("runs/stray.txt", b"1", None)
    await client.put_object("elsewhere/run/journal.jsonl", b"1", None)
    proxy.forget()
    proxy.page_size = 3
    listing = RemoteStorage(client, prefix="/runs/").list_runs()
    assert await anext(listing) == "run-00"
    assert proxy.count("GET") == 1
    assert [name async for name in listing] == names[1:]
    assert proxy.count("GET") == 3


async def test_check_accepts_a_real_store_and_leaves_nothing(
    client: S3ObjectStoreClient, bucket: str, s3_server: S3Server
) -> None:
    """A good store would be turned away, or every check would leave an object behind."""
    await RemoteStorage(client, prefix="runs").check()
    _, listing = s3_server.ask("GET", f"/{bucket}?list-type=2")
    assert b"<Key>" not in listing


@pytest.mark.parametrize(
    ("drops", "says"),
    [
        ({"if-match"}, "stale `If-Match`"),
        ({"if-none-match"}, "`If-None-Match: \\*`"),
        ({"if-match", "if-none-match"}, "`If-None-Match: \\*`.*stale `If-Match`"),
    ],
    ids=["if-match", "if-none-match", "both"],
)
async def test_check_names_the_condition_that_a_store_ignores(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server, drops: set[str], says: str
) -> None:
    """A store that ignores conditions in silence loses entries."""
    proxy.drops = frozenset(drops)
    with pytest.raises(StorageError, match=says):
        await RemoteStorage(client).check()


async def test_the_users_own_client_is_used_and_left_open(
    bucket: str, proxy: Proxy, atomic_server: S3Server, anyio_backend: str
) -> None:
    """It would be closed under its owner; or hang, used from trio where it cannot work."""
    if anyio_backend == "trio":
        client = S3ObjectStoreClient(bucket, client=object())
        with pytest.raises(UsageError, match="under trio"):
            await client.get_object("k")
        await client.aclose()
        return
    import aioboto3

    async with aioboto3.Session().client("s3", endpoint_url=proxy.url) as own:
        async with S3ObjectStoreClient(bucket, client=own) as client:
            await client.put_object("k", b"1", None)
        assert (await own.head_object(Bucket=bucket, Key="k"))["ContentLength"] == 1
        proxy.script(refusal(403, "AccessDenied"))
        with pytest.raises(StorageError, match=f"at {proxy.url}") as caught:
            await S3ObjectStoreClient(bucket, client=own).put_object("k2", b"1", None)
        assert caught.value.rolled_back
        proxy.script(ERROR_AFTER, refusal(403, "ExpiredToken"))
        with pytest.raises(StorageError) as caught:
            await S3ObjectStoreClient(bucket, client=own).put_object("k3", b"1", None)
        assert not caught.value.rolled_back, "the attempt before had landed"


async def test_d5_a_412_that_the_users_client_has_made_by_itself_is_found_out(
    bucket: str, proxy: Proxy, atomic_server: S3Server, anyio_backend: str
) -> None:
    """The SDK's own second attempt is refused by what the first one wrote: a false conflict."""
    async with AsyncExitStack() as stack:
        if anyio_backend == "trio":
            proxy.script(RESENT)
            client = S3ObjectStoreClient(bucket, endpoint_url=proxy.url)
        else:
            import aioboto3

            proxy.script(LOST)
            own = aioboto3.Session().client("s3", endpoint_url=proxy.url)
            client = S3ObjectStoreClient(bucket, client=await stack.enter_async_context(own))
        await stack.enter_async_context(client)
        with pytest.raises(PreconditionFailedError):
            await client.put_object("k", b"1", None)
    assert atomic_server.ask("GET", f"/{bucket}/k") == (200, b"1")


async def test_d16_a_closed_client_leaves_no_thread_and_opens_again(
    bucket: str, atomic_server: S3Server
) -> None:
    """Every storage would leave a thread and its connections behind."""
    before = set(threading.enumerate())
    client = S3ObjectStoreClient(bucket, endpoint_url=atomic_server.url)
    for number in range(2):
        async with client:
            await client.put_object(f"k{number}", b"1", None)
        assert {each for each in threading.enumerate() if "kassette" in each.name} <= before


NEXT_LOOP = """
import sys, anyio
from kassette_io import S3ObjectStoreClient

async def use(client):
    assert await client.get_object("k") is None

async def use_and_close(client):
    async with client:
        await use(client)

for first in ("asyncio", "trio"):
    for then in ("asyncio", "trio"):
        client = S3ObjectStoreClient(sys.argv[1], endpoint_url=sys.argv[2])
        anyio.run(use, client, backend=first)
        anyio.run(use_and_close, client, backend=then)
print("done")
"""


def test_a_client_follows_its_program_to_the_next_loop(
    bucket: str, atomic_server: S3Server
) -> None:
    """A script that calls ``run`` twice would be told that the storage is in use elsewhere.

    In a process of its own: what the first loop never closed lives as long as that.
    """
    done = subprocess.run(
        [sys.executable, "-c", NEXT_LOOP, bucket, atomic_server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


async def test_a_client_in_use_refuses_another_loop(
    client: S3ObjectStoreClient, atomic_server: S3Server
) -> None:
    """Connections would be used from two loops, and hang or break at random."""
    await client.get_object("k")

    def elsewhere() -> None:
        with pytest.raises(UsageError, match="another event loop"):
            anyio.run(client.get_object, "k")

    await anyio.to_thread.run_sync(elsewhere)
