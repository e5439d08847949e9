"""LocalStorage between its callers and its threads: forks, finalizers, memory, missing threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, to_thread, wait_all_tasks_blocked

from kassette import StartEntry, StepEntry, StorageError, WriteContentionError
from kassette_io import LocalStorage, Run, fork, start
from kassette_io.loops.threads import WRITERS
from kassette_io.storages.local_journal import LocalJournal

from .faults import Disk

pytestmark = pytest.mark.anyio

RUN = "run"
STAMP = "2026-01-31T12:00:00.000Z"
OPENING = StartEntry(session=1, timestamp=STAMP)
WORK = StepEntry.of(session=1, timestamp=STAMP, step_id="work", name="work", result=1)


def noting_releases(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Give an event that is set once a session has let go of its journal."""
    released = threading.Event()
    release = LocalJournal.release

    def noted(journal: LocalJournal) -> None:
        release(journal)
        released.set()

    monkeypatch.setattr(LocalJournal, "release", noted)
    return released


def no_thread(*_: Any) -> None:
    raise StorageError("the system gives no thread for it", rolled_back=True)


def test_d14_a_forked_child_is_refused_its_parents_session_and_nothing_else(
    tmp_path: Path,
) -> None:
    """Broken, parent and child both write in one session, or the child can write nothing."""
    storage = LocalStorage(tmp_path)

    async def in_child() -> bool:
        try:
            await storage.append(RUN, WORK)
        except WriteContentionError as refused:
            return "belongs to the process" in str(refused) and await opens_another()
        return False

    async def opens_another() -> bool:
        return await storage.append("another", OPENING) == 0

    asyncio.run(storage.append(RUN, OPENING))
    pid = os.fork()
    if pid == 0:
        passed = False
        try:
            passed = asyncio.run(in_child())
        finally:
            os._exit(0 if passed else 1)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert asyncio.run(storage.append(RUN, WORK)) == 1
    asyncio.run(storage.aclose())


def test_d14_a_forked_child_may_open_the_number_of_its_parents_session_anew(
    tmp_path: Path,
) -> None:
    """Broken, a worker that outlives its parent's session is refused that session's number for
    ever, though the run was deleted and begun again.
    """
    storage = LocalStorage(tmp_path)
    hears, tells = os.pipe()

    async def in_child() -> bool:
        offsets = [await storage.append(RUN, OPENING), await storage.append(RUN, WORK)]
        await storage.aclose()
        return offsets == [0, 1]

    asyncio.run(storage.append(RUN, OPENING))
    pid = os.fork()
    if pid == 0:
        passed = False
        try:
            os.read(hears, 1)
            passed = asyncio.run(in_child())
        finally:
            os._exit(0 if passed else 1)
    asyncio.run(storage.aclose())
    (tmp_path / f"{RUN}.jsonl").unlink()
    os.write(tells, b"!")
    _, status = os.waitpid(pid, 0)
    assert status == 0


@pytest.mark.parametrize("how", ["start", "fork"])
def test_d14_a_session_whose_loop_is_closed_while_it_opens_is_closed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Broken, the run stays open in this process for ever: nobody was told of the session."""
    disk = Disk(monkeypatch)
    storage = LocalStorage(tmp_path)
    busy, free = threading.Event(), threading.Event()

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        real(fd)

    async def open_source() -> None:
        async with await start(storage, "source") as run:
            await run.record("work", lambda: 1)

    async def until_busy() -> None:
        opening = start(storage, RUN) if how == "start" else fork_source()
        tasks.append(asyncio.ensure_future(opening))
        await asyncio.to_thread(busy.wait)

    async def fork_source() -> Run:
        return await fork(storage, RUN, source="source", from_step_id="work")

    async def again() -> list[str]:
        async with await start(storage, RUN):
            return [entry.type for entry in await storage.read_all(RUN)]

    asyncio.run(open_source())
    released = noting_releases(monkeypatch)
    disk.on("fsync", ".jsonl" if how == "start" else ".new", slow)
    tasks: list[asyncio.Task[Run]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(until_busy())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    free.set()
    released.wait()
    assert asyncio.run(again()) == ["start", "start"] + ["start"] * (how == "fork")
    assert not (tmp_path / f"{RUN}.lock").exists()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("lock", ["nobody's", "held"])
async def test_d14_a_session_whose_opener_is_closed_meanwhile_is_closed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    """Broken, a coroutine that is collected while it opens a run locks it for ever; or stops the
    process, since the collector came by under a lock.
    """
    disk = Disk(monkeypatch)
    storage = LocalStorage(tmp_path)
    released = noting_releases(monkeypatch)
    busy, free = threading.Event(), threading.Event()

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        real(fd)

    disk.on("fsync", ".jsonl", slow)
    opening = storage.append(RUN, OPENING)
    opening.send(None)
    await to_thread.run_sync(busy.wait)
    with storage._lock if lock == "held" else nullcontext():
        opening.close()
    free.set()
    await to_thread.run_sync(released.wait)
    assert await storage.append(RUN, OPENING.replace(session=2)) == 1
    await storage.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_d14_a_start_that_nobody_waits_for_ends_no_session_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a start that was refused because the run is open ends the session that has it."""
    disk = Disk(monkeypatch)
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    busy, free = threading.Event(), threading.Event()

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        real(fd)

    disk.on("fsync", ".jsonl", slow)
    async with create_task_group() as group:
        group.start_soon(storage.append, RUN, WORK)
        await to_thread.run_sync(busy.wait)
        second = storage.append(RUN, OPENING)
        second.send(None)
        second.close()
        free.set()
    assert await storage.append(RUN, WORK.replace(step_id="more")) == 2
    await storage.aclose()


