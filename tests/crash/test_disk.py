"""D15: what an append costs, and what becomes of it when the disk refuses a single call."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, to_thread, wait_all_tasks_blocked

from kassette import KassetteError, SessionClosedError, StorageError
from kassette_io import Context, LocalStorage, Success, fork, start, workflow
from kassette_io.storages import local_journal

from .faults import Disk, Fault, fails, then_fails, writes_only
from .journals import Journal, is_held_open

pytestmark = pytest.mark.anyio

RUN = "run"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def journal(directory: Path) -> Path:
    return directory / f"{RUN}.jsonl"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def durable(name: str) -> list[tuple[str, str]]:
    return [("write", name), ("fsync", name)]


async def left_by_a_crash(directory: Path) -> bytes:
    """Leave the journal of a session that has recorded one step and died; give what it holds."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("before", lambda: 1)
    (directory / f"{RUN}.lock").write_text("left by a crash")
    return (directory / f"{RUN}.jsonl").read_bytes()


async def assert_goes_on(directory: Path, steps: dict[str, Any]) -> None:
    """A new session finds the lock free, replays exactly ``steps`` and can write."""
    async with await start(LocalStorage(directory), RUN) as run:
        for name, value in steps.items():
            assert await run.record(name, lambda: "again") == value
        assert await run.record("later", lambda: "later") == "later"
    found = Journal.read(directory / f"{RUN}.jsonl")
    found.check_order()
    assert (found.steps(), found.torn) == ({**steps, "later": "later"}, b"")
    assert not (directory / f"{RUN}.lock").exists()


async def test_an_append_is_one_write_and_one_fsync(directory: Path, disk: Disk) -> None:
    """Broken, a crash tears entries that one write keeps whole, or durability costs double."""
    name = f"{RUN}.jsonl"
    directory.mkdir()
    async with await start(LocalStorage(directory), RUN) as run:
        made = [call for call in disk.taken() if call[0] in {"write", "fsync"}]
        names = [("fsync", directory.name), ("fsync", directory.parent.name)]
        assert made == [*durable(name), *names]
        for size in (0, 10, 100_000):
            await run.record("step", partial(str.ljust, "", size))
            noted, *made = disk.taken()
            assert noted == ("pwrite", f"{RUN}.lock")
            assert made == durable(name)
        await run.complete()
        assert [call for call in disk.taken() if call[0] != "unlink"] == durable(name)


async def test_d6_appends_that_wait_together_share_one_write(directory: Path, disk: Disk) -> None:
    """Broken, a wide parallel block pays an fsync for every branch."""
    busy, free = threading.Event(), threading.Event()

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        real(fd)

    async with await start(LocalStorage(directory), RUN) as run:
        disk.taken()
        disk.on("fsync", ".jsonl", slow)
        async with create_task_group() as group:
            group.start_soon(run.record, "first", int)
            await to_thread.run_sync(busy.wait)
            for number in range(200):
                group.start_soon(run.record, f"waiting-{number}", partial(str, number))
            await wait_all_tasks_blocked()
            free.set()
    made = [call for call in disk.taken() if call[0] in {"write", "fsync"}]
    assert made == durable(f"{RUN}.jsonl") * 2
    assert len(Journal.read(directory / f"{RUN}.jsonl").steps()) == 201


async def test_d15_a_new_journal_is_in_its_directory_before_start_returns(
    tmp_path: Path, disk: Disk
) -> None:
    """Broken, a power cut after ``start`` loses the journal: nothing had named it durably.

    A directory that had to be made is named in its parent, and that one in its own.
    """
    async with await start(LocalStorage(tmp_path / "new" / "journals"), RUN):
        synced = [name for call, name in disk.taken() if call == "fsync"]
    assert {"journals", "new", tmp_path.name} <= set(synced)
    async with await start(LocalStorage(tmp_path / "new" / "journals"), RUN):
        assert [name for call, name in disk.taken() if call == "fsync"] == [f"{RUN}.jsonl"]


