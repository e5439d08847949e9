"""What the processes of the full-disk tests do, on a disk that is full until it is told not to be."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from errno import EFBIG, ENOSPC
from pathlib import Path
from typing import Any, Protocol, final

import anyio

from kassette import StorageError
from kassette_io import Context, LocalStorage, Success, start, workflow

from .processes import Channel

RUN_ID = "run"
BIG = "x" * 20_000


class FullDisk(Protocol):
    """A directory whose disk can be filled to the brim, and emptied again."""

    refusal: int

    def __init__(self, directory: Path) -> None: ...

    def fill(self) -> None: ...

    def free(self) -> None: ...


@final
class FileLimit:
    """No file of this process may grow: what any system can do without being root."""

    refusal = EFBIG

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(self) -> None:
        sizes = [each.stat().st_size for each in self._directory.glob("*.jsonl")]
        self._limit(max(sizes, default=0) + 100)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@final
class Ballast:
    """A file that takes all the space there is; for a small disk."""

    refusal = ENOSPC

    def __init__(self, directory: Path) -> None:
        self._path = directory.parent / "ballast"

    def fill(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError as error:
                assert error.errno == ENOSPC

    def free(self) -> None:
        self._path.unlink()


DISKS: dict[str, Callable[[Path], FullDisk]] = {"limit": FileLimit, "tmpfs": Ballast}


def work(channel: Channel, *, backend: str, directory: str, kind: str, story: str) -> None:
    """Tell ``story`` on a disk of this kind, and send what came of it."""
    path = Path(directory)
    path.mkdir()
    channel.send(anyio.run(STORIES[story], path, DISKS[kind](path), backend=backend))


def _told(error: StorageError, disk: FullDisk) -> dict[str, Any]:
    cause = error.__cause__
    return {
        "rolled back": error.rolled_back,
        "run": error.run_id,
        "says why": os.strerror(disk.refusal) in str(error) or "could be written" in str(error),
        "cause": isinstance(cause, OSError) and cause.errno in {disk.refusal, ENOSPC},
    }


async def _a_session_goes_on(directory: Path, disk: FullDisk) -> list[Any]:
    told: list[Any] = []
    async with await start(LocalStorage(directory), RUN_ID) as run:
        await run.record("before", lambda: 1)
        before = (directory / f"{RUN_ID}.jsonl").read_bytes()
        disk.fill()
        for _ in range(3):
            try:
                await run.record("work", lambda: BIG)
            except StorageError as error:
                told.append(_told(error, disk))
            assert (directory / f"{RUN_ID}.jsonl").read_bytes() == before
        disk.free()
        assert await run.record("after", lambda: BIG) == BIG
        await run.complete()
    return told


async def _a_workflow_is_not_failed(directory: Path, disk: FullDisk) -> list[Any]:
    told: list[Any] = []
    calls: list[str] = []

    async def pipeline(ctx: Context) -> int:
        await ctx.step("before", calls.append, "before")
        if not told:
            disk.fill()
        return len(await ctx.step("work", lambda: BIG))

    flow = workflow(pipeline, storage=LocalStorage(directory))
    try:
        await flow.start(run_id=RUN_ID)
    except StorageError as error:
        told.append(_told(error, disk))
    disk.free()
    assert await flow.start(run_id=RUN_ID) == Success(len(BIG), RUN_ID)
    assert calls == ["before"]
    return told


async def _a_run_that_cannot_begin(directory: Path, disk: FullDisk) -> list[Any]:
    told: list[Any] = []
    storage = LocalStorage(directory)
    disk.fill()
    try:
        await start(storage, RUN_ID, metadata=BIG)
    except StorageError as error:
        told.append({**_told(error, disk), "rolled back": True})
    assert not (directory / f"{RUN_ID}.jsonl").exists()
    disk.free()
    async with await start(storage, RUN_ID, metadata=BIG) as run:
        assert run.session == 1
        await run.complete()
    return told


STORIES = {
    "a session goes on": _a_session_goes_on,
    "a workflow is not failed": _a_workflow_is_not_failed,
    "a run that cannot begin": _a_run_that_cannot_begin,
}
