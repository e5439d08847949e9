"""Lives of one run, each killed with SIGKILL at a random moment; says what each left behind.

``python -m tests.crash.recorded DIRECTORY LIVES SEED`` prints one JSON object a life: the step that
was the next to be recorded, and what the lock file and the journal say was running.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import anyio

from kassette import StepEntry, decode_journal
from kassette.evidence.found import found, read_left
from kassette_io import LocalStorage, start
from kassette_io.storages.run_lock import read_lock

RUN = "run-1"


async def live(directory: str, ready: int) -> None:
    """Take steps without end, saying at each that it runs."""

    def work() -> int:
        os.write(ready, b".")
        until = time.perf_counter() + 0.0003
        while time.perf_counter() < until:
            pass
        return 1

    async with await start(LocalStorage(directory), RUN) as run:
        for number in range(1_000_000):
            await run.record(f"s{number}", work)


def one_life(directory: str, moments: random.Random) -> None:
    """Run a process until it has begun some steps, and kill it somewhere in the next one."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        try:
            anyio.run(live, directory, told)
        finally:
            os._exit(1)
    os.close(told)
    wanted = moments.randint(1, 6)
    while wanted > 0:
        begun = os.read(ready, wanted)
        assert begun, "the process has ended by itself"
        wanted -= len(begun)
    until = time.perf_counter() + moments.random() * 0.001
    while time.perf_counter() < until:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)


def main(directory: str, lives: int, seed: int) -> None:
    """Print what each life leaves."""
    moments = random.Random(seed)
    for _ in range(lives):
        one_life(directory, moments)
        data = Path(directory, f"{RUN}.jsonl").read_bytes()
        journal = decode_journal(data)
        lock = read_lock(os.path.join(directory, f"{RUN}.lock"))
        left = found(journal.entries, read_left(lock, data[journal.whole :]))
        steps = sum(isinstance(each, StepEntry) for each in journal.entries)
        print(json.dumps({"next": f"s{steps}", "found": left and left.to_json()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
