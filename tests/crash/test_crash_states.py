"""Power cuts: from every state of the disk that one may leave, a real storage recovers the run.

A story is told once, to a storage whose calls are noted (``page_cache``). For every moment between
two of its calls, every state that a crash may leave then (``crash_states``) is made of real files,
and the next session has to go on from it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, final

import pytest
from anyio import create_task_group

from kassette import (
    EventPendingError,
    JournalCorruptionError,
    StartEntry,
    StorageError,
    SuspendError,
    TerminalRunError,
    UsageError,
    encode_entry,
)
from kassette_io import LocalStorage, Run, fork, resume, start

from .crash_states import State, Tree, crash_states
from .faults import fails, writes_only
from .journals import Journal
from .page_cache import Killed, PageCache

pytestmark = pytest.mark.anyio

RUN = "run"
COPY = "copy"
FOLDER = Path("new", "journals")


def text(name: str, size: int) -> str:
    """Give text no part of which is found in another's."""
    return (f"{name}." * (size // (len(name) + 1) + 1))[:size]


@final
class Teller:
    """Goes through a story on a noted disk and notes what it has been told."""

    def __init__(self, page: PageCache) -> None:
        self.page = page
        self.directory = page.root / FOLDER
        self.storage = LocalStorage(self.directory)

    def path(self, run_id: str) -> Path:
        return self.directory / f"{run_id}.jsonl"

    def knows(self, run_id: str, last: str) -> None:
        self.page.tell(self.path(run_id), last.encode())

    def opened(self, run: Run) -> Run:
        self.knows(run.run_id, f'"type":"start","session":{run.session}')
        return run

    async def start(self, **options: Any) -> Run:
        return self.opened(await start(self.storage, RUN, **options))

    async def record(self, run: Run, name: str, size: int = 5) -> None:
        await run.record(name, partial(text, name, size))
        self.knows(run.run_id, f'"name":"{name}"')

    async def complete(self, run: Run) -> None:
        await run.complete()
        self.knows(run.run_id, '"complete"')

    async def killed(self, work: Awaitable[object]) -> None:
        """Do ``work`` in a process that is killed on the way, and go on in another."""
        with pytest.raises(Killed):
            await work
        self.next_process()

    async def looks(self) -> None:
        """Read every journal on a disk that refuses to sync it."""
        for run_id in (RUN, COPY):
            self.page.on("fsync", ".jsonl", fails(errno.EIO))
            with suppress(StorageError):
                await self.storage.read_all(run_id)
        self.page.heal()

    def next_process(self) -> None:
        self.page.bury(self.storage)
        self.storage = LocalStorage(self.directory)


# --- stories -------------------------------------------------------------------------------


async def sessions(teller: Teller) -> None:
    """Make the directories and the journal; go on, suspend, resume and complete."""
    async with await teller.start(metadata=text("input", 700)) as run:
        await teller.record(run, "small")
        await teller.record(run, "large", 1500)
    with pytest.raises(SuspendError):
        async with await teller.start() as run:
            await run.wait_for_event("event")
    teller.knows(RUN, '"suspend"')
    run = teller.opened(await resume(teller.storage, RUN, "event", text("value", 600)))
    teller.knows(RUN, '"resume"')
    async with run:
        await teller.record(run, "last", 5000)
        await teller.complete(run)


async def batches(teller: Teller) -> None:
    """Record side by side, so that entries share a write."""
    async with await teller.start() as run:
        for batch in ("x", "y"):
            async with create_task_group() as group:
                for number in range(5):
                    group.start_soon(teller.record, run, f"{batch}{number}", 100 + 400 * number)
        await teller.complete(run)


async def torn(teller: Teller) -> None:
    """Die in the middle of three writes: a first line, a step, and a line over several pages."""
    for size in (1000, 3000):
        teller.page.on("write", ".jsonl", partial(torn_by, teller.page, size))
        await teller.killed(teller.start(metadata=text(f"no{size}", 4000)))
    run = await teller.start(metadata=text("input", 4000))
    for size in (700, 6000):
        teller.page.on("write", ".jsonl", partial(torn_by, teller.page, size))
        await teller.killed(teller.record(run, f"never{size}", size + 1000))
        run = await teller.start()
        await teller.record(run, f"large{size}", size)
    await teller.complete(run)


def torn_by(page: PageCache, size: int, real: Callable[..., int], fd: int, data: bytes) -> int:
    page.kill_before = len(page.moments) + 1
    return real(fd, data[:size])


async def cut_off(teller: Teller) -> None:
    """Die between cutting off a torn line and syncing that; the next one appends unread."""
    teller.page.on("write", ".jsonl", partial(torn_by, teller.page, 3000))
    await teller.killed(teller.start(metadata=text("never", 4000)))
    teller.page.on("ftruncate", ".jsonl", partial(dies_afterwards, teller.page))
    await teller.killed(teller.start(metadata=text("neither", 4000)))
    timestamp, metadata = "2026-01-31T00:00:00.000Z", json.dumps(text("input", 4000)).encode()
    entry = StartEntry(session=1, timestamp=timestamp, writer="0" * 32, metadata_json=metadata)
    assert await teller.storage.append(RUN, entry) == 0
    teller.knows(RUN, "input")
    await teller.storage.release(RUN, 1)
    async with await teller.start() as run:
        await teller.record(run, "small")
        await teller.complete(run)


def dies_afterwards(page: PageCache, real: Callable[..., object], *args: object) -> None:
    page.kill_before = len(page.moments) + 1


async def unnamed(teller: Teller) -> None:
    """Die before the journal's name is synced; the next two fail before they have done that."""
    teller.page.on("fsync", "journals", partial(dies, teller.page))
    await teller.killed(teller.start())
    for call, suffix in (("fsync", "journals"), ("pwrite", ".lock")):
        teller.page.on(call, suffix, fails(errno.EIO))
        with pytest.raises(StorageError):
            await teller.start()
    async with await teller.start() as run:
        await teller.record(run, "small")
        await teller.complete(run)


def dies(page: PageCache, real: Callable[..., object], *args: object) -> NoReturn:
    page.killed = True
    raise Killed


async def refused(teller: Teller) -> None:
    """Meet a full disk, which takes half a line back, and then a broken one."""
    teller.page.on("write", ".jsonl", writes_only(1500))
    with pytest.raises(StorageError):
        await teller.start(metadata=text("no", 2500))
    async with await teller.start(metadata=text("input", 2500)) as run:
        for size in (100, 2000):
            for attempt in ("one", "two"):
                teller.page.on("write", ".jsonl", writes_only(size))
                with pytest.raises(StorageError):
                    await teller.record(run, f"{attempt}{size}", 2400)
            await teller.record(run, f"ten{size}", 2400)
    run = await teller.start()
    teller.page.on("fsync", ".jsonl", fails(errno.EIO))
    with pytest.raises(StorageError):
        await teller.record(run, "lost", 1000)
    async with await teller.start() as run:
        await teller.record(run, "kept", 1200)
        await teller.complete(run)


async def forked(teller: Teller) -> None:
    """Copy a run and go on with the copy."""
    async with await teller.start() as run:
        await teller.record(run, "small")
        await teller.record(run, "large", 1500)
    run = teller.opened(await fork(teller.storage, COPY, source=RUN, from_offset=3))
    async with run:
        await teller.record(run, "other", 1000)
        await teller.complete(run)


STORIES = [sessions, batches, torn, cut_off, unnamed, refused, forked]


async def first_life(teller: Teller) -> None:
    """Go through a run and its copy, shortly."""
    async with await teller.start(metadata="input") as run:
        await teller.record(run, "a")
        await teller.complete(run)
    async with teller.opened(await fork(teller.storage, COPY, source=RUN, from_offset=2)) as run:
        await teller.record(run, "b")


async def second_life(teller: Teller, *, sound: bool = True) -> None:
    """Find what the first life left, whole or not, and go on with it.

    Unless the disk is ``sound``, what is only read and not built on may be lost (guarantees.md).
    """
    try:
        async with await teller.start() as run:
            await teller.record(run, "a")
            await teller.complete(run)
    except TerminalRunError:
        if sound:
            teller.knows(RUN, '"complete"')
    try:
        run = await fork(teller.storage, COPY, source=RUN, from_offset=2)
    except UsageError:
        run = await start(teller.storage, COPY)
    async with teller.opened(run):
        await teller.record(run, "c")
        await teller.complete(run)


# --- recovery ------------------------------------------------------------------------------


@final
class Recovery:
    """Makes states real below ``disk`` and has a storage recover from them; counts them."""

    def __init__(self, disk: Path) -> None:
        disk.mkdir()
        self.disk = disk
        self.directory = disk / FOLDER
        self.written: dict[str, set[bytes]] = {}
        self.states = self.damaged = 0
        self._seen: set[int] = set()

    async def from_all(self, page: PageCache, *, first: int = 0, whole: bool = False) -> None:
        """Recover from every state of every moment from the ``first`` on; no state is tried twice.

        ``whole`` leaves out those in which a write or a truncation is half done.
        """
        self.written = page.contents(FOLDER)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda fd: None)
            page.detach(patch)
            for moment in page.moments[first:]:
                for state in crash_states(moment, whole=whole):
                    key = hash((frozenset(state.tree.items()), frozenset(moment.told.items())))
                    if key not in self._seen:
                        self._seen.add(key)
                        await self.check(state, moment.told)

    def make(self, tree: Tree) -> None:
        for found in sorted(self.disk.rglob("*"), reverse=True):
            if not found.is_dir():
                found.unlink()
            elif str(found.relative_to(self.disk)) not in tree:
                found.rmdir()
        for path, data in tree.items():
            if data is None:
                (self.disk / path).mkdir(exist_ok=True)
            else:
                (self.disk / path).write_bytes(data)

    async def check(self, state: State, told: dict[str, bytes]) -> None:
        self.states += 1
        self.make(state.tree)
        for run_id in self.written:
            known = told.get(str(FOLDER / f"{run_id}.jsonl"), b"")
            await self.check_run(run_id, known, in_order=state.in_order)

    async def check_run(self, run_id: str, known: bytes, *, in_order: bool) -> None:
        storage = LocalStorage(self.directory)
        path = self.directory / f"{run_id}.jsonl"
        before = path.read_bytes() if path.exists() else b""
        assert before.startswith(known), f"of {run_id!r} something is lost that was told"
        try:
            entries = await storage.read_all(run_id)
        except JournalCorruptionError as damage:
            assert not in_order, "a crash is taken for damage"
            assert damage.line > known.count(b"\n")
            with pytest.raises(JournalCorruptionError, match="Nothing was changed"):
                await start(storage, run_id)
            assert path.read_bytes() == before
            self.damaged += 1
            return
        whole = before[: before.rfind(b"\n") + 1]
        assert b"".join(map(encode_entry, entries, range(len(entries)))) == whole
        assert any(each.startswith(whole) for each in self.written[run_id]), "nobody wrote this"
        went_on = await go_on(storage, run_id, whole)
        after = Journal.read(path)
        after.check_order()
        assert after.torn == b""
        assert after.whole.startswith(whole)
        assert after.entries[-1]["type"] == "complete"
        assert not (went_on and (self.directory / f"{run_id}.lock").exists())


async def go_on(storage: LocalStorage, run_id: str, whole: bytes) -> bool:
    """Open the run, replay all that is recorded, record more, and complete it, unless it is."""
    recorded = [json.loads(line) for line in whole.splitlines()]
    try:
        run = await start(storage, run_id)
    except EventPendingError:
        assert "suspend" in {each["type"] for each in recorded}
        run = await resume(storage, run_id, "event", 1)
    except TerminalRunError:
        assert recorded[-1]["type"] == "complete"
        return False
    async with run:
        for each in recorded:
            if each["type"] == "step":
                assert await run.record(each["name"], never) == each["result"]
        assert await run.record("later", lambda: text("later", 600)) == text("later", 600)
        await run.complete()
    return True


def never() -> NoReturn:
    raise AssertionError("a recorded step runs again")


@pytest.fixture(autouse=True)
def _same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the lines of one story the same as those of its next telling."""
    monkeypatch.setattr("kassette_io._clock.now", lambda: datetime(2026, 1, 31, tzinfo=UTC))
    monkeypatch.setattr("kassette_io.lifecycle._token", lambda: "0" * 32)


def page_cache(root: Path, patch: pytest.MonkeyPatch) -> PageCache:
    root.mkdir()
    return PageCache(root, patch)


@pytest.mark.parametrize("story", STORIES)
async def test_a_power_cut_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[Teller], Awaitable[None]]
) -> None:
    """Broken, a power cut loses what was told to be recorded, or leaves a run that cannot go on.

    Whole lines that are not what was written are damage only where blocks were written in any
    order; then nothing that was told is on such a line, and nothing is repaired (D11).
    """
    page = page_cache(tmp_path / "noted", monkeypatch)
    await story(Teller(page))
    recovery = Recovery(tmp_path / "found")
    await recovery.from_all(page)
    print(f"{story.__name__}: {len(page.moments)} moments, {recovery.states} states,", end=" ")
    print(f"{recovery.damaged} of them damaged")
    assert recovery.states > len(page.moments)


@pytest.mark.parametrize("sound", [True, False], ids=["sound disk", "a reader's fsync failed"])
async def test_a_power_cut_after_a_death_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    """Broken, what a process had not synced when it died is built upon, and lost with the power.

    The second process finds in the page cache what no disk has: a line, a journal's name, that of
    its directory. What it tells its callers must not rest on that; nor on an ``fsync`` that has
    nothing to do, since another one, for somebody who only looked, has failed before.
    """
    recovery = Recovery(tmp_path / "found")
    number = 1
    while True:
        page = page_cache(tmp_path / str(number), monkeypatch)
        teller = Teller(page)
        page.kill_before = number
        try:
            await first_life(teller)
        except Killed:
            teller.next_process()
        else:
            break
        if not sound:
            await teller.looks()
        first = len(page.moments)
        await second_life(teller, sound=sound)
        await recovery.from_all(page, first=first - 1, whole=True)
        number += 1
    print(f"{number - 1} deaths, {recovery.states} states")
    assert number > 30


async def test_a_power_cut_after_a_fault_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, what one failed call left unsynced is built upon, and lost with the power.

    The process that met the fault goes on, with the same storage.
    """
    recovery = Recovery(tmp_path / "found")
    number = 1
    while True:
        page = page_cache(tmp_path / str(number), monkeypatch)
        teller = Teller(page)
        page.fail_before = number
        with suppress(StorageError):
            await first_life(teller)
        if page.fail_before is not None:
            break
        first = len(page.moments)
        await second_life(teller)
        await recovery.from_all(page, first=first - 1, whole=True)
        number += 1
    print(f"{number - 1} faults, {recovery.states} states")
    assert number > 30
