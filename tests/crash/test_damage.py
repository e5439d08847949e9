"""D11: journals as crashes and bad disks leave them, and what each of the calls makes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kassette import JournalCorruptionError, StorageError
from kassette_io import LocalStorage, Storage, fork, resume, start

from .journals import Journal

pytestmark = pytest.mark.anyio

RUN = "run"
RESULTS = [1, None, "two\nlines", {"deep": [False, ""]}]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def journal(directory: Path) -> Path:
    return directory / f"{RUN}.jsonl"


async def written(directory: Path) -> bytes:
    async with await start(LocalStorage(directory), RUN) as run:
        for number, result in enumerate(RESULTS):
            await run.record(f"step-{number}", lambda value=result: value)
    return (directory / f"{RUN}.jsonl").read_bytes()


async def listed(storage: Storage) -> list[str]:
    return [run_id async for run_id in storage.list_runs()]


async def test_a_torn_line_at_every_byte(directory: Path, journal: Path) -> None:
    """Broken, a crash in the middle of a write makes the journal unreadable, or loses a neighbour.

    Readers leave the torn bytes where they are: only who holds the lock may touch the file.
    """
    data = await written(directory)
    last = data.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(data)):
        journal.write_bytes(data[:cut])
        storage = LocalStorage(directory)
        entries = await storage.read_all(RUN)
        assert len(entries) == len(RESULTS)
        assert await listed(storage) == [RUN]
        assert journal.read_bytes() == data[:cut]
        async with await start(storage, RUN) as run:
            assert journal.read_bytes().startswith(data[:last])
            assert await run.record("step-3", lambda: "again") == "again"
        found = Journal.read(journal)
        found.check_order()
        assert (found.torn, found.steps()["step-3"]) == (b"", "again")


async def test_d11_a_torn_first_line_at_every_byte(directory: Path, journal: Path) -> None:
    """Broken, a run whose very first write was torn can neither be begun nor read."""
    data = await written(directory)
    first = data.index(b"\n") + 1
    for cut in range(first):
        journal.write_bytes(data[:cut])
        storage = LocalStorage(directory)
        assert await storage.read_all(RUN) == []
        assert journal.read_bytes() == data[:cut]
        async with await start(storage, RUN, metadata="input") as run:
            assert (run.session, run.metadata) == (1, "input")
        found = Journal.read(journal)
        found.check_order()
        assert (found.torn, len(found.entries)) == (b"", 1)


async def test_d12_a_torn_target_does_not_stop_a_fork(directory: Path, journal: Path) -> None:
    """Broken, a file in which nothing was ever recorded takes its run id away for good."""
    data = await written(directory)
    for content in (b"", data[:50]):
        (directory / "copy.jsonl").write_bytes(content)
        async with await fork(LocalStorage(directory), "copy", source=RUN, from_offset=3) as copy:
            assert await copy.record("step-0", lambda: "again") == RESULTS[0]
        (directory / "copy.jsonl").unlink()


def in_the_middle(data: bytes, line: int, content: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([*lines[: line - 1], content, *lines[line:]])


DAMAGE: dict[str, bytes] = {
    "noise": b"\xff\xfe noise\n",
    "zeros": b"\0" * 90 + b"\n",
    "an empty line": b"\n",
    "half a line": b'{"type":"step","session":1,"off\n',
    "two lines in one": b'{"type":"cancel","session":1}{"type":"cancel","session":1}\n',
    "nothing": b"",
    "no object": b"[]\n",
    "no session": b'{"type":"complete","timestamp":"2026-01-01T00:00:00.000Z"}\n',
    "an unknown type": b'{"type":"note","session":1,"timestamp":"2026-01-01T00:00:00.000Z"}\n',
}


async def _start(storage: LocalStorage) -> object:
    return await start(storage, RUN)


async def _resume(storage: LocalStorage) -> object:
    return await resume(storage, RUN, "event", 1)


async def _fork(storage: LocalStorage) -> object:
    return await fork(storage, "copy", source=RUN, from_offset=1)


async def _read(storage: LocalStorage) -> object:
    return await storage.read_all(RUN)


CALLS = [_start, _resume, _fork, _read]


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("line", [1, 3, len(RESULTS)])
@pytest.mark.parametrize("call", CALLS)
async def test_a_damaged_line_is_named_and_nothing_is_repaired(
    directory: Path,
    journal: Path,
    content: bytes,
    line: int,
    call: Callable[[LocalStorage], Awaitable[object]],
) -> None:
    """Broken, damage is repaired away in silence, or nobody learns where to look."""
    damaged = in_the_middle(await written(directory), line, content)
    journal.write_bytes(damaged)
    storage = LocalStorage(directory)
    with pytest.raises(JournalCorruptionError, match=f"line {line}: ") as found:
        await call(storage)
    assert (found.value.line, found.value.run_id) == (line, RUN)
    assert "Nothing was changed" in str(found.value)
    assert journal.read_bytes() == damaged
    assert await listed(storage) == [RUN]
    assert not (directory / f"{RUN}.lock").exists()


async def test_d11_a_directory_for_a_journal_is_a_clear_error(
    directory: Path, journal: Path
) -> None:
    """Broken, an odd directory entry is a traceback of the standard library."""
    journal.mkdir(parents=True)
    for call in CALLS:
        with pytest.raises(StorageError, match="Is a directory"):
            await call(LocalStorage(directory))
    assert not (directory / f"{RUN}.lock").exists()


async def test_a_stale_temporary_file_of_a_fork_is_harmless(directory: Path) -> None:
    """Broken, a crash in the middle of a fork shows as a run, or stops the next attempt."""
    await written(directory)
    (directory / ".copy.new").write_bytes(b"left over from a crash" * 1000)
    storage = LocalStorage(directory)
    assert await listed(storage) == [RUN]
    async with await fork(storage, "copy", source=RUN, from_offset=2) as copy:
        assert await copy.record("step-0", lambda: "again") == RESULTS[0]
    Journal.read(directory / "copy.jsonl").check_order()
    assert not (directory / ".copy.new").exists()
