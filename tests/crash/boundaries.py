"""What the processes of the boundary tests do: die, or halt, just before one call to the system."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import anyio

from kassette import FencedError, WriteContentionError
from kassette_io import LocalStorage, fork, start

from .processes import Channel

RUN_ID = "run"
COPY_ID = "copy"
SYSTEM = {"posix", "fcntl"}


def before_call(number: int, act: Callable[[], object]) -> None:
    """Have ``act`` called before system call ``number`` of the threads that serve storage."""
    calls = 0

    def count(frame: FrameType, event: str, called: Any) -> None:
        nonlocal calls
        if event == "c_call" and called.__module__ in SYSTEM:
            calls += 1
            if calls == number + 1:
                act()

    threading.setprofile(count)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def go_through(channel: Channel, *, backend: str, directory: str, number: int) -> None:
    """Begin a run, go on with it, end it and fork it, telling of every call that has returned."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the process dies with it
    before_call(number, _die)
    anyio.run(_go_through, channel, LocalStorage(directory), backend=backend)


async def _go_through(channel: Channel, storage: LocalStorage) -> None:
    async with await start(storage, RUN_ID, metadata="input") as run:
        channel.send("started 1")
        await run.record("a", lambda: 1)
        channel.send("recorded a")
    channel.send("closed")
    async with await start(storage, RUN_ID) as run:
        channel.send("started 2")
        await run.record("a", lambda: "again")
        await run.record("b", lambda: None)
        channel.send("recorded b")
    async with await fork(storage, COPY_ID, source=RUN_ID, from_offset=3) as copy:
        channel.send("forked")
        await copy.record("b", lambda: "forked")
        channel.send("recorded in the fork")
        await copy.complete()
        channel.send("completed")


def halt_inside(channel: Channel, *, backend: str, directory: str, number: int) -> None:
    """Go through one short session and halt before call ``number`` until told to go on."""

    def halt() -> None:
        channel.send("halted")
        with suppress(EOFError):
            channel.receive()

    before_call(number, halt)
    anyio.run(_one_session, channel, LocalStorage(directory), backend=backend)


async def _one_session(channel: Channel, storage: LocalStorage) -> None:
    try:
        async with await start(storage, RUN_ID) as run:
            channel.send("opened")
            await run.record(f"of-{run.session}", os.getpid)
            channel.send("recorded")
    except (WriteContentionError, FencedError) as error:
        channel.send(type(error).__name__)
    else:
        channel.send("closed")
