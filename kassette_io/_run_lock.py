"""The lock file of one run (D14); what is in the journal is not known here.

Rules:
- The lock is an advisory ``flock`` on ``{run_id}.lock``. The kernel gives it up on any death of the
  holder, so there is nothing to reclaim and no pid to believe: pids are reused, and mean nothing
  in another container.
- A lock counts only on the file that the path names. Whoever gets the flock looks whether the path
  still names the same file, and begins anew if not; the holder removes the file before it lets go.
- The file says in JSON who holds it. That is for people; no decision reads it.
- A forked child inherits the descriptor and with it the lock, so it must close it at once.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import final

import orjson

from kassette import StorageError, WriteContentionError, format_timestamp
from kassette_io import _clock


@final
class RunLock:
    """A held lock; made by ``RunLock.take``."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def take(cls, path: str, *, run_id: str, session: int) -> RunLock:
        """Take the lock without waiting.

        Raises WriteContentionError, naming the holder, if it is held, StorageError if the file
        cannot be made.
        """
        while True:
            fd = _open(path, run_id)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _names(path, fd):
                    _sign(fd, run_id, session)
                    return cls(path, fd)
            except BlockingIOError:
                holder = _read_holder(fd)
                os.close(fd)
                raise WriteContentionError(
                    f"run {run_id!r} is open in another session ({holder}). "
                    "Wait for it to end, or stop it",
                    run_id=run_id,
                ) from None
            except OSError as error:
                os.close(fd)
                raise StorageError(
                    f"cannot lock {path}: {error.strerror}", run_id=run_id
                ) from error
            os.close(fd)

    def is_held(self) -> bool:
        """Tell whether the path still names the locked file; somebody may have removed it."""
        return _names(self._path, self._fd)

    def release(self) -> None:
        """Remove the file and let go."""
        if self.is_held():
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        os.close(self._fd)

    def forget(self) -> None:
        """Close a forked child's copy, which leaves the parent's lock as it is."""
        os.close(self._fd)


def _open(path: str, run_id: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot open the lock file {path}: {error.strerror}. "
            "The process needs to write in this directory",
            run_id=run_id,
        ) from error


def _names(path: str, fd: int) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def _sign(fd: int, run_id: str, session: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "runId": run_id,
        "session": session,
        "since": format_timestamp(_clock.now()),
    }
    os.ftruncate(fd, 0)
    os.pwrite(fd, orjson.dumps(holder) + b"\n", 0)


def _read_holder(fd: int) -> str:
    try:
        holder = orjson.loads(os.pread(fd, 4096, 0))
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its lock file does not say whose"
