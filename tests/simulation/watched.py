"""A storage with an observer in front: notes what it acknowledges; changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from kassette import (
    Entry,
    FencedError,
    KassetteError,
    StartEntry,
    StorageError,
    SuspendEntry,
    TerminalRunError,
    UsageError,
    decode_journal,
    encode_entry,
)
from kassette_io.storages.protocol import BatchStorage
from tests.simulation.history import Ack, Forked, History, Refused
from tests.simulation.invariants import check_status
from tests.simulation.programs import Kit
from tests.simulation.world import Violation, World


class Watched:
    """Hands everything on to ``inner``; ``durable`` gives what would survive a loss of power,
    ``visible`` what is there."""

    def __init__(
        self,
        inner: BatchStorage,
        world: World,
        history: History,
        owner: str,
        durable: Callable[[str], bytes],
        visible: Callable[[str], bytes],
    ) -> None:
        self._inner = inner
        self._world = world
        self._history = history
        self._durable = durable
        self._visible = visible
        self.owner = owner
        self.session = 0
        self.kit: Kit | None = None
        self.forking: Forked | None = None

    async def append(self, run_id: str, entry: Entry) -> int:
        try:
            offset = await self._inner.append(run_id, entry)
        except KassetteError as error:
            self._refused(run_id, entry, error)
            raise
        self._acknowledged(run_id, entry, offset)
        return offset

    async def append_all(self, run_id: str, entries: list[Entry]) -> int:
        try:
            offset = await self._inner.append_all(run_id, entries)
        except KassetteError as error:
            self._refused(run_id, entries[0], error)
            raise
        for at, entry in enumerate(entries, offset):
            self._acknowledged(run_id, entry, at)
        return offset

    async def read_all(self, run_id: str) -> list[Entry]:
        before = [ack for ack in self._history.acks if ack.run_id == run_id]
        entries = await self._inner.read_all(run_id)
        for ack in before:
            if ack.offset >= len(entries) or entries[ack.offset] != ack.entry.at(ack.offset):
                raise self._world.broken("committed_entries_stay", f"{ack.line!r} is not read")
        try:
            check_status(run_id, [_type(entry) for entry in entries], entries)
        except Violation as violation:
            raise self._world.broken(violation.name, violation.what) from None
        return entries

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        await self._inner.create(run_id, entries)
        for offset, entry in enumerate(entries):
            self._acknowledged(run_id, entry, offset)
        if self.forking is not None and self.forking.run_id == run_id:
            self._history.forks.append(self.forking)

    async def release(self, run_id: str, session: int) -> None:
        await self._inner.release(run_id, session)

    def abandon(self, run_id: str, session: int) -> None:
        self._inner.abandon(run_id, session)

    def list_runs(self) -> AsyncIterator[str]:
        return self._inner.list_runs()

    def _refused(self, run_id: str, entry: Entry, error: KassetteError) -> None:
        self._world.say(f"not written: {entry.type} of session {entry.session}: {error}")
        certain = (FencedError, TerminalRunError, UsageError)
        if isinstance(error, certain) or (isinstance(error, StorageError) and error.rolled_back):
            self._history.refused.append(Refused(run_id, entry))
        if isinstance(error, FencedError) and not self._has_rival(run_id, entry):
            raise self._world.broken("only_rivals_fence", f"{error}; nobody has taken {run_id}")

    def _has_rival(self, run_id: str, entry: Entry) -> bool:
        starts = [
            (other.session, other.writer)
            for other in decode_journal(self._visible(run_id)).entries
            if isinstance(other, StartEntry) and other.session >= entry.session
        ]
        own = (entry.session, entry.writer if isinstance(entry, StartEntry) else None)
        return any(each != own for each in starts)

    def _acknowledged(self, run_id: str, entry: Entry, offset: int) -> None:
        world, history = self._world, self._history
        line = encode_entry(entry, offset)
        history.acks.append(Ack(history.tick(), run_id, offset, entry, line, self.owner))
        world.say(f"acknowledged: {entry.type} of session {entry.session} at {offset}")
        lines = self._durable(run_id).split(b"\n")
        if offset >= len(lines) - 1 or lines[offset] + b"\n" != line:
            raise world.broken("what_is_told_is_durable", f"{line!r} may be lost")


def _type(entry: Entry) -> str:
    return "more" if isinstance(entry, SuspendEntry) and entry.more else entry.type
