"""What the processes of the fork tests do: hold a session, fork, and let the child try its luck."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
from anyio import create_task_group, to_thread

from kassette import WriteContentionError
from kassette_io import LocalStorage, Run, start
from kassette_io.storages import run_lock

from .journals import is_held_open
from .processes import Channel

RUN_ID = "run"


def hold_and_fork(channel: Channel, *, backend: str, directory: str, how: str) -> None:
    """Open a session, fork, tell what each side could do, and hold until the end."""
    storage = LocalStorage(directory)
    run = anyio.run(_opened, storage, backend=backend)
    done, tell = os.pipe()
    arguments = (channel, tell, storage, run, backend)
    if how == "os.fork":
        if os.fork() == 0:
            _be_forked(*arguments)
    else:
        context = multiprocessing.get_context("fork")
        context.Process(target=_be_forked, args=arguments, daemon=True).start()
    os.read(done, 1)
    channel.send({"parent": anyio.run(_recorded, run, "after", backend=backend)})
    os.read(done, 1)


async def _opened(storage: LocalStorage) -> Run:
    run = await start(storage, RUN_ID)
    await run.record("before", os.getpid)
    return run


async def _recorded(run: Run, step: str) -> str:
    try:
        await run.record(step, os.getpid)
    except WriteContentionError as error:
        return str(error)
    return "recorded"


def _be_forked(channel: Channel, tell: int, storage: LocalStorage, run: Run, backend: str) -> None:
    channel.send({"child": anyio.run(_try_everything, storage, run, backend=backend)})
    os.write(tell, b"!")
    _until_the_end(channel)
    os._exit(0)


async def _try_everything(storage: LocalStorage, run: Run) -> dict[str, Any]:
    told: dict[str, Any] = {"holds": is_held_open(Path(storage.directory, f"{RUN_ID}.jsonl"))}
    told["record"] = await _recorded(run, "mine")
    await storage.release(RUN_ID, 1)
    storage.abandon(RUN_ID, 1)
    await run.aclose()
    await storage.aclose()
    for name, each in {"same storage": storage, "new": LocalStorage(storage.directory)}.items():
        try:
            await start(each, RUN_ID)
        except WriteContentionError as error:
            told[name] = str(error)
    async with await start(storage, "own") as own:
        told["own"] = await _recorded(own, "work")
    return told


def _until_the_end(channel: Channel) -> None:
    with suppress(EOFError):
        while True:
            channel.receive()


def fork_while_opening(channel: Channel, *, backend: str, directory: str) -> None:
    """Fork in one thread while another takes a lock and does not know it yet; hold the session."""
    anyio.run(_fork_while_opening, channel, LocalStorage(directory), backend=backend)


async def _fork_while_opening(channel: Channel, storage: LocalStorage) -> None:
    locked, forking = threading.Event(), threading.Event()
    os.register_at_fork(before=forking.set)  # called before the hooks that were there already

    def flock(fd: int, operation: int) -> None:
        """Take the lock, and let the other thread fork before that is known, if nothing stops it."""
        fcntl.flock(fd, operation)
        locked.set()
        forking.wait()

    constants = {name: getattr(fcntl, name) for name in dir(fcntl) if name.startswith("LOCK_")}
    run_lock.fcntl = SimpleNamespace(**constants, flock=flock)  # type: ignore[assignment,attr-defined]
    async with create_task_group() as group:
        group.start_soon(_hold, channel, storage)
        await to_thread.run_sync(locked.wait)
        if os.fork() == 0:
            _until_the_end(channel)
            os._exit(0)


async def _hold(channel: Channel, storage: LocalStorage) -> None:
    run = await start(storage, RUN_ID)
    channel.send({"opened": run.session})
    await to_thread.run_sync(_until_the_end, channel)
