"""A real process is killed at every item of a stream: it is on record whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kassette import StepEntry, decode_journal

from .processes import Processes
from .streamed import ITEMS, RUN, read_stream

DEATHS: list[list[Any]] = [
    *(["source", number] for number in range(len(ITEMS) + 1)),
    *(["consumer", number] for number in range(len(ITEMS))),
    ["left", 0],
    ["recorded", 0],
]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_death_at_every_item(processes: Processes, tmp_path: Path, backend: str) -> None:
    """If it fails, a run goes on with half an answer, or pays again for what it has on record."""
    for number, die in enumerate(DEATHS):
        directory = tmp_path / str(number)
        directory.mkdir()
        how: dict[str, Any] = {"backend": backend, "directory": str(directory)}
        dead = processes.start(read_stream, **how, die=die)
        assert dead.channel.rest() == ["asked"], die
        assert dead.wait() == -9, die
        entries = decode_journal((directory / f"{RUN}.jsonl").read_bytes()).entries
        recorded = [entry.result for entry in entries if isinstance(entry, StepEntry)]
        assert recorded == ([ITEMS] if die == ["recorded", 0] else []), die
        alive = processes.start(read_stream, **how, die=None)
        *asked, outcome = alive.channel.rest()
        assert alive.wait() == 0, die
        assert asked == ([] if die == ["recorded", 0] else ["asked"]), die
        assert outcome == [ITEMS, ITEMS], die
