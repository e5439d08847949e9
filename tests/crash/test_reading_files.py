"""How a journal file is read and its directory made, as the calls to the system show it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from anyio import create_task_group, to_thread

from kassette import Entry, StartEntry, StepEntry, StorageError, encode_entry
from kassette_io import LocalStorage

from .faults import Disk, EveryCall, writes_only

pytestmark = pytest.mark.anyio

RUN = "run"
STAMP = "2026-01-31T12:00:00.000Z"
OPENING = StartEntry(session=1, timestamp=STAMP)


def recording(step: str) -> StepEntry:
    return StepEntry.of(session=1, timestamp=STAMP, step_id=step, name=step, result=1)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / f"{RUN}.jsonl"


class Reading(io.FileIO):
    """A file that gives a few bytes at a time, after each of which something happens to it."""

    def __init__(
        self, most: int, then: Callable[[], object], path: str, mode: str, buffering: int
    ) -> None:
        super().__init__(path, mode)
        self._most = most
        self._then = then

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        data = super().read(min(size, self._most))
        self._then()
        return data or b""


async def test_d11_a_file_that_comes_in_pieces_is_read_whole(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a journal on a slow network disk reads as a damaged one."""
    entries: list[Entry] = [OPENING, recording("one"), recording("two")]
    journal.write_bytes(b"".join(map(encode_entry, entries, range(3))))
    opened = partial(Reading, 50, int)
    monkeypatch.setattr("kassette_io.storages.local_journal.open", opened, raising=False)
    found = await LocalStorage(tmp_path).read_all(RUN)
    assert [each.type for each in found] == ["start", "step", "step"]


async def test_d11_a_torn_line_that_is_replaced_meanwhile_is_not_glued_to_the_new_one(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a reader reports damage that is none: half of one line and half of another."""
    whole = encode_entry(OPENING, 0)
    line = encode_entry(recording("work"), 1)
    journal.write_bytes(whole + line[:40])
    opened = partial(Reading, 1000, lambda: journal.write_bytes(whole + line))
    monkeypatch.setattr("kassette_io.storages.local_journal.open", opened, raising=False)
    found = await LocalStorage(tmp_path).read_all(RUN)
    assert [each.type for each in found] == ["start"]


async def test_d4_a_short_journal_with_a_torn_line_that_is_copied_over_is_told(
    tmp_path: Path, journal: Path
) -> None:
    """Broken, a session builds on a ``start`` that the journal does not hold."""
    torn = encode_entry(recording("work"), 1)[:80]
    journal.write_bytes(encode_entry(OPENING, 0) + torn)
    storage = LocalStorage(tmp_path)
    await storage.read_all(RUN)
    other = encode_entry(OPENING.replace(timestamp="2026-01-31T12:00:00.001Z"), 0) + torn
    journal.write_bytes(other)
    with pytest.raises(StorageError, match="deleted or replaced since it was read"):
        await storage.append(RUN, StartEntry(session=2, timestamp=STAMP))
    assert journal.read_bytes() == other


async def test_a_named_pipe_is_read_to_its_end(tmp_path: Path, journal: Path) -> None:
    """Broken, a journal that another program prints cannot be looked at."""
    os.mkfifo(journal)
    storage = LocalStorage(tmp_path)
    found: list[str] = []

    async def read() -> None:
        found.extend([each.type for each in await storage.read_all(RUN)])

    async with create_task_group() as group:
        group.start_soon(read)
        await to_thread.run_sync(journal.write_bytes, encode_entry(OPENING, 0))
    assert found == ["start"]


async def test_what_has_been_read_is_not_read_again_on_opening(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, recovering a run costs twice what its journal costs to read."""
    journal.write_bytes(encode_entry(OPENING, 0))
    calls = EveryCall(monkeypatch)
    storage = LocalStorage(tmp_path)
    await storage.read_all(RUN)
    assert calls.made == ["open", "fstat", "read"]
    calls.made.clear()
    await storage.append(RUN, StartEntry(session=2, timestamp=STAMP))
    opening = ["open", "flock", "fstat", "stat", "pwrite", "ftruncate", "fstat"]
    assert calls.made == [*opening, "open", "fstat", "pread", "write", "fsync"]
    await storage.aclose()


async def test_d15_what_is_taken_back_is_gone_from_the_disk_before_the_next_write(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a power cut brings half a line back, in the middle of the one that followed."""
    storage = LocalStorage(tmp_path)
    await storage.append(RUN, OPENING)
    await storage.aclose()
    disk = Disk(monkeypatch)
    await storage.append(RUN, StartEntry(session=2, timestamp=STAMP))
    disk.taken()
    disk.on("write", ".jsonl", writes_only(30))
    with pytest.raises(StorageError, match="cannot write journal"):
        await storage.append(RUN, recording("work").in_session(2))
    assert [call for call, _ in disk.taken()] == ["write", "ftruncate", "fsync"]
    await storage.aclose()


async def test_d15_the_directory_that_was_found_is_named_durably_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, a power cut takes the directory that another process had just made, and ours in it."""
    found = tmp_path / "found"
    found.mkdir()
    disk = Disk(monkeypatch)
    storage = LocalStorage(found / "journals")
    await storage.append(RUN, OPENING)
    assert ("fsync", tmp_path.name) in disk.taken()
    await storage.aclose()


async def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path) -> None:
    """Broken, the caller looks for a lock file, where the directory's name is the mistake."""
    (tmp_path / "journals").touch()
    with pytest.raises(StorageError, match="cannot create the directory of journal"):
        await LocalStorage(tmp_path / "journals").append(RUN, OPENING)
