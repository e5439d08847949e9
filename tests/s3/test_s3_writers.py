"""Many writers on one run, for real: sessions that fence one another, tasks that share one session.

Only on the server whose conditional writes are atomic. moto locks nothing between its check and its
store, so two writers at once can both win there, which no client can mend.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from anyio import Event, create_task_group

from kassette import (
    Entry,
    FencedError,
    KassetteError,
    SessionClosedError,
    StepEntry,
    WriteContentionError,
)
from kassette_io import RemoteStorage, Run, S3ObjectStoreClient, start

from .proxy import Proxy
from .servers import S3Server
from .support import PREFIX, journal, step_ids, types

pytestmark = pytest.mark.anyio

WRITERS = 8
APPENDS = 200
BURST = 50
TAKEN = (FencedError, WriteContentionError)


def check_all_there(entries: list[Entry]) -> None:
    """Each writer's every append is there once, in its order, and nothing else is."""
    steps = [entry for entry in entries if isinstance(entry, StepEntry)]
    assert Counter(each.name for each in steps) == Counter(
        f"w{number}.{turn}" for number in range(WRITERS) for turn in range(APPENDS)
    )
    sessions = [entry.session for entry in entries if entry.type == "start"]
    assert sessions == list(range(1, len(sessions) + 1)), "a session was opened twice, or skipped"
    assert all(a.session <= b.session for a, b in pairwise(entries)), "a fenced session wrote"


