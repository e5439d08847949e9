"""What every storage must do, as a suite: subclass it and give the fixtures; no storage lives here.

    class TestMine(StorageSuite):
        @pytest.fixture
        def storage(self) -> MyStorage: ...

A storage that implements ``SessionStorage`` takes ``SessionStorageSuite`` instead.
"""

from __future__ import annotations

import pytest
from anyio import create_task_group

from kassette import CancelEntry, CompleteEntry, ErrorEntry, ForkSource, ResumeEntry, SuspendEntry
from kassette.errors import with_run_id
from kassette_io import (
    Entry,
    FencedError,
    KassetteError,
    SessionStorage,
    Storage,
    TerminalRunError,
    UsageError,
    start,
)
from kassette_io.storage import as_session_storage
from tests.io.stories import RUN, STAMP, Ledger, opening, recording

TERMINAL: list[Entry] = [
    CompleteEntry(session=1, timestamp=STAMP),
    ErrorEntry(session=1, timestamp=STAMP, message="no", name="ValueError", stack="at line 1"),
    CancelEntry(session=1, timestamp=STAMP, reason="suspend_timeout_expired"),
]

BAD_RUN_IDS = ["", ".", "..", ".hidden", "a/b", "../up", "a b", "a\n", "ü", "a\0b", "x" * 201]
GOOD_RUN_IDS = ["a", "A-Z_0.9:@+", "-", "x" * 200, "con", "a..b"]


async def runs(storage: Storage) -> set[str]:
    """Give the runs that ``storage`` lists, each once."""
    listed = [run_id async for run_id in storage.list_runs()]
    assert len(listed) == len(set(listed))
    return set(listed)


async def superseded(storage: Storage) -> None:
    """Let session 1 write two entries, and session 2 take the run over."""
    sessions = as_session_storage(storage)
    await sessions.append(RUN, opening(1))
    await sessions.append(RUN, recording("a", 1))
    await sessions.release(RUN, 1)
    await sessions.append(RUN, opening(2))


