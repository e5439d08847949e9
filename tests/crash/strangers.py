"""What the processes of the permission tests do, as a user to whom permissions mean something."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from kassette import KassetteError, StorageError
from kassette_io import LocalStorage, fork, start

from .processes import Channel

RUN_ID = "run"
NOBODY = 65534


def meet(channel: Channel, *, backend: str, directory: str, story: str) -> None:
    """Tell ``story`` as an ordinary user and send what came of it."""
    path = Path(directory)
    anyio.run(_begin, path / "warm-up", backend=backend)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    journals = path / "journals"
    anyio.run(_begin, journals, backend=backend)
    try:
        channel.send(anyio.run(STORIES[story], journals, backend=backend))
    finally:
        journals.chmod(0o755)


async def _begin(directory: Path) -> None:
    async with await start(LocalStorage(directory), RUN_ID) as run:
        await run.record("work", lambda: 1)


async def _told(call: Callable[[], Awaitable[object]]) -> Any:
    try:
        await call()
    except StorageError as error:
        return [error.run_id, type(error.__cause__).__name__]
    except KassetteError as error:
        return type(error).__name__
    return "done"


async def _listed(storage: LocalStorage) -> None:
    async for _ in storage.list_runs():
        pass


async def _all_calls(directory: Path) -> dict[str, Any]:
    storage = LocalStorage(directory)

    async def open_and_close(run_id: str) -> None:
        await (await start(storage, run_id)).aclose()

    return {
        "start": await _told(lambda: open_and_close(RUN_ID)),
        "start new": await _told(lambda: open_and_close("new")),
        "fork": await _told(lambda: fork(storage, "copy", source=RUN_ID, from_offset=1)),
        "read": await _told(lambda: storage.read_all(RUN_ID)),
        "list": await _told(lambda: _listed(storage)),
    }


async def _closed_directory(directory: Path) -> dict[str, Any]:
    directory.chmod(0)
    return await _all_calls(directory)


async def _read_only_directory(directory: Path) -> dict[str, Any]:
    directory.chmod(0o555)
    return {**await _all_calls(directory), "left": sorted(os.listdir(directory))}


async def _closed_files(directory: Path) -> dict[str, Any]:
    (directory / f"{RUN_ID}.jsonl").chmod(0)
    told = await _all_calls(directory)
    (directory / f"{RUN_ID}.jsonl").chmod(0o644)
    (directory / f"{RUN_ID}.lock").touch(0o000)
    return {**told, "start": [told["start"], (await _all_calls(directory))["start"]]}


async def _directory_closed_under_a_session(directory: Path) -> dict[str, Any]:
    """The directory loses its permissions while a session is open, and gets them back."""
    storage = LocalStorage(directory)
    told = {}
    for mode in ("555", "000"):
        run = await start(storage, RUN_ID)
        directory.chmod(int(mode, 8))
        told[f"{mode} record"] = await _told(partial(run.record, f"with {mode}", str))
        await run.aclose()
        directory.chmod(0o755)
        told[f"{mode} again"] = await _told(partial(_begin, directory))
    return told


STORIES = {
    "closed directory": _closed_directory,
    "read-only directory": _read_only_directory,
    "closed files": _closed_files,
    "directory closed under a session": _directory_closed_under_a_session,
}
