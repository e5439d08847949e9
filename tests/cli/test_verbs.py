"""The verbs on storages other than a directory, in process, under both event loops."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from typing import final

import pytest

from kassette import Entry, InternalError, StartEntry, UsageError
from kassette_cli import storage as asked
from kassette_cli.output import json_lines
from kassette_cli.verbs import fork
from kassette_io import MemoryStorage, start

pytestmark = pytest.mark.anyio


@final
class Endless:
    """A storage with more runs than anybody can list, and none that was ever written."""

    def __init__(self) -> None:
        self.asked_for = 0

    async def append(self, run_id: str, entry: Entry) -> int:
        raise AssertionError("nothing is written here")

    async def read_all(self, run_id: str) -> list[Entry]:
        return []

    async def list_runs(self) -> AsyncIterator[str]:
        while True:
            self.asked_for += 1
            yield f"run-{self.asked_for}"


async def fork_below(
    storage: MemoryStorage, *, from_offset: int | None = None, from_step: str | None = None
) -> str:
    cut = {"from_offset": from_offset, "from_step": from_step}
    return await fork.find(storage, Namespace(run="a", new_run_id="b", **cut))


async def test_list_stops_asking_at_its_limit() -> None:
    """`--limit 3` on a bucket with a million runs would page through all of them."""
    storage = Endless()
    assert await asked.list_runs(storage, 3) == ["run-1", "run-2", "run-3"]
    assert storage.asked_for <= 4


async def test_the_verbs_work_on_any_storage() -> None:
    """The command would know more of LocalStorage than the storage contract says."""
    storage = MemoryStorage()
    asked.check_exists(storage)
    async with await start(storage, "a", metadata=1) as run:
        await run.record("s", lambda: 1)
    forked = await fork_below(storage, from_step="s")
    assert forked == "b"
    assert await asked.list_runs(storage) == ["a", "b"]
    assert [entry.type for entry in await asked.read_run(storage, "b")] == ["start", "start"]
    with pytest.raises(UsageError, match="there is no run 'c'"):
        await asked.read_run(storage, "c")


async def test_the_session_of_a_fork_is_closed() -> None:
    """The new run could not be started, because the command that made it still had it."""
    storage = MemoryStorage()
    async with await start(storage, "a"):
        pass
    await fork_below(storage, from_offset=0)
    async with await start(storage, "b") as run:
        assert run.session == 3


async def test_an_entry_without_an_offset_is_a_bug_of_its_storage() -> None:
    """A third-party storage that forgets offsets would be dumped with wrong ones."""
    with pytest.raises(InternalError, match="without an offset"):
        json_lines.entry_line(StartEntry(session=1, timestamp="t"))
