"""What a session on a local disk lets go of, and when: its lock, its files, its place in memory."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from anyio import create_task_group, to_thread, wait_all_tasks_blocked

from kassette import (
    CompleteEntry,
    Entry,
    JournalCorruptionError,
    KassetteError,
    StartEntry,
    StepEntry,
    StorageError,
    UsageError,
    WriteContentionError,
)
from kassette_io import LocalStorage, fork, start

from .faults import Disk, EveryCall, Fault, fails, writes_only
from .journals import Journal

pytestmark = pytest.mark.anyio

RUN = "run"
STAMP = "2026-01-31T12:00:00.000Z"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def permissive() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def opening(session: int) -> StartEntry:
    return StartEntry(session=session, timestamp=STAMP)


def recording(step: str) -> StepEntry:
    return StepEntry.of(session=1, timestamp=STAMP, step_id=step, name=step, result=1)


def completing() -> CompleteEntry:
    return CompleteEntry(session=1, timestamp=STAMP)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def fsynced(disk: Disk) -> list[str]:
    return [name for call, name in disk.taken() if call == "fsync"]


def no_memory(*_: object) -> NoReturn:
    raise MemoryError("no more")


async def test_d14_a_forked_child_keeps_what_took_the_number_of_a_lock_that_is_gone(
    directory: Path,
) -> None:
    """Broken, a forked child finds its sockets closed: their numbers were once those of locks."""
    storage = LocalStorage(directory)
    sessions = [await start(storage, f"{RUN}-{number}") for number in range(8)]
    for session in sessions:
        await session.aclose()
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(32)]
    pid = os.fork()
    if pid == 0:
        try:
            for fd in taken:
                os.fstat(fd)
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    for fd in taken:
        os.close(fd)
    assert status == 0


async def test_d14_a_refusal_says_since_when_the_run_is_open(directory: Path) -> None:
    """Broken, nobody can tell a session that has hung for a week from one that just began."""
    async with await start(LocalStorage(directory), RUN):
        with pytest.raises(WriteContentionError, match=r"pid \d+ on \S+ since \d{4}-\d\d-\d\dT"):
            await LocalStorage(directory).append(RUN, opening(2))


async def test_d14_the_entry_that_ends_a_run_lets_go_of_its_lock(directory: Path) -> None:
    """Broken, a run that is over looks as if somebody were at it until its caller comes by."""
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(1))
    assert (directory / f"{RUN}.lock").exists()
    await storage.append(RUN, completing())
    assert os.listdir(directory) == [f"{RUN}.jsonl"]


async def test_d14_a_session_that_cannot_even_look_lets_go_at_once(
    directory: Path, tmp_path: Path
) -> None:
    """Broken, a session that is over keeps the run locked for as long as its process lives."""
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(1))
    moved = directory.rename(tmp_path / "moved")
    directory.write_text("not a directory")
    with pytest.raises(StorageError, match="cannot append to journal"):
        await storage.append(RUN, recording("work"))
    async with await start(LocalStorage(moved), RUN) as again:
        assert again.session == 2


async def test_d5_a_session_whose_journal_was_deleted_lets_go_at_once(directory: Path) -> None:
    """Broken, a run that was deleted to begin it anew is locked until its old caller comes by."""
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(1))
    (directory / f"{RUN}.jsonl").unlink()
    with pytest.raises(StorageError, match="cannot continue journal"):
        await storage.append(RUN, recording("work"))
    assert os.listdir(directory) == []


async def test_d14_a_lock_that_is_taken_anew_is_the_only_one(directory: Path) -> None:
    """Broken, a session whose lock file is swept away by a cleaner runs out of descriptors."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("before", lambda: 1)
        before = descriptors()
        for number in range(4):
            (directory / f"{RUN}.lock").unlink()
            await run.record(f"work-{number}", lambda: 1)
        assert descriptors() < before + 4


async def test_d14_a_lock_that_somebody_else_holds_fences_nobody_yet(directory: Path) -> None:
    """Broken, a session is told of a newer one that has not begun, or writes beside it."""
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(1))
    lock = directory / f"{RUN}.lock"
    lock.unlink()
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WriteContentionError):
            await storage.append(RUN, recording("work"))
    assert Journal.read(directory / f"{RUN}.jsonl").steps() == {}


