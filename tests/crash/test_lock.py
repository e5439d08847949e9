"""D14 one case at a time: what a lock file says, who removed it, and two sessions in one process."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from anyio import create_task_group

from kassette import FencedError, StorageError, WriteContentionError
from kassette_io import LocalStorage, start

from .contenders import hold
from .journals import Journal
from .processes import Processes, fork_server

pytestmark = pytest.mark.anyio

RUN = "run"
NAMESPACE = ["unshare", "--pid", "--fork"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "journals"
    path.mkdir()
    return path


@pytest.fixture
def lock(directory: Path) -> Path:
    return directory / f"{RUN}.lock"


@pytest.fixture
def journal(directory: Path) -> Path:
    return directory / f"{RUN}.jsonl"


@contextmanager
def held(lock: Path, content: bytes) -> Iterator[None]:
    """Hold the lock as a process of another container would: nothing it says can be checked."""
    lock.write_bytes(content)
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


DEAD = 2**22
"""A pid that no process has: Linux gives smaller ones."""


def claim(pid: int, host: str | None = None) -> bytes:
    name = socket.gethostname() if host is None else host
    return orjson.dumps({"pid": pid, "host": name, "runId": RUN, "session": 7, "since": "2026"})


CLAIMS = {
    "pid 1": claim(1),
    "this very process": claim(os.getpid()),
    "its parent": claim(os.getppid()),
    "a pid of another host": claim(4711, "another-host"),
    "nothing": b"",
    "no text": b"\x00\xff" * 3000,
    "no object": b"[1, 2]",
    "an object that says nothing": b"{}",
    "a dead kassette of the other language": b"%d" % DEAD,
    "a dead one that says more": b'{"pid":%d,"acquiredAt":"2026-01-31T12:00:00.000Z"}' % DEAD,
    "a dead one with our pid": b"<our pid>\n",
    "all processes": b'{"pid":-1}',
    "our own group": b"0",
    "no pid of any system": b'{"pid":9999999999999999999}',
    "a number in digits of its own": "٣".encode(),
    "a date": b"2026-01-31T12:00:00Z",
}


@pytest.fixture
def said(content: bytes) -> bytes:
    """Return what a lock file says, with the pid of this process, which may be a fork of pytest."""
    return content.replace(b"<our pid>", b"%d" % os.getpid())


ALIVE = os.getppid()
LIVE_CLAIMS = {
    "a pid": b"%d" % ALIVE,
    "a line": b"%d\n" % ALIVE,
    "a pid and more": b"%d another-host\n2026" % ALIVE,
    "an object": b'{"pid":%d}' % ALIVE,
    "an object that says more": b'{"pid": %d, "host": "h", "session": 1, "since": 1}\n' % ALIVE,
    "the pid of another user": b"1",
}


@pytest.mark.parametrize("content", CLAIMS.values(), ids=CLAIMS)
async def test_d14_a_stale_lock_file_is_taken_whatever_it_says(
    directory: Path, lock: Path, said: bytes
) -> None:
    """Broken, a run whose process died is locked for ever once its pid belongs to another."""
    lock.write_bytes(said)
    async with await start(LocalStorage(directory), RUN) as run:
        says = orjson.loads(lock.read_bytes())
        assert says["pid"] == os.getpid()
        assert says["host"] == socket.gethostname()
        assert (says["runId"], says["session"]) == (RUN, run.session)
    assert not lock.exists()


@pytest.mark.parametrize("content", CLAIMS.values(), ids=CLAIMS)
async def test_d14_a_held_lock_is_respected_whatever_its_file_says(
    directory: Path, lock: Path, said: bytes
) -> None:
    """Broken, a session in another container, whose pid means nothing here, is robbed of its run."""
    storage = LocalStorage(directory)
    with held(lock, said):
        with pytest.raises(WriteContentionError, match="is open in another session"):
            await start(storage, RUN)
        assert lock.read_bytes() == said
    async with await start(storage, RUN) as run:
        assert run.session == 1


@pytest.mark.parametrize("content", LIVE_CLAIMS.values(), ids=LIVE_CLAIMS)
async def test_d14_a_live_kassette_of_the_other_language_is_respected(
    directory: Path, lock: Path, content: bytes
) -> None:
    """Broken, a run that a TypeScript process works on is taken from it, and its lock removed."""
    lock.write_bytes(content)
    storage = LocalStorage(directory)
    pid = 1 if content == b"1" else ALIVE
    for _ in range(2):
        with pytest.raises(WriteContentionError) as refused:
            await start(storage, RUN)
        assert f"is open in process {pid}, according to {lock}" in str(refused.value)
        assert refused.value.run_id == RUN
        assert lock.read_bytes() == content
    assert os.listdir(directory) == [lock.name]
    lock.write_bytes(b"%d" % DEAD)
    async with await start(storage, RUN) as run:
        assert run.session == 1


async def test_d14_a_lock_of_the_other_language_that_comes_later_ends_the_session(
    directory: Path, lock: Path
) -> None:
    """Broken, a session whose lock file was replaced goes on beside the one that replaced it."""
    async with await start(LocalStorage(directory), RUN) as run:
        lock.unlink()
        lock.write_bytes(b"%d" % ALIVE)
        with pytest.raises(WriteContentionError, match=f"is open in process {ALIVE}"):
            await run.record("work", lambda: 1)
    assert lock.read_bytes() == b"%d" % ALIVE


async def test_d14_without_fcntl_journals_are_read_and_writing_says_what_is_missing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a system without POSIX locks gets a traceback of ours where it asks for one."""
    storage = LocalStorage(directory)
    async with await start(storage, RUN):
        pass
    monkeypatch.setattr("kassette_io.storages.run_lock.fcntl", None)
    assert [entry.type for entry in await storage.read_all(RUN)] == ["start"]
    with pytest.raises(StorageError, match="this Python has no fcntl") as refused:
        await start(storage, RUN)
    assert refused.value.run_id == RUN
    assert os.listdir(directory) == [f"{RUN}.jsonl"]


