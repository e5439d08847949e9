"""Journals as objects of a store, ``{prefix}/{run_id}/journal.jsonl``, each replaced as a whole.

Every decision is ``kassette.object_append``'s; here its gets and puts are performed.

Rules:
- One task serves a run at a time. Appends that wait meanwhile go out together in one put (D6).
- That task is nobody's child: cancelling a caller never breaks off a put. The caller waits until
  its append is settled, then feels the cancellation (D2).
- A loop may be closed by hand in the middle of a put. Who then appends begins with a new writer.
- What a session's writer knows of its object is kept until the session ends; what a read has found
  is used by the session opened next, so that opening costs one get.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from random import random
from types import TracebackType
from typing import Any, Final, Self, cast, final

import anyio

from kassette import (
    Entry,
    JournalCorruptionError,
    KassetteError,
    PreconditionFailedError,
    StartEntry,
    StorageError,
    check_run_id,
    decode_journal,
    is_run_id,
)
from kassette.errors import with_run_id
from kassette.object_append import (
    AppendCommand,
    AppendEntries,
    Found,
    GetFailed,
    GetObject,
    NotFound,
    ObjectWriter,
    PutDenied,
    PutDone,
    PutObject,
    PutRefused,
    PutUnclear,
    Settled,
)
from kassette_io._threads import Job
from kassette_io._waiting import perform, spawn
from kassette_io.object_store import GetObjectResult, ObjectStoreClient

_JOURNAL: Final = "journal.jsonl"
_MISSING: Final = ".missing"
_REMEMBERED_READS: Final = 1024
_REMEMBERED_BYTES: Final = 32 * 2**20


@final
class _Writer:
    """One run's writer, the jobs that wait for it, and the loop that serves them, if any does.

    ``session`` is the one that it is kept for; ``left`` was given up before its ``start`` landed.
    """

    __slots__ = ("jobs", "left", "object", "served_on", "session")

    def __init__(self, run_id: str) -> None:
        self.object = ObjectWriter(run_id)
        self.jobs: list[Job] = []
        self.served_on: object = None
        self.session: int | None = None
        self.left: int | None = None


@final
class RemoteStorage:
    """Keeps journals in an object store that honours conditional puts, such as S3.

    ``prefix`` is put before every key. Use one ``RemoteStorage`` from one event loop at a time;
    ``async with`` (or ``aclose``) closes its client.
    """

    def __init__(self, client: ObjectStoreClient, *, prefix: str = "") -> None:
        self._client = client
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._writers: dict[str, _Writer] = {}
        self._read: OrderedDict[str, GetObjectResult | None] = OrderedDict()

    def __repr__(self) -> str:
        return f"RemoteStorage({self._client!r}, prefix={self._prefix!r})"

    async def append(self, run_id: str, entry: Entry) -> int:
        """See ``Storage.append``. One put, if nobody else has written since the last."""
        return await self.append_all(run_id, [entry])

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """See ``BatchStorage.append_all``. One put, as for one entry."""
        check_run_id(run_id)
        return int(await self._perform(run_id, AppendEntries(tuple(entries))))

    async def read_all(self, run_id: str) -> list[Entry]:
        """See ``Storage.read_all``. One get."""
        key = self._key(check_run_id(run_id))
        try:
            found = await self._client.get_object(key)
        except KassetteError as error:
            raise with_run_id(error, run_id) from error.__cause__
        except Exception as error:
            raise StorageError(f"cannot read {key}: {error!r}", run_id=run_id) from error
        try:
            entries = decode_journal(b"" if found is None else found.content).entries
        except JournalCorruptionError as error:
            raise with_run_id(error, run_id) from error.__cause__
        self._remember(run_id, found)
        return entries

    def _remember(self, run_id: str, found: GetObjectResult | None) -> None:
        """Keep what a read has found, for as many openings at once as memory allows."""
        self._read[run_id] = found
        self._read.move_to_end(run_id)
        size = sum(len(each.content) for each in self._read.values() if each is not None)
        while len(self._read) > 1:
            if len(self._read) <= _REMEMBERED_READS and size <= _REMEMBERED_BYTES:
                break
            _, oldest = self._read.popitem(last=False)
            size -= 0 if oldest is None else len(oldest.content)

    async def list_runs(self) -> AsyncIterator[str]:
        """See ``Storage.list_runs``; page by page, in the store's order."""
        names = self._client.list_prefixes(self._prefix)
        try:
            async for name in names:
                if is_run_id(name):
                    yield name
        except KassetteError:
            raise
        except Exception as error:
            raise StorageError(f"cannot list the runs in {self!r}: {error!r}") from error
        finally:
            close = getattr(names, "aclose", None)
            if close is not None:
                await close()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """See ``SessionStorage.create``. One put."""
        check_run_id(run_id)
        await self._perform(run_id, AppendEntries(tuple(entries), create=True))

    async def release(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.release``; nothing is locked, the writer's copy is dropped."""
        self.abandon(run_id, session)

    def abandon(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.abandon``."""
        writer = self._writers.get(run_id)
        if writer is None:
            return
        writer.left = session
        if writer.session == session:
            writer.session = None
            self._drop_if_idle(run_id, writer)

    async def check(self) -> None:
        """Prove, with a scratch object, that the store keeps what journals rely on.

        Both conditions must be enforced, and a read must see the last write. A store that ignores
        conditions in silence would lose entries. Scratch objects are removed if the client has a
        ``delete_object``. Raises StorageError that names every promise the store breaks.
        """
        key = f"{self._prefix}.check/{os.urandom(8).hex()}"
        try:
            broken = await _broken_promises(self._client, key)
        except KassetteError:
            raise
        except Exception as error:
            raise StorageError(f"cannot check {self._client!r}: {error!r}") from error
        finally:
            await _remove(self._client, key, key + _MISSING)
        if broken:
            raise StorageError(
                f"{self._client!r} must not keep journals, entries would be lost: "
                + "; ".join(broken)
            )

    async def aclose(self) -> None:
        """Close the client, if it can be closed."""
        close = getattr(self._client, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _key(self, run_id: str) -> str:
        return f"{self._prefix}{run_id}/{_JOURNAL}"

    async def _perform(self, run_id: str, command: AppendEntries) -> Any:
        try:
            return await perform(partial(self._post, run_id), command)
        except GeneratorExit:  # nobody is told of the session that this may still open
            self.abandon(run_id, command.entries[-1].session)
            raise

    def _post(self, run_id: str, job: Job) -> None:
        writer = self._writers.get(run_id)
        if writer is None or writer.served_on not in (None, job.waker):
            writer = self._writers[run_id] = _Writer(run_id)
        writer.jobs.append(job)
        if writer.served_on is None:
            writer.served_on = job.waker
            spawn(self._serve, run_id, writer)

    async def _serve(self, run_id: str, writer: _Writer) -> None:
        """Settle what waits, batch by batch."""
        while writer.jobs:
            batch = _take_batch(writer.jobs)
            try:
                await self._settle(run_id, writer, batch)
            except BaseException as error:
                for job in batch:
                    job.error = error
            for job in batch:
                job.notify_here()
        writer.served_on = None
        self._drop_if_idle(run_id, writer)

    async def _settle(self, run_id: str, writer: _Writer, batch: list[Job]) -> None:
        requests = [cast("AppendEntries", job.request) for job in batch]
        entries = [entry for request in requests for entry in request.entries]
        create = requests[0].create
        if isinstance(entries[0], StartEntry) and run_id in self._read:
            if create and self._read[run_id] is not None:
                await self.read_all(run_id)  # what was there may have been deleted since
            known = self._read.pop(run_id)
            if not writer.object.known:
                writer.object.know(*((b"", None) if known is None else (known.content, known.etag)))
        outcomes = await self._append(run_id, writer.object, AppendEntries(entries, create=create))
        position = 0
        for job, request in zip(batch, requests, strict=True):
            mine = outcomes[position : position + len(request.entries)]
            position += len(mine)
            refused = next((each for each in mine if not isinstance(each, int)), None)
            if refused is not None:
                job.error = refused
            else:
                job.result = mine[0]
                last = request.entries[-1]
                opens = any(isinstance(entry, StartEntry) for entry in request.entries)
                if opens and last.session != writer.left:
                    writer.session = last.session

    async def _append(
        self, run_id: str, writer: ObjectWriter, command: AppendCommand
    ) -> list[int | KassetteError]:
        key = self._key(run_id)
        while True:
            match writer.handle(command):
                case Settled(outcomes=outcomes):
                    return outcomes
                case GetObject(pause=pause):
                    if pause:
                        await anyio.sleep(pause * random())
                    command = await self._get(key)
                case PutObject(body=body, etag=etag):
                    command = await self._put(key, body, etag)

    async def _get(self, key: str) -> AppendCommand:
        try:
            found = await self._client.get_object(key)
        except Exception as error:
            return GetFailed(error)
        return NotFound() if found is None else Found(found.content, found.etag)

    async def _put(self, key: str, body: bytes, etag: str | None) -> AppendCommand:
        try:
            return PutDone(await self._client.put_object(key, body, etag))
        except PreconditionFailedError:
            return PutRefused()
        except StorageError as error:
            return PutDenied(error) if error.rolled_back else PutUnclear(error)
        except Exception as error:
            return PutUnclear(error)

    def _drop_if_idle(self, run_id: str, writer: _Writer) -> None:
        idle = writer.session is None and writer.served_on is None
        if idle and self._writers.get(run_id) is writer:
            del self._writers[run_id]


async def _broken_promises(client: ObjectStoreClient, key: str) -> list[str]:
    """Try every promise on the object ``key``, which does not exist yet."""
    broken: list[str] = []
    stale = "a read did not see the write before it"
    await client.get_object(key)  # a cache in between would keep the answer
    etag = await _accepted(client, key, b"1", None)
    if etag is None:
        return ["it refused to create an object that was not there under `If-None-Match: *`"]
    if not _is(await client.get_object(key), b"1", etag):
        broken.append(stale)
    again = await _accepted(client, key, b"2", None)
    if again is not None:
        broken.append("it overwrote an object under `If-None-Match: *`")
    first = etag if again is None else again
    second = await _accepted(client, key, b"3", first)
    if second is None:
        broken.append("it refused under `If-Match` the etag that it had just given out")
    elif second == first:
        broken.append("it gave two versions of an object the same etag")
    elif not _is(await client.get_object(key), b"3", second) and stale not in broken:
        broken.append(stale)
    if second not in (None, first) and await _accepted(client, key, b"4", first) is not None:
        broken.append("it overwrote an object under a stale `If-Match`")
    if await _accepted(client, key + _MISSING, b"5", first) is not None:
        broken.append("it created an object under `If-Match`")
    return broken


def _is(found: GetObjectResult | None, content: bytes, etag: str) -> bool:
    return found is not None and found.content == content and found.etag == etag


async def _accepted(
    client: ObjectStoreClient, key: str, content: bytes, etag: str | None
) -> str | None:
    """Give the new etag, or None if the condition was refused."""
    try:
        return await client.put_object(key, content, etag)
    except PreconditionFailedError:
        return None


async def _remove(client: ObjectStoreClient, *keys: str) -> None:
    """Remove scratch objects, where the client can; one that stays does no harm."""
    delete = getattr(client, "delete_object", None)
    if delete is None:
        return
    with anyio.CancelScope(shield=True):
        for key in keys:
            try:
                await delete(key)
            except Exception as error:
                from logging import getLogger

                getLogger("kassette").warning("the scratch object %s stays: %s", key, error)


def _take_batch(jobs: list[Job]) -> list[Job]:
    """Take the jobs that can go out in one put: appends do, a new journal goes alone."""
    alone = [cast("AppendEntries", job.request).create for job in jobs]
    size = max(alone.index(True), 1) if True in alone else len(jobs)
    batch = jobs[:size]
    del jobs[:size]
    return batch
