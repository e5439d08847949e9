"""Journals streamed entry by entry, also while they grow.

Rules:
- A local journal is read in pieces, without an event loop, so memory does not grow with its
  length. Only complete lines are read: a writer may cut off a torn last line and overwrite it.
- A journal that is not a regular file, or is in an object store, is read as a whole.
- Following never spins: pauses grow while nothing is appended, and the caller does the waiting.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import final

import kassette
from kassette import Entry, JournalCorruptionError, StorageError, is_terminal
from kassette.errors import with_run_id
from kassette_cli.storage import OpenStorage, open_loop, perform, read_run, unknown_run
from kassette_io.storages.local import LocalStorage

Wait = Callable[[float], None]
"""Waits for that many seconds, or raises to end the command."""
Read = Callable[[OpenStorage, str], list[Entry]]
"""Reads a whole journal."""

PAUSE = {"local": (0.05, 1.0), "remote": (0.5, 10.0)}
"""The first and the longest pause, in seconds, between two reads of a followed journal."""

_PIECE = 1 << 20
_GROWTH = 1.5


def stream_run(
    storage: OpenStorage, run_id: str, offset: int, read: Read | None = None
) -> Iterator[Entry]:
    """Yield the entries of a run from ``offset`` on.

    ``read`` reads a journal that cannot be read in pieces. Raise UsageError for an unknown run.
    """
    journal = JournalFile.of(storage, run_id)
    if journal is not None:
        for batch in journal.batches():
            yield from _from(batch, offset)
        return
    entries = perform(storage, read_run, run_id) if read is None else read(storage, run_id)
    yield from islice(entries, offset, None)


def follow_run(storage: OpenStorage, run_id: str, offset: int, wait: Wait) -> Iterator[list[Entry]]:
    """Yield entries from ``offset`` on, batch by batch as they arrive, up to a terminal one."""
    with _growing(storage, run_id) as look:
        shortest, longest = PAUSE["local" if isinstance(storage, LocalStorage) else "remote"]
        pause = shortest
        while True:
            for batch in look():
                pause = shortest
                yield _from(batch, offset)
                if any(map(is_terminal, batch)):
                    return
            wait(pause)
            pause = min(pause * _GROWTH, longest)


@final
class JournalFile:
    """A journal on a local disk; each read continues where the previous one ended."""

    def __init__(self, path: str, run_id: str) -> None:
        self._path = path
        self._run_id = run_id
        self._position = 0
        self._count = 0
        self._inode: int | None = None

    @classmethod
    def of(cls, storage: OpenStorage, run_id: str) -> JournalFile | None:
        """Return the file of ``run_id``; None if its journal is not a regular file.

        Raise UsageError for an unknown run.
        """
        if not isinstance(storage, LocalStorage):
            return None
        path = f"{storage.directory}/{run_id}.jsonl"
        try:
            found = os.stat(path)  # noqa: PTH116 - pathlib is slow to import
        except FileNotFoundError:
            raise unknown_run(storage, run_id) from None
        except OSError:
            return None
        return cls(path, run_id) if stat.S_ISREG(found.st_mode) else None

    def batches(self) -> Iterator[list[Entry]]:
        """Yield the entries added since the previous read, in batches."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._failure("it was deleted while being read") from None
        except OSError as error:
            raise self._failure(str(error.strerror)) from error
        try:
            for lines in self._pieces(fd):
                yield from self._decode(lines)
        finally:
            os.close(fd)

    def _decode(self, lines: bytes) -> Iterator[list[Entry]]:
        """Yield the entries in ``lines``, up to the first damaged line."""
        try:
            batch = kassette.decode_journal(lines, first_offset=self._count).entries
        except JournalCorruptionError as error:
            good = error.line - 1 - self._count
            if good:
                before = b"".join(line + b"\n" for line in lines.split(b"\n")[:good])
                yield kassette.decode_journal(before, first_offset=self._count).entries
            raise with_run_id(error, self._run_id) from error.__cause__
        self._count += len(batch)
        yield batch

    def _pieces(self, fd: int) -> Iterator[bytes]:
        """Yield whole lines, up to the last complete one."""
        end = self._whole(fd)
        pending: list[bytes] = []
        at = self._position
        while at < end:
            piece = self._read(fd, min(_PIECE, end - at), at)
            if not piece:
                raise self._failure("it was truncated while being read")
            at += len(piece)
            cut = piece.rfind(b"\n") + 1
            if not cut:
                pending.append(piece)
                continue
            lines = b"".join((*pending, piece[:cut]))
            pending = [piece[cut:]]
            self._position += len(lines)
            yield lines

    def _whole(self, fd: int) -> int:
        """Return the position after the last newline in the unread part."""
        found = os.fstat(fd)
        if self._inode is None:
            self._inode = found.st_ino
        if found.st_ino != self._inode or found.st_size < self._position:
            raise self._failure("it was replaced or truncated while being read")
        end = found.st_size
        while end > self._position:
            begin = max(end - _PIECE, self._position)
            cut = self._read(fd, end - begin, begin).rfind(b"\n")
            if cut >= 0:
                return begin + cut + 1
            end = begin
        return end

    def _read(self, fd: int, length: int, position: int) -> bytes:
        try:
            return os.pread(fd, length, position)
        except OSError as error:
            raise self._failure(str(error.strerror)) from error

    def _failure(self, why: str) -> StorageError:
        return StorageError(f"cannot read journal {self._path}: {why}", run_id=self._run_id)


@contextmanager
def _growing(storage: OpenStorage, run_id: str) -> Generator[Callable[[], Iterator[list[Entry]]]]:
    """Yield a function that returns the new entries of a run each time it is called."""
    journal = JournalFile.of(storage, run_id)
    if journal is not None:
        yield journal.batches
        return
    with open_loop(storage) as call:
        count = 0

        def look() -> Iterator[list[Entry]]:
            nonlocal count
            entries = call(read_run, run_id)
            if len(entries) < count:
                raise StorageError(f"run {run_id!r} was replaced while being read", run_id=run_id)
            added, count = entries[count:], len(entries)
            if added:
                yield added

        yield look


def _from(batch: list[Entry], offset: int) -> list[Entry]:
    first = batch[0].offset or 0
    return batch if first >= offset else batch[offset - first :]