async def test_8_tasks_of_one_session_append_200_each(
    storage: RemoteStorage, bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """Appends that share puts would be lost from a batch, or written with each other's offsets."""
    run = await start(storage, "run-1")

    async def write(number: int) -> None:
        for turn in range(APPENDS):
            result = await run.record(f"w{number}.{turn}", lambda turn=turn: [number, turn])
            assert result == [number, turn]

    async with create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(write, number)
    await run.complete()
    entries = journal(atomic_server, bucket, "run-1")
    check_all_there(entries)
    for number in range(WRITERS):
        prefix = f"w{number}."
        mine = [each.name for each in entries if isinstance(each, StepEntry)]
        assert [name for name in mine if name.startswith(prefix)] == [
            f"{prefix}{turn}" for turn in range(APPENDS)
        ]
    assert proxy.count("GET") == 1
    assert proxy.count("PUT") < 2 * APPENDS


class Progress:
    """How many bursts are in, over all writers: whoever was fenced waits for the next one.

    Without that, eight writers that never pause fence one another before anybody writes.
    """

    def __init__(self) -> None:
        self.count = 0
        self.changed = Event()

    def made(self) -> None:
        self.count += 1
        self.changed.set()
        self.changed = Event()

    async def beyond(self, count: int) -> None:
        while self.count <= count:
            await self.changed.wait()


class Writer:
    """Writes its own 200 entries through session after session, each taken from another writer."""

    def __init__(self, number: int, client: S3ObjectStoreClient, progress: Progress) -> None:
        self.number = number
        self.client = client
        self.progress = progress
        self.acknowledged: set[int] = set()
        self.ran: Counter[int] = Counter()
        self.opened = 0
        self.lost = 0

    async def write(self) -> None:
        while True:
            seen = self.progress.count
            try:
                run = await start(RemoteStorage(self.client, prefix=PREFIX), "run-1")
            except TAKEN:
                continue
            self.opened += 1
            async with run:
                if await self.use(run):
                    return
            self.lost += 1
            await self.progress.beyond(seen)

    async def use(self, run: Run) -> bool:
        """Record until fenced; True once all are in. A burst goes out in one put or two."""
        for begin in range(0, APPENDS, BURST):
            known = len(self.acknowledged)
            async with create_task_group() as group:
                for turn in range(begin, begin + BURST):
                    group.start_soon(self.record, run, turn)
            if run.lost_to is not None:
                assert isinstance(run.lost_to, TAKEN), run.lost_to
                return False
            if len(self.acknowledged) > known:
                self.progress.made()
        return True

    async def record(self, run: Run, turn: int) -> None:
        def effect() -> list[int]:
            self.ran[turn] += 1
            return [self.number, turn]

        try:
            result = await run.record(f"w{self.number}.{turn}", effect)
        except (*TAKEN, SessionClosedError):
            return
        assert result == [self.number, turn]
        self.acknowledged.add(turn)


async def test_8_writers_that_fence_one_another_get_200_entries_in_each(
    bucket: str, atomic_server: S3Server
) -> None:
    """Taking over from a live session would lose what it had written, or write it again."""
    progress = Progress()
    clients = [S3ObjectStoreClient(bucket, endpoint_url=atomic_server.url) for _ in range(WRITERS)]
    writers = [Writer(number, client, progress) for number, client in enumerate(clients)]
    async with create_task_group() as group:
        for writer in writers:
            group.start_soon(writer.write)
    for client in clients:
        await client.aclose()
    entries = journal(atomic_server, bucket, "run-1")
    check_all_there(entries)
    assert types(entries).count("start") >= sum(writer.opened for writer in writers)
    assert sum(writer.lost for writer in writers) >= WRITERS - 1, "nobody fenced anybody"
    for writer in writers:
        assert len(writer.acknowledged) == APPENDS
        assert max(writer.ran.values()) <= 1 + writer.lost, "a recorded step ran again"


PROCESS = """
import sys, anyio
from kassette_io import FencedError, WriteContentionError, SessionClosedError, open_storage, start

TAKEN = (FencedError, WriteContentionError)
backend, url, number, appends = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

async def main():
    mine = 0
    async with open_storage(url) as storage:
        while True:
            entries = await storage.read_all("run-1")
            if entries and entries[-1].type == "start" and entries[-1].session != mine:
                continue  # let it write before it is fenced
            try:
                async with await start(storage, "run-1") as run:
                    mine = run.session
                    for turn in range(0, appends, 50):
                        async with anyio.create_task_group() as group:
                            for each in range(turn, turn + 50):
                                group.start_soon(record, run, each)
                        if run.lost_to is not None:
                            raise run.lost_to
                return
            except TAKEN:
                pass

async def record(run, turn):
    try:
        await run.record(f"w{number}.{turn}", lambda: [number, turn])
    except (*TAKEN, SessionClosedError):
        pass

anyio.run(main, backend=backend)
"""


def test_8_processes_on_both_loops_get_200_entries_in_each(
    bucket: str, atomic_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that the writers share in one process may be what keeps them apart."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", atomic_server.url)
    url = f"s3://{bucket}/{PREFIX}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, ("asyncio", "trio")[n % 2], url, str(n), str(APPENDS)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(WRITERS)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=110)
        assert (process.returncode, errors) == (0, "")
    check_all_there(journal(atomic_server, bucket, "run-1"))


async def test_two_racing_openers_leave_one_owner_and_the_older_is_fenced(
    client: S3ObjectStoreClient, bucket: str, atomic_server: S3Server
) -> None:
    """Both would take the run for theirs and do its steps twice."""
    for seed in range(12):
        run_id = f"run-{seed}"
        opened: list[Run] = []
        refused: list[KassetteError] = []

        async def race(run_id: str, opened: list[Run], refused: list[KassetteError]) -> None:
            try:
                opened.append(await start(RemoteStorage(client, prefix=PREFIX), run_id))
            except (FencedError, WriteContentionError) as error:
                refused.append(error)

        async with create_task_group() as group:
            for _ in range(2):
                group.start_soon(race, run_id, opened, refused)
        assert len(opened) + len(refused) == 2
        assert len({run.session for run in opened}) == len(opened) >= 1
        *older, owner = sorted(opened, key=lambda run: run.session)
        await owner.record("mine", lambda: "owner")
        for run in older:
            ran: list[int] = []
            with pytest.raises(FencedError):
                await run.record("mine", lambda ran=ran: ran.append(1))
            with pytest.raises(SessionClosedError):
                await run.record("more", lambda ran=ran: ran.append(2))
            assert ran == [1], "one orphaned step at most"
        await owner.complete()
        for run in opened:
            await run.aclose()
        entries = journal(atomic_server, bucket, run_id)
        assert step_ids(entries) == ["mine"]
        assert types(entries)[-1] == "complete"


async def test_d4_an_entry_between_read_and_start_is_replayed(
    client: S3ObjectStoreClient, bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """The old session writes while the new one opens: its step would be done a second time."""
    old = await start(RemoteStorage(client, prefix=PREFIX), "run-1")
    late = RemoteStorage(client, prefix=PREFIX)
    assert len(await late.read_all("run-1")) == 1
    read_all = late.read_all

    async def read_then_be_overtaken(run_id: str) -> list[Entry]:
        entries = await read_all(run_id)
        if len(entries) == 1:
            await old.record("paid", lambda: "once")
        return entries

    late.read_all = read_then_be_overtaken  # type: ignore[method-assign]
    async with await start(late, "run-1") as new:
        assert await new.record("paid", lambda: "twice") == "once"
    with pytest.raises(FencedError):
        await old.record("after", lambda: 1)
    assert step_ids(journal(atomic_server, bucket, "run-1")) == ["paid"]
