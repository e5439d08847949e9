"""Journals in memory, for tests, stored as the lines a file would have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import final

from anyio.lowlevel import checkpoint

from kassette import (
    Entry,
    Journal,
    JournalCorruptionError,
    Tail,
    check_append,
    check_run_id,
    decode_journal,
    encode_entry,
)
from kassette.errors import with_run_id
from kassette_io.loops.waiting import finish
from kassette_io.storages.protocol import taken


@final
class MemoryStorage:
    """Stores journals in memory, for tests; nothing survives the process.

    It fences an older session by its number, as object storage does, and takes no lock. ``data``
    maps run ids to journal bytes; a test may read it, or seed it with a journal.
    """

    def __init__(self, data: dict[str, bytes] | None = None) -> None:
        self.data: dict[str, bytes] = {} if data is None else data

    async def append(self, run_id: str, entry: Entry) -> int:
        """See ``Storage.append``."""
        return await self.append_all(run_id, [entry])

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        """See ``BatchStorage.append_all``."""
        return await finish(self._append, check_run_id(run_id), entries)

    async def _append(self, run_id: str, entries: list[Entry]) -> int:
        await checkpoint()
        journal = self._decode(run_id)
        tail = Tail.of(journal.entries)
        offset = tail.count
        data = self.data.get(run_id, b"")[: journal.whole]
        for entry in entries:
            check_append(tail, entry, run_id=run_id)
            data += encode_entry(entry, tail.count)
            tail = tail.then(entry)
        self.data[run_id] = data
        return offset

    async def read_all(self, run_id: str) -> list[Entry]:
        """See ``Storage.read_all``."""
        await checkpoint()
        return self._decode(check_run_id(run_id)).entries

    def _decode(self, run_id: str) -> Journal:
        try:
            return decode_journal(self.data.get(run_id, b""))
        except JournalCorruptionError as error:
            raise with_run_id(error, run_id) from error.__cause__

    async def list_runs(self) -> AsyncIterator[str]:
        """See ``Storage.list_runs``; sorted by run id."""
        for run_id in sorted(self.data):
            await checkpoint()
            yield run_id

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        """See ``SessionStorage.create``."""
        if self.data.get(check_run_id(run_id)):
            raise taken(run_id)
        self.data[run_id] = b"".join(map(encode_entry, entries, range(len(entries))))

    async def release(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.release``; does nothing, as there is no lock."""

    def abandon(self, run_id: str, session: int) -> None:
        """See ``SessionStorage.abandon``; does nothing, as there is no lock."""
