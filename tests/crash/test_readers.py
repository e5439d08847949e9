"""Reading without a lock while a session begins: D11's torn line is cut off under the reader."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random
from time import perf_counter

import pytest

from kassette_io import LocalStorage, start

from .processes import Child, Processes
from .readers import TORN, read_for_ever

READERS = 30
CRASHES = 8
LONGEST_PAUSE = 0.0002
RESULT = "x" * 2_000


def pause(random: Random) -> None:
    due = perf_counter() + random.random() * LONGEST_PAUSE
    while perf_counter() < due:
        pass


def halt(child: Child) -> None:
    child.kill(signal.SIGSTOP)
    stat = Path(f"/proc/{child.pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "TZ":
        pass


def crash(journal: Path) -> None:
    """Leave half an entry behind, as a process does that dies while it writes."""
    offset = journal.read_bytes().count(b"\n")
    with journal.open("ab") as file:
        file.write(
            f'{{"type":"step","session":1,"offset":{offset},"timestamp":"2026-01-01T00:00:00.000Z",'
            f'"stepId":"{TORN}","name":"{TORN}","result":"{RESULT[:1_000]}'.encode()
        )


async def recover(directory: Path, run_id: str) -> None:
    async with await start(LocalStorage(directory), run_id) as run:
        await run.record(f"of-{run.session}", lambda: RESULT)


@pytest.mark.anyio
async def test_a_reader_never_sees_half_an_entry(
    processes: Processes, tmp_path: Path, anyio_backend: str
) -> None:
    """Broken, a look at a run that recovers from a crash reports damage, or an invented entry.

    Half of the torn line is read, then a new session cuts it off and appends, then the reader goes
    on in the middle of the new entries: the two halves make a line that nobody wrote, and a session
    that opens on the strength of it writes at the wrong offset.
    """
    random = Random(f"kassette {anyio_backend}")
    for number in range(READERS):
        run_id = f"run-{number}"
        journal = tmp_path / f"{run_id}.jsonl"
        await recover(tmp_path, run_id)
        reader = processes.start(read_for_ever, directory=str(tmp_path), run_id=run_id)
        assert reader.channel.receive() == "reading"
        for _ in range(CRASHES):
            crash(journal)
            pause(random)
            halt(reader)
            await recover(tmp_path, run_id)
            reader.kill(signal.SIGCONT)
            pause(random)
        assert reader.channel.silent(), reader.channel.receive()
        reader.kill()
