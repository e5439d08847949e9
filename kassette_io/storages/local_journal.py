"""One run's journal file, as handled by the thread that serves the run; no event loop here.

Rules:
- One append, or several that were queued together, is one ``write`` and one ``fsync`` of one
  buffer. The directory and its parent are fsynced when the journal is created.
- A short or refused write is rolled back to the last whole entry and fails only its own appends.
  After a failed fsync or a failed rollback the session is over: the page cache can no longer be
  trusted.
- The lock is held from the ``start`` entry until the session ends. Every append checks that the
  lock file still exists and that the journal has the size this process left it with; if not, it
  takes the lock and reads the journal's end again, so that the tail check decides.
- A torn last line is an append that never happened; the next writer truncates it. The truncation
  is fsynced before the next write, because the disk may otherwise reorder the two.
- A remaining lock file means that a process died, or that the disk refused a write, so there may be
  unsynced data. A reader syncs it before returning it. The next holder of the lock first rewrites
  the journal's end and truncates it to its size: after a failed fsync, in any process, the kernel
  considers lost data as written, and the next fsync would have nothing to do.
- The session opened next uses what ``read`` learned about the journal's end: nothing is read twice.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import EINVAL, ENOENT, ENOSPC, ENOTDIR, EROFS
from typing import cast, final

from kassette import (
    Entry,
    FencedError,
    JournalCorruptionError,
    KassetteError,
    StartEntry,
    StorageError,
    Tail,
    WriteContentionError,
    check_append,
    decode_journal,
    encode_entry,
)
from kassette.errors import with_run_id
from kassette.evidence.found import read_left
from kassette.immutable import Immutable
from kassette.notes import Found
from kassette_io.storages.protocol import taken
from kassette_io.storages.run_lock import RunLock, read_lock

Outcome = int | BaseException


@final
class Known(Immutable):
    """What is known about a journal file.

    ``tail`` describes its end, ``size`` counts the bytes of its whole lines, ``inode`` identifies
    the file, ``ending`` is the last bytes of those lines, to detect a file copied over it,
    and ``left`` is what a lock file and a torn line say about a session that never ended.
    """

    tail: Tail
    size: int
    inode: int
    ending: bytes
    left: Found | None = None


_ENDING = 128
"""How many bytes distinguish a journal from another of the same size; lines are rarely shorter."""

_LOOKED_AT_AGAIN = 2**16
"""How many bytes of a journal's end are compared again once they are synced."""

_WRITTEN_AGAIN = 2**26
"""How many bytes of a journal's end are rewritten; the last write of a session that died is rarely
a hundredth of this."""

_PIECE = 2**20
"""How many bytes are rewritten at a time."""


