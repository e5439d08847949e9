"""Journals as files: ``{run_id}.jsonl``, and ``{run_id}.lock`` while a session is open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice
from typing import Any, Self, cast, final
from weakref import WeakSet

from kassette import Entry, StartEntry, StorageError, WriteContentionError, check_run_id, is_run_id
from kassette.errors import with_run_id
from kassette.immutable import Immutable
from kassette.notes import Found
from kassette_io.loops.threads import WRITERS, Job, Mailbox
from kassette_io.loops.waiting import perform, read_in_thread
from kassette_io.storages.local_journal import Known, LocalJournal

_REMEMBERED_READS = 256


@final
class _Append(Immutable):
    entries: list[Entry]
    known: Known | None


@final
class _Create(Immutable):
    entries: list[Entry]


@final
class _Release(Immutable):
    session: int


@final
class _Undo(Immutable):
    opening: Job


@final
class LocalStorage:
    """Stores journals on a local disk, one file per run; safe if the process dies at any point.

    ``directory`` is created by the first write. A session holds the run's lock file from its
    ``start`` entry until it ends, so a second session, in this or another process, gets
    WriteContentionError. Each append is durable (fsynced) before it returns, and never blocks the
    event loop.

    Requires a POSIX system and a file system that honours ``flock`` and ``fsync``. Use it from any
    number of event loops, under asyncio and trio. ``async with`` (or ``aclose``) ends the sessions
    that are still open.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.abspath(directory)
        self._lock = threading.Lock()
        self._open: dict[str, tuple[LocalJournal, Mailbox]] = {}
        self._read: OrderedDict[str, Known] = OrderedDict()
        self._inherited: set[tuple[str, int]] = set()
        _STORAGES.add(self)

    def __repr__(self) -> str:
        return f"LocalStorage({self.directory!r})"

    async def append(self, run_id: str, entry: Entry) -> int:
        """See ``Storage.append``. Raise WriteContentionError if another session has the run."""
        return await self.append_all(run_id, [entry])

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """See ``BatchStorage.append_all``. One write and one fsync, as for one entry."""
        check_run_id(run_id)
        entry = entries[0]
        opening = isinstance(entry, StartEntry)
        if not opening and (run_id, entry.session) in self._inherited:
            raise WriteContentionError(
                f"session {entry.session} of run {run_id!r} belongs to the process that forked "
                "this one. Start the run here once that process has closed its session",
                run_id=run_id,
            )
        if not opening:
            return int(await perform(partial(self._post, run_id), _Append(entries, None)))
        known = self._read.pop(run_id, None)
        if known is not None and known.tail.session >= entry.session:
            known = None  # the session does not build on what that read found
        return int(await self._open_session(run_id, entry.session, _Append(entries, known)))

    async def read_all(self, run_id: str) -> list[Entry]:
        """See ``Storage.read_all``. Needs no lock: a line with its newline is complete."""
        journal = LocalJournal(self.directory, check_run_id(run_id))
        entries, known = await read_in_thread(journal.read)
        self._read.pop(run_id, None)
        if known is not None:
            self._read[run_id] = known
            if len(self._read) > _REMEMBERED_READS:
                self._read.popitem(last=False)
        return entries

    def left_behind(self, run_id: str) -> Found | None:
        """Return what the last ``read_all`` has found of a session of the run that never ended."""
        known = self._read.get(run_id)
        return None if known is None else known.left

    def note_running(self, run_id: str, session: int, running: bytes) -> None:
        """Write beside the journal which steps are running (JSON); it survives any process death.

        Quick, and neither durable nor certain: it is for people. Never raises.
        """
        found = self._open.get(run_id)
        if found is not None:
            found[0].note_running(session, running)

    async def list_runs(self) -> AsyncIterator[str]:
        """See ``Storage.list_runs``; sorted by run id. A missing directory has no runs."""
        for run_id in await read_in_thread(self._list):
            yield run_id

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """See ``SessionStorage.create``."""
        await self._open_session(check_run_id(run_id), entries[-1].session, _Create(entries))

    async def release(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.release``."""
        found = self._open.get(run_id)
        if found is not None:
            try:
                await perform(partial(self._post, run_id), _Release(session))
            except StorageError:  # no thread could be started, so no other one uses the journal
                _answer(found[0], Job(_Release(session)))

    def abandon(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.abandon``."""
        self._post_anyhow(run_id, Job(_Release(session)))

    async def _open_session(self, run_id: str, session: int, request: object) -> Any:
        """Open ``session``; if the event loop ends before the caller learns of it, close it."""
        posted: list[Job] = []

        def post(job: Job) -> None:
            self._post(run_id, job)
            posted.append(job)

        try:
            result = await perform(post, request)
        except GeneratorExit:
            for job in posted:
                self._post_anyhow(run_id, Job(_Undo(job)))
            raise
        self._inherited.discard((run_id, session))
        return result

    def _post_anyhow(self, run_id: str, job: Job) -> None:
        """Post without waiting for a lock: the garbage collector may call this under any lock."""
        if self._lock.acquire(blocking=False):
            try:
                found = self._open.get(run_id)
                if found is None or WRITERS.try_post(found[1], job):
                    return
            finally:
                self._lock.release()
        WRITERS.post_later(partial(self._post, run_id, job))

    async def aclose(self) -> None:
        """End every session that is still open, as a crash would, without appending anything."""
        for run_id, (journal, _) in list(self._open.items()):
            if journal.session is not None:
                await self.release(run_id, journal.session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _post(self, run_id: str, job: Job) -> None:
        with self._lock:
            _, mailbox = self._open.get(run_id) or self._add(run_id)
            try:
                WRITERS.post(mailbox, job)
            except StorageError as error:
                raise with_run_id(error, run_id) from error.__cause__

    def _add(self, run_id: str) -> tuple[LocalJournal, Mailbox]:
        journal = LocalJournal(self.directory, run_id)
        mailbox = Mailbox(partial(self._serve, journal))
        self._open[run_id] = journal, mailbox
        return journal, mailbox

    def _serve(self, journal: LocalJournal, jobs: list[Job]) -> None:
        """Serve the jobs in order, adjacent appends in one write. Runs in a writer thread."""
        appends: list[Job] = []
        for job in jobs:
            if isinstance(job.request, _Append):
                appends.append(job)
                continue
            _append(journal, appends)
            appends = []
            try:
                _answer(journal, job)
            except BaseException as error:
                job.error = error
        _append(journal, appends)
        with self._lock:
            if journal.session is None and not self._open[journal.run_id][1].jobs:
                del self._open[journal.run_id]

    def _list(self) -> list[str]:
        try:
            with os.scandir(self.directory) as found:
                names = [
                    each.name.removesuffix(".jsonl") for each in found if _is_journal(each.name)
                ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(
                f"cannot list the runs in {self.directory}: {error.strerror}"
            ) from error
        return sorted(filter(is_run_id, names))

    def _after_fork_in_child(self) -> None:
        """Leave the parent's sessions to the parent."""
        self._lock = threading.Lock()
        for run_id, (journal, _) in self._open.items():
            if journal.session is not None:
                self._inherited.add((run_id, journal.session))
            journal.forget()
        self._open = {}


def _is_journal(name: str) -> bool:
    return name.endswith(".jsonl")


def _append(journal: LocalJournal, jobs: list[Job]) -> None:
    if not jobs:
        return
    requests = [cast("_Append", job.request) for job in jobs]
    entries = [entry for request in requests for entry in request.entries]
    try:
        outcomes = iter(journal.append(entries, requests[0].known))
    except BaseException as error:
        outcomes = iter([error] * len(entries))
    for job, request in zip(jobs, requests, strict=True):
        mine = list(islice(outcomes, len(request.entries)))
        job.error = next((each for each in mine if not isinstance(each, int)), None)
        job.result = mine[0]
        if isinstance(mine[0], int) and isinstance(request.entries[0], StartEntry):
            _opened(journal, job)


def _answer(journal: LocalJournal, job: Job) -> None:
    match job.request:
        case _Create(entries=entries):
            journal.create(entries)
            _opened(journal, job)
        case _Release(session=session) if journal.session == session:
            journal.release()
        case _Undo(opening=opening) if journal.opened_by is opening:
            journal.release()
        case _:
            pass


def _opened(journal: LocalJournal, job: Job) -> None:
    """Record which job opened the session; release it if that job's loop has been closed."""
    journal.opened_by = job
    if job.is_orphaned():
        journal.release()


_STORAGES: WeakSet[LocalStorage] = WeakSet()


def _after_fork_in_child() -> None:
    for storage in _STORAGES:
        storage._after_fork_in_child()  # pyright: ignore[reportPrivateUsage]


os.register_at_fork(after_in_child=_after_fork_in_child)
