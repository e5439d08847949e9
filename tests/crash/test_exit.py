"""D2 and D14 at the end of a process: interrupted, out of threads, out of loops, or just done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from kassette import FencedError, WriteContentionError
from kassette_io import LocalStorage, start

from .endings import (
    POOL,
    REFUSED,
    RUN_ID,
    interrupted_at,
    lose_runs_everywhere,
    lose_the_loop,
    record_for_ever,
    without_threads,
)
from .journals import Journal
from .processes import PATIENCE, TESTS, Processes

BACKENDS = ["asyncio", "trio"]


async def open_at_once(directory: Path) -> int:
    async with await start(LocalStorage(directory), RUN_ID) as run:
        return run.session


@pytest.mark.parametrize("backend", BACKENDS)
def test_d2_an_interrupt_in_an_append_ends_the_process_promptly(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, Ctrl-C is swallowed by the append that it hits, or loses what the append wrote.

    The append lands, no further step begins, the lock file is gone, nothing is journaled about it.
    """
    child = processes.start(record_for_ever, backend=backend, directory=str(tmp_path))
    told: list[object] = []
    while told[-1:] != ["in an append"]:
        told.append(child.channel.receive())
    begun = told.count("step")
    child.kill(signal.SIGINT)
    child.channel.send("go on")
    assert child.channel.rest() == ["interrupted"]
    assert child.wait() == 0
    assert os.listdir(tmp_path) == [f"{RUN_ID}.jsonl"]
    journal = Journal.read(tmp_path / f"{RUN_ID}.jsonl")
    journal.check_order()
    assert (len(journal.steps()), journal.torn) == (begun, b"")
    assert {each["type"] for each in journal.entries} == {"start", "step"}
    assert anyio.run(open_at_once, tmp_path, backend=backend) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_at_every_line_of_the_hand_over(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, Ctrl-C in the wrong microsecond leaves a process that waits for ever.

    Python raises KeyboardInterrupt between any two lines of the main thread. Wherever that is, the
    process ends, the next one finds the lock free, and what was recorded is in order.
    """
    number = 0
    while True:
        directory = tmp_path / str(number)
        ending = processes.run(
            interrupted_at, backend=backend, directory=str(directory), number=number
        )
        Journal.read(directory / f"{RUN_ID}.jsonl").check_order()
        assert anyio.run(open_at_once, directory, backend=backend) == 2
        if ending == "done":
            break
        assert ending == "interrupted"
        number += 1
    assert number > 20
    print(f"{backend}: interrupted at {number} lines")


HELD_OPEN = """
import sys, threading, time, anyio
from kassette_io import LocalStorage, start
from kassette_io.loops import threads
threads.IDLE_SECONDS = {idle}
def writers():
    return sum(thread.name == "kassette-writer" for thread in threading.enumerate())
storage = LocalStorage(sys.argv[1])
async def main():
    global run, others
    run = await start(storage, "run")
    await run.record("work", lambda: 1)
    others = [await start(storage, f"other-{{number}}") for number in range({others})]
    {inside}
anyio.run(main, backend=sys.argv[2])
while {idle} == 0 and writers() > 1:  # the last one stays
    time.sleep(0)
{outside}
"""

ENDINGS: dict[str, tuple[str, dict[str, Any], int]] = {
    "the writers wait for work": (HELD_OPEN, {"idle": 60}, 0),
    "the writers have gone": (HELD_OPEN, {"idle": 0}, 0),
    "more runs than writers": (HELD_OPEN, {"idle": 60, "others": 20}, 0),
    "sys.exit": (HELD_OPEN, {"idle": 60, "outside": "sys.exit(3)"}, 3),
    "sys.exit in the loop": (HELD_OPEN, {"idle": 60, "inside": "sys.exit(3)"}, 3),
    "the run is in a cycle": (
        HELD_OPEN,
        {"idle": 0, "inside": "global me; me = [run]; me.append(me)", "outside": "del run"},
        0,
    ),
}


def end(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments[:-2]), "-c", program, *map(str, arguments[-2:])],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("backend", "ending"),
    [
        (backend, ending)
        for backend in BACKENDS
        for ending, (program, _, _) in ENDINGS.items()
        if backend == "asyncio" or program is HELD_OPEN
    ],
)
def test_d14_an_open_run_does_not_keep_a_process_from_ending(
    tmp_path: Path, backend: str, ending: str
) -> None:
    """Broken, a program that forgot to close a run hangs at its end, or dies noisily.

    Whatever it leaves behind, the next process gets the run.
    """
    program, settings, code = ENDINGS[ending]
    if settings:
        program = program.format_map({"others": 0, "inside": "", "outside": "", **settings})
    done = end(program, tmp_path, backend)
    assert (done.returncode, done.stderr) == (code, "")
    assert anyio.run(open_at_once, tmp_path, backend=backend) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_was_never_closed_is_warned_about(tmp_path: Path, backend: str) -> None:
    """Broken, nobody learns of the forgotten run, or the warning comes as a traceback."""
    settings = {"idle": 60, "others": 0, "inside": "", "outside": ""}
    done = end(HELD_OPEN.format_map(settings), "-Walways", tmp_path, backend)
    assert "ResourceWarning: <Run 'run' session 1 active> was never closed" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_lost_at_any_line_is_released(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, the garbage collector stops the program for good: it ran while a lock was held.

    A Run that was never closed is released when it is collected, and that can be at any moment,
    also in the middle of handing over an append.
    """
    lost = processes.run(lose_runs_everywhere, backend=backend, directory=str(tmp_path))
    assert 20 < lost < POOL
    assert len(list(tmp_path.glob("*.lock"))) == POOL - lost
    print(f"{backend}: lost at {lost} lines")


def test_a_loop_that_is_closed_under_an_append(processes: Processes, tmp_path: Path) -> None:
    """Broken, a writer thread dies with the loop that it meant to wake, and the next job waits.

    Under asyncio alone: trio does not end while one of its tasks waits.
    """
    assert processes.run(lose_the_loop, directory=str(tmp_path)) == []
    for name, steps in {RUN_ID: 1, "another": 1}.items():
        journal = Journal.read(tmp_path / f"{name}.jsonl")
        journal.check_order()
        assert len(journal.steps()) == steps


HUNG_READ = """
import asyncio, sys, threading, anyio
from kassette_io import LocalStorage
storage = LocalStorage(sys.argv[1])
async def until_it_hangs():
    while not any(thread.name == "kassette-reader" for thread in threading.enumerate()):
        await anyio.sleep(0)
async def leave():
    async with anyio.create_task_group() as group:
        group.start_soon(storage.read_all, "hung")
        await until_it_hangs()
        group.cancel_scope.cancel()
if sys.argv[2] == "left behind":
    loop = asyncio.new_event_loop()
    task = loop.create_task(storage.read_all("hung"))
    loop.run_until_complete(until_it_hangs())
    loop.set_exception_handler(lambda *_: None)
    loop.close()
else:
    anyio.run(leave, backend=sys.argv[2])
"""


@pytest.mark.parametrize("how", [*BACKENDS, "left behind"])
def test_a_read_that_hangs_can_be_left(tmp_path: Path, how: str) -> None:
    """Broken, a disk that went away keeps a cancelled task, or a process that is done, for good.

    A named pipe that nobody writes to stands for such a disk.
    """
    os.mkfifo(tmp_path / "hung.jsonl")
    ended = end(HUNG_READ, tmp_path, how)
    assert ended.returncode == 0, ended.stderr
    assert "was never awaited" not in ended.stderr


@pytest.mark.parametrize("when", REFUSED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_system_that_refuses_threads(
    processes: Processes, tmp_path: Path, backend: str, when: str
) -> None:
    """Broken, a moment without threads, as under a limit on processes, hangs a run or fails it."""
    ending = processes.run(without_threads, backend=backend, directory=str(tmp_path), when=when)
    assert ending == "success"


def test_many_loops_in_many_threads_share_one_storage(tmp_path: Path) -> None:
    """Broken, a storage works for the loop that used it first, or wakes the wrong one."""
    storage = LocalStorage(tmp_path)
    refused: list[str] = []
    errors: list[BaseException] = []

    async def work(number: int) -> None:
        for turn in range(10):
            async with await start(storage, f"own-{number}") as run:
                await run.record(f"step-{turn}", lambda turn=turn: turn)
            try:
                async with await start(storage, "shared") as run:
                    await run.record(f"of-{run.session}", lambda: number)
            except (WriteContentionError, FencedError) as error:
                refused.append(str(error))

    def be_a_thread(number: int) -> None:
        try:
            anyio.run(work, number, backend=BACKENDS[number % 2])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=be_a_thread, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    for number in range(8):
        steps = Journal.read(tmp_path / f"own-{number}.jsonl").steps()
        assert steps == {f"step-{turn}": turn for turn in range(10)}
    shared = Journal.read(tmp_path / "shared.jsonl")
    shared.check_order()
    assert len(shared.steps()) + len(refused) == 80
    assert list(tmp_path.glob("*.lock")) == []
