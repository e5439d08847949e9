"""D6 on local disk: what waits together is written together, and told only once it is durable."""

from __future__ import annotations

import gc
import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from kassette_io import (
    FencedError,
    LocalStorage,
    Storage,
    TerminalRunError,
    WriteContentionError,
    start,
)
from kassette_io.loops.threads import MAX_THREADS, Job, Mailbox, Threads
from tests.io.storages import HeldLocal
from tests.io.stories import PATIENCE, RUN, journal_types, opening, recording

pytestmark = pytest.mark.anyio


class Appends:
    """Appends of one run that are under way, and what came of each."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.outcomes: dict[str, int | type[BaseException]] = {}

    async def __call__(self, step_id: str, session: int = 1) -> None:
        try:
            entry = recording(step_id, session=session)
            self.outcomes[step_id] = await self.storage.append(RUN, entry)
        except Exception as error:
            self.outcomes[step_id] = type(error)


async def test_d6_waiting_appends_share_one_fsync(held_local: HeldLocal) -> None:
    """If it fails, ten tasks of one run pay for ten fsyncs, one after the other."""
    appends = Appends(held_local.storage)
    await held_local.storage.append(RUN, opening(1))
    held_local.syncs = 0
    held_local.arm()
    async with create_task_group() as group:
        group.start_soon(appends, "first")
        await held_local.begun()
        for number in range(10):
            group.start_soon(appends, f"s{number}")
        for _ in range(5):
            await checkpoint()
        assert appends.outcomes == {}
        held_local.let_go()
    assert held_local.syncs == 2
    assert sorted(appends.outcomes.values(), key=str) == sorted(range(1, 12), key=str)
    entries = await held_local.storage.read_all(RUN)
    assert [entry.offset for entry in entries] == list(range(12))
    for step_id, offset in appends.outcomes.items():
        assert isinstance(offset, int)
        assert entries[offset] == recording(step_id).at(offset)


async def test_d6_a_start_beside_a_stale_append_still_opens(held_local: HeldLocal) -> None:
    """If it fails, a straggler of a session that was closed keeps the next one from opening."""
    storage = held_local.storage
    assert isinstance(storage, LocalStorage)
    appends = Appends(storage)
    await storage.append(RUN, opening(1))
    held_local.arm()
    offsets: list[int] = []

    async def open_next() -> None:
        offsets.append(await storage.append(RUN, opening(2)))

    async with create_task_group() as group:
        group.start_soon(appends, "held")
        await held_local.begun()
        for call in (lambda: storage.release(RUN, 1), lambda: appends("straggler"), open_next):
            group.start_soon(call)
            await settle()
        held_local.let_go()
    assert appends.outcomes["held"] == 1
    assert not isinstance(appends.outcomes["straggler"], int)
    assert offsets == [2]
    assert await storage.append(RUN, recording("b", session=2)) == 3


async def test_d6_of_two_starts_in_one_batch_the_one_that_is_allowed_opens(
    held_local: HeldLocal,
) -> None:
    """If it fails, a start that came too late takes the lock of the one beside it away."""
    storage = held_local.storage
    assert isinstance(storage, LocalStorage)
    appends = Appends(storage)
    await storage.append(RUN, opening(1))
    held_local.arm()
    outcomes: list[object] = []

    async def open_as(session: int) -> None:
        try:
            outcomes.append(await storage.append(RUN, opening(session)))
        except Exception as error:
            outcomes.append(type(error))

    async with create_task_group() as group:
        group.start_soon(appends, "held")
        await held_local.begun()
        group.start_soon(storage.release, RUN, 1)
        await settle()
        group.start_soon(open_as, 1)
        await settle()
        group.start_soon(open_as, 2)
        await settle()
        held_local.let_go()
    assert set(outcomes) == {FencedError, 2}
    assert await storage.append(RUN, recording("b", session=2)) == 3
    with pytest.raises(WriteContentionError):
        await LocalStorage(storage.directory).append(RUN, opening(3))
    await storage.release(RUN, 2)
    assert await LocalStorage(storage.directory).append(RUN, opening(3)) == 4


async def settle() -> None:
    """Let a task that was just started hand over what it has to."""
    for _ in range(5):
        await checkpoint()


async def test_nobody_is_told_before_the_fsync_returned(held_local: HeldLocal) -> None:
    """If it fails, a result is handed on that a power cut can still take back."""
    appends = Appends(held_local.storage)
    await held_local.storage.append(RUN, opening(1))
    held_local.arm()
    async with create_task_group() as group:
        group.start_soon(appends, "a")
        await held_local.begun()
        for _ in range(20):
            await checkpoint()
        assert appends.outcomes == {}
        assert await journal_types(held_local.storage) == ["start", "step"]
        held_local.let_go()
    assert appends.outcomes == {"a": 1}


async def test_d6_one_refused_append_does_not_take_its_neighbours_along(
    held_local: HeldLocal,
) -> None:
    """If it fails, a bad entry in a batch fails the good ones, or is written with them."""
    storage = held_local.storage
    appends = Appends(storage)
    assert isinstance(storage, LocalStorage)
    await storage.append(RUN, opening(1))
    await storage.release(RUN, 1)
    await storage.append(RUN, opening(2))
    held_local.arm()
    async with create_task_group() as group:
        group.start_soon(appends, "first", 2)
        await held_local.begun()
        for step_id, session in (("good", 2), ("old", 1), ("unopened", 3), ("fine", 2)):
            group.start_soon(appends, step_id, session)
            await checkpoint()
        held_local.let_go()
    refused = {name for name, outcome in appends.outcomes.items() if not isinstance(outcome, int)}
    assert refused == {"old", "unopened"}
    assert appends.outcomes["old"] is FencedError
    assert await journal_types(storage) == ["start", "start", "step", "step", "step"]


async def test_d6_nothing_follows_a_terminal_entry_of_the_same_batch(
    held_local: HeldLocal,
) -> None:
    """If it fails, an append that waited beside ``complete`` is written after it."""
    run = await start(held_local.storage, RUN)
    appends = Appends(held_local.storage)
    held_local.arm()
    async with create_task_group() as group:
        group.start_soon(appends, "first")
        await held_local.begun()
        group.start_soon(run.complete)
        for _ in range(3):
            await checkpoint()
        group.start_soon(appends, "late")
        for _ in range(3):
            await checkpoint()
        held_local.let_go()
    assert appends.outcomes == {"first": 1, "late": TerminalRunError}
    assert await journal_types(held_local.storage) == ["start", "step", "complete"]


async def test_runs_do_not_wait_for_each_others_fsync(held_local: HeldLocal) -> None:
    """If it fails, one slow append stops every other run of the process."""
    await held_local.storage.append(RUN, opening(1))
    held_local.arm()
    async with create_task_group() as group:
        group.start_soon(held_local.storage.append, RUN, recording("a"))
        await held_local.begun()
        for number in range(MAX_THREADS + 4):
            assert await held_local.storage.append(f"other-{number}", opening(1)) == 0
        held_local.let_go()


async def test_the_loop_is_not_blocked_while_an_append_is_under_way(held_local: HeldLocal) -> None:
    """If it fails, a slow disk stops everything else in the process."""
    held_local.arm()
    turns = 0
    async with create_task_group() as group:
        group.start_soon(held_local.storage.append, RUN, opening(1))
        await held_local.begun()
        for _ in range(100):
            await checkpoint()
            turns += 1
        held_local.let_go()
    assert turns == 100


@pytest.mark.parametrize("threads", [2])
def test_one_storage_serves_loops_in_several_threads(
    tmp_path: Path, anyio_backend: str, threads: int
) -> None:
    """If it fails, an outcome wakes the wrong loop, or none."""
    storage = LocalStorage(tmp_path)
    counts: list[int] = []

    async def work(name: str) -> None:
        async def one(number: int) -> None:
            async with await start(storage, f"{name}-{number}") as run:
                for step in range(5):
                    await run.record(f"s{step}", int, step)
                await run.complete()

        async with create_task_group() as group:
            for number in range(10):
                group.start_soon(one, number)
        counts.append(10)

    running = [
        threading.Thread(target=partial(anyio.run, work, f"t{number}", backend=anyio_backend))
        for number in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert counts == [10] * threads


class Drained(queue.SimpleQueue[Any]):
    """A queue that another thread empties between the look and the grasp."""

    def empty(self) -> bool:
        was_empty = super().empty()
        while not super().empty():
            self.get_nowait()()
        return was_empty


def test_a_deferred_release_that_another_thread_took_stops_nobody() -> None:
    """If it fails, of two writer threads that see one deferred call, the slower one waits for ever,
    with the mailbox in its hands that it was to serve.
    """
    writers = Threads("kassette-writer")
    writers._deferred = Drained()
    served, called = threading.Event(), threading.Event()
    writers.post_later(called.set)
    writers.post(Mailbox(lambda jobs: served.set()), Job("work"))
    assert called.wait(PATIENCE)
    assert served.wait(PATIENCE), "the writer waits for what is gone"


def test_a_session_collected_in_the_middle_of_a_post_does_not_stop_the_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, the garbage collector, striking while an append is handed over, closes a
    forgotten session and waits for a lock that its own thread holds: the process hangs.
    """
    storage = LocalStorage(tmp_path)
    finished = threading.Event()
    real: Callable[..., Any] = _journal_class()

    garbage: list[list[Any]] = []

    async def forget() -> None:
        cycle: list[Any] = [await start(storage, "forgotten")]
        cycle.append(cycle)
        garbage.append(cycle)

    anyio.run(forget)

    def collecting(*args: Any) -> Any:
        if garbage:
            garbage.clear()
            gc.collect()
        return real(*args)

    monkeypatch.setattr("kassette_io.storages.local.LocalJournal", collecting)

    async def append() -> None:
        await storage.append(RUN, opening(1))
        finished.set()

    with pytest.warns(ResourceWarning, match="was never closed"):
        thread = threading.Thread(target=anyio.run, args=(append,), daemon=True)
        thread.start()
        assert finished.wait(PATIENCE), "the writers are deadlocked"
        thread.join()


def _journal_class() -> Any:
    from kassette_io.storages.local_journal import LocalJournal

    return LocalJournal


async def test_more_runs_at_once_than_threads(tmp_path: Path) -> None:
    """If it fails, runs beyond the number of writer threads starve or mix."""
    storage = LocalStorage(tmp_path)

    async def work(number: int) -> None:
        async with await start(storage, f"run-{number}") as run:
            for step in range(10):
                assert await run.record("s", lambda step=step: step) == step
            await run.complete()

    async with create_task_group() as group:
        for number in range(5 * MAX_THREADS):
            group.start_soon(work, number)
    assert len([each for each in os.listdir(tmp_path) if each.endswith(".jsonl")]) == 40
