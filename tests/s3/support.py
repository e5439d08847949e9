"""What the tests share: a look at a journal past all clients, a small workflow, retrying callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import quote

from kassette import Entry, StepEntry, decode_journal
from kassette_io import RemoteStorage, S3ObjectStoreClient

from .servers import S3Server

PREFIX = "runs"


def raw_journal(server: S3Server, bucket: str, run_id: str, prefix: str = PREFIX) -> bytes:
    """Give the object as the server has it, past every client; nothing if it is not there."""
    status, body = server.ask("GET", f"/{bucket}/{prefix}/{quote(run_id)}/journal.jsonl")
    assert status in (200, 404), body
    return body if status == 200 else b""


def journal(server: S3Server, bucket: str, run_id: str) -> list[Entry]:
    """Give the journal's entries; its offsets are contiguous, or reading it raises."""
    return decode_journal(raw_journal(server, bucket, run_id)).entries


def types(entries: list[Entry]) -> list[str]:
    return [entry.type for entry in entries]


def step_ids(entries: list[Entry]) -> list[str]:
    return [entry.step_id for entry in entries if isinstance(entry, StepEntry)]


class Deadlines:
    """The deadlines of a client's requests, which pass when a test says so and no sooner.

    So a test of what comes after a silence needs no guess of how long everything else may take.
    """

    def __init__(self, client: S3ObjectStoreClient) -> None:
        self._live: list[tuple[asyncio.AbstractEventLoop, asyncio.Timeout]] = []
        client._deadline = self._make  # type: ignore[method-assign]

    def _make(self) -> asyncio.Timeout:
        made = asyncio.timeout(None)
        self._live.append((asyncio.get_running_loop(), made))
        return made

    def moved(self) -> list[bool]:
        """Tell of each request since the last call of ``expire`` whether its deadline was moved."""
        return [each.when() is not None for _, each in self._live]

    def expire(self) -> None:
        """Let the deadline of every request that is under way pass. From any thread."""
        live, self._live = self._live, []
        for loop, each in live:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_expire, each)


def _expire(deadline: asyncio.Timeout) -> None:
    with suppress(RuntimeError):  # the request is over
        deadline.reschedule(0.0)


class Counted:
    """A step's side effect: how often it has happened under each name."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def __call__(self, name: str) -> dict[str, object]:
        self.calls[name] = self.calls.get(name, 0) + 1
        return {"name": name, "call": self.calls[name]}


async def until_done(
    attempt: Callable[[], Awaitable[None]], errors: tuple[type[BaseException], ...], limit: int = 60
) -> list[BaseException]:
    """Call ``attempt`` until it returns; give the errors that it raised before."""
    raised: list[BaseException] = []
    for _ in range(limit):
        try:
            await attempt()
        except errors as error:
            raised.append(error)
        else:
            return raised
    raise AssertionError(f"not done after {limit} attempts; last: {raised[-1]!r}")


class S3World:
    """A bucket; every ``open`` is what another process would hold of it, but for the client."""

    kind = "remote"

    def __init__(self, server: S3Server, bucket: str) -> None:
        self._client = S3ObjectStoreClient(bucket, endpoint_url=server.url)

    def open(self) -> RemoteStorage:
        """Give a storage of its own over the bucket."""
        return RemoteStorage(self._client, prefix="prod")

    async def aclose(self) -> None:
        """Close the client that all storages share."""
        await self._client.aclose()