@final
class LocalJournal:
    """The journal of ``run_id`` in ``directory``. Used by one thread at a time.

    ``session`` is the open session, ``opened_by`` a token that identifies who opened it.
    """

    def __init__(self, directory: str, run_id: str) -> None:
        self.run_id = run_id
        self._directory = directory
        self._path = os.path.join(directory, f"{run_id}.jsonl")
        self._lock_path = os.path.join(directory, f"{run_id}.lock")
        self._known: Known | None = None
        self._lock: RunLock | None = None
        self._fd = -1
        self.session: int | None = None
        self.opened_by: object = None

    # --- reading ---------------------------------------------------------------------------

    def read(self) -> tuple[list[Entry], Known | None]:
        """Return every entry, and what is known about the file; takes no lock.

        What is returned is durable: no lock file means that the last session ended in order. If
        there is one, what was read is synced and compared again, since an append for which the
        disk was full may have been rolled back in between. What a broken disk refused to sync, for
        its writer or another reader, may be returned until a session takes over the run.
        """
        try:
            data, inode = _read_from(self._path, 0)
            while os.path.exists(self._lock_path) and not _is_durable(self._path, data):
                data, inode = _read_from(self._path, 0)
        except FileNotFoundError:
            return [], None
        except OSError as error:
            raise self._failure("read", error) from error
        try:
            journal = decode_journal(data)
        except JournalCorruptionError as error:
            raise with_run_id(error, self.run_id) from error.__cause__
        ending = data[max(journal.whole - _ENDING, 0) : journal.whole]
        left = read_left(read_lock(self._lock_path), data[journal.whole :])
        tail = Tail.of(journal.entries)
        return journal.entries, Known(tail, journal.whole, inode, ending, left)

    def note_running(self, session: int, running: bytes) -> None:
        """Write into the lock file which steps of ``session`` are running; from any thread."""
        lock = self._lock
        if lock is not None and self.session == session:
            lock.note_running(running)

    # --- writing ---------------------------------------------------------------------------

    def append(self, entries: list[Entry], known: Known | None) -> list[Outcome]:
        """Append the permitted entries together; return each one's offset or error.

        ``known`` is what an earlier ``read`` returned.
        """
        try:
            return self._append(entries, known)
        except OSError as error:
            self.release()
            return [self._failure("append to", error)] * len(entries)

    def _append(self, entries: list[Entry], known: Known | None) -> list[Outcome]:
        outcomes: list[Outcome] = []
        waiting = list(entries)
        while waiting and self._lock is None:
            outcomes.append(self._append_unlocked(waiting.pop(0), known))
        if waiting:
            outcomes.extend(self._append_locked(waiting))
        if self._lock is not None and self._over():
            self.release()
        return outcomes

    def _append_unlocked(self, entry: Entry, known: Known | None) -> Outcome:
        if not isinstance(entry, StartEntry):
            return self._not_open(entry)
        try:
            self._open(entry.session, known)
        except KassetteError as error:
            return error
        outcome = self._write_allowed([entry], opening=True)[0]
        if not isinstance(outcome, int):
            self.release()
        return outcome

    def _append_locked(self, entries: list[Entry]) -> list[Outcome]:
        if all(isinstance(entry, StartEntry) for entry in entries):
            return [self._open_here() for _ in entries]
        if not self._undisturbed():
            try:
                self._take_up_again()
            except KassetteError as error:
                return [error] * len(entries)
        return self._write_allowed(entries, opening=False)

    def create(self, entries: list[Entry]) -> None:
        """Create a journal atomically and hold its lock for the session of the last entry."""
        session = entries[-1].session
        self._make_directory()
        self._lock, self.session = self._take_lock(session), session
        temporary = os.path.join(self._directory, f".{self.run_id}.new")
        try:
            if self.read()[0]:
                raise taken(self.run_id)
            data = b"".join(map(encode_entry, entries, range(len(entries))))
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                _write_whole(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, self._path)
            self._sync_names()
            self._fd = self._open_file()
            inode = os.fstat(self._fd).st_ino
            self._known = Known(Tail.of(entries), len(data), inode, data[-_ENDING:])
        except BaseException as error:
            with suppress(OSError):
                os.unlink(temporary)
            if isinstance(error, OSError):
                self.release(left_over=os.path.exists(self._path))
                raise self._failure("create", error) from error
            self.release()
            raise

    def release(self, *, left_over: bool = False) -> None:
        """End the session: close the journal and release the lock.

        With ``left_over`` the lock file remains, so that its next holder syncs the journal.
        """
        self.session = self.opened_by = None
        fd, self._fd = self._fd, -1
        lock, self._lock = self._lock, None
        if fd >= 0:
            with suppress(OSError):
                if os.fstat(fd).st_size == 0:
                    os.unlink(self._path)
            with suppress(OSError):
                os.close(fd)
        if lock is not None:
            lock.release(left_over=left_over)

    def forget(self) -> None:
        """Close a forked child's copy of the journal; the session continues in the parent."""
        with suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)

    def _open(self, session: int, known: Known | None) -> None:
        """Take the lock for ``session`` and read the journal's end."""
        self._make_directory()
        self._lock = self._take_lock(session)
        self.session = session
        try:
            self._fd = self._open_file()
            self._learn(known)
        except OSError as error:
            self.release()
            raise self._failure("open", error) from error
        except BaseException:
            self.release()
            raise

    def _take_lock(self, session: int) -> RunLock:
        """Take the lock and make durable what a dead holder left."""
        lock = RunLock.take(self._lock_path, run_id=self.run_id, session=session)
        if not lock.left_over:
            return lock
        try:
            with suppress(FileNotFoundError):
                _write_again(self._path)
            self._sync_names()
        except BaseException as error:
            lock.release(left_over=True)
            if isinstance(error, OSError):
                raise self._failure("sync", error) from error
            raise
        return lock

    def _take_up_again(self) -> None:
        """Check again who owns the run, as the lock file is gone or the journal has changed."""
        try:
            if not os.path.samestat(os.stat(self._path), os.fstat(self._fd)):
                raise FileNotFoundError(ENOENT, "it was replaced by another file")
            if self._lock_is_held():
                self._learn(None)
            else:
                self._lock_again()
        except OSError as error:
            self.release()
            raise self._failure("continue", error) from error

    def _lock_again(self) -> None:
        session = cast("int", self.session)
        self.release()
        try:
            self._open(session, None)
        except WriteContentionError:
            newest = Tail.of(self.read()[0]).session
            if newest > session:
                raise FencedError(session, newest, run_id=self.run_id) from None
            raise

    def _not_open(self, entry: Entry) -> KassetteError:
        """Return the error for an entry of a session that holds no lock."""
        try:
            check_append(Tail.of(self.read()[0]), entry, run_id=self.run_id)
        except KassetteError as error:
            return error
        return WriteContentionError(
            f"session {entry.session} of run {self.run_id!r} is not open in this storage, or no "
            "longer. Start the run again; it continues from its journal",
            run_id=self.run_id,
        )

    def _learn(self, known: Known | None) -> None:
        """Read the journal from where ``known`` ends, and truncate a torn last line."""
        found = os.fstat(self._fd)
        if known is None:
            known = Known(Tail(), 0, found.st_ino, b"")
        elif known.size and not self._goes_on_from(known, found):
            raise FileNotFoundError(ENOENT, "it was deleted or replaced since it was read")
        if known.size < found.st_size:
            data, _ = _read_from(self._path, known.size)
            try:
                journal = decode_journal(data, first_offset=known.tail.count)
            except JournalCorruptionError as error:
                raise with_run_id(error, self.run_id) from error.__cause__
            tail = known.tail
            for entry in journal.entries:
                tail = tail.then(entry)
            ending = (known.ending + data[: journal.whole])[-_ENDING:]
            known = Known(tail, known.size + journal.whole, found.st_ino, ending)
            if journal.whole < len(data):
                self._cut_off(known.size)
        self._known = known

    def _cut_off(self, size: int) -> None:
        try:
            _truncate(self._fd, size)
        except OSError:
            self.release(left_over=True)
            raise

    def _goes_on_from(self, known: Known, found: os.stat_result) -> bool:
        if known.inode != found.st_ino or known.size > found.st_size:
            return False
        length = len(known.ending)
        return os.pread(self._fd, length, known.size - length) == known.ending

    def _write_allowed(self, entries: list[Entry], *, opening: bool) -> list[Outcome]:
        known = self._known
        assert known is not None
        outcomes: list[Outcome] = []
        lines: list[bytes] = []
        tail = known.tail
        for entry in entries:
            try:
                if isinstance(entry, StartEntry) and not opening:
                    raise self._open_here()
                check_append(tail, entry, run_id=self.run_id)
            except KassetteError as error:
                outcomes.append(error)
                continue
            opening = False
            lines.append(encode_entry(entry, tail.count))
            outcomes.append(tail.count)
            tail = tail.then(entry)
        if not lines:
            return outcomes
        data = b"".join(lines)
        failure = self._write(data, known.size, created=known.tail.count == 0)
        if failure is not None:
            return [failure if isinstance(each, int) else each for each in outcomes]
        ending, size = data[-_ENDING:], known.size + len(data)
        self._known = Known.of_fields(tail, size, known.inode, ending, None)
        return outcomes

    def _write(self, data: bytes, size: int, *, created: bool) -> StorageError | None:
        try:
            _write_whole(self._fd, data)
        except OSError as error:
            return self._roll_back(size, error)
        try:
            os.fsync(self._fd)
            if created:
                self._sync_names()
        except OSError as error:
            with suppress(OSError):
                _truncate(self._fd, size)
            self.release(left_over=True)
            return self._failure("sync", error)
        return None

    def _roll_back(self, size: int, error: OSError) -> StorageError:
        try:
            _truncate(self._fd, size)
        except OSError:
            self.release(left_over=True)
            return self._failure("write", error)
        return self._failure("write", error, rolled_back=True)

    def _open_here(self) -> WriteContentionError:
        return WriteContentionError(
            f"run {self.run_id!r} is open in this process (session {self.session}). "
            "Close that session with aclose(), or use `async with`",
            run_id=self.run_id,
        )

    def _undisturbed(self) -> bool:
        known = self._known
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (
            known is not None
            and named.st_ino == known.inode
            and named.st_size == known.size
            and self._lock_is_held()
        )

    def _lock_is_held(self) -> bool:
        return self._lock is not None and self._lock.is_held()

    def _over(self) -> bool:
        return self._known is not None and self._known.tail.terminal is not None

    # --- files -----------------------------------------------------------------------------

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags, 0o644)

    def _make_directory(self) -> None:
        """Create the directory and its parents, and sync each one's name in its parent.

        The first existing parent is synced too: its creator may have died before doing so.
        """
        missing: list[str] = []
        directory = self._directory
        while not os.path.isdir(directory) and directory not in missing:
            missing.append(directory)
            directory = os.path.dirname(directory)
        try:
            if missing:
                _sync_name(directory)
            for each in reversed(missing):
                with suppress(FileExistsError):
                    os.mkdir(each)
                _sync(os.path.dirname(each))
            if missing and not os.path.isdir(self._directory):
                raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), self._directory)
        except OSError as error:
            raise self._failure("create the directory of", error) from error

    def _sync_names(self) -> None:
        """Make the journal's name durable, and that of its directory."""
        _sync(self._directory)
        _sync_name(self._directory)

    def _failure(self, verb: str, error: OSError, *, rolled_back: bool = False) -> StorageError:
        remains = (
            "Nothing of this entry was written; earlier entries are intact"
            if rolled_back
            else "Earlier entries are intact; fix the cause, then start the run again"
        )
        failure = StorageError(
            f"cannot {verb} journal {self._path}: {error.strerror or error}. {remains}",
            run_id=self.run_id,
            rolled_back=rolled_back,
        )
        failure.__cause__ = error
        return failure


