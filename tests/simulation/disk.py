"""A simulated disk behind the few functions of ``os`` that a journal uses; knows no journals.

What was written is in the page cache, seen by everybody, and survives the death of processes. What
survives a loss of power is what ``fsync`` has confirmed, and of the rest any beginning: operations
on a file get to the disk in their order, the last one perhaps in part, or as zeros. A name (made,
renamed, removed) is durable once its directory is synced. An ``fsync`` that failed drops what was
dirty: a later one says well, and has written nothing of it. Where more is written behind that, a
hole is left, whatever page it shares.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from types import SimpleNamespace, TracebackType
from typing import NamedTuple

from tests.simulation.world import Process, World


class Write(NamedTuple):
    """A change of a file: ``data`` is written at ``at``, and what is behind it goes if it ``cuts``."""

    at: int
    data: bytes
    cuts: bool

    def on(self, content: bytes) -> bytes:
        """Give ``content`` once it is changed."""
        rest = b"" if self.cuts else content[self.at + len(self.data) :]
        return content[: self.at].ljust(self.at, b"\0") + self.data + rest


class Inode:
    """A file, whatever names it has."""

    __slots__ = ("data", "dirty", "durable", "errors", "lock", "number", "refusing")

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = b""
        self.durable = b""
        self.dirty: list[Write] = []
        self.errors = 0
        self.refusing = False
        self.lock: Handle | None = None

    def change(self, at: int, data: bytes, *, cuts: bool = True) -> None:
        """Write ``data`` there, and cut off what is behind it or leave that."""
        write = Write(at, data, cuts)
        self.data = write.on(self.data)
        self.dirty.append(write)


class Handle:
    """An open file or directory; it is told once of every fsync that failed since it was opened."""

    __slots__ = ("errors", "flags", "inode", "path", "process")

    def __init__(self, process: Process, path: str, inode: Inode | None, flags: int) -> None:
        self.process = process
        self.path = path
        self.inode = inode
        self.errors = 0 if inode is None else inode.errors
        self.flags = flags


class Found:
    """The result of a stat."""

    __slots__ = ("st_dev", "st_ino", "st_mode", "st_size")

    def __init__(self, inode: Inode | None) -> None:
        self.st_dev = 1
        self.st_ino = 0 if inode is None else inode.number
        self.st_mode = stat.S_IFDIR if inode is None else stat.S_IFREG
        self.st_size = 0 if inode is None else len(inode.data)


class Reader:
    """What ``open(path, "rb", buffering=0)`` gives."""

    __slots__ = ("_disk", "_fd", "_position")

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk = disk
        self._fd = fd
        self._position = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disk.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int) -> bytes:
        data = self._disk.pread(self._fd, size, self._position)
        self._position += len(data)
        return data


class Disk:
    """Stands in for the module ``os``."""

    O_RDONLY, O_RDWR, O_WRONLY = os.O_RDONLY, os.O_RDWR, os.O_WRONLY
    O_CREAT, O_APPEND, O_CLOEXEC, O_TRUNC = os.O_CREAT, os.O_APPEND, os.O_CLOEXEC, os.O_TRUNC
    stat_result = Found
    strerror = staticmethod(os.strerror)

    def __init__(self, world: World) -> None:
        self._world = world
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.directories = {"/"}
        self.durable_directories = {"/"}
        self.full_rate = self.failing_rate = 0.0
        self.refused: dict[str, set[bytes]] = {}
        self._handles: dict[int, Handle] = {}
        self._inodes = 0
        self.path = SimpleNamespace(
            join=os.path.join,
            dirname=os.path.dirname,
            abspath=os.path.abspath,
            exists=self._exists,
            isdir=self._isdir,
            ismount=lambda path: path == "/",
            samestat=lambda one, other: one.st_ino == other.st_ino,
        )
        self.fcntl = SimpleNamespace(LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB, flock=self.flock)

    def prepare(self, directory: str) -> None:
        """Have a directory from the beginning."""
        while directory not in self.directories:
            self.directories.add(directory)
            self.durable_directories.add(directory)
            directory = os.path.dirname(directory)

    # --- what the world does to it ---------------------------------------------------------

    def durable(self, path: str) -> bytes:
        """Give what certainly survives a loss of power now."""
        directory = os.path.dirname(path)
        inode = self.durable_names.get(path)
        if directory not in self.durable_directories or inode is None:
            return b""
        return inode.durable

    def died(self, processes: list[Process]) -> None:
        """Close what dead processes have open."""
        for fd, handle in list(self._handles.items()):
            if handle.process in processes:
                self._close(fd)

    def lose_power(self) -> None:
        """Keep what was synced, and of the rest what is chosen."""
        choices = self._world.choices
        directories = set(self.durable_directories)
        for directory in sorted(self.directories - directories):
            if os.path.dirname(directory) in directories and choices.chance(0.5):
                directories.add(directory)
        names: dict[str, Inode] = {}
        for path in sorted(self.names.keys() | self.durable_names.keys()):
            old, new = self.durable_names.get(path), self.names.get(path)
            kept = new if old is not new and choices.chance(0.5) else old
            if kept is not None and os.path.dirname(path) in directories:
                names[path] = kept
        for inode in dict.fromkeys(names.values()):
            if inode.dirty:
                self._keep_some(inode)
            inode.data = inode.durable
            inode.dirty = []
            inode.lock = None
        self.names, self.durable_names = names, dict(names)
        self.directories, self.durable_directories = directories, set(directories)
        self._handles.clear()

    def _keep_some(self, inode: Inode) -> None:
        choices = self._world.choices
        kept = choices.below(len(inode.dirty) + 1)
        data = inode.durable
        for write in inode.dirty[:kept]:
            data = write.on(data)
        if kept < len(inode.dirty):
            last = inode.dirty[kept]
            length = len(last.data)
            part = (0, length // 2, max(length - 1, 0))[choices.below(3)]
            if part:
                size = last.at + length if choices.chance(0.3) else 0
                data = last._replace(data=last.data[:part]).on(data).ljust(size, b"\0")
        inode.durable = data

    # --- system calls ----------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._enter("open", path)
        inode = None
        if path not in self.directories:
            inode = self.names.get(path)
            if inode is None:
                if not flags & os.O_CREAT or os.path.dirname(path) not in self.directories:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                self._inodes += 1
                inode = self.names[path] = Inode(self._inodes)
            elif flags & os.O_TRUNC:
                inode.change(0, b"")
        fd = self._world.count() + 1000
        self._handles[fd] = Handle(self._world.process, path, inode, flags)
        return fd

    def open_to_read(self, path: str, mode: str, buffering: int) -> Reader:
        return Reader(self, self.open(path, os.O_RDONLY))

    def close(self, fd: int) -> None:
        inode = self._handle(fd).inode
        if inode is not None and inode.lock is not None:
            self._enter("close", fd)
        self._close(fd)

    def stat(self, path: str) -> Found:
        self._enter("stat", path)
        inode = self.names.get(path)
        if inode is None and path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return Found(inode)

    def fstat(self, fd: int) -> Found:
        self._enter("fstat", fd)
        return Found(self._handle(fd).inode)

    def write(self, fd: int, data: bytes) -> int:
        self._enter("write", fd)
        inode = self._file(fd)
        if self.full_rate and self._world.choices.chance(self.full_rate):
            written = self._world.choices.below(len(data))
            if (line := data.find(b"\n") + 1) < len(data) and self._world.choices.chance(0.5):
                written = line
            self._world.say(f"ENOSPC after {written} bytes")
            if written == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            inode.change(len(inode.data), data[:written])
            return written
        inode.change(len(inode.data), data)
        return len(data)

    def pwrite(self, fd: int, data: bytes, position: int) -> int:
        self._enter("pwrite", fd)
        self._file(fd).change(position, data, cuts=False)
        return len(data)

    def pread(self, fd: int, size: int, position: int) -> bytes:
        self._enter("pread", fd)
        return self._file(fd).data[position : position + size]

    def ftruncate(self, fd: int, size: int) -> None:
        if self._handle(fd).path.endswith(".lock"):
            return
        self._enter("ftruncate", fd)
        if self.failing_rate and self._world.choices.chance(self.failing_rate):
            self._world.say("EIO")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        inode = self._file(fd)
        if inode.refusing:
            self._refuse(self._handle(fd).path, inode.data[size:], b"")
        inode.change(size, b"")

    def fsync(self, fd: int) -> None:
        self._enter("fsync", fd)
        handle = self._handle(fd)
        fails = self.failing_rate and self._world.choices.chance(self.failing_rate)
        inode = handle.inode
        if fails and inode is not None:
            self._refuse(handle.path, inode.data, inode.durable)
            inode.refusing = True
            inode.dirty = []
            inode.errors += 1
        if fails or (inode is not None and handle.errors != inode.errors):
            self._world.say("EIO")
            handle.errors = 0 if inode is None else inode.errors
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if inode is not None:
            for write in inode.dirty:
                inode.durable = write.on(inode.durable)
            inode.dirty, inode.refusing = [], False
            self.refused.get(handle.path, set()).difference_update(inode.durable.split(b"\n"))
            return
        self._sync_names(handle.path)

    def _refuse(self, path: str, data: bytes, kept: bytes) -> None:
        """Note what the disk was asked to keep and did not, or what was cut off because of that."""
        lines = set(data.split(b"\n")) - set(kept.split(b"\n"))
        self.refused.setdefault(path, set()).update(lines)

    def _sync_names(self, directory: str) -> None:
        for path in self.names.keys() | self.durable_names.keys():
            if os.path.dirname(path) == directory:
                if path in self.names:
                    self.durable_names[path] = self.names[path]
                else:
                    del self.durable_names[path]
        for path in self.directories:
            if os.path.dirname(path) == directory:
                self.durable_directories.add(path)

    def unlink(self, path: str) -> None:
        self._enter("unlink", path)
        if self.names.pop(path, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def rename(self, source: str, target: str) -> None:
        self._enter("rename", target)
        self.names[target] = self.names.pop(source)

    def mkdir(self, path: str) -> None:
        self._enter("mkdir", path)
        if path in self.directories:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.directories.add(path)

    def flock(self, fd: int, how: int) -> None:
        self._enter("flock", fd)
        handle = self._handle(fd)
        inode = self._file(fd)
        if inode.lock is not None and inode.lock is not handle:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        inode.lock = handle

    def getpid(self) -> int:
        return 1

    def uname(self) -> SimpleNamespace:
        return SimpleNamespace(nodename="simulated")

    # --- inside ----------------------------------------------------------------------------

    def _enter(self, call: str, argument: object) -> None:
        world = self._world
        if world.trace is not None and isinstance(argument, int) and argument in self._handles:
            argument = self._handles[argument].path
        world.pause(f"{call} {argument}" if world.trace is not None else call)

    def _exists(self, path: str) -> bool:
        self._enter("exists", path)
        return path in self.names or path in self.directories

    def _isdir(self, path: str) -> bool:
        return path in self.directories

    def _handle(self, fd: int) -> Handle:
        handle = self._handles.get(fd)
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def _file(self, fd: int) -> Inode:
        inode = self._handle(fd).inode
        assert inode is not None, "a directory is used as a file"
        return inode

    def _close(self, fd: int) -> None:
        handle = self._handles.pop(fd)
        if handle.inode is not None and handle.inode.lock is handle:
            handle.inode.lock = None