@pytest.mark.anyio
class StorageSuite:
    """The contract of the three methods."""

    async def test_an_unknown_run_is_empty_and_unlisted(self, storage: Storage) -> None:
        """If it fails, opening a new run fails, or a look at a run creates it."""
        assert await storage.read_all("nobody") == []
        assert await runs(storage) == set()

    async def test_offsets_count_from_zero_and_come_back(self, storage: Storage) -> None:
        """If it fails, D4 cannot tell whether somebody wrote in between."""
        entries: list[Entry] = [
            opening(1, version="v", writer="w", metadata_json=b'{"k":[1]}'),
            recording("a", {"x": [None, False, 0, ""]}),
            SuspendEntry(session=1, timestamp=STAMP, reason="why", waiting_for="e", timeout=STAMP),
        ]
        offsets = [await storage.append(RUN, entry) for entry in entries]
        assert offsets == [0, 1, 2]
        assert await storage.read_all(RUN) == [
            entry.at(offset) for offset, entry in enumerate(entries)
        ]
        assert await runs(storage) == {RUN}

    async def test_every_entry_type_comes_back_whole(self, storage: Storage) -> None:
        """If it fails, a field of some entry type is lost on the way to the storage and back."""
        entries: list[Entry] = [
            opening(1, metadata_json=b"null"),
            ResumeEntry.of(session=1, timestamp=STAMP, event_name="e", value=[{"é": "\u2028"}]),
            recording("a#2", None).replace(extra_json=b'{"note":{"deep":[1.0]}}'),
            opening(2, source=ForkSource(run_id="other", from_offset=3)),
        ]
        sessions = as_session_storage(storage)
        for entry in entries[:3]:
            await sessions.append(RUN, entry)
        await sessions.release(RUN, 1)
        await sessions.append(RUN, entries[3])
        assert await sessions.read_all(RUN) == [each.at(at) for at, each in enumerate(entries)]

    @pytest.mark.parametrize("last", TERMINAL, ids=lambda entry: entry.type)
    async def test_nothing_follows_a_terminal_entry(self, storage: Storage, last: Entry) -> None:
        """If it fails, a run that is over can be written to."""
        sessions = as_session_storage(storage)
        await sessions.append(RUN, opening(1))
        await sessions.append(RUN, last)
        await sessions.release(RUN, 1)
        for late in (recording("late"), opening(2), last):
            with pytest.raises(TerminalRunError) as caught:
                await sessions.append(RUN, late)
            assert caught.value.terminal_state == last.type
            assert caught.value.run_id == RUN
        assert await sessions.read_all(RUN) == [opening(1).at(0), last.at(1)]

    async def test_d4_an_older_session_is_fenced(self, storage: Storage) -> None:
        """If it fails, a writer that was superseded goes on writing into the run."""
        await superseded(storage)
        late: list[Entry] = [recording("late"), CompleteEntry(session=1, timestamp=STAMP)]
        for entry in late:
            with pytest.raises(FencedError) as caught:
                await storage.append(RUN, entry)
            assert (caught.value.rejected_session, caught.value.active_session) == (1, 2)
            assert caught.value.run_id == RUN
        assert len(await storage.read_all(RUN)) == 3

    async def test_d4_session_numbers_only_grow(self, storage: Storage) -> None:
        """If it fails, two sessions of one number can both believe that the run is theirs."""
        await superseded(storage)
        await as_session_storage(storage).release(RUN, 2)
        for taken in (1, 2):
            with pytest.raises(FencedError):
                await storage.append(RUN, opening(taken))
        assert len(await storage.read_all(RUN)) == 3

    async def test_a_refused_start_takes_nothing_from_the_newest_session(
        self, storage: Storage
    ) -> None:
        """If it fails, an attempt to open the run throws out the session that has it."""
        await superseded(storage)
        with pytest.raises(KassetteError):
            await storage.append(RUN, opening(1))
        assert await storage.append(RUN, recording("b", session=2)) == 3

    @pytest.mark.parametrize("first", [recording("a"), *TERMINAL], ids=lambda entry: entry.type)
    async def test_a_journal_begins_with_a_start(self, storage: Storage, first: Entry) -> None:
        """If it fails, a journal without a session can come into being, or half of one."""
        with pytest.raises(UsageError, match="has no start entry"):
            await storage.append(RUN, first)
        assert await storage.read_all(RUN) == []
        assert await runs(storage) == set()

    async def test_a_session_needs_its_own_start(self, storage: Storage) -> None:
        """If it fails, a session that was never opened can write."""
        await storage.append(RUN, opening(1))
        with pytest.raises(UsageError, match="session 2 has no start entry"):
            await storage.append(RUN, recording("a", session=2))
        assert len(await storage.read_all(RUN)) == 1

    async def test_runs_do_not_know_of_each_other(self, storage: Storage) -> None:
        """If it fails, one run's session fences another's, or a prefix of an id is taken for it."""
        for number, run_id in enumerate(["a", "a.b", "a-b", "A", "b"]):
            await storage.append(run_id, opening(number + 1))
        await storage.append("a", recording("x", "of a"))
        assert [len(await storage.read_all(each)) for each in ("a", "a.b", "A")] == [2, 1, 1]
        assert await runs(storage) == {"a", "a.b", "a-b", "A", "b"}

    async def test_many_tasks_on_one_run_keep_its_offsets_contiguous(
        self, storage: Storage
    ) -> None:
        """If it fails, appends that meet are lost, doubled, or told a wrong offset."""
        await storage.append(RUN, opening(1))
        offsets: dict[str, int] = {}

        async def write(step_id: str) -> None:
            offsets[step_id] = await storage.append(RUN, recording(step_id, step_id))

        async with create_task_group() as group:
            for number in range(40):
                group.start_soon(write, f"s{number}")
        entries = await storage.read_all(RUN)
        assert [entry.offset for entry in entries] == list(range(41))
        assert sorted(offsets.values()) == list(range(1, 41))
        assert [recording(step_id, step_id).at(at) for step_id, at in offsets.items()] == [
            entries[at] for at in offsets.values()
        ]

    async def test_many_runs_at_once_keep_their_own_order(self, storage: Storage) -> None:
        """If it fails, runs that are served together mix or reorder their entries."""

        async def write(run_id: str) -> None:
            await storage.append(run_id, opening(1))
            for number in range(8):
                await storage.append(run_id, recording(f"{run_id}-{number}"))

        async with create_task_group() as group:
            for number in range(20):
                group.start_soon(write, f"run-{number}")
        for number in range(20):
            run_id = f"run-{number}"
            assert await storage.read_all(run_id) == [
                opening(1).at(0),
                *(recording(f"{run_id}-{each}").at(each + 1) for each in range(8)),
            ]

    async def test_many_sessions_opened_at_once_leave_one(self, storage: Storage) -> None:
        """If it fails, two callers that start the same run at once both get it."""
        opened: list[str] = []
        work = Ledger()

        async def attempt(name: str) -> None:
            try:
                async with await start(storage, RUN) as run:
                    await run.record("work", work.work, name)
                    await run.complete()
                    opened.append(name)
            except KassetteError as error:
                assert with_run_id(error, "unknown").run_id == RUN

        async with create_task_group() as group:
            for number in range(10):
                group.start_soon(attempt, f"caller {number}")
        entries = await storage.read_all(RUN)
        assert len(opened) == 1
        assert [entry.offset for entry in entries] == list(range(len(entries)))
        assert entries[-1].type == "complete"
        assert [entry.session for entry in entries] == sorted(entry.session for entry in entries)