REFUSED_WRITES = {
    "full": fails(errno.ENOSPC),
    "over quota": fails(errno.EDQUOT),
    "broken": fails(errno.EIO),
    "nothing written": writes_only(0),
    "one byte written": writes_only(1),
    "nearly all written": writes_only(60),
}


@pytest.mark.parametrize("fault", REFUSED_WRITES.values(), ids=REFUSED_WRITES)
async def test_d15_a_refused_write_is_rolled_back_and_the_session_goes_on(
    directory: Path, journal: Path, disk: Disk, fault: Fault
) -> None:
    """Broken, a full disk leaves half an entry, or ends a session that could have gone on.

    The roll-back is synced: a power cut must not bring back what was said to be gone.
    """
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("before", lambda: 1)
        size = journal.stat().st_size
        for _ in range(3):
            disk.on("write", ".jsonl", fault)
            disk.taken()
            with pytest.raises(StorageError, match="Nothing of this entry was written") as refused:
                await run.record("work", lambda: "x" * 100)
            undone = [("ftruncate", journal.name), ("fsync", journal.name)]
            assert disk.taken()[-2:] == undone
            assert refused.value.rolled_back
            assert refused.value.run_id == RUN
            assert isinstance(refused.value.__cause__, OSError)
            assert journal.stat().st_size == size
        await run.record("after", lambda: 2)
        disk.on("write", ".jsonl", fault)
        with pytest.raises(StorageError):
            await run.complete()
        await run.complete()
    found = Journal.read(journal)
    found.check_order()
    assert (found.steps(), found.torn) == ({"before": 1, "after": 2}, b"")
    assert found.entries[-1]["type"] == "complete"


@pytest.mark.parametrize("fault", REFUSED_WRITES.values(), ids=REFUSED_WRITES)
async def test_d15_a_refused_start_leaves_nothing_behind(
    directory: Path, journal: Path, disk: Disk, fault: Fault
) -> None:
    """Broken, a run that could not begin has a journal, or a lock."""
    storage = LocalStorage(directory)
    disk.on("write", ".jsonl", fault)
    with pytest.raises(StorageError):
        await start(storage, RUN, metadata={"input": 1})
    assert os.listdir(directory) == []
    async with await start(storage, RUN, metadata={"input": 2}) as run:
        assert (run.session, run.metadata) == (1, {"input": 2})
    disk.on("write", ".jsonl", fault)
    before = journal.read_bytes()
    with pytest.raises(StorageError):
        await start(storage, RUN)
    assert journal.read_bytes() == before
    await assert_goes_on(directory, {})


LOST = {
    "fsync fails": [("fsync", ".jsonl", fails(errno.EIO))],
    "fsync fails late": [("fsync", ".jsonl", then_fails(errno.EIO))],
    "fsync is over quota": [("fsync", ".jsonl", fails(errno.EDQUOT))],
    "the write cannot be taken back": [
        ("write", ".jsonl", writes_only(30)),
        ("ftruncate", ".jsonl", fails(errno.EIO)),
    ],
    "neither fsync nor taking back": [
        ("fsync", ".jsonl", fails(errno.EIO)),
        ("ftruncate", ".jsonl", fails(errno.EIO)),
    ],
}


@pytest.mark.parametrize("faults", LOST.values(), ids=LOST)
async def test_a_session_is_over_when_the_disk_cannot_be_believed(
    directory: Path, disk: Disk, faults: list[tuple[str, str, Fault]]
) -> None:
    """Broken, entries are stacked on one that may not be there after a power cut."""
    run = await start(LocalStorage(directory), RUN)
    await run.record("before", lambda: 1)
    for fault in faults:
        disk.on(*fault)
    with pytest.raises(StorageError, match="start the run again") as lost:
        await run.record("work", lambda: 2)
    assert not lost.value.rolled_back
    assert run.lost_to is lost.value
    with pytest.raises(SessionClosedError):
        await run.record("more", lambda: 3)
    await run.aclose()
    assert (directory / f"{RUN}.lock").exists(), "whoever takes it syncs what is in doubt"
    landed = Journal.read(directory / f"{RUN}.jsonl").steps()
    assert landed in ({"before": 1}, {"before": 1, "work": 2})
    await assert_goes_on(directory, landed)


