"""Workflows over S3 from end to end, and what a run costs in requests at the server."""

from __future__ import annotations

from functools import partial

import pytest

from kassette import Entry, StepEntry
from kassette_io import (
    Context,
    RemoteStorage,
    S3ObjectStoreClient,
    Success,
    Suspended,
    TerminalRunError,
    fork,
    start,
    workflow,
)

from .proxy import Proxy
from .servers import S3Server
from .support import PREFIX, Counted, journal, step_ids, types

pytestmark = pytest.mark.anyio


async def test_a_run_suspends_here_and_goes_on_elsewhere(bucket: str, s3_server: S3Server) -> None:
    """The purpose of it all: what was done on one machine is not done again on the next."""
    effects = Counted()

    async def part(key: str, branch: Context) -> object:
        return await branch.step("part", effects, key)

    async def review(context: Context, ticket: dict[str, str]) -> dict[str, object]:
        draft = await context.step("draft", effects, "draft")
        parts = await context.parallel({key: partial(part, key) for key in ("a", "b")})
        verdict = await context.suspend("approval", timeout=3600)
        sent = await context.step("send", effects, "send")
        return {"ticket": ticket, "draft": draft, "parts": parts, "verdict": verdict, "sent": sent}

    async with S3ObjectStoreClient(bucket, endpoint_url=s3_server.url) as one:
        first = workflow(review, storage=RemoteStorage(one, prefix=PREFIX))
        assert await first.start({"id": "t-1"}, run_id="run-1") == Suspended("approval", "run-1")
    async with S3ObjectStoreClient(bucket, endpoint_url=s3_server.url) as two:
        second = workflow(review, storage=RemoteStorage(two, prefix=PREFIX))
        outcome = await second.resume("run-1", "approval", "yes")
        assert isinstance(outcome, Success)
        assert outcome.result["verdict"] == "yes"
        assert outcome.result["ticket"] == {"id": "t-1"}
        with pytest.raises(TerminalRunError):
            await second.start(run_id="run-1")
    assert effects.calls == {"draft": 1, "a": 1, "b": 1, "send": 1}
    entries = journal(s3_server, bucket, "run-1")
    assert sorted(step_ids(entries)) == ["a:part", "b:part", "draft", "send"]
    assert types(entries)[4:] == ["suspend", "start", "resume", "step", "complete"]


async def test_d12_a_fork_is_one_put(
    storage: RemoteStorage, bucket: str, proxy: Proxy, s3_server: S3Server
) -> None:
    """A crash in the middle of a fork would leave half a journal under the new name."""
    async with await start(storage, "run-1") as run:
        for _ in range(3):
            await run.record("step", lambda: 1)
    proxy.forget()
    async with await fork(storage, "run-2", source="run-1", from_step_id="step#3") as forked:
        assert proxy.methods() == ["GET", "PUT"]
        assert await forked.record("step", lambda: 2) == 1
        await forked.record("step", lambda: 2)
        assert await forked.record("step", lambda: 3) == 3
    assert proxy.methods() == ["GET", "PUT", "PUT"]
    assert len(step_ids(journal(s3_server, bucket, "run-1"))) == 3


async def test_d6_one_put_a_step_one_get_an_opening_nothing_else(
    client: S3ObjectStoreClient, proxy: Proxy, s3_server: S3Server
) -> None:
    """The original needs two round trips a step; requests are what object storage bills."""
    for session in range(3):
        run = await start(RemoteStorage(client, prefix=PREFIX), "run-1")
        assert proxy.methods() == ["GET", "PUT"], f"opening session {session + 1}"
        for number in range(10 * session):
            await run.record("step", lambda number=number: number)
        assert proxy.methods() == ["GET", "PUT"], "replay asks nobody"
        for number in range(10):
            await run.record("step", lambda number=number: number)
        assert proxy.methods() == ["GET", "PUT"] + ["PUT"] * 10
        if session == 2:
            await run.complete()
            assert proxy.methods()[12:] == ["PUT"]
        await run.aclose()
        assert len(proxy.seen) == 12 + (session == 2), "closing asks nobody"
        proxy.forget()


async def test_d6_one_storage_object_costs_the_same_for_a_second_session(
    storage: RemoteStorage, proxy: Proxy, s3_server: S3Server
) -> None:
    """What the first session knew must be dropped or right, neither read again nor gone stale."""
    for _ in range(2):
        async with await start(storage, "run-1") as run:
            await run.record("a", lambda: 1)
            await run.record("b", lambda: 2)
    assert proxy.methods() == ["GET", "PUT", "PUT", "PUT", "GET", "PUT"]


async def test_d6_waiting_appends_of_a_parallel_block_share_puts(
    storage: RemoteStorage, bucket: str, proxy: Proxy, s3_server: S3Server
) -> None:
    """Twenty branches that finish together would cost twenty round trips, one after another."""

    async def many(context: Context) -> int:
        results = await context.parallel(
            {f"b{key}": lambda branch: branch.step("s", lambda: 1) for key in range(20)}
        )
        return sum(results.values())

    outcome = await workflow(many, storage=storage).start(run_id="run-1")
    assert outcome == Success(20, "run-1")
    assert len(step_ids(journal(s3_server, bucket, "run-1"))) == 20
    assert proxy.count("GET") == 1
    assert proxy.count("PUT") <= 1 + 2 + 1, "the first alone, the others together"


async def test_what_lies_in_the_bucket_is_the_reference_format(
    storage: RemoteStorage, bucket: str, s3_server: S3Server
) -> None:
    """D9, D11: another implementation could not go on with the run."""
    async with await start(storage, "run:1@x+y", metadata={"a": 1}) as run:
        await run.record("tool", lambda: "ü")
    status, body = s3_server.ask("GET", f"/{bucket}/{PREFIX}/run%3A1%40x%2By/journal.jsonl")
    assert status == 200
    lines = body.decode().split("\n")
    assert lines[0].startswith('{"type":"start","session":1,"offset":0,"timestamp":"')
    assert '"stepId":"tool"' in lines[1]
    assert '"ü"' in lines[1]
    assert lines[2:] == [""]
    entries: list[Entry] = await storage.read_all("run:1@x+y")
    assert isinstance(entries[1], StepEntry)
    assert [name async for name in storage.list_runs()] == ["run:1@x+y"]
