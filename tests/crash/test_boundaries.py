"""A process that dies, or halts, between any two calls to the system, and what the others find."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest

from kassette import TerminalRunError, WriteContentionError
from kassette_io import LocalStorage, start

from .boundaries import COPY_ID, RUN_ID, go_through, halt_inside
from .journals import Journal
from .processes import Processes

FEWEST = 60
"""So many boundaries there are at least; fewer would mean that they are not seen."""

STORY = [("start", 1), ("a", 1), ("start", 2), ("b", 2)]
FORKED = [("start", 1), ("a", 1), ("start", 2)]
IN_THE_FORK = [("b", 2), ("complete", 2)]


def outline(path: Path) -> list[tuple[str, int]]:
    journal = Journal.read(path)
    journal.check_order()
    return [(each.get("name", each["type"]), each["session"]) for each in journal.entries]


def check(directory: Path, told: list[str]) -> None:
    """What was told of is durable, what was not may be, and nothing else is there."""
    found = outline(directory / f"{RUN_ID}.jsonl")
    assert found == STORY[: len(found)]
    acknowledged = {"started 1": 1, "recorded a": 2, "started 2": 3, "recorded b": 4}
    least = max((acknowledged.get(each, 0) for each in told), default=0)
    assert least <= len(found) <= least + 1
    copy = directory / f"{COPY_ID}.jsonl"
    if "forked" in told:
        assert copy.exists()
    if copy.exists():
        forked = outline(copy)
        assert forked[:3] == FORKED, "half a fork"
        assert forked[3:] == IN_THE_FORK[: len(forked) - 3]
        assert ("recorded in the fork" in told) <= (len(forked) >= 4)
        assert ("completed" in told) <= (len(forked) == 5)
    leftovers = {f"{RUN_ID}.jsonl", f"{RUN_ID}.lock", copy.name, f"{COPY_ID}.lock", ".copy.new"}
    assert not directory.exists() or {each.name for each in directory.iterdir()} <= leftovers


async def go_on(directory: Path) -> None:
    """Open and write every run at the first attempt."""
    storage = LocalStorage(directory)
    runs = {RUN_ID, *[run_id async for run_id in storage.list_runs()]}
    assert runs <= {RUN_ID, COPY_ID}
    for run_id in runs:
        try:
            async with await start(storage, run_id) as run:
                await run.record("later", lambda: 1)
        except TerminalRunError:
            assert run_id == COPY_ID
        assert Journal.read(directory / f"{run_id}.jsonl").torn == b""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_death_at_every_boundary_of_every_call(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, there is a moment in taking a lock, appending, releasing or forking to die in.

    Whatever had returned is durable, a fork is there whole or not at all (D12), and the next
    process opens every run at its first attempt (D14).
    """
    number = 0
    while True:
        directory = tmp_path / str(number)
        child = processes.start(
            go_through, backend=backend, directory=str(directory), number=number
        )
        told = child.channel.rest()
        child.channel.close()
        survived = child.wait() == 0
        assert survived or child.wait() == -signal.SIGKILL
        check(directory, told)
        anyio.run(go_on, directory, backend=backend)
        if survived:
            assert told[-1] == "completed"
            break
        number += 1
    assert number >= FEWEST
    print(f"{backend}: {number} boundaries")


@pytest.mark.anyio
@pytest.mark.parametrize("stays", [True, False], ids=["it stays", "it goes"])
async def test_a_session_opened_between_any_two_calls_of_another(
    processes: Processes, tmp_path: Path, anyio_backend: str, stays: bool
) -> None:
    """Broken, there is an order of events in which two sessions are live, or one loses its lock.

    One process halts before each of its calls in turn. Meanwhile a second session tries to open. If
    it gets the run it stays open while the first process goes on, or has come and gone by then.
    """
    let_in = number = 0
    while True:
        directory = tmp_path / str(number)
        halted = processes.start(
            halt_inside, backend=anyio_backend, directory=str(directory), number=number
        )
        told: list[object] = []
        while told[-1:] not in (["halted"], ["closed"]):
            told.append(halted.channel.receive())
        if told[-1] == "closed":
            break
        try:
            run = await start(LocalStorage(directory), RUN_ID)
        except WriteContentionError:
            halted.channel.send("go on")
            assert halted.channel.rest()[-1] == "closed"
        else:
            let_in += 1
            async with run:
                await run.record("mine", lambda: 1)
                if stays:
                    halted.channel.send("go on")
                    late = halted.channel.rest()
                    assert not {"opened", "recorded"} & set(late), "two sessions are live"
                    with pytest.raises(WriteContentionError):
                        await start(LocalStorage(directory), RUN_ID)
                    await run.record("more", lambda: 1)
            if not stays:
                halted.channel.send("go on")
                assert halted.channel.rest()[-1] in {"closed", "FencedError"}
        assert halted.wait() == 0
        async with await start(LocalStorage(directory), RUN_ID) as run:
            await run.record("later", lambda: 1)
        Journal.read(directory / f"{RUN_ID}.jsonl").check_order()
        number += 1
    assert number >= FEWEST / 3
    assert let_in
    print(f"{anyio_backend}: {number} boundaries, {let_in} of them let another session in")