@pytest.mark.anyio
class SessionStorageSuite(StorageSuite):
    """The contract of a storage that creates journals in one go and holds something meanwhile."""

    @pytest.mark.parametrize("run_id", BAD_RUN_IDS)
    async def test_d10_bad_run_ids_never_reach_the_disk(
        self, storage: SessionStorage, run_id: str
    ) -> None:
        """If it fails, a run id can name a file outside of the directory, or a surprising key."""
        with pytest.raises(UsageError, match="cannot be a run id"):
            await storage.append(run_id, opening(1))
        with pytest.raises(UsageError, match="cannot be a run id"):
            await storage.read_all(run_id)
        with pytest.raises(UsageError, match="cannot be a run id"):
            await storage.create(run_id, [opening(1)])
        assert await runs(storage) == set()

    @pytest.mark.parametrize("run_id", GOOD_RUN_IDS)
    async def test_d10_good_run_ids_are_taken(self, storage: SessionStorage, run_id: str) -> None:
        """If it fails, an id that the rule allows cannot be used."""
        assert await storage.append(run_id, opening(1)) == 0
        assert await runs(storage) == {run_id}

    async def test_d12_create_writes_it_all_and_opens_the_last_session(
        self, storage: SessionStorage
    ) -> None:
        """If it fails, a fork is incomplete, or its session cannot go on."""
        await storage.create(RUN, [opening(1), recording("a", 1), opening(2)])
        assert await storage.append(RUN, recording("b", session=2)) == 3
        assert [entry.offset for entry in await storage.read_all(RUN)] == [0, 1, 2, 3]
        assert await runs(storage) == {RUN}

    async def test_d12_create_refuses_a_run_that_has_a_journal(
        self, storage: SessionStorage
    ) -> None:
        """If it fails, a fork overwrites somebody's run."""
        await storage.append(RUN, opening(1))
        await storage.release(RUN, 1)
        with pytest.raises(UsageError, match="has a journal already") as caught:
            await storage.create(RUN, [opening(1), opening(2)])
        assert caught.value.run_id == RUN
        assert await storage.read_all(RUN) == [opening(1).at(0)]
        assert await storage.append(RUN, opening(2)) == 1

    async def test_d12_of_many_creates_at_once_one_wins(self, storage: SessionStorage) -> None:
        """If it fails, two forks into one run both believe that they made it."""
        made: list[int] = []

        async def create(number: int) -> None:
            try:
                await storage.create(RUN, [opening(1, writer=str(number)), opening(2)])
            except KassetteError:
                return
            made.append(number)

        async with create_task_group() as group:
            for number in range(10):
                group.start_soon(create, number)
        assert len(made) == 1
        assert await storage.read_all(RUN) == [
            opening(1, writer=str(made[0])).at(0),
            opening(2).at(1),
        ]

    async def test_d14_release_is_idempotent_and_knows_its_session(
        self, storage: SessionStorage
    ) -> None:
        """If it fails, closing twice or late throws out a session that is not one's own."""
        await storage.release(RUN, 1)
        storage.abandon(RUN, 1)
        await superseded(storage)
        await storage.release(RUN, 1)
        storage.abandon(RUN, 1)
        await storage.release(RUN, 7)
        assert await storage.append(RUN, recording("b", session=2)) == 3
        await storage.release(RUN, 2)
        await storage.release(RUN, 2)
        assert await storage.append(RUN, opening(3)) == 4
