"""What a journal storage promises; no storage lives here.

Third-party code implements ``Storage``: three methods. The built-in storages implement
``SessionStorage`` as well, which adds what makes a fork atomic (D12) and a lock outlive a call
(D14). ``as_session_storage`` fills in for storages that stop at the three.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, final, runtime_checkable

from kassette import Entry, FencedError, UsageError
from kassette_io.loops.waiting import finish


@runtime_checkable
class Storage(Protocol):
    """Append-only journals by run id.

    Failures of the world are StorageError; WriteContentionError says that somebody else holds the
    run; JournalCorruptionError that a journal cannot be read.
    """

    async def append(self, run_id: str, entry: Entry) -> int:
        """Append ``entry`` atomically and durably; give its offset, counted from 0.

        Raises FencedError for an entry of a session that a newer one has superseded,
        TerminalRunError after a terminal entry (``kassette.check_append`` decides both).
        """
        ...

    async def read_all(self, run_id: str) -> list[Entry]:
        """Give every entry in append order, each with its ``offset``; none for an unknown run."""
        ...

    def list_runs(self) -> AsyncIterator[str]:
        """Give every run id that has a journal."""
        ...


@runtime_checkable
class SessionStorage(Storage, Protocol):
    """A storage that can create a journal in one go and that holds something for a session."""

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """Write a new journal in one go: after a crash it is there whole, or not at all (D12).

        The session of the last entry is then open. Raises UsageError if the run has a journal.
        """
        ...

    async def release(self, run_id: str, session: int) -> None:
        """Give up what is held for ``session``. Never raises; doing it twice does nothing."""
        ...

    def abandon(self, run_id: str, session: int) -> None:
        """Do as ``release`` without waiting, for a session that was never closed."""
        ...


@runtime_checkable
class BatchStorage(SessionStorage, Protocol):
    """A session storage that can append several entries with one write, as the built-in ones can.

    Waits that are open at once are written together; without this they are appended one by one.
    """

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """Append ``entries``, at least one, of one session together; return the first one's offset.

        Does as ``append`` for each. After a crash in the middle the first of them may be there.
        """
        ...


@final
class _WithoutSessions:
    """A three-method storage, completed: a fork is copied entry by entry, nothing is held."""

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
    """Complete a three-method storage; give any other back as it is.

    Raises UsageError for an object that is no storage.
    """
    if isinstance(storage, SessionStorage):
        return storage
    if not isinstance(storage, Storage):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(  # the annotation is not checked at run time
            f"{storage!r} is not a storage: it needs append, read_all and list_runs"
        )
    return _WithoutSessions(storage)


def taken(run_id: str) -> UsageError:
    """Say that a fork's target exists."""
    return UsageError(
        f"run {run_id!r} has a journal already; fork into a new run id", run_id=run_id
    )
