"""The storage protocols; no storage lives here.

Third-party code implements ``Storage``: three methods. The built-in storages also implement
``SessionStorage``, which makes a fork atomic and lets a lock outlive a call.
``as_session_storage`` adapts storages that have only the three methods.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, final, runtime_checkable

from kassette import Entry, FencedError, UsageError
from kassette_io.loops.waiting import finish


@runtime_checkable
class Storage(Protocol):
    """Append-only journals by run id: the three methods that a storage must have.

    A method raises StorageError if the disk or network fails, WriteContentionError if another
    session has the run open, and JournalCorruptionError if a journal cannot be read.
    """

    async def append(self, run_id: str, entry: Entry) -> int:
        """Append ``entry`` atomically and durably; return its offset, counted from 0.

        Raise FencedError for an entry of a session that a newer one has superseded, and
        TerminalRunError after a terminal entry (``kassette.check_append`` decides both).
        """
        ...

    async def read_all(self, run_id: str) -> list[Entry]:
        """Return all entries in append order, each with its ``offset``; [] for an unknown run."""
        ...

    def list_runs(self) -> AsyncIterator[str]:
        """Yield the id of every run that has a journal."""
        ...


@runtime_checkable
class SessionStorage(Storage, Protocol):
    """A storage that creates a journal atomically and may hold a lock for an open session."""

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """Create a journal atomically: after a crash it exists completely, or not at all.

        The session of the last entry is then open. Raise UsageError if the run has a journal.
        """
        ...

    async def release(self, run_id: str, session: int) -> None:
        """Release what is held for ``session``. Never raises; a second call does nothing."""
        ...

    def abandon(self, run_id: str, session: int) -> None:
        """Release as ``release`` does, without waiting, for a session that was never closed."""
        ...


@runtime_checkable
class BatchStorage(SessionStorage, Protocol):
    """A session storage that appends several entries with one write, as the built-in ones do.

    It is optional: events that a run waits for concurrently are written with one call of it, and
    one by one without it.
    """

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """Append one or more ``entries`` of one session together; return the first one's offset.

        Raise what ``append`` raises. After a crash in the middle, a prefix of them may be stored.
        """
        ...


@final
class _WithoutSessions:
    """Adapts a three-method storage: a fork is copied entry by entry, and there is no lock."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def append(self, run_id: str, entry: Entry) -> int:
        return await finish(self._storage.append, run_id, entry)

    async def read_all(self, run_id: str) -> list[Entry]:
        return await self._storage.read_all(run_id)

    def list_runs(self) -> AsyncIterator[str]:
        return self._storage.list_runs()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        if await self._storage.read_all(run_id):
            raise taken(run_id)
        for offset, entry in enumerate(entries):
            if await self.append(run_id, entry) != offset:
                raise FencedError(entry.session, entry.session, run_id=run_id)

    async def release(self, run_id: str, session: int) -> None:
        pass

    def abandon(self, run_id: str, session: int) -> None:
        pass


def as_session_storage(storage: Storage) -> SessionStorage:
    """Return ``storage`` as a SessionStorage, adapted if it has only the three methods.

    Raise UsageError for an object that is not a storage.
    """
    if isinstance(storage, SessionStorage):
        return storage
    if not isinstance(storage, Storage):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(  # the annotation is not checked at run time
            f"{storage!r} is not a storage: it needs append, read_all and list_runs"
        )
    return _WithoutSessions(storage)


def taken(run_id: str) -> UsageError:
    """Return the error for a fork whose target exists."""
    return UsageError(
        f"run {run_id!r} already has a journal; fork into a new run id", run_id=run_id
    )