async def test_d14_a_start_that_another_took_back_does_not_stand_in_the_way(
    directory: Path,
) -> None:
    """Broken, a run that nobody has begun cannot be begun: its empty file was seen and is gone."""
    directory.mkdir()
    (directory / f"{RUN}.jsonl").touch()
    storage = LocalStorage(directory)
    assert await storage.read_all(RUN) == []
    (directory / f"{RUN}.jsonl").rename(directory / "gone")
    assert await storage.append(RUN, opening(1)) == 0
    await storage.aclose()


async def test_d12_a_fork_into_a_run_that_exists_leaves_it_unlocked(directory: Path) -> None:
    """Broken, the attempt to fork locks the run that is there out."""
    storage = LocalStorage(directory)
    await (await start(storage, RUN)).aclose()
    with pytest.raises(UsageError):
        await storage.create(RUN, [opening(1)])
    assert os.listdir(directory) == [f"{RUN}.jsonl"]
    await (await start(LocalStorage(directory), RUN)).aclose()


async def test_d11_damage_done_while_a_session_opens_is_reported_and_the_lock_let_go(
    directory: Path,
) -> None:
    """Broken, a session opens on a journal that nobody can read, or locks it for good."""
    await (await start(LocalStorage(directory), RUN)).aclose()
    storage = LocalStorage(directory)
    await storage.read_all(RUN)
    with (directory / f"{RUN}.jsonl").open("ab") as file:
        file.write(b"noise\n")
    with pytest.raises(JournalCorruptionError) as damaged:
        await storage.append(RUN, opening(2))
    assert (damaged.value.line, damaged.value.run_id) == (2, RUN)
    assert os.listdir(directory) == [f"{RUN}.jsonl"]


async def test_what_was_open_is_closed_and_forgotten(directory: Path) -> None:
    """Broken, a server that serves many runs ends without descriptors, or without memory."""
    storage = LocalStorage(directory)
    await (await start(storage, RUN)).aclose()
    before = descriptors()
    for number in range(8):
        await (await start(storage, RUN)).aclose()
        await (await fork(storage, f"copy-{number}", source=RUN, from_offset=1)).aclose()
    assert descriptors() < before + 8
    assert storage._open == {}


@pytest.mark.usefixtures("permissive")
async def test_everybody_may_read_and_the_owner_write(directory: Path) -> None:
    """Broken, a journal can be run as a program, or a monitor of another user cannot read it."""
    storage = LocalStorage(directory)
    async with await start(storage, RUN), await fork(storage, "copy", source=RUN, from_offset=1):
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in directory.iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o644}


async def test_d12_a_fork_is_durable_before_it_can_be_seen_and_its_name_before_it_returns(
    directory: Path, disk: Disk
) -> None:
    """Broken, a power cut leaves an empty run under the fork's name, or none."""
    storage = LocalStorage(directory)
    await (await start(storage, RUN)).aclose()
    disk.taken()
    await storage.create("copy", [opening(1)])
    made = [call for call in disk.taken() if call[0] in {"write", "fsync", "rename"}]
    assert made == [
        ("write", ".copy.new"),
        ("fsync", ".copy.new"),
        ("rename", ".copy.new"),
        ("fsync", directory.name),
        ("fsync", directory.parent.name),
    ]
    await storage.aclose()


@pytest.mark.parametrize("left", ["x", "left by a crash"], ids=["one byte", "a signature"])
async def test_d15_what_a_dead_session_left_is_durable_before_it_is_built_on(
    directory: Path, disk: Disk, left: str
) -> None:
    """Broken, a power cut keeps our entries and loses those of the dead session before them."""
    await (await start(LocalStorage(directory), RUN)).aclose()
    (directory / f"{RUN}.lock").write_text(left)
    disk.taken()
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(2))
    journal = f"{RUN}.jsonl"
    assert fsynced(disk) == [journal, directory.name, directory.parent.name, journal]
    await storage.aclose()


