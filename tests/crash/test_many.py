"""LocalStorage in quantity: many runs one after another, many at once, many entries at once."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from anyio import Event, create_task_group, to_thread, wait_all_tasks_blocked

from kassette import CompleteEntry, KassetteError, StartEntry, StepEntry, StorageError
from kassette_io import LocalStorage, start
from kassette_io.loops.threads import MAX_THREADS

from .faults import Disk, writes_only
from .journals import Journal

pytestmark = pytest.mark.anyio

STAMP = "2026-01-31T12:00:00.000Z"
RUN = "run"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class Stuck:
    """A disk on which the next fsyncs of journals hang until they are freed."""

    def __init__(self, disk: Disk, fsyncs: int) -> None:
        self._entered = threading.Semaphore(0)
        self._free = threading.Semaphore(0)
        self._fsyncs = fsyncs
        for _ in range(fsyncs):
            disk.on("fsync", ".jsonl", self._wait)

    def _wait(self, real: Callable[[int], None], fd: int) -> None:
        self._entered.release()
        self._free.acquire()
        real(fd)

    async def entered(self) -> None:
        for _ in range(self._fsyncs):
            await to_thread.run_sync(self._entered.acquire)

    def free(self, fsyncs: int) -> None:
        self._free.release(fsyncs)


def a_start() -> StartEntry:
    return StartEntry(session=1, timestamp=STAMP)


def a_step(number: int, result: object = None) -> StepEntry:
    name = f"step-{number}"
    return StepEntry.of(session=1, timestamp=STAMP, step_id=name, name=name, result=result)


async def test_one_run_after_another_leaves_nothing_in_memory(tmp_path: Path) -> None:
    """Broken, a server that opens ten thousand runs in a day grows until it is killed.

    Measured on the second half of a thousand: what is bounded is full by then.
    """
    storage = LocalStorage(tmp_path)

    async def objects_after(numbers: range) -> int:
        for number in numbers:
            run_id = f"run-{number}"
            await storage.append(run_id, a_start())
            await storage.append(run_id, CompleteEntry(session=1, timestamp=STAMP))
            await storage.read_all(run_id)
        gc.collect()
        return len(gc.get_objects())

    before = await objects_after(range(500))
    assert await objects_after(range(500, 1000)) - before < 250


async def test_d6_a_huge_batch_is_one_write(tmp_path: Path, disk: Disk) -> None:
    """Broken, a thousand waiting appends are a thousand writes, or get each other's offsets."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, a_start())
    stuck = Stuck(disk, 1)
    offsets: dict[int, int] = {}

    async def append(number: int) -> None:
        offsets[number] = await storage.append(RUN, a_step(number))

    async with create_task_group() as group:
        group.start_soon(append, 0)
        await stuck.entered()
        disk.taken()
        for number in range(1, 2001):
            group.start_soon(append, number)
        await wait_all_tasks_blocked()
        stuck.free(1)
    assert disk.taken() == [("write", f"{RUN}.jsonl"), ("fsync", f"{RUN}.jsonl")]
    await storage.aclose()
    journal = Journal.read(tmp_path / f"{RUN}.jsonl")
    journal.check_order()
    assert {each["stepId"]: each["offset"] for each in journal.entries[1:]} == {
        f"step-{number}": offset for number, offset in offsets.items()
    }


@pytest.mark.parametrize("room", [0, 1, 150, 10_000])
async def test_d15_a_batch_without_room_fails_whole_and_harms_no_other(
    tmp_path: Path, disk: Disk, room: int
) -> None:
    """Broken, some of the waiting entries are acknowledged although all were taken back."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, a_start())
    stuck = Stuck(disk, 1)
    refused: list[StorageError] = []

    async def append(number: int) -> None:
        try:
            await storage.append(RUN, a_step(number, "x" * 100))
        except StorageError as error:
            refused.append(error)

    async with create_task_group() as group:
        group.start_soon(append, 0)
        await stuck.entered()
        disk.on("write", ".jsonl", writes_only(room))
        for number in range(1, 101):
            group.start_soon(append, number)
        await wait_all_tasks_blocked()
        stuck.free(1)
    assert [each.rolled_back for each in refused] == [True] * 100
    assert await storage.append(RUN, a_step(101)) == 2
    await storage.aclose()
    journal = Journal.read(tmp_path / f"{RUN}.jsonl")
    journal.check_order()
    assert (list(journal.steps()), journal.torn) == (["step-0", "step-101"], b"")


async def test_writers_that_are_all_stuck_serve_the_others_in_turn(
    tmp_path: Path, disk: Disk
) -> None:
    """Broken, a run that waits for a thread waits for ever, though threads have become free."""
    storage = LocalStorage(tmp_path)
    stuck = Stuck(disk, MAX_THREADS)
    done: list[str] = []
    all_but_the_stuck = Event()

    async def begin(run_id: str) -> None:
        await storage.append(run_id, a_start())
        done.append(run_id)
        if len(done) == 51:
            all_but_the_stuck.set()

    async with create_task_group() as group:
        for number in range(MAX_THREADS):
            group.start_soon(begin, f"stuck-{number}")
        await stuck.entered()
        for number in range(50):
            group.start_soon(begin, f"waiting-{number}")
        await wait_all_tasks_blocked()
        assert done == []
        stuck.free(1)
        await all_but_the_stuck.wait()
        assert len([each for each in done if each.startswith("waiting")]) == 50
        stuck.free(MAX_THREADS - 1)
    await storage.aclose()
    assert list(tmp_path.glob("*.lock")) == []


async def test_d14_a_late_entry_of_a_closed_session_does_not_cost_the_next_its_lock(
    tmp_path: Path, disk: Disk
) -> None:
    """Broken, a live session has no lock, because the batch that opened it began with that entry.

    The first session was superseded and let go while its last append was on its way; that append
    and the next ``start`` are served together.
    """
    storage, elsewhere = LocalStorage(tmp_path), LocalStorage(tmp_path)
    for number in (1, 2):
        await elsewhere.append(RUN, StartEntry(session=number, timestamp=STAMP))
        await elsewhere.release(RUN, number)
    stuck = threading.Event(), threading.Event()

    def slow_open(real: Callable[..., int], path: str, *args: int) -> int:
        stuck[0].set()
        stuck[1].wait()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    outcomes: dict[str, int | KassetteError] = {}

    async def append(name: str, entry: StartEntry | StepEntry) -> None:
        try:
            outcomes[name] = await storage.append(RUN, entry)
        except KassetteError as error:
            outcomes[name] = error

    disk.on("open", ".lock", slow_open)
    async with create_task_group() as group:
        group.start_soon(append, "refused", StartEntry(session=3, timestamp=STAMP))
        await to_thread.run_sync(stuck[0].wait)
        group.start_soon(append, "late", a_step(1))
        await wait_all_tasks_blocked()
        group.start_soon(append, "opened", StartEntry(session=3, timestamp=STAMP))
        await wait_all_tasks_blocked()
        stuck[1].set()
    assert isinstance(outcomes["late"], KassetteError)
    if isinstance(outcomes["opened"], KassetteError):
        async with await start(elsewhere, RUN) as run:
            assert run.session == 3
        return
    with pytest.raises(KassetteError):
        await start(elsewhere, RUN)
    await storage.aclose()
    assert list(tmp_path.glob("*.lock")) == []
