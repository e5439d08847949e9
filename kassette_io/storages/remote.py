"""Journals as objects of a store, ``{prefix}/{run_id}/journal.jsonl``, each replaced as a whole.

Every decision is ``kassette.object_append``'s; here its gets and puts are performed.

Rules:
- One task serves a run at a time. Appends that wait meanwhile go out together in one put (D6).
- That task is nobody's child: cancelling a caller never breaks off a put. The caller waits until
  its append is settled, then feels the cancellation (D2).
- A loop may be closed by hand in the middle of a put. Who then appends begins with a new writer.
- What a session's writer knows of its object is kept until the session ends; where its opening was
  closed by hand, until that is settled. What a read has found is used by the session opened next,
  and by that alone, so that opening costs one get.
- What reads a journal or lists runs outlasts an outage as an append does, for ``patience`` seconds.
  A store that has not answered this storage at all gets ``FIRST_CONTACT`` seconds at most: long
  enough for a server that restarts; and a mistyped address, which is as likely, is told soon. What
  the client calls certain (``rolled_back``), such as wrong credentials, is told at once.
- A run is listed only where its object is: a prefix is no run. A client that cannot look for that
  (it has no ``list_prefixes_with``) is believed.
- Storages that share a client close it together: the last one that is closed does.
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
"""Seconds of patience with a store that has not answered yet."""

_JOURNAL: Final = "journal.jsonl"
_REMEMBERED_READS: Final = 1024
_REMEMBERED_BYTES: Final = 32 * 2**20

_Answer: TypeAlias = Found | NotFound | GetFailed | GetDenied

_OPEN: Final[dict[int, WeakSet[RemoteStorage]]] = {}
"""The storages that are not closed yet, by the ``id`` of their client."""


@final
class _Writer:
    """One run's writer, the jobs that wait for it, and the loop that serves them, if any does.

    ``session`` is the one that it is kept for; those ``left`` were given up, whether or not their
    ``start`` has landed.
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
    """Keeps journals in an object store that honours conditional puts, such as S3.

    ``prefix`` is put before every key. ``patience`` is for how many seconds an append or a read
    outlasts an outage of the store (a restart, a network that is down) before it gives up with
    StorageError; an append is given up at most as long after that as two requests may take.

    Use one ``RemoteStorage`` from one event loop at a time. ``async with`` (or ``aclose``) closes
    its client, unless other storages that have it are not closed yet.

    Raises UsageError for a client or a patience that is none.
    """

    def __init__(
        self, client: ObjectStoreClient, *, prefix: str = "", patience: float = PATIENCE
    ) -> None:
        if not isinstance(client, ObjectStoreClient):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(  # the annotation is not checked at run time
                f"{client!r} is no client of an object store: it needs get_object, put_object and "
                "list_prefixes, as S3ObjectStoreClient(bucket) has them"
            )
        if not patience >= 0:  # NaN as well
            raise UsageError(f"patience is a number of seconds, 0 or more, not {patience!r}")
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
        """See ``Storage.append``. One put, if nobody else has written since the last."""
        return await self.append_all(run_id, [entry])

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """See ``BatchStorage.append_all``. One put, as for one entry."""
        check_run_id(run_id)
        return int(await self._perform(run_id, AppendEntries(tuple(entries))))

    async def read_all(self, run_id: str) -> list[Entry]:
        """See ``Storage.read_all``. One get, and more only during an outage."""
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
                if find is None and last is not None:  # it cannot go on where it was
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
        """See ``SessionStorage.release``; nothing is locked, the writer's copy is dropped."""
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
        """Prove, with a scratch object, that the store keeps what journals rely on.

        Both conditions must be enforced, and a read must see the last write. A store that ignores
        conditions in silence would lose entries. Scratch objects are removed if the client has a
        ``delete_object``. Raises StorageError that names every promise the store breaks.
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
                f"{self._client!r} must not keep journals, entries would be lost: "
                + "; ".join(broken)
            )

    async def aclose(self) -> None:
        """Close the client, if it can be closed and no other storage has it open."""
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
        command = AppendEntries(entries, create=create, patience=self._budget)
        if isinstance(entries[0], StartEntry) and run_id in self._read:
            if create and self._read[run_id] is not None:
                await self.read_all(run_id)  # what was there may have been deleted since
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
            put: Any = self._client.put_object  # whatever it gives
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
        if not isinstance(answer, str):  # it was written; reading it back tells the etag
            return PutUnclear(
                StorageError(f"{self._client!r}.put_object gave {answer!r} for an etag")
            )
        return PutDone(answer)

    @property
    def _budget(self) -> float:
        return self._patience if self._answered else min(self._patience, FIRST_CONTACT)

    async def _look(self, key: str) -> GetObjectResult | None:
        """Return what is at ``key``; an outage is outlasted."""
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
        """Pause before a read is repeated; raise where that is of no use, or not any more."""
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
    """Return whether the same read may succeed in a while."""
    if isinstance(error, KassetteError):
        return isinstance(error, StorageError) and not error.rolled_back
    return True


def _as_found(client: ObjectStoreClient, answer: object) -> Found | None:
    """Return what a client gave; raise UsageError for what no client may give."""
    if answer is None:
        return None
    content: Any = getattr(answer, "content", None)
    etag: object = getattr(answer, "etag", None)
    if type(content) in (bytes, bytearray, memoryview) and isinstance(etag, str):
        return Found(bytes(content), etag)
    raise UsageError(
        f"{client!r}.get_object gave a {type(answer).__name__} with content of type "
        f"{type(content).__name__} and the etag {etag!r}. It has to give a GetObjectResult with "
        "the bytes of the object as they are stored (not a text made of them) and a str"
    )


def _take_batch(jobs: list[Job]) -> list[Job]:
    """Take the jobs that can go out in one put: appends do, a new journal goes alone."""
    alone = [cast("AppendEntries", job.request).create for job in jobs]
    size = max(alone.index(True), 1) if True in alone else len(jobs)
    batch = jobs[:size]
    del jobs[:size]
    return batch