async def test_d15_what_a_dead_session_left_is_written_again_before_the_next_builds_on_it(
    directory: Path, journal: Path, disk: Disk
) -> None:
    """Broken, an fsync that failed for the dead one, or for a reader, makes the next one lie."""
    left = await left_by_a_crash(directory)
    disk.taken()
    await (await start(LocalStorage(directory), RUN)).aclose()
    calls = [name for name, file in disk.taken() if file == journal.name]
    assert calls[-6:] == ["pwrite", "ftruncate", "fsync", "open", "write", "fsync"]
    assert journal.read_bytes().startswith(left)


@pytest.mark.parametrize("reach", [2**26, 50], ids=["short", "long"])
async def test_d15_the_end_of_a_journal_is_written_again(
    directory: Path, journal: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, reach: int
) -> None:
    """Broken, what a failed fsync has left clean stays so, or a descriptor is lost at each crash."""
    monkeypatch.setattr(local_journal, "_WRITTEN_AGAIN", reach)
    monkeypatch.setattr(local_journal, "_PIECE", 40)
    left = await left_by_a_crash(directory)
    first = max(len(left) - reach, 0)
    positions: list[int] = []

    def noted(real: Callable[..., int], fd: int, data: bytes, position: int) -> int:
        assert data == left[position : position + 40]
        positions.append(position)
        return real(fd, data, position)

    def size(real: Callable[..., None], fd: int, length: int) -> None:
        assert length == len(left)
        real(fd, length)

    pieces = range(first, len(left), 40)
    for _ in pieces:
        disk.on("pwrite", ".jsonl", noted)
    disk.on("ftruncate", ".jsonl", size)
    await (await start(LocalStorage(directory), RUN)).aclose()
    assert positions == [*pieces]
    assert journal.read_bytes().startswith(left)
    assert not is_held_open(journal)


