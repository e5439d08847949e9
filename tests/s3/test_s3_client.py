"""The three operations against real servers, and what one put is on the wire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from types import SimpleNamespace

import anyio
import pytest

from kassette import PreconditionFailedError, StorageError, UsageError
from kassette_io import RemoteStorage, S3ObjectStoreClient

from .conftest import SHORT
from .proxy import (
    BARE_404,
    BROKEN_PAGE_404,
    CLOSED_BEFORE,
    CUT_AT_A_LINE,
    CUT_IN_CHUNKS,
    ERROR_AFTER,
    LOST,
    LOST_BY_RESET,
    PAGE_404,
    RESENT,
    RESET_BEFORE,
    SILENT,
    SLOW_DOWN,
    TRUNCATED,
    UNMEASURED,
    Fault,
    Proxy,
    refusal,
)
from .servers import S3Server
from .support import Deadlines

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
    "400 on a bad line": refusal(400, "IncompleteBody"),
    "404 without a body": BARE_404,
    "404 of a web server": PAGE_404,
    "404 of a broken web server": BROKEN_PAGE_404,
    "403 of a gateway": Fault(
        forwards=0, raw=b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    ),
    "200 of somebody else": Fault(
        forwards=0, raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    ),
}
NOT_THE_STORE = {name: each for name, each in UNCLEAR.items() if each.raw is not None}
BARE_409 = Fault(forwards=0, raw=b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
BARE_412 = Fault(forwards=0, raw=b"HTTP/1.1 412 Oh\r\nContent-Length: 0\r\n\r\n")


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
    """The status decides, and where a provider sends another one, its code.

    A 409 of a store with a code of its own, or none, would be a failure: the session would end.
    """
    for fault in (
        refusal(412, "PreconditionFailed"),
        refusal(409, "ConditionalRequestConflict"),
        refusal(404, "NoSuchKey"),
        refusal(412, "Unheard"),
        refusal(409, "OperationAborted"),
        refusal(400, "PreconditionFailed"),
        BARE_409,
        BARE_412,
    ):
        proxy.script(fault)
        with pytest.raises(PreconditionFailedError):
            await client.put_object("k", b"1", "0" * 32)
        assert proxy.unused() == 0


async def test_d5_an_unclear_put_is_sent_once_and_claims_nothing(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server, impatient: Deadlines
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
    config = made(retries={"max_attempts": 5}, user_agent_extra="mine/1")
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url, config=config) as client:
        proxy.on_hold.append(Deadlines(client).expire)
        for fault in (LOST, LOST_BY_RESET, ERROR_AFTER, SILENT):
            proxy.forget()
            proxy.script(fault)
            with pytest.raises(StorageError):
                await client.put_object(f"k{fault}", b"1", None)
            assert proxy.methods() == ["PUT"]
            assert "mine/1" in proxy.seen[0].headers["user-agent"]


async def test_a_get_is_one_request_and_what_may_pass_is_told_from_what_may_not(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    atomic_server: S3Server,
    impatient: Deadlines,
) -> None:
    """Half a journal would be taken for a whole one, or whoever repeats it would ask for ever."""
    await client.put_object("a/k", b"0123456789\n" * 9, None)
    for name, fault in {**UNCLEAR, "truncated": TRUNCATED}.items():
        proxy.forget()
        proxy.script(fault, method="GET")
        with pytest.raises(
            StorageError, match=f"read a/k in bucket '{bucket}' at {proxy.url}"
        ) as caught:
            await client.get_object("a/k")
        assert not caught.value.rolled_back, name
        assert proxy.methods() == ["GET"], name
    proxy.forget()
    proxy.script(refusal(403, "AccessDenied"), method="GET")
    with pytest.raises(StorageError, match="AccessDenied") as caught:
        await client.get_object("a/k")
    assert caught.value.rolled_back


async def test_only_the_store_itself_says_that_there_is_no_object(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server
) -> None:
    """A completed run would be unsettled while a gateway answers 404, and be started anew."""
    assert await client.get_object("nothing/here") is None
    await client.put_object("k", b"1\n", None)
    for fault in NOT_THE_STORE.values():
        proxy.script(fault, method="GET")
        with pytest.raises(StorageError):
            await client.get_object("k")
    proxy.script(refusal(404, "NoSuchKey"), method="GET")
    assert await client.get_object("k") is None


@pytest.mark.parametrize("fault", [CUT_AT_A_LINE, CUT_IN_CHUNKS], ids=["closed", "chunked"])
async def test_a_body_without_a_length_is_measured(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server, fault: Fault
) -> None:
    """Acknowledged entries would be overwritten: the etag of what was cut off is the right one."""
    body = b"first\nsecond\n"
    await client.put_object("k", body, None)
    for _ in range(2):
        proxy.script(fault, method="GET")
        with pytest.raises(StorageError, match=f"at {proxy.url}: received 6 of 13 bytes") as caught:
            await client.get_object("k")
        assert not caught.value.rolled_back
    proxy.forget()
    proxy.script(UNMEASURED, method="GET")
    found = await client.get_object("k")
    assert found is not None
    assert found.content == body
    assert proxy.methods() == ["GET"], "the etag is an MD5, and that tells enough"


ETAG = {"quoted": b'"not-an-md5"', "another": b'"another"'}


def answer(length: int | None, body: bytes, etag: bytes = ETAG["quoted"]) -> Fault:
    """Script an answer of a store whose etags are no MD5."""
    lines = [b"HTTP/1.1 200 OK", b"ETag: " + etag]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return Fault(
        forwards=0,
        raw=b"\r\n".join([*lines, b"", body]),
        then="answer" if length is not None else "unmeasured",
    )


async def test_where_the_etag_is_no_md5_a_head_tells_the_length(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """Stores that encrypt have other etags; a body of theirs would never be believed, or always."""
    for head, whole in (
        (answer(4, b""), True),
        (answer(9, b""), False),
        (answer(4, b"", ETAG["another"]), False),
        (answer(None, b""), False),
    ):
        proxy.forget()
        proxy.script(answer(None, b"1\n2\n"), method="GET")
        proxy.script(head, method="HEAD")
        if whole:
            found = await client.get_object("k")
            assert found is not None
            assert (found.content, found.etag) == (b"1\n2\n", "not-an-md5")
        else:
            with pytest.raises(StorageError, match=r"received 4 of 9|without a length"):
                await client.get_object("k")
        assert proxy.methods() == ["GET", "HEAD"]


async def test_a_silent_store_is_given_up_after_the_timeout(
    bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A store that takes a request and never answers would hang the workflow."""
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url, timeout=SHORT) as hasty:
        proxy.script(*[SILENT] * 9, method="GET")
        with pytest.raises(StorageError, match=r"no answer and no progress for 0\.5 s"):
            await hasty.get_object("k")
        proxy.script(*[SILENT] * 9)
        with pytest.raises(StorageError, match=r"no progress for 0\.5 s; the upload has 3 bytes"):
            await hasty.put_object("k", b"123", None)