def _read_from(path: str, position: int) -> tuple[bytes, int]:
    """Return the bytes from ``position`` to the current size, and the inode.

    It does not read to the end of the file: half of a torn line read first, and the new entries
    that replaced it read later, would form a line that was never written. A file that is not
    regular, such as a named pipe, has no size and is read to its end.
    """
    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            return file.readall(), found.st_ino
        if position:
            file.seek(position)
        missing = found.st_size - position
        chunks: list[bytes] = []
        while missing > 0 and (chunk := file.read(missing)):
            chunks.append(chunk)
            missing -= len(chunk)
        return b"".join(chunks), found.st_ino


def _sync(path: str, how: int = os.O_RDONLY) -> None:
    fd = os.open(path, how | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_again(path: str) -> None:
    """Make a file's end durable as it now reads, whatever earlier fsyncs returned.

    The size is made durable too, since a truncation may have failed. A file that can only be
    appended to (``chattr +a``) is synced without being rewritten.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        _sync(path, os.O_RDWR | os.O_APPEND)
        return
    try:
        position = max(os.fstat(fd).st_size - _WRITTEN_AGAIN, 0)
        while piece := os.pread(fd, _PIECE, position):
            if os.pwrite(fd, piece, position) != len(piece):
                raise OSError(ENOSPC, "it could only be written in part")
            position += len(piece)
        _truncate(fd, position)
    finally:
        os.close(fd)


def _is_durable(path: str, data: bytes) -> bool:
    """Sync a file and return whether it still has the end of ``data``, which was read from it.

    A read-only file system has nothing to sync.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (EINVAL, EROFS):
                raise
        end = data[-_LOOKED_AT_AGAIN:]
        return os.pread(fd, len(end), len(data) - len(end)) == end
    finally:
        os.close(fd)


def _sync_name(directory: str) -> None:
    """Sync a directory's parent, unless that is another file system or not readable."""
    if not os.path.ismount(directory):
        with suppress(PermissionError):
            _sync(os.path.dirname(directory))


def _truncate(fd: int, size: int) -> None:
    os.ftruncate(fd, size)
    os.fsync(fd)


def _write_whole(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written != len(data):
        raise OSError(ENOSPC, f"only {written} of {len(data)} bytes could be written")
