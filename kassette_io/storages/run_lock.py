"""The lock file of one run; knows nothing about the journal's contents.

Rules:
- The lock is an advisory ``flock`` on ``{run_id}.lock``. The kernel releases it however the holder
  dies, so there is nothing to reclaim and no pid to trust: pids are reused, and mean nothing in
  another container.
- A lock only counts on the file that the path names. After getting the flock, a process checks
  that the path still names the same file, and retries if not; the holder removes the file before
  it releases the flock.
- The file names its holder in JSON. That is for people; no decision about our own lock reads it.
  If it is not empty when the lock is taken (``left_over``), the last holder never released it: it
  died, and its writes may only be in the page cache.
- The TypeScript kassette takes no flock: its lock is a file with a pid. While a process has that
  pid, the lock counts as held and the file is not touched. The pid may have been reused, or refer
  to another container, which the original cannot detect either. Then a person has to remove the
  file, as the error says: a waiting run is better than one with two writers. If no process has the
  pid, or it is our own, the session is dead and its lock is taken.
- While a session is open the file also says which steps are running (``note_running``). It is
  written without fsync, by one ``pwrite`` of the whole text, so it survives however the process
  dies. No decision reads it.
- A forked child inherits the file descriptor and with it the lock, so it closes it immediately. No
  fork happens between opening a descriptor and registering it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any, Final, cast, final

import orjson

from kassette import StorageError, WriteContentionError, format_timestamp
from kassette_io import _clock

try:
    import fcntl
except ImportError:  # not a POSIX system: journals can still be read, and object stores used
    fcntl = None  # type: ignore[assignment]

_OURS: Final = {"pid", "host", "runId", "session", "since"}
"""The members of a lock file of this library."""

READ_AT_MOST: Final = 4096


@final
class RunLock:
    """A held lock, returned by ``RunLock.take``."""

    __slots__ = ("_fd", "_found", "_guard", "_holder", "_length", "_path", "left_over")

    def __init__(self, path: str, fd: int, holder: bytes, *, left_over: bool) -> None:
        self.left_over = left_over
        self._path = path
        self._fd = fd
        self._found = os.fstat(fd)
        self._guard = threading.Lock()
        self._holder = holder.rstrip()
        self._length = len(holder)

    @classmethod
    def take(cls, path: str, *, run_id: str, session: int) -> RunLock:
        """Take the lock without waiting.

        Raise WriteContentionError, naming the holder, if it is held, and StorageError if the file
        cannot be created or the system has no ``flock``.
        """
        if fcntl is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise StorageError(
                f"cannot lock {path}: this Python has no fcntl module, which LocalStorage needs. "
                "Use a POSIX system, or RemoteStorage with an object store",
                run_id=run_id,
            )
        while True:
            with _GUARD:
                fd = _open(path, run_id)
                _DESCRIPTORS.add(fd)
                refused = _try_flock(fd)
            held_by = ""
            other = None
            try:
                if refused is None and _names(path, found := os.fstat(fd)):
                    other = _other_holder(fd) if found.st_size else None
                    if other is None:
                        holder = _sign(fd, run_id, session)
                        return cls(path, fd, holder, left_over=found.st_size > 0)
                else:
                    held_by = _read_holder(fd)
            except OSError as error:
                refused = error
            _close(fd)
            if isinstance(refused, BlockingIOError):
                raise WriteContentionError(
                    f"run {run_id!r} is open in another session ({held_by}). "
                    "Wait until that session ends, or stop its process",
                    run_id=run_id,
                )
            if other is not None:
                raise WriteContentionError(
                    f"run {run_id!r} is open in process {other}, according to {path}, a lock file "
                    "of the TypeScript kassette. If that process works on the run, wait for it to "
                    "end; if its pid has been reused by an unrelated process, remove the file",
                    run_id=run_id,
                )
            if refused is not None:
                raise StorageError(
                    f"cannot lock {path}: {refused.strerror}", run_id=run_id
                ) from refused

    def is_held(self) -> bool:
        """Return whether the path still names the locked file, which may have been removed."""
        return _names(self._path, self._found)

    def note_running(self, running: bytes) -> None:
        """Write which steps are running, as a JSON array; from any thread. Never raises.

        What would not fit into what is read of a lock file is left out.
        """
        text = b'%b,"running":%b}' % (self._holder[:-1], running)
        if len(text) >= READ_AT_MOST:
            return
        self._length = max(self._length, len(text) + 1)
        padded = text.ljust(self._length - 1) + b"\n"
        with self._guard:
            if self._fd >= 0:
                with suppress(OSError):
                    os.pwrite(self._fd, padded, 0)

    def release(self, *, left_over: bool = False) -> None:
        """Remove the file and release the lock, even if the file cannot be removed.

        With ``left_over`` the file remains, as if the holder had died.
        """
        with suppress(OSError):
            if not left_over and self.is_held():
                os.unlink(self._path)
        with self._guard:
            fd, self._fd = self._fd, -1
            _close(fd)


_GUARD = threading.Lock()
"""Held while a descriptor is opened or closed, and across every fork."""

_DESCRIPTORS: set[int] = set()
"""The descriptors that a forked child must close."""


def _try_flock(fd: int) -> OSError | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # pyright: ignore[reportOptionalMemberAccess]
    except OSError as error:
        return error
    return None


def _close(fd: int) -> None:
    with _GUARD:
        if fd in _DESCRIPTORS:
            _DESCRIPTORS.discard(fd)
            with suppress(OSError):  # it is closed even if close reports an error
                os.close(fd)


def _after_fork_in_child() -> None:
    for fd in _DESCRIPTORS:
        with suppress(OSError):
            os.close(fd)
    _DESCRIPTORS.clear()
    _GUARD.release()


os.register_at_fork(
    before=_GUARD.acquire,
    after_in_parent=_GUARD.release,
    after_in_child=_after_fork_in_child,
)


def _open(path: str, run_id: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot open the lock file {path}: {error.strerror}. "
            "The process needs to write in this directory",
            run_id=run_id,
        ) from error


def _names(path: str, held: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return found.st_ino == held.st_ino and found.st_dev == held.st_dev


def read_lock(path: str) -> bytes | None:
    """Return what a lock file says, without touching the lock; None if there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(READ_AT_MOST)
    except OSError:
        return None


