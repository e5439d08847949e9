"""A page cache and a disk below it: what a run's calls to the system leave on each; no states here.

The calls are made for real in a real directory, bar ``fsync``, and are noted here as well: for each
file every content it had since its last ``fsync``, for each directory every change of names since
its own. ``crash_states`` makes of that what a crash may leave.

A killed process is played within this one: from the chosen call on, its calls do nothing. A broken
disk fails one chosen call with EIO. What an ``fsync`` of a file failed to write the system takes for
written: the next one has nothing to do, unless it is written or cut off again. A truncation that it
refused counts as done, and a byte is not saved by what is written beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from errno import EIO
from pathlib import Path
from typing import Any, NamedTuple, final

import pytest

from kassette_io import LocalStorage
from kassette_io.storages import run_lock

MODULES = ("local_journal", "run_lock")

Change = dict[str, int | None]
"""Names of one directory and what they stand for from now on; done whole or not at all."""


class Folder(NamedTuple):
    """A directory: the names that are durable, and the changes that are not yet."""

    durable: dict[str, int]
    changes: tuple[Change, ...]

    def names(self) -> dict[str, int]:
        """Give the names as every process sees them."""
        return renamed(self.durable, self.changes)


class Moment(NamedTuple):
    """Between two calls: every file's contents, the durable one first, and every directory.

    ``told`` is, for each journal, what its callers know to be recorded.
    """

    files: dict[int, tuple[bytes, ...]]
    folders: dict[int, Folder]
    told: dict[str, bytes]


def renamed(names: dict[str, int], changes: tuple[Change, ...]) -> dict[str, int]:
    """Give ``names`` after ``changes``."""
    found: dict[str, int | None] = dict(names)
    for change in changes:
        found |= change
    return {name: node for name, node in found.items() if node is not None}


class Killed(BaseException):
    """The process that makes this call is dead."""


ROOT = 0


@final
class PageCache:
    """Stands in for ``os`` in the modules that touch files below ``root``, and notes their calls."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.moments: list[Moment] = []
        self.fail_before: int | None = None
        self.kill_before: int | None = None
        self.killed = False
        self._files: dict[int, tuple[bytes, ...]] = {}
        self._forgotten: dict[int, range] = {}
        self._folders = {ROOT: Folder({}, ())}
        self._nodes = {root.stat().st_ino: ROOT}
        self._told: dict[str, bytes] = {}
        self._descriptors: set[int] = set()
        self._faults: list[tuple[str, str, Callable[..., Any]]] = []
        self._note()
        for module in MODULES:
            patch.setattr(f"kassette_io.storages.{module}.os", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def on(self, name: str, suffix: str, fault: Callable[..., Any]) -> None:
        """Have the next call of ``name`` on a path that ends in ``suffix`` do ``fault`` instead."""
        self._faults.append((name, suffix, fault))

    def heal(self) -> None:
        """Let go of the faults that no call has met."""
        self._faults.clear()

    def tell(self, path: Path, last: bytes) -> None:
        """Note that a caller knows the journal's lines up to the one that holds ``last``."""
        content = self._files[self._nodes[path.stat().st_ino]][-1]
        known = content[: content.index(b"\n", content.rindex(last)) + 1]
        key = str(path.relative_to(self.root))
        if len(known) > len(self._told.get(key, b"")):
            self._told[key] = known
        self._note()

    def contents(self, directory: Path) -> dict[str, set[bytes]]:
        """Give every content that each run's journal in ``directory`` ever had, by run id."""
        found: dict[str, set[bytes]] = {}
        for moment in self.moments:
            for folder in moment.folders.values():
                for name, node in folder.names().items():
                    if name.endswith(".jsonl"):
                        run_id = name.removesuffix(".jsonl")
                        found.setdefault(run_id, set()).update(moment.files[node])
        for run_id, contents in found.items():
            path = self.root / directory / f"{run_id}.jsonl"
            assert path.read_bytes() in contents, "the notes are not what the system has"
        return found

    def detach(self, patch: pytest.MonkeyPatch) -> None:
        """Note no more; the modules have the real ``os`` again."""
        for module in MODULES:
            patch.setattr(f"kassette_io.storages.{module}.os", os)

    def bury(self, storage: LocalStorage) -> None:
        """Take from a killed process what the system takes; its storage does nothing any more."""
        for journal, _ in storage._open.values():
            journal.session, journal._fd, journal._lock = None, -1, None
        for fd in self._descriptors:
            run_lock._DESCRIPTORS.discard(fd)
            os.close(fd)
        self._descriptors = set()
        self.kill_before, self.killed = None, False

    # --- the calls -------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._begin("open", path)
        new = not os.path.exists(path)
        fd = os.open(path, flags, mode)
        self._descriptors.add(fd)
        if new:
            self._name(path, self._add(os.fstat(fd).st_ino, file=True))
        elif flags & os.O_TRUNC:
            self._change(fd, lambda _: b"")
        return fd

    def close(self, fd: int) -> None:
        if not self.killed:
            self._descriptors.discard(fd)
            os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        taken = self._begin("write", self._path(fd), fd, data)
        count = os.write(fd, data) if taken is None else taken
        self._change(fd, lambda content: content + data[:count])
        return count

    def pwrite(self, fd: int, data: bytes, position: int) -> int:
        self._begin("pwrite", self._path(fd), fd, data, position)
        self._change(
            fd, lambda content: content[:position] + data + content[position + len(data) :]
        )
        self._remember(fd, range(position, position + len(data)))
        return os.pwrite(fd, data, position)

    def ftruncate(self, fd: int, size: int) -> None:
        self._begin("ftruncate", self._path(fd), fd, size)
        os.ftruncate(fd, size)
        self._change(fd, lambda content: content[:size])
        self._remember(fd, range(size, sys.maxsize))

    def fsync(self, fd: int) -> None:
        node = self._nodes.get(os.fstat(fd).st_ino)
        try:
            self._begin("fsync", self._path(fd), fd)
        except OSError:
            if node in self._files:
                self._forget(node)
            raise
        if node in self._files:
            self._files[node] = self._synced(node)
        elif node is not None:
            self._folders[node] = Folder(self._folders[node].names(), ())
        self._note()

    def mkdir(self, path: str) -> None:
        self._begin("mkdir", path)
        os.mkdir(path)
        self._name(path, self._add(os.stat(path).st_ino, file=False))

    def rename(self, old: str, new: str) -> None:
        self._begin("rename", old)
        node = self._nodes[os.stat(old).st_ino]
        os.rename(old, new)
        self._assign(old, {os.path.basename(old): None, os.path.basename(new): node})

    def unlink(self, path: str) -> None:
        self._begin("unlink", path)
        os.unlink(path)
        self._name(path, None)

    # --- what they leave -------------------------------------------------------------------

    def _begin(self, name: str, path: str, *args: Any) -> Any:
        if self.killed:
            raise Killed
        if self.kill_before is not None and len(self.moments) >= self.kill_before:
            self.killed = True
            raise Killed
        if self.fail_before is not None and len(self.moments) >= self.fail_before:
            self.fail_before = None
            raise OSError(EIO, os.strerror(EIO), path)
        for fault in self._faults:
            if fault[0] == name and path.endswith(fault[1]):
                self._faults.remove(fault)
                return fault[2](getattr(os, name), *args)
        return None

    def _forget(self, node: int) -> None:
        """Note that what is new in a file is taken for written, and is not."""
        durable, cached = self._files[node][0], self._files[node][-1]
        same = 0
        while durable[same : same + 1] == cached[same : same + 1] != b"":
            same += 1
        self._forgotten[node] = range(same, len(cached))

    def _remember(self, fd: int, place: range) -> None:
        """Note that ``place`` is to be written at the next fsync, whatever the last one did."""
        node = self._nodes[os.fstat(fd).st_ino]
        gone = self._forgotten.get(node, range(0))
        if place.start <= gone.start:
            gone = range(max(gone.start, place.stop), gone.stop)
        elif place.stop >= gone.stop:
            gone = range(gone.start, min(gone.stop, place.start))
        self._forgotten[node] = gone

    def _synced(self, node: int) -> tuple[bytes, ...]:
        """Give the contents that a file may have once it is synced."""
        cached = self._files[node][-1]
        gone = self._forgotten.get(node, range(0))
        if not gone:
            return (cached,)
        rest = cached[gone.stop :]
        return (cached[: gone.start] + (bytes(len(gone)) + rest if rest else b""), cached)

    def _path(self, fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    def _add(self, inode: int, *, file: bool) -> int:
        node = 1 + len(self._files) + len(self._folders)
        self._nodes[inode] = node
        if file:
            self._files[node] = (b"",)
        else:
            self._folders[node] = Folder({}, ())
        return node

    def _change(self, fd: int, change: Callable[[bytes], bytes]) -> None:
        node = self._nodes[os.fstat(fd).st_ino]
        self._files[node] += (change(self._files[node][-1]),)
        self._note()

    def _name(self, path: str, node: int | None) -> None:
        self._assign(path, {os.path.basename(path): node})

    def _assign(self, path: str, change: Change) -> None:
        above = self._nodes[os.stat(os.path.dirname(path)).st_ino]
        durable, changes = self._folders[above]
        self._folders[above] = Folder(durable, (*changes, change))
        self._note()

    def _note(self) -> None:
        self.moments.append(Moment(dict(self._files), dict(self._folders), dict(self._told)))
