"""Journals that somebody deletes, replaces, cuts or extends while a session is open or opening."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kassette import Entry, FencedError, JournalCorruptionError, StorageError
from kassette_io import LocalStorage, start

from .journals import Journal

pytestmark = pytest.mark.anyio

RUN = "run"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journals"


@pytest.fixture
def journal(directory: Path) -> Path:
    return directory / f"{RUN}.jsonl"


class Meddled:
    """A storage with which something happens to the file between the reading and the ``start``."""

    def __init__(self, directory: Path, meddle: Callable[[], object]) -> None:
        self._inner = LocalStorage(directory)
        self._meddle = meddle

    async def read_all(self, run_id: str) -> list[Entry]:
        entries = await self._inner.read_all(run_id)
        meddle, self._meddle = self._meddle, int
        meddle()
        return entries

    async def append(self, run_id: str, entry: Entry) -> int:
        return await self._inner.append(run_id, entry)

    def list_runs(self) -> AsyncIterator[str]:
        return self._inner.list_runs()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        await self._inner.create(run_id, entries)

    async def release(self, run_id: str, session: int) -> None:
        await self._inner.release(run_id, session)

    def abandon(self, run_id: str, session: int) -> None:
        self._inner.abandon(run_id, session)


async def written(directory: Path, *steps: str, run_id: str = RUN, value: object = 1) -> bytes:
    """Write a journal of one session with these steps, and give its bytes."""
    async with await start(LocalStorage(directory), run_id) as run:
        for step in steps:
            await run.record(step, lambda: value)
    return (directory / f"{run_id}.jsonl").read_bytes()


async def assert_free(directory: Path) -> None:
    async with await start(LocalStorage(directory), RUN):
        pass
    assert not (directory / f"{RUN}.lock").exists()


@pytest.mark.parametrize("lock_too", [False, True], ids=["journal", "journal and lock"])
async def test_a_journal_deleted_under_a_session_is_not_made_again(
    directory: Path, journal: Path, lock_too: bool
) -> None:
    """Broken, a run goes on in a journal without a beginning, or starts over in silence."""
    run = await start(LocalStorage(directory), RUN)
    await run.record("work", lambda: 1)
    journal.unlink()
    if lock_too:
        (directory / f"{RUN}.lock").unlink()
    with pytest.raises(StorageError, match="cannot continue journal") as lost:
        await run.record("more", lambda: 2)
    assert not lost.value.rolled_back
    assert run.lost_to is lost.value
    await run.aclose()
    assert not journal.exists()
    assert not (directory / f"{RUN}.lock").exists()
    await assert_free(directory)


async def test_d5_a_directory_moved_away_under_a_session(directory: Path, tmp_path: Path) -> None:
    """Broken, the run goes on in a new directory that holds nothing of what was recorded."""
    run = await start(LocalStorage(directory), RUN)
    await run.record("work", lambda: 1)
    moved = directory.rename(tmp_path / "moved")
    before = (moved / f"{RUN}.jsonl").read_bytes()
    with pytest.raises(StorageError):
        await run.record("more", lambda: 2)
    await run.aclose()
    assert not directory.exists()
    assert (moved / f"{RUN}.jsonl").read_bytes() == before
    async with await start(LocalStorage(moved), RUN) as again:
        assert again.session == 2


async def test_d5_a_file_in_place_of_the_directory_under_a_session(
    directory: Path, tmp_path: Path
) -> None:
    """Broken, the caller gets a bare OSError, or the lock stays locked in this process."""
    run = await start(LocalStorage(directory), RUN)
    moved = directory.rename(tmp_path / "moved")
    directory.write_text("not a directory")
    with pytest.raises(StorageError) as lost:
        await run.record("work", lambda: 1)
    assert isinstance(lost.value.__cause__, NotADirectoryError)
    await run.aclose()
    directory.unlink()
    moved.rename(directory)
    await assert_free(directory)


async def test_d5_a_journal_replaced_under_a_session(directory: Path, journal: Path) -> None:
    """Broken, a restored copy gets entries of a session that knows nothing of it."""
    other = await written(directory, "other", run_id="other")
    run = await start(LocalStorage(directory), RUN)
    await run.record("work", lambda: 1)
    (directory / "other.jsonl").rename(journal)
    with pytest.raises(StorageError, match="it was replaced by another file"):
        await run.record("more", lambda: 2)
    await run.aclose()
    assert journal.read_bytes() == other
    await assert_free(directory)


async def test_d5_a_journal_replaced_under_a_session_by_one_of_its_size(
    directory: Path, journal: Path
) -> None:
    """Broken, entries go to a file that no longer has a name."""
    run = await start(LocalStorage(directory), RUN)
    await run.record("work", lambda: "old")
    other = journal.read_bytes().replace(b'"old"', b'"new"')
    (directory / "other").write_bytes(other)
    (directory / "other").rename(journal)
    with pytest.raises(StorageError, match="it was replaced by another file"):
        await run.record("more", lambda: 2)
    await run.aclose()
    assert journal.read_bytes() == other


async def test_d4_a_journal_replaced_by_one_that_ends_as_it_did_while_a_session_opens(
    directory: Path, journal: Path
) -> None:
    """Broken, the session replays a value that the journal does not hold."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("work", lambda: "old")
        await run.record("long", lambda: "x" * 200)
    other = journal.read_bytes().replace(b'"old"', b'"new"')
    (directory / "other").write_bytes(other)
    meddled = Meddled(directory, lambda: (directory / "other").rename(journal))
    with pytest.raises(StorageError, match="deleted or replaced since it was read"):
        await start(meddled, RUN)
    assert journal.read_bytes() == other
    await assert_free(directory)


