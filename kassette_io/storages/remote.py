"""Journals as objects in a store, ``{prefix}/{run_id}/journal.jsonl``, each replaced as a whole.

``kassette.object_append`` makes every decision; this module performs its gets and puts.

Rules:
- One task serves a run at a time. Appends that queue up meanwhile are sent in one put.
- That task is not a child of its callers: cancelling a caller never interrupts a put. The caller
  waits until the outcome of its append is known, and is cancelled then.
- An event loop may be closed in the middle of a put. A later append then uses a new writer.
- A writer remembers its object until its session ends; if the loop was closed while the session
  was being opened, until the outcome is known. What a read found is used by the session opened
  next, and only by that, so that opening costs one get.
- Reading a journal and listing runs outlast an outage as an append does, for ``patience`` seconds.
  A store that has never answered this storage gets ``FIRST_CONTACT`` seconds at most: enough for a
  server to restart, while a mistyped address is reported soon. An error that the client marks as
  certain (``rolled_back``), such as wrong credentials, is raised immediately.
- A run is listed only if its object exists: a prefix is not a run. The names of a client that
  cannot check this (it has no ``list_prefixes_with``) are all listed.
- The last storage to be closed closes a client that several share.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from random import random
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, cast, final
from weakref import WeakSet

import anyio

from kassette import (
    Entry,
    JournalCorruptionError,
    KassetteError,
    PreconditionFailedError,
    StartEntry,
    StorageError,
    UsageError,
    check_run_id,
    decode_journal,
    is_run_id,
)
from kassette.errors import with_run_id
from kassette.object_append import (
    PATIENCE,
    AppendCommand,
    AppendEntries,
    Found,
    GetDenied,
    GetFailed,
    GetObject,
    NotFound,
    ObjectWriter,
    Outage,
    PutDenied,
    PutDone,
    PutObject,
    PutRefused,
    PutUnclear,
    Settled,
)
from kassette_io.loops.threads import Job
from kassette_io.loops.waiting import perform, spawn
from kassette_io.storages.object_store import GetObjectResult, ObjectStoreClient
from kassette_io.storages.store_check import StoreCheck

FIRST_CONTACT: Final = 5.0
"""The patience, in seconds, with a store that has not answered yet."""

_JOURNAL: Final = "journal.jsonl"
_REMEMBERED_READS: Final = 1024
_REMEMBERED_BYTES: Final = 32 * 2**20

_Answer: TypeAlias = Found | NotFound | GetFailed | GetDenied

_OPEN: Final[dict[int, WeakSet[RemoteStorage]]] = {}
"""The storages that are not closed, by the ``id`` of their client."""


@final
class _Writer:
    """One run's writer, the jobs that wait for it, and the loop that serves them, if any.

    ``session`` is the open session; the sessions in ``left`` were abandoned, whether or not their
    ``start`` entry was written.
    """

    __slots__ = ("jobs", "left", "object", "served_on", "session")

    def __init__(self, run_id: str) -> None:
        self.object = ObjectWriter(run_id)
        self.jobs: list[Job] = []
        self.served_on: object = None
        self.session: int | None = None
        self.left: set[int] = set()


@final
class RemoteStorage:
    """Stores journals in an object store that honours conditional writes, such as S3.

    ``prefix`` is prepended to every key. ``patience`` is how many seconds an append or a read
    retries during an outage of the store (a restart, a network failure) before it raises
    StorageError; an append may take longer than that by the time of two requests.

    Use a ``RemoteStorage`` from one event loop at a time. ``async with`` (or ``aclose``) closes its
    client, unless another open storage shares that client.

    Raise UsageError for an object that is not a client, and for a ``patience`` that is negative or
    not a number.
    """

    def __init__(
        self, client: ObjectStoreClient, *, prefix: str = "", patience: float = PATIENCE
    ) -> None:
        if not isinstance(client, ObjectStoreClient):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(  # the annotation is not checked at run time
                f"{client!r} is not an object store client: it needs get_object, put_object and "
                "list_prefixes; for S3, pass S3ObjectStoreClient(bucket)"
            )
        if not patience >= 0:  # NaN as well
            raise UsageError(
                f"patience must be a number of seconds, 0 or greater, not {patience!r}"
            )
        self._client = client
        self._patience = patience
        self._answered = False
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._writers: dict[str, _Writer] = {}
        self._read: OrderedDict[str, GetObjectResult | None] = OrderedDict()
        self._enter()

    def __repr__(self) -> str:
        return f"RemoteStorage({self._client!r}, prefix={self._prefix!r})"

    async def append(self, run_id: str, entry: Entry) -> int:
        """See ``Storage.append``. One put, unless another session has written in between."""
        return await self.append_all(run_id, [entry])

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """See ``BatchStorage.append_all``. One put, as for one entry."""
        check_run_id(run_id)
        return int(await self._perform(run_id, AppendEntries(tuple(entries))))

    async def read_all(self, run_id: str) -> list[Entry]:
        """See ``Storage.read_all``. One get; more only during an outage."""
        key = self._key(check_run_id(run_id))
        try:
            found = await self._look(key)
        except KassetteError as error:
            raise with_run_id(error, run_id) from error.__cause__
        try:
            entries = decode_journal(b"" if found is None else found.content).entries
        except JournalCorruptionError as error:
            raise with_run_id(error, run_id) from error.__cause__
        self._remember(run_id, found)
        return entries

    def _remember(self, run_id: str, found: GetObjectResult | None) -> None:
        """Store what a read found for the next opening, for a limited number of runs and bytes."""
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
        find = getattr(self._client, "list_prefixes_with", None)
        last: str | None = None
        outage = Outage(self._budget)
        while True:
            if find is None:
                names = self._client.list_prefixes(self._prefix)
            else:
                names = find(self._prefix, _JOURNAL, after=last)
            try:
                async for name in names:
                    self._answered = True
                    last, outage = name, Outage(self._budget)
                    if is_run_id(name):
                        yield name
            except Exception as error:
                if find is None and last is not None:  # it cannot resume in the middle
                    outage = Outage(0.0)
                await self._outlast(outage, error, f"list the runs in {self!r}")
            else:
                return
            finally:
                close = getattr(names, "aclose", None)
                if close is not None:
                    await close()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """See ``SessionStorage.create``. One put."""
        check_run_id(run_id)
        await self._perform(run_id, AppendEntries(tuple(entries), create=True))

    async def release(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.release``. There is no lock; the cached object is dropped."""
        self.abandon(run_id, session)

    def abandon(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.abandon``."""
        writer = self._writers.get(run_id)
        if writer is None:
            return
        writer.left.add(session)
        if writer.session == session:
            writer.session = None
            self._drop_if_idle(run_id, writer)

    async def check(self) -> None:
        """Verify, with a scratch object, that the store meets the requirements of journals.

        It must enforce If-Match and If-None-Match, and a read must return the last write. A store
        that silently ignores these conditions would lose entries. Scratch objects are deleted if
        the client has ``delete_object``. Raise StorageError that names every requirement the store
        does not meet, or says why the check could not be made.
        """
        key = f"{self._prefix}.check/{os.urandom(8).hex()}"
        check = StoreCheck(self._client, self._look, key)
        try:
            broken = await check.broken_promises()
        except KassetteError:
            raise
        except Exception as error:
            raise StorageError(f"cannot check {self._client!r}: {error!r}") from error
        finally:
            await check.clean_up()
        if broken:
            raise StorageError(
                f"{self._client!r} cannot be used for journals, as entries would be lost: "
                + "; ".join(broken)
            )

    async def aclose(self) -> None:
        """Close the client, if it can be closed and no other open storage shares it."""
        others = _OPEN.get(id(self._client), WeakSet())
        others.discard(self)
        if others:
            return
        _OPEN.pop(id(self._client), None)
        close = getattr(self._client, "aclose", None)
        if close is not None:
            await close()

    def _enter(self) -> None:
        _OPEN.setdefault(id(self._client), WeakSet()).add(self)

    async def __aenter__(self) -> Self:
        self._enter()
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
        except GeneratorExit:  # the caller will not learn of the session that this may still open
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
        """Write the queued entries, batch by batch."""
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
        command = AppendEntries(entries, create=create, patience=self._budget)
        if isinstance(entries[0], StartEntry) and run_id in self._read:
            if create and self._read[run_id] is not None:
                await self.read_all(run_id)  # the object may have been deleted since
            known = self._read.pop(run_id)
            if not writer.object.known:
                writer.object.know(*((b"", None) if known is None else (known.content, known.etag)))
        outcomes = await self._append(run_id, writer.object, command)
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
                if opens and last.session not in writer.left:
                    writer.session = last.session

    async def _append(
        self, run_id: str, writer: ObjectWriter, command: AppendCommand
    ) -> list[int | KassetteError]:
        key = self._key(run_id)
        while True:
            match writer.handle(command, now=anyio.current_time()):
                case Settled(outcomes=outcomes):
                    return outcomes
                case GetObject(pause=pause):
                    if pause:
                        await anyio.sleep(pause * random())
                    command = await self._get(key)
                case PutObject(body=body, etag=etag):
                    command = await self._put(key, body, etag)

    async def _get(self, key: str) -> _Answer:
        try:
            found = _as_found(self._client, await self._client.get_object(key))
        except KassetteError as error:
            return GetFailed(error) if _may_pass(error) else GetDenied(error)
        except Exception as error:
            return GetFailed(error)
        self._answered = True
        return NotFound() if found is None else found

    async def _put(self, key: str, body: bytes, etag: str | None) -> AppendCommand:
        try:
            put: Any = self._client.put_object  # it may return anything
            answer = await put(key, body, etag)
        except PreconditionFailedError:
            self._answered = True
            return PutRefused()
        except StorageError as error:
            return PutDenied(error) if error.rolled_back else PutUnclear(error)
        except UsageError as error:
            return PutDenied(error)
        except Exception as error:
            return PutUnclear(error)
        self._answered = True
        if not isinstance(answer, str):  # it was written; a read will return the etag
            return PutUnclear(
                StorageError(f"{self._client!r}.put_object returned {answer!r}, not an etag")
            )
        return PutDone(answer)

    @property
    def _budget(self) -> float:
        return self._patience if self._answered else min(self._patience, FIRST_CONTACT)

    async def _look(self, key: str) -> GetObjectResult | None:
        """Return the object at ``key``, retrying during an outage."""
        outage = Outage(self._budget)
        while True:
            match await self._get(key):
                case Found(body=body, etag=etag):
                    return GetObjectResult(body, etag)
                case NotFound():
                    return None
                case GetDenied(error=error) | GetFailed(error=error):
                    await self._outlast(outage, error, f"read {key}")

    async def _outlast(self, outage: Outage, error: BaseException, doing: str) -> None:
        """Pause before a read is retried; raise if a retry is useless, or patience is used up."""
        if not _may_pass(error):
            raise error
        now = anyio.current_time()
        outage.fail(error, now)
        if outage.is_over(now):
            raise outage.error(doing, now)
        await anyio.sleep(outage.pause() * random())

    def _drop_if_idle(self, run_id: str, writer: _Writer) -> None:
        idle = writer.session is None and writer.served_on is None
        if idle and self._writers.get(run_id) is writer:
            del self._writers[run_id]


def _may_pass(error: BaseException) -> bool:
    """Return whether the same read may succeed later."""
    if isinstance(error, KassetteError):
        return isinstance(error, StorageError) and not error.rolled_back
    return True


def _as_found(client: ObjectStoreClient, answer: object) -> Found | None:
    """Return what a client returned; raise UsageError for a result of the wrong type."""
    if answer is None:
        return None
    content: Any = getattr(answer, "content", None)
    etag: object = getattr(answer, "etag", None)
    if type(content) in (bytes, bytearray, memoryview) and isinstance(etag, str):
        return Found(bytes(content), etag)
    raise UsageError(
        f"{client!r}.get_object returned a {type(answer).__name__} with content of type "
        f"{type(content).__name__} and the etag {etag!r}. It must return a GetObjectResult with "
        "the object's bytes as stored (not decoded to text) and a str"
    )


def _take_batch(jobs: list[Job]) -> list[Job]:
    """Take the jobs that one put can serve: several appends, or one new journal."""
    alone = [cast("AppendEntries", job.request).create for job in jobs]
    size = max(alone.index(True), 1) if True in alone else len(jobs)
    batch = jobs[:size]
    del jobs[:size]
    return batch