async def test_d14_a_refusal_names_the_holder(processes: Processes, directory: Path) -> None:
    """Broken, nobody finds the process that has the run."""
    holder = processes.start(hold, backend="asyncio", directory=str(directory))
    pid = holder.channel.receive()["pid"]
    with pytest.raises(WriteContentionError, match=rf"pid {pid} on {socket.gethostname()} since 2"):
        await start(LocalStorage(directory), RUN)


async def test_pid_namespaces(directory: Path, lock: Path) -> None:
    """Broken, containers that share a volume believe each other's pids.

    The pid of the holder means nothing out here: in the forged form it is nobody's, in the real
    form, where namespaces can be made, it is the pid of somebody else.
    """
    storage = LocalStorage(directory)
    with held(lock, claim(2**22 + 1, "container")), pytest.raises(WriteContentionError):
        await start(storage, RUN)
    if not namespaces_can_be_made():
        return
    with fork_server(prefix=NAMESPACE) as server:
        inside = Processes(server)
        holder = inside.start(hold, backend="asyncio", directory=str(directory))
        pid = holder.channel.receive()["pid"]
        assert orjson.loads(lock.read_bytes())["pid"] == pid < os.getpid()
        with pytest.raises(WriteContentionError, match=f"pid {pid} "):
            await start(storage, RUN)
        holder.channel.send("die")
        assert holder.wait() == -9
        inside.end()
    assert lock.exists()
    async with await start(storage, RUN) as run:
        assert run.session == 2


def namespaces_can_be_made() -> bool:
    if sys.platform != "linux" or shutil.which(NAMESPACE[0]) is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("same_object", [True, False], ids=["one storage", "two storages"])
async def test_d14_two_sessions_in_one_process(directory: Path, same_object: bool) -> None:
    """Broken, two tasks of one program do the same work at once."""
    storage = LocalStorage(directory)
    other = storage if same_object else LocalStorage(directory)
    async with await start(storage, RUN) as run:
        await run.record("first", lambda: 1)
        for _ in range(3):
            with pytest.raises(WriteContentionError):
                await start(other, RUN)
        await run.record("second", lambda: 2)
    async with await start(other, RUN) as later:
        assert later.session == 2
    assert list(Journal.read(directory / f"{RUN}.jsonl").steps().values()) == [1, 2]


