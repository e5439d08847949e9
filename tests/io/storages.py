"""Storages to test with: a foreign one of three methods, wrappers, appends that can be held up."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest
from anyio import Event, to_thread
from anyio.lowlevel import checkpoint

from kassette import Tail, check_append
from kassette_io import Entry, LocalStorage, MemoryStorage, RemoteStorage, Storage
from kassette_io.storages.protocol import as_session_storage
from tests.io.object_stores import Client, Store
from tests.io.stories import PATIENCE


class ThreeMethods:
    """What somebody else would write: ``append``, ``read_all`` and ``list_runs`` over lists."""

    def __init__(self, runs: dict[str, list[Entry]] | None = None) -> None:
        self.runs: dict[str, list[Entry]] = {} if runs is None else runs

    async def append(self, run_id: str, entry: Entry) -> int:
        await checkpoint()
        journal = self.runs.get(run_id, [])
        check_append(Tail.of(journal), entry, run_id=run_id)
        self.runs[run_id] = [*journal, entry.at(len(journal))]
        return len(journal)

    async def read_all(self, run_id: str) -> list[Entry]:
        await checkpoint()
        return list(self.runs.get(run_id, []))

    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in list(self.runs):
            await checkpoint()
            yield run_id


class World:
    """One place that keeps journals; every ``open`` is what another process would hold of it."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self._lines: dict[str, bytes] = {}
        self._runs: dict[str, list[Entry]] = {}
        self._objects = Store()

    def open(self) -> Storage:
        """Give a storage of its own over the shared journals."""
        match self.kind:
            case "local":
                return LocalStorage(self.directory)
            case "memory":
                return MemoryStorage(self._lines)
            case "remote":
                return RemoteStorage(Client(self._objects), prefix="prod")
            case _:
                return ThreeMethods(self._runs)


WORLDS = ("memory", "local", "remote", "three-methods")


class Delegating:
    """A storage that passes everything on; the base of those that meddle."""

    def __init__(self, inner: Storage) -> None:
        self.inner = as_session_storage(inner)

    async def append(self, run_id: str, entry: Entry) -> int:
        return await self.inner.append(run_id, entry)

    async def read_all(self, run_id: str) -> list[Entry]:
        return await self.inner.read_all(run_id)

    def list_runs(self) -> AsyncIterator[str]:
        return self.inner.list_runs()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        await self.inner.create(run_id, entries)

    async def release(self, run_id: str, session: int) -> None:
        await self.inner.release(run_id, session)

    def abandon(self, run_id: str, session: int) -> None:
        self.inner.abandon(run_id, session)


class Between(Delegating):
    """Does something once, after the journal was read and before the reader gets to see it."""

    def __init__(self, inner: Storage, action: Callable[[], Awaitable[object]]) -> None:
        super().__init__(inner)
        self._action: Callable[[], Awaitable[object]] | None = action

    async def read_all(self, run_id: str) -> list[Entry]:
        entries = await super().read_all(run_id)
        action, self._action = self._action, None
        if action is not None:
            await action()
        return entries


class Failing(Delegating):
    """Raises the errors given, one per append, instead of appending."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.fails: list[BaseException] = []

    async def append(self, run_id: str, entry: Entry) -> int:
        if self.fails:
            raise self.fails.pop(0)
        return await super().append(run_id, entry)


class Held(Protocol):
    """An append that has begun and does not end before it is let go."""

    @property
    def storage(self) -> Storage: ...

    def arm(self) -> None:
        """Hold up the next append."""

    async def begun(self) -> None:
        """Wait until the append has begun."""

    def let_go(self) -> None:
        """Let it end."""


class HeldLocal:
    """A LocalStorage whose ``fsync`` waits; it counts them as well."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage: Storage = LocalStorage(directory)
        self.syncs = 0
        self._fsync = os.fsync
        self._armed = False
        self._begun = threading.Event()
        self._go = threading.Event()
        monkeypatch.setattr(os, "fsync", self._held_fsync)

    def _held_fsync(self, fd: int) -> None:
        self.syncs += 1
        if self._armed:
            self._armed = False
            self._begun.set()
            assert self._go.wait(PATIENCE), "nobody let the append go"
        self._fsync(fd)

    def arm(self) -> None:
        self._begun.clear()
        self._go.clear()
        self._armed = True

    async def begun(self) -> None:
        assert await to_thread.run_sync(self._begun.wait, PATIENCE, abandon_on_cancel=True)

    def let_go(self) -> None:
        self._go.set()


class HeldForeign(ThreeMethods):
    """A storage of three methods whose ``append`` waits before it writes."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: Event | None = None
        self._go: Event | None = None

    @property
    def storage(self) -> Storage:
        return self

    async def append(self, run_id: str, entry: Entry) -> int:
        if self._begun is not None and not self._begun.is_set():
            assert self._go is not None
            self._begun.set()
            await self._go.wait()
        return await super().append(run_id, entry)

    def arm(self) -> None:
        self._begun, self._go = Event(), Event()

    async def begun(self) -> None:
        assert self._begun is not None
        await self._begun.wait()

    def let_go(self) -> None:
        if self._go is not None:
            self._go.set()