async def test_d15_a_journal_that_may_only_be_appended_to_is_synced(
    directory: Path, journal: Path, disk: Disk
) -> None:
    """Broken, whoever guards journals by ``chattr +a`` can recover no run."""
    await left_by_a_crash(directory)

    def no_place(real: Callable[..., int], path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and not flags & os.O_APPEND:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        return real(path, flags, *mode)

    for _ in range(2):
        disk.on("open", ".jsonl", no_place)
    disk.taken()
    await assert_goes_on(directory, {"before": 1})
    calls = [name for name, file in disk.taken() if file == journal.name]
    looked, again = ["open", "fsync"], ["open", "open", "fsync"]
    assert calls[:7] == [*looked, *again, "open", "write"]


async def test_d15_a_journal_that_nobody_may_write_stays_in_doubt(
    directory: Path, journal: Path, disk: Disk
) -> None:
    """Broken, what was left is forgotten while the journal is read-only, and then built upon."""
    await left_by_a_crash(directory)

    def read_only(real: Callable[..., int], path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *mode)

    for _ in ["to look at", "to write in place", "to append to"]:
        disk.on("open", ".jsonl", read_only)
    with pytest.raises(StorageError, match="Permission denied"):
        await start(LocalStorage(directory), RUN)
    assert (directory / f"{RUN}.lock").exists(), "whoever takes it writes and syncs what is there"
    disk.taken()
    await assert_goes_on(directory, {"before": 1})
    assert ("pwrite", journal.name) in disk.taken()


async def test_d15_a_reader_looks_again_at_what_was_rolled_back_meanwhile(
    directory: Path, journal: Path, disk: Disk
) -> None:
    """Broken, somebody is told of an entry that its writer has taken back."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("before", lambda: 1)
        kept = journal.read_bytes()
        await run.record("taken back", lambda: 2)
    (directory / f"{RUN}.lock").write_text("left by a crash")

    def rolled_back(real: Callable[[int], None], fd: int) -> None:
        os.truncate(journal, len(kept))
        real(fd)

    disk.on("fsync", ".jsonl", rolled_back)
    entries = await LocalStorage(directory).read_all(RUN)
    assert [each.type for each in entries] == ["start", "step"]
    assert not is_held_open(journal)


@pytest.mark.parametrize(
    ("call", "says"),
    [("pwrite", "sync"), ("ftruncate", "sync"), ("fsync", "sync"), ("look", "read")],
)
async def test_d15_what_cannot_be_written_again_stays_in_doubt(
    directory: Path, journal: Path, disk: Disk, call: str, says: str
) -> None:
    """Broken, a session begins on entries that a power cut takes away."""
    await left_by_a_crash(directory)
    if call == "fsync":
        disk.on("fsync", ".jsonl", lambda real, fd: real(fd))
    fault = writes_only(3) if call == "pwrite" else fails(errno.EIO)
    disk.on("fsync" if call == "look" else call, ".jsonl", fault)
    with pytest.raises(StorageError, match=f"cannot {says}"):
        await start(LocalStorage(directory), RUN)
    assert (directory / f"{RUN}.lock").exists(), "whoever takes it writes and syncs what is there"
    await assert_goes_on(directory, {"before": 1})


@pytest.mark.parametrize("call", ["ftruncate", "fsync"])
async def test_d11_a_torn_line_that_may_not_be_gone_is_in_doubt_for_the_next(
    directory: Path, journal: Path, disk: Disk, call: str
) -> None:
    """Broken, a power cut puts the rest of a torn line behind half of the entry after it."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("before", lambda: 1)
    journal.write_bytes(journal.read_bytes() + b'{"torn":')
    disk.on(call, ".jsonl", fails(errno.EIO))
    with pytest.raises(StorageError, match="cannot open"):
        await start(LocalStorage(directory), RUN)
    assert (directory / f"{RUN}.lock").exists(), "whoever takes it syncs what is in doubt"
    await assert_goes_on(directory, {"before": 1})


async def test_d15_what_waits_behind_a_failed_fsync_is_not_written(
    directory: Path, disk: Disk
) -> None:
    """Broken, a session that is over goes on writing: its branches' entries were on their way."""
    busy, free = threading.Event(), threading.Event()

    def slow(real: Callable[[int], None], fd: int) -> None:
        busy.set()
        free.wait()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    run = await start(LocalStorage(directory), RUN)
    errors: list[KassetteError] = []

    async def record(name: str) -> None:
        try:
            await run.record(name, str)
        except KassetteError as error:
            errors.append(error)

    disk.on("fsync", ".jsonl", slow)
    async with create_task_group() as group:
        group.start_soon(record, "first")
        await to_thread.run_sync(busy.wait)
        group.start_soon(record, "second")
        await wait_all_tasks_blocked()
        free.set()
    await run.aclose()
    assert len(errors) == 2
    assert Journal.read(directory / f"{RUN}.jsonl").steps() == {}
    await assert_goes_on(directory, {})


@pytest.mark.parametrize(
    "faults", [[("fsync", "journals", fails(errno.EIO))], *LOST.values()], ids=["directory", *LOST]
)
async def test_d15_a_start_that_may_not_be_durable_is_refused(
    directory: Path, disk: Disk, faults: list[tuple[str, str, Fault]]
) -> None:
    """Broken, work begins on a run whose ``start`` a power cut takes away."""
    for fault in faults:
        disk.on(*fault)
    with pytest.raises(StorageError) as refused:
        await start(LocalStorage(directory), RUN)
    assert not refused.value.rolled_back
    assert (directory / f"{RUN}.lock").exists(), "whoever takes it syncs what is in doubt"
    await assert_goes_on(directory, {})


@pytest.mark.parametrize(
    ("call", "suffix", "number"),
    [
        ("open", ".lock", errno.ENOSPC),
        ("open", ".lock", errno.EMFILE),
        ("open", ".lock", errno.EROFS),
        ("pwrite", ".lock", errno.ENOSPC),
        ("open", ".jsonl", errno.EMFILE),
        ("mkdir", "journals", errno.EACCES),
    ],
)
async def test_d14_a_lock_that_cannot_be_made_is_a_clear_error(
    directory: Path, disk: Disk, call: str, suffix: str, number: int
) -> None:
    """Broken, a full or read-only disk shows as a bare OSError, or leaves the run locked."""
    storage = LocalStorage(directory)
    disk.on(call, suffix, fails(number))
    with pytest.raises(StorageError, match=os.strerror(number)) as refused:
        await start(storage, RUN)
    assert refused.value.run_id == RUN
    assert RUN in str(refused.value)
    await assert_goes_on(directory, {})


async def test_d15_the_lock_is_let_go_even_if_its_file_stays(directory: Path, disk: Disk) -> None:
    """Broken, the process keeps a run locked for as long as it lives."""
    for number in (errno.EIO, errno.EROFS, errno.EACCES):
        run = await start(LocalStorage(directory), RUN)
        disk.on("unlink", ".lock", fails(number))
        await run.aclose()
        assert (directory / f"{RUN}.lock").exists()
    await assert_goes_on(directory, {})


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS])
async def test_a_crashed_run_can_be_read_on_a_read_only_disk(
    directory: Path, disk: Disk, number: int
) -> None:
    """Broken, nobody can look at a backup of a crashed run: there is no ``fsync`` on its disk."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("work", lambda: 1)
    (directory / f"{RUN}.lock").write_text("left by a crash")
    disk.on("fsync", ".jsonl", fails(number))
    assert len(await LocalStorage(directory).read_all(RUN)) == 2
    disk.on("fsync", ".jsonl", fails(errno.EIO))
    with pytest.raises(StorageError, match="cannot read"):
        await LocalStorage(directory).read_all(RUN)
    await assert_goes_on(directory, {"work": 1})


@pytest.mark.parametrize("faults", LOST.values(), ids=LOST)
async def test_errors_of_the_disk_do_not_fail_the_run(
    directory: Path, disk: Disk, faults: list[tuple[str, str, Fault]]
) -> None:
    """Broken, a disk error is journaled as the workflow's own failure, and the run is over."""
    done: list[str] = []
    finished: list[object] = []

    async def pipeline(ctx: Context) -> int:
        await ctx.step("before", done.append, "before")
        if not done[1:]:
            for fault in faults:
                disk.on(*fault)
        await ctx.step("work", done.append, "work")
        return len(done)

    flow = workflow(
        pipeline,
        storage=LocalStorage(directory),
        on_finish=finished.append,
        on_error=finished.append,
    )
    with pytest.raises(StorageError):
        await flow.start(run_id=RUN)
    assert finished == []
    assert {entry["type"] for entry in Journal.read(directory / f"{RUN}.jsonl").entries} <= {
        "start",
        "step",
    }
    assert isinstance(await flow.start(run_id=RUN), Success)
    assert done.count("before") == 1
    assert done.count("work") <= 2


@pytest.mark.parametrize(
    ("call", "suffix", "fault"),
    [
        ("open", ".new", fails(errno.ENOSPC)),
        ("write", ".new", fails(errno.ENOSPC)),
        ("write", ".new", writes_only(10)),
        ("fsync", ".new", fails(errno.EIO)),
        ("rename", ".new", fails(errno.EIO)),
        ("open", ".lock", fails(errno.ENOSPC)),
    ],
)
async def test_d12_a_refused_fork_leaves_no_target(
    directory: Path, disk: Disk, call: str, suffix: str, fault: Fault
) -> None:
    """Broken, half a fork stands where a run should be, and the next attempt finds it taken."""
    storage = LocalStorage(directory)
    async with await start(storage, RUN) as run:
        await run.record("work", lambda: 1)
    disk.on(call, suffix, fault)
    with pytest.raises(StorageError) as refused:
        await fork(storage, "copy", source=RUN, from_offset=2)
    assert refused.value.run_id == "copy"
    assert os.listdir(directory) == [f"{RUN}.jsonl"]
    async with await fork(storage, "copy", source=RUN, from_offset=2) as copy:
        assert await copy.record("work", lambda: 0) == 1