def _sign(fd: int, run_id: str, session: int) -> bytes:
    holder = {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "runId": run_id,
        "session": session,
        "since": format_timestamp(_clock.now()),
    }
    signature = orjson.dumps(holder) + b"\n"
    os.pwrite(fd, signature, 0)
    os.ftruncate(fd, len(signature))
    return signature


def _read_holder(fd: int) -> str:
    try:
        holder = orjson.loads(os.pread(fd, READ_AT_MOST, 0))
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its lock file does not name the holder"


def _other_holder(fd: int) -> int | None:
    """Return the pid in a lock file of another implementation, if a process has that pid."""
    pid = pid_of_another(os.pread(fd, READ_AT_MOST, 0))
    return pid if pid is not None and _is_alive(pid) else None


def pid_of_another(text: bytes) -> int | None:
    """Return the pid in the lock file ``text`` if another implementation wrote it.

    The documentation of the TypeScript kassette says that the file has a pid, but not in which
    form: a number at the beginning and the member ``pid`` of a JSON object are both accepted.
    """
    first = text.split(maxsplit=1)[:1]
    pid: Any = int(first[0]) if first and first[0].isdigit() and len(first[0]) < 20 else None
    with suppress(ValueError):
        says: Any = orjson.loads(text)
        if isinstance(says, dict):
            members = cast("dict[str, Any]", says)
            pid = None if members.keys() >= _OURS else members.get("pid")
    return pid if type(pid) is int and pid > 0 else None


def _is_alive(pid: int) -> bool:
    """Return whether a process other than this one has ``pid``."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    return True
