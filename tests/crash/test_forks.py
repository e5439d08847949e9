"""D14 and ``fork()``: a forked child has its parent's memory, but never its parent's session."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from kassette_io import LocalStorage, start

from .forking import RUN_ID, fork_while_opening, hold_and_fork
from .journals import Journal
from .processes import Processes

BACKENDS = ["asyncio", "trio"]


async def open_at_once(directory: Path) -> int:
    async with await start(LocalStorage(directory), RUN_ID) as run:
        return run.session


@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_has_no_part_in_the_session(
    processes: Processes, tmp_path: Path, backend: str, how: str
) -> None:
    """Broken, a child writes as its parent, unlocks its parent's run, or keeps it locked for ever.

    A child that outlives its parent is what a pool of worker processes looks like after a crash.
    """
    parent = processes.start(hold_and_fork, backend=backend, directory=str(tmp_path), how=how)
    child = parent.channel.receive()["child"]
    assert child["holds"] is False
    assert "belongs to the process that forked this one" in child["record"]
    assert "is open in another session" in child["same storage"]
    assert "is open in another session" in child["new"]
    assert child["own"] == "recorded"
    assert parent.channel.receive() == {"parent": "recorded"}
    parent.kill()
    assert parent.wait() == -9
    assert anyio.run(open_at_once, tmp_path, backend=backend) == 2
    journal = Journal.read(tmp_path / f"{RUN_ID}.jsonl")
    journal.check_order()
    assert journal.steps() == dict.fromkeys(["before", "after"], parent.pid)


@pytest.mark.parametrize("backend", BACKENDS)
def test_d14_a_fork_in_the_moment_of_locking(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, a child forked by another thread keeps a lock that nobody knew of yet."""
    parent = processes.start(fork_while_opening, backend=backend, directory=str(tmp_path))
    assert parent.channel.receive() == {"opened": 1}
    parent.kill()
    assert parent.wait() == -9
    assert anyio.run(open_at_once, tmp_path, backend=backend) == 2