async def test_an_upload_that_goes_on_is_not_given_up(
    client: S3ObjectStoreClient, bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A journal that takes longer to send than the timeout could never be appended to again."""
    body = b"0123456789abcde\n" * 2**17
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url, timeout=SHORT) as hasty:
        proxy.upload_takes = 3 * SHORT
        etag = await hasty.put_object("k", body, None)
    found = await client.get_object("k")
    assert found is not None
    assert (found.content, found.etag) == (body, etag)


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


async def test_only_prefixes_with_a_journal_are_runs_however_much_lies_beside_them(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server
) -> None:
    """A root that is one level too high would list its prefixes as runs, or read all that is there."""
    keys = ["r-1/journal.jsonl", "r-2/journal.jsonl", "s/journal.jsonl", "sü/journal.jsonl"]
    for number in range(20):
        keys += [f"prod/run-{number:02}/journal.jsonl", f"s/zz/{number:02}", f"s/a/{number:02}"]
    keys += ["r-1/journal.json", "r-1/journal.jsonl2", "prod0", "s0", "/journal.jsonl", "top"]
    for key in keys:
        await client.put_object(key, b"1", None)
    proxy.page_size = 3
    proxy.forget()
    found = [name async for name in client.list_prefixes_with("", "journal.jsonl")]
    assert found == ["r-1", "r-2", "s", "sü"]
    assert proxy.count("GET") == 5, "what lies below prod, s/a and s/zz is skipped"
    for number, last in enumerate(found):
        rest = client.list_prefixes_with("", "journal.jsonl", after=last)
        assert [name async for name in rest] == found[number + 1 :]
    assert [name async for name in RemoteStorage(client).list_runs()] == ["r-1", "r-2", "s"]
    below = RemoteStorage(client, prefix="prod").list_runs()
    assert len([name async for name in below]) == 20


async def test_a_listing_ends_where_a_store_knows_no_start_after(
    client: S3ObjectStoreClient, proxy: Proxy, atomic_server: S3Server
) -> None:
    """Skipping what is no run would begin anew for ever, or give runs twice."""
    for number in range(9):
        await client.put_object(f"a/{number}", b"1", None)
        await client.put_object(f"run-{number}/journal.jsonl", b"1", None)
    proxy.page_size = 2
    proxy.drops_query = frozenset({"start-after"})
    found = [name async for name in client.list_prefixes_with("", "journal.jsonl")]
    assert found == [f"run-{number}" for number in range(9)]
    rest = client.list_prefixes_with("", "journal.jsonl", after="run-6")
    assert [name async for name in rest] == ["run-7", "run-8"]


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


async def test_a_412_that_the_users_client_has_made_by_itself_is_found_out(
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


async def test_a_client_that_is_closed_while_it_opens_is_not_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing a storage beside the first request of another would leak the client."""
    opens, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    async def open_slowly(stack: AsyncExitStack, *_: object, **__: object) -> object:
        opens.set()
        await asyncio.to_thread(go_on.wait, 60)
        stack.callback(closed.set)
        return SimpleNamespace(meta=SimpleNamespace(endpoint_url="http://nowhere"))

    monkeypatch.setattr("kassette_io.storages.s3_client.open_client", open_slowly)
    client = S3ObjectStoreClient("bucket")

    async def use() -> None:
        with pytest.raises(StorageError):
            await client.get_object("k")

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        assert await anyio.to_thread.run_sync(opens.wait, 60)
        group.start_soon(client.aclose)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert closed.is_set()


async def test_a_download_that_goes_on_is_not_given_up(
    client: S3ObjectStoreClient, atomic_server: S3Server
) -> None:
    """A journal that takes longer to come than the timeout could never be opened again."""
    await client.put_object("k", b"1\n", None)
    deadlines = Deadlines(client)
    await client.get_object("k")
    assert deadlines.moved() == [True]


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