async def test_d4_what_a_read_has_told_is_for_the_next_session_alone(tmp_path: Path) -> None:
    """Broken, a session begins with what a read of long ago has found, and is refused since the
    journal was deleted meanwhile.
    """
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    await storage.release(RUN, 1)
    await storage.read_all(RUN)
    await storage.append(RUN, OPENING.replace(session=2))
    await storage.release(RUN, 2)
    (tmp_path / f"{RUN}.jsonl").unlink()
    assert await storage.append(RUN, OPENING.replace(session=3)) == 0
    await storage.aclose()


@pytest.mark.parametrize("reads", ["a read that finds nothing", "no read"])
async def test_d4_a_journal_deleted_since_it_was_read_is_begun_anew(
    tmp_path: Path, reads: str
) -> None:
    """Broken, the first attempt to begin a run again fails, for somebody has looked at the old."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    await storage.release(RUN, 1)
    await storage.read_all(RUN)
    (tmp_path / f"{RUN}.jsonl").unlink()
    if reads == "no read":
        assert await storage.append(RUN, OPENING) == 0
    else:
        assert await storage.read_all(RUN) == []
        assert await storage.append(RUN, OPENING.replace(session=2)) == 0
    await storage.aclose()


async def test_d5_a_session_built_on_a_journal_that_is_gone_is_refused(tmp_path: Path) -> None:
    """Broken, a run whose journal is deleted while it is opened goes on in a new one, with steps
    that are written nowhere.
    """
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    await storage.release(RUN, 1)
    await storage.read_all(RUN)
    (tmp_path / f"{RUN}.jsonl").unlink()
    with pytest.raises(StorageError, match="deleted or replaced since it was read"):
        await storage.append(RUN, OPENING.replace(session=2))
    assert os.listdir(tmp_path) == []


async def test_what_reads_have_told_is_remembered_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a process that looks at every run keeps something of each."""
    monkeypatch.setattr("kassette_io.storages.local._REMEMBERED_READS", 2)
    for run_id in ("a", "b", "c"):
        async with LocalStorage(tmp_path) as storage:
            await storage.append(run_id, OPENING)
        assert not (tmp_path / f"{run_id}.lock").exists(), "`async with` ends open sessions"
    for run_id in ("a", "b", "c"):
        await storage.read_all(run_id)
    assert list(storage._read) == ["b", "c"]


async def test_without_a_thread_an_append_is_refused_and_a_session_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a process at its limit waits for ever, or keeps every run locked."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    with monkeypatch.context() as patch:
        patch.setattr(WRITERS, "post", no_thread)
        with pytest.raises(StorageError, match="no thread") as refused:
            await storage.append(RUN, WORK)
        assert refused.value.run_id == RUN
        assert (tmp_path / f"{RUN}.lock").exists()
        await storage.release(RUN, 1)
    assert not (tmp_path / f"{RUN}.lock").exists()


@pytest.mark.parametrize("whose", ["nobody", "storage", "threads"])
async def test_d2_a_session_that_is_dropped_ends_whatever_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Broken, the garbage collector stops the process, or a dropped run stays locked."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    released = noting_releases(monkeypatch)
    held = {"storage": storage._lock, "threads": WRITERS._lock}.get(whose, threading.Lock())
    with held:
        storage.abandon(RUN, 1)
    await to_thread.run_sync(released.wait)
    assert not (tmp_path / f"{RUN}.lock").exists()


async def test_a_session_that_ends_while_it_is_dropped_costs_no_writer_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a mailbox that is served no more gets the job, and the thread that takes it dies."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    journal, _ = storage._open[RUN]

    class EndsJustThen:
        """The session's own end comes between the look and the lock."""

        def acquire(self, *, blocking: bool) -> bool:
            if storage._open.pop(RUN, None):
                journal.release()
            return lock.acquire(blocking=blocking)

        def release(self) -> None:
            lock.release()

    died: list[object] = []
    lock = storage._lock
    monkeypatch.setattr(threading, "excepthook", died.append)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_lock", EndsJustThen())
        storage.abandon(RUN, 1)
    await storage.append("another", OPENING)
    assert died == []


async def test_d6_an_append_that_waits_before_the_end_of_its_session_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, the last entry of a session that is dropped is lost, and its caller told nothing."""
    disk = Disk(monkeypatch)
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    busy, free = threading.Event(), threading.Event()

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        real(fd)

    disk.on("fsync", ".jsonl", slow)
    offsets: dict[str, int] = {}

    async def append(step: str) -> None:
        offsets[step] = await storage.append(RUN, WORK.replace(step_id=step))

    async with create_task_group() as group:
        group.start_soon(append, "first")
        await to_thread.run_sync(busy.wait)
        group.start_soon(append, "last")
        await wait_all_tasks_blocked()
        storage.abandon(RUN, 1)
        free.set()
    assert offsets == {"first": 1, "last": 2}
    await storage.aclose()
