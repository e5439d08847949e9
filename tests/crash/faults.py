"""A disk that fails on demand: stands in for ``os`` in the two modules that touch files."""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import pytest

WATCHED = {"open", "write", "pwrite", "fsync", "ftruncate", "rename", "unlink", "mkdir"}
MODULES = ("local_journal", "run_lock")

Fault = Callable[..., Any]
"""Called in place of a call, with the real function first."""


def fails(number: int) -> Fault:
    """Fail without doing anything."""

    def fail(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def writes_only(count: int) -> Fault:
    """Write the first ``count`` bytes and no more, as a disk that has just become full."""

    def write(real: Callable[..., int], fd: int, data: bytes, *position: int) -> int:
        return real(fd, data[:count], *position)

    return write


def then_fails(number: int) -> Fault:
    """Do what was asked and fail all the same, as an fsync may."""

    def fail(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        real(*args, **kwargs)
        raise OSError(number, os.strerror(number))

    return fail


@final
class Disk:
    """Notes every call as its name and the base name of its file; fails those that it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        self._faults: list[tuple[str, str, Fault]] = []
        self._paths: dict[int, str] = {}
        for module in MODULES:
            patch.setattr(f"kassette_io.storages.{module}.os", self)

    def on(self, name: str, suffix: str, fault: Fault) -> None:
        """Have the next call of ``name`` on a file that ends in ``suffix`` do ``fault`` instead."""
        self._faults.append((name, suffix, fault))

    def taken(self) -> list[tuple[str, str]]:
        """Give the calls since this was last asked."""
        calls, self.calls = self.calls, []
        return calls

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in WATCHED:
            return real

        def call(target: int | str, *args: Any, **kwargs: Any) -> Any:
            path = self._paths[target] if isinstance(target, int) else os.fspath(target)
            self.calls.append((name, Path(path).name))
            done = real
            for fault in self._faults:
                if fault[0] == name and path.endswith(fault[1]):
                    self._faults.remove(fault)
                    done = partial(fault[2], real)
                    break
            result = done(target, *args, **kwargs)
            if name == "open":
                self._paths[result] = path
            return result

        return call


@final
class EveryCall:
    """Counts every call to the system that the two modules make; has one of them do ``fault``.

    An ``fsync`` does nothing, unless it is that one.
    """

    NAMES = WATCHED | {"close", "fstat", "pread", "stat"}

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.number: int | None = None
        self.fault: Fault = fails(0)
        for module in MODULES:
            patch.setattr(f"kassette_io.storages.{module}.os", self)
        flock = partial(self._call, "flock", fcntl.flock)
        locking = SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
        patch.setattr("kassette_io.storages.run_lock.fcntl", locking)
        opening = partial(self._call, "open", partial(_Read, self._call))
        patch.setattr("kassette_io.storages.local_journal.open", opening, raising=False)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return partial(self._call, name, real) if name in self.NAMES else real

    def _call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.made.append(name)
        if len(self.made) - 1 == self.number:
            return self.fault(real, *args, **kwargs)
        return None if name == "fsync" else real(*args, **kwargs)


class _Read(io.FileIO):
    def __init__(self, call: Callable[..., Any], path: str, mode: str, buffering: int) -> None:
        super().__init__(path, mode)
        self._call = call

    def read(self, size: int | None = -1, /) -> bytes:
        data: bytes = self._call("read", super().read, size)
        return data
