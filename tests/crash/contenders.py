"""What the processes of the lock tests do: contend for one run, hold it, and bear witness."""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import final

import anyio

from kassette import FencedError, UsageError, WriteContentionError
from kassette_io import LocalStorage, fork, start

from .processes import Channel

RUN_ID = "run"
_EXITING = 0x4


@final
class Witness:
    """Tells whether two sessions are live at once, by a lock that has no part in theirs.

    A killed holder still owns it for a moment: the kernel closes its files one after another. Such
    a holder is no longer alive; anybody else who owns it is the second live session.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def take(self) -> int | None:
        """Give the pid of the process that has a live session besides ours, or None."""
        found = None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._owner()
            found = owner if _is_alive(owner) else None
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            found = found or (self._owner() if self._owner() != owner else None)
        os.pwrite(self._fd, b"%-20d" % os.getpid(), 0)
        return found

    def drop(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _owner(self) -> int:
        return int(os.pread(self._fd, 20, 0) or b"0")


def _is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] not in "ZX" and not int(fields[6]) & _EXITING
    return False


def contend(channel: Channel, *, backend: str, directory: str, witness: str) -> None:
    """Try to open the run once for every order received, and do as the order says."""
    anyio.run(_contend, channel, directory, Witness(witness), backend=backend)


async def _contend(channel: Channel, directory: str, witness: Witness) -> None:
    storage = LocalStorage(directory)
    channel.send({"ready": os.getpid()})
    while True:
        order = channel.receive()
        try:
            run = await start(storage, RUN_ID)
        except (WriteContentionError, FencedError) as error:
            channel.send({"refused": type(error).__name__})
            continue
        overlap = witness.take()
        channel.send({"opened": run.session, "overlap": overlap})
        for _ in range(order["steps"]):
            channel.send({"recorded": await run.record(f"of-{run.session}", os.getpid)})
        match order["end"]:
            case "close":
                witness.drop()
                await run.aclose()
                channel.send({"closed": run.session})
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                channel.receive()


def hold(channel: Channel, *, backend: str, directory: str, run_id: str = RUN_ID) -> None:
    """Open the run, tell so, and hold it until told to let go, or to die."""
    anyio.run(_hold, channel, directory, run_id, backend=backend)


async def _hold(channel: Channel, directory: str, run_id: str) -> None:
    async with await start(LocalStorage(directory), run_id) as run:
        await run.record("held", os.getpid)
        channel.send({"pid": os.getpid()})
        with suppress(EOFError):
            if channel.receive() == "die":
                os.kill(os.getpid(), signal.SIGKILL)


def attempt(
    channel: Channel, *, backend: str, directory: str, barrier: str, source: str | None
) -> None:
    """Wait at the barrier, try once to open the run or to fork it off, hold it until told."""
    anyio.run(_attempt, channel, directory, barrier, source, backend=backend)


async def _attempt(channel: Channel, directory: str, barrier: str, source: str | None) -> None:
    storage = LocalStorage(directory)
    gate = os.open(barrier, os.O_RDONLY)
    channel.send("waiting")
    fcntl.flock(gate, fcntl.LOCK_SH)
    try:
        if source is None:
            run = await start(storage, RUN_ID)
        else:
            run = await fork(storage, RUN_ID, source=source, from_offset=1)
    except (WriteContentionError, UsageError) as error:
        channel.send({"refused": str(error)})
        return
    channel.send({"opened": run.session})
    with suppress(EOFError):
        channel.receive()
    await run.aclose()