@pytest.mark.parametrize(
    ("fault", "raised", "said"),
    [(fails(errno.EIO), StorageError, "cannot sync journal"), (no_memory, MemoryError, "no more")],
    ids=["EIO", "MemoryError"],
)
async def test_d15_what_could_not_be_made_durable_is_left_to_the_next(
    directory: Path, disk: Disk, fault: Fault, raised: type[Exception], said: str
) -> None:
    """Broken, the one who comes next believes in entries that nobody has synced."""
    await (await start(LocalStorage(directory), RUN)).aclose()
    (directory / f"{RUN}.lock").write_text("left by a crash")
    storage = LocalStorage(directory)
    disk.on("fsync", ".jsonl", fault)
    with pytest.raises(raised, match=said):
        await storage.append(RUN, opening(2))
    assert (directory / f"{RUN}.lock").read_bytes()
    disk.taken()
    await storage.append(RUN, opening(2))
    assert fsynced(disk)[0] == f"{RUN}.jsonl"
    await storage.aclose()


@pytest.mark.parametrize("first", ["start", "step"])
async def test_d14_a_start_that_waits_among_steps_is_refused_alone(
    directory: Path, disk: Disk, first: str
) -> None:
    """Broken, a second ``start`` in the process ends the first session, or fails its steps."""
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(1))
    busy, free = threading.Event(), threading.Event()
    refused: dict[str, KassetteError] = {}

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        real(fd)

    async def append(entry: Entry) -> None:
        try:
            await storage.append(RUN, entry)
        except KassetteError as error:
            refused[entry.type] = error

    waiting: list[Entry] = [opening(2), recording("more")]
    disk.on("fsync", ".jsonl", slow)
    async with create_task_group() as group:
        group.start_soon(append, recording("work"))
        await to_thread.run_sync(busy.wait)
        for entry in waiting if first == "start" else reversed(waiting):
            group.start_soon(append, entry)
            await wait_all_tasks_blocked()
        free.set()
    assert set(refused) == {"start"}
    assert isinstance(refused["start"], WriteContentionError)
    assert Journal.read(directory / f"{RUN}.jsonl").steps() == {"work": 1, "more": 1}
    await storage.aclose()


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([("fsync", ".jsonl", fails(errno.EIO))], "cannot sync journal"),
        (
            [("write", ".jsonl", writes_only(30)), ("ftruncate", ".jsonl", fails(errno.EIO))],
            "cannot write journal",
        ),
    ],
    ids=["sync", "write"],
)
async def test_d15_a_session_that_the_disk_has_ended_lets_go_at_once(
    directory: Path, disk: Disk, faults: list[tuple[str, str, Fault]], said: str
) -> None:
    """Broken, nobody can go on with the run until the caller of the lost session comes by."""
    storage = LocalStorage(directory)
    await storage.append(RUN, opening(1))
    for fault in faults:
        disk.on(*fault)
    with pytest.raises(StorageError, match=said):
        await storage.append(RUN, recording("work"))
    async with await start(LocalStorage(directory), RUN) as again:
        assert again.session == 2


@pytest.mark.parametrize(
    ("call", "verb"), [("open", "open"), ("write", "write")], ids=["open", "write"]
)
async def test_what_the_disk_refused_is_named(
    directory: Path, disk: Disk, call: str, verb: str
) -> None:
    """Broken, whoever has to mend the disk is not told what it refused."""
    disk.on(call, ".jsonl", fails(errno.ENOSPC))
    with pytest.raises(StorageError, match=f"cannot {verb} journal"):
        await LocalStorage(directory).append(RUN, opening(1))
    disk.on(call, ".new", fails(errno.ENOSPC))
    with pytest.raises(StorageError, match="cannot create journal"):
        await LocalStorage(directory).create(RUN, [opening(1)])
    (directory / f"{RUN}.jsonl").mkdir()
    with pytest.raises(StorageError, match="cannot read journal"):
        await LocalStorage(directory).read_all(RUN)


@pytest.mark.parametrize("forked", [False, True], ids=["started", "forked"])
async def test_nothing_is_read_again_while_nobody_else_writes(
    directory: Path, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    """Broken, the longer a run, the slower its steps: each reads the journal once more."""
    calls = EveryCall(monkeypatch)
    storage = LocalStorage(directory)
    if forked:
        await storage.create(RUN, [opening(1)])
    else:
        await storage.append(RUN, opening(1))
    for step in ("one", "two", "three"):
        calls.made.clear()
        assert await storage.append(RUN, recording(step)) > 0
        assert calls.made == ["stat", "stat", "write", "fsync"]
    await storage.aclose()
