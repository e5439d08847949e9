"""LocalStorage between its callers and its threads: forks, finalizers, memory, missing threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, to_thread, wait_all_tasks_blocked

from kassette import StartEntry, StepEntry, StorageError, WriteContentionError
from kassette_io import LocalStorage
from kassette_io._local_journal import LocalJournal
from kassette_io._threads import WRITERS

from .faults import Disk

pytestmark = pytest.mark.anyio

RUN = "run"
STAMP = "2026-01-31T12:00:00.000Z"
OPENING = StartEntry(session=1, timestamp=STAMP)
WORK = StepEntry.of(session=1, timestamp=STAMP, step_id="work", name="work", result=1)


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


async def test_what_reads_have_told_is_remembered_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a process that looks at every run keeps something of each."""
    monkeypatch.setattr("kassette_io.local_storage._REMEMBERED_READS", 2)
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
    released = threading.Event()
    release = LocalJournal.release

    def noted(journal: LocalJournal) -> None:
        release(journal)
        released.set()

    monkeypatch.setattr(LocalJournal, "release", noted)
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
    offsets: list[int] = []

    async def append(step: str) -> None:
        offsets.append(await storage.append(RUN, WORK.replace(step_id=step)))

    async with create_task_group() as group:
        group.start_soon(append, "first")
        await to_thread.run_sync(busy.wait)
        group.start_soon(append, "last")
        await wait_all_tasks_blocked()
        storage.abandon(RUN, 1)
        free.set()
    assert offsets == [1, 2]
    await storage.aclose()