@pytest.mark.parametrize("same_object", [True, False], ids=["one storage", "two storages"])
async def test_d14_the_loser_of_a_race_leaves_the_winners_lock_alone(
    directory: Path, same_object: bool
) -> None:
    """Broken, the loser's clean-up unlocks a run that somebody works on.

    All of them read an empty journal and go for session 1, so the number cannot tell them apart.
    """
    storages = [LocalStorage(directory)] * 5
    if not same_object:
        storages = [LocalStorage(directory) for _ in range(5)]
    opened = []

    async def enter(storage: LocalStorage) -> None:
        try:
            opened.append(await start(storage, RUN))
        except (WriteContentionError, FencedError):
            await storage.release(RUN, 2)

    async with create_task_group() as group:
        for storage in storages:
            group.start_soon(enter, storage)
    assert len(opened) == 1
    with pytest.raises(WriteContentionError):
        await start(LocalStorage(directory), RUN)
    await opened[0].record("work", lambda: 1)
    await opened[0].aclose()
    async with await start(LocalStorage(directory), RUN) as run:
        assert run.session == 2


async def test_d14_releasing_a_session_that_was_never_opened_here(
    directory: Path, lock: Path
) -> None:
    """Broken, a release that is late, repeated or somebody else's unlocks a live session."""
    holder, stranger = LocalStorage(directory), LocalStorage(directory)
    async with await start(holder, RUN) as run:
        for session in (1, 2, 0):
            await stranger.release(RUN, session)
            stranger.abandon(RUN, session)
        for session in (2, 0):
            await holder.release(RUN, session)
            holder.abandon(RUN, session)
        await stranger.aclose()
        await holder.release("another", 1)
        with pytest.raises(WriteContentionError):
            await start(stranger, RUN)
        await run.record("work", lambda: 1)
    await holder.release(RUN, 1)
    assert not lock.exists()


async def test_d14_a_deleted_lock_file_is_taken_anew(
    directory: Path, lock: Path, journal: Path
) -> None:
    """Broken, an operator who tidies up ends a healthy session, or leaves it without a lock."""
    storage = LocalStorage(directory)
    async with await start(storage, RUN) as run:
        lock.unlink()
        await run.record("work", lambda: 1)
        assert orjson.loads(lock.read_bytes())["session"] == run.session
        with pytest.raises(WriteContentionError):
            await start(LocalStorage(directory), RUN)
    assert not lock.exists()
    assert Journal.read(journal).steps() == {"work": 1}


async def test_after_a_deleted_lock_file_the_newer_session_wins(
    directory: Path, lock: Path, journal: Path
) -> None:
    """Broken, two sessions go on side by side because a lock file was deleted."""
    async with await start(LocalStorage(directory), RUN) as old:
        await old.record("work", lambda: "old")
        lock.unlink()
        async with await start(LocalStorage(directory), RUN) as new:
            assert await new.record("work", lambda: "new") == "old"
            with pytest.raises(FencedError) as fenced:
                await old.record("more", lambda: "old")
            assert (fenced.value.rejected_session, fenced.value.active_session) == (1, 2)
            await old.aclose()
            assert lock.exists()
            assert await new.record("more", lambda: "new") == "new"
            await new.complete()
    found = Journal.read(journal)
    found.check_order()
    assert found.steps() == {"work": "old", "more": "new"}


async def test_d14_a_second_session_in_the_process_after_a_deleted_lock_file(
    directory: Path, lock: Path
) -> None:
    """Broken, the run is locked until the process ends: the lock went to the session refused."""
    storage = LocalStorage(directory)
    async with await start(storage, RUN) as run:
        lock.unlink()
        with pytest.raises(WriteContentionError):
            await start(storage, RUN)
        await run.record("work", lambda: 1)
    assert not lock.exists()
    async with await start(LocalStorage(directory), RUN) as later:
        assert later.session == 2


async def test_d14_a_directory_for_a_lock_file_is_a_clear_error(
    directory: Path, lock: Path
) -> None:
    """Broken, an odd directory entry is a traceback of the standard library."""
    lock.mkdir()
    with pytest.raises(StorageError, match="lock file") as refused:
        await start(LocalStorage(directory), RUN)
    assert isinstance(refused.value.__cause__, IsADirectoryError)
    lock.rmdir()
    async with await start(LocalStorage(directory), RUN) as run:
        assert run.session == 1