async def test_d4_a_journal_that_grew_under_a_session_is_looked_at(
    directory: Path, journal: Path
) -> None:
    """Broken, a session overwrites or skips what a writer without a lock has appended."""
    run = await start(LocalStorage(directory), RUN)
    await run.record("work", lambda: 1)
    with journal.open("ab") as file:
        file.write(b'{"type":"start","session":2,"offset":2,"timestamp":"2026-01-01T00:00:00Z"}\n')
    before = journal.read_bytes()
    with pytest.raises(FencedError):
        await run.record("more", lambda: 2)
    await run.aclose()
    assert journal.read_bytes() == before


async def test_d11_damage_done_under_a_session_is_not_appended_to(
    directory: Path, journal: Path
) -> None:
    """Broken, damage is buried under further entries."""
    run = await start(LocalStorage(directory), RUN)
    await run.record("work", lambda: 1)
    with journal.open("ab") as file:
        file.write(b"noise\n")
    before = journal.read_bytes()
    with pytest.raises(JournalCorruptionError) as damaged:
        await run.record("more", lambda: 2)
    assert damaged.value.line == 3
    await run.aclose()
    assert journal.read_bytes() == before
    assert not (directory / f"{RUN}.lock").exists()


async def test_d11_a_torn_line_left_under_a_session_is_cut_off(
    directory: Path, journal: Path
) -> None:
    """Broken, the next entry is glued to half of another one."""
    async with await start(LocalStorage(directory), RUN) as run:
        await run.record("work", lambda: 1)
        with journal.open("ab") as file:
            file.write(b'{"type":"step","sess')
        await run.record("more", lambda: 2)
    found = Journal.read(journal)
    found.check_order()
    assert (found.steps(), found.torn) == ({"work": 1, "more": 2}, b"")


async def test_d5_a_journal_deleted_while_a_session_opens_is_not_made_again(
    directory: Path, journal: Path
) -> None:
    """Broken, ``start`` on a run that was just deleted begins it anew, without its input."""
    await written(directory, "work")
    with pytest.raises(StorageError):
        await (await start(Meddled(directory, journal.unlink), RUN)).aclose()
    assert not journal.exists()
    assert not (directory / f"{RUN}.lock").exists()


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed over it", "copied over it"])
@pytest.mark.parametrize(
    "steps", [["work"], ["work", "more"], []], ids=["equal", "longer", "shorter"]
)
async def test_d4_a_journal_replaced_while_a_session_opens(
    directory: Path, journal: Path, in_place: bool, steps: list[str]
) -> None:
    """Broken, the session replays what the journal does not hold.

    Offsets alone do not tell a journal from another one of the same length, nor does the inode from
    one that was copied into it. A session that sees it may refuse, or go by the file.
    """
    await written(directory, "work", value="old")
    other = await written(directory, *steps, run_id="other", value="new" * 40)

    def replace() -> None:
        if in_place:
            journal.write_bytes(other)
        else:
            (directory / "other.jsonl").rename(journal)

    try:
        run = await start(Meddled(directory, replace), RUN)
    except StorageError:
        assert journal.read_bytes() == other
        await assert_free(directory)
        return
    async with run:
        assert await run.record("work", lambda: "live") == ("new" * 40 if steps else "live")
    Journal.read(journal).check_order()


async def test_d4_a_session_that_came_and_went_while_a_session_opens(
    directory: Path, journal: Path
) -> None:
    """Broken, work that was recorded between reading and opening is done again."""
    await written(directory, "work")

    def extend() -> None:
        with journal.open("ab") as file:
            file.write(
                b'{"type":"step","session":1,"offset":2,"timestamp":"2026-01-01T00:00:00.000Z",'
                b'"stepId":"more","name":"more","result":"late"}\n{"type":"st'
            )

    async with await start(Meddled(directory, extend), RUN) as run:
        assert await run.record("more", lambda: "again") == "late"
    found = Journal.read(journal)
    found.check_order()
    assert found.torn == b""
