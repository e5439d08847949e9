"""Storages as somebody else would write them, right in everything: what broken ones start from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from anyio.lowlevel import checkpoint

from kassette import Entry, Tail, check_append, check_run_id, decode_journal, encode_entry
from kassette_io.storages.protocol import Storage, taken
from kassette_io.testing import conformance


class ThreeMethods:
    """Keeps the lines of each journal."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    async def append(self, run_id: str, entry: Entry) -> int:
        await checkpoint()
        entries = self.read(run_id)
        self.check(Tail.of(entries), entry, run_id)
        return self.write(run_id, len(entries), entry)

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        check_append(tail, entry, run_id=run_id)

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        self.data[run_id] = self.data.get(run_id, b"") + encode_entry(entry, offset)
        return offset

    def read(self, run_id: str) -> list[Entry]:
        return decode_journal(self.data.get(check_run_id(run_id), b"")).entries

    async def read_all(self, run_id: str) -> list[Entry]:
        await checkpoint()
        return self.read(run_id)

    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in self.data:
            await checkpoint()
            yield run_id


class WithSessions(ThreeMethods):
    """Creates journals as well; there is nothing to hold."""

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        await checkpoint()
        if self.read(run_id):
            raise taken(run_id)
        self.data[run_id] = b"".join(map(encode_entry, entries, range(len(entries))))

    async def release(self, run_id: str, session: int) -> None:
        await checkpoint()

    def abandon(self, run_id: str, session: int) -> None:
        pass


class Changed(ThreeMethods):
    """Writes something else than it was given."""

    def __init__(self, change: Callable[[Entry], Entry]) -> None:
        super().__init__()
        self.change = change

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return super().write(run_id, offset, self.change(entry))


async def verdict(rule: str, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the conformance suite says of a storage that breaks ``rule``, checked by itself."""
    monkeypatch.setattr(conformance, "RULES", {rule: conformance.RULES[rule]})

    @asynccontextmanager
    async def make() -> AsyncIterator[Storage]:
        yield storage

    with pytest.raises(AssertionError) as caught:
        await conformance.storage_conformance(make)
    told, named, instead = str(caught.value).partition(f"{storage!r} breaks a rule: {rule}: ")
    assert (told, bool(named)) == ("", True)
    return instead
