"""Cancelling in the middle of a put (D2): the append lands and is known, and nothing is stuck."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from kassette import StartEntry, State, StepEntry
from kassette_io import RemoteStorage, Run, start
from kassette_io.loops import waiting_asyncio
from tests.io.object_stores import Client, Gate

ROOT = Path(__file__).parents[2]
STAMP = "2026-01-31T12:00:00.000Z"
START = StartEntry(session=1, timestamp=STAMP)
AT = pytest.mark.parametrize("landed", [False, True], ids=["before it lands", "after it landed"])


def result(value: Any) -> Any:
    return value


async def ids(client: Client) -> list[str]:
    entries = await RemoteStorage(client).read_all("run-1")
    return [each.step_id if isinstance(each, StepEntry) else each.type for each in entries]


async def goes_on(client: Client, storage: RemoteStorage, run: Run) -> None:
    """Check that the step is recorded, that its session knows it, and that it can go on."""
    assert await ids(client) == ["start", "llm"]
    assert run.state is State.ACTIVE
    await run.record("tool", result, 2)
    await run.aclose()
    assert storage._writers == {}
    async with await start(storage, "run-1") as again:
        assert await again.record("llm", result, 9) == 1
        assert await again.record("tool", result, 9) == 2
        await again.complete()
    assert storage._writers == {}


@AT
def test_d2_task_cancel_in_the_middle_of_a_put(landed: bool) -> None:
    """asyncio's own cancellation would break the put off, or leave its outcome unknown.

    The step's entry lands, so the step gives its result; the task then ends before it awaits again.
    """

    async def main() -> None:
        client = Client()
        storage = RemoteStorage(client)
        run = await start(storage, "run-1")
        gate = client.gate = Gate(landed=landed)
        task = asyncio.create_task(run.record("llm", result, 1))
        await gate.reached.wait()
        for _ in range(3):
            task.cancel("enough")
            await asyncio.sleep(0)
        assert not task.done()
        gate.opened.set()
        assert await task == 1
        await goes_on(client, storage, run)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@AT
def test_d2_a_trio_scope_in_the_middle_of_a_put(landed: bool) -> None:
    """trio's cancellation would break the put off, or leave its outcome unknown."""

    async def main() -> None:
        client = Client()
        storage = RemoteStorage(client)
        run = await start(storage, "run-1")
        gate = client.gate = Gate(landed=landed)
        felt: list[bool] = []

        async def record(scope: trio.CancelScope) -> None:
            with scope:
                await run.record("llm", result, 1)
                await trio.lowlevel.checkpoint()
            felt.append(scope.cancelled_caught)

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record, scope)
            await gate.reached.wait()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert felt == []
            gate.opened.set()
        assert felt == [True]
        await goes_on(client, storage, run)

    trio.run(main)


@pytest.mark.anyio
@AT
async def test_d2_an_anyio_scope_in_the_middle_of_a_put(landed: bool) -> None:
    """A timeout would break the put off, or leave its outcome unknown."""
    client = Client()
    storage = RemoteStorage(client)
    run = await start(storage, "run-1")
    gate = client.gate = Gate(landed=landed)
    felt: list[bool] = []

    async def record(scope: anyio.CancelScope) -> None:
        with scope:
            await run.record("llm", result, 1)
            await anyio.lowlevel.checkpoint()
        felt.append(scope.cancelled_caught)

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(record, scope)
        await gate.reached.wait()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert felt == []
        gate.opened.set()
    assert felt == [True]
    await goes_on(client, storage, run)


@pytest.mark.anyio
async def test_d2_a_scope_that_is_left_without_a_checkpoint_ends_there() -> None:
    """A timeout around a step would kill the code after it, which nobody has cancelled."""
    client = Client()
    run = await start(RemoteStorage(client), "run-1")
    gate = client.gate = Gate()
    scope = anyio.CancelScope()

    async def record() -> None:
        with scope:
            await run.record("llm", result, 1)
        await anyio.lowlevel.checkpoint()
        await run.record("tool", result, 2)
        await run.complete()

    async with anyio.create_task_group() as group:
        group.start_soon(record)
        await gate.reached.wait()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    await run.aclose()
    assert await ids(client) == ["start", "llm", "tool", "complete"]


def test_d2_an_asyncio_timeout_around_a_step_ends_with_it() -> None:
    """A timeout around a step would kill the code after it, which nobody has cancelled."""

    async def main() -> None:
        client = Client()
        run = await start(RemoteStorage(client), "run-1")
        gate = client.gate = Gate()

        async def record() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as timeout:
                    expire.append(timeout)
                    await run.record("llm", result, 1)
            await asyncio.sleep(0)
            await run.record("tool", result, 2)
            await run.complete()

        expire: list[asyncio.Timeout] = []
        task = asyncio.create_task(record())
        await gate.reached.wait()
        expire[0].reschedule(0)
        await anyio.wait_all_tasks_blocked()
        assert task.cancelling()
        gate.opened.set()
        await asyncio.wait([task])
        await run.aclose()
        assert not task.cancelled()
        assert await ids(client) == ["start", "llm", "tool", "complete"]

    asyncio.run(main())


@pytest.mark.anyio
async def test_d2_a_waiting_append_that_is_cancelled_still_goes_out_with_the_others() -> None:
    """A branch that is cancelled while it waits for another's put would be half recorded."""
    client = Client()
    storage = RemoteStorage(client)
    run = await start(storage, "run-1")
    gate = client.gate = Gate()
    scope = anyio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await run.record("b", result, 2)

    async with anyio.create_task_group() as group:
        group.start_soon(run.record, "a", result, 1)
        await gate.reached.wait()
        group.start_soon(cancelled)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert await ids(client) == ["start", "a", "b"]
    await run.complete()
    assert storage._writers == {}


@pytest.mark.anyio
async def test_d2_opening_that_is_cancelled_leaves_nothing_behind() -> None:
    """A session that nobody has would keep its journal in memory, or bar the next one."""
    client = Client()
    storage = RemoteStorage(client)
    gate = client.gate = Gate()
    scope = anyio.CancelScope()

    async def open_it() -> None:
        with scope:
            async with await start(storage, "run-1"):
                await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(open_it)
        await gate.reached.wait()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        gate.opened.set()
    assert await ids(client) == ["start"]
    assert storage._writers == {}
    async with await start(storage, "run-1") as run:
        await run.complete()
    assert await ids(client) == ["start", "start", "complete"]


@pytest.mark.anyio
async def test_d2_a_writer_is_dropped_once_its_last_put_has_ended() -> None:
    """Releasing beside a put would leak the journal, or take it from under the put."""
    client = Client()
    storage = RemoteStorage(client)
    await storage.append("run-1", START)
    gate = client.gate = Gate()
    step = StepEntry.of(session=1, timestamp=STAMP, step_id="llm", name="llm", result=1)
    async with anyio.create_task_group() as group:
        group.start_soon(storage.append, "run-1", step)
        await gate.reached.wait()
        storage.abandon("run-1", 1)
        assert set(storage._writers) == {"run-1"}
        gate.opened.set()
    assert storage._writers == {}
    assert await ids(client) == ["start", "llm"]


def test_d2_an_opening_that_is_closed_by_hand_leaves_no_writer() -> None:
    """A coroutine that its owner drops in the middle of a put would leave the journal in memory."""

    async def main() -> None:
        client = Client()
        storage = RemoteStorage(client)
        gate = client.gate = Gate()
        opening = start(storage, "run-1")
        while not gate.reached.is_set():
            waits_for = opening.send(None)
            while not (gate.reached.is_set() or waits_for is None or waits_for.done()):
                await asyncio.sleep(0)
        opening.close()
        assert set(storage._writers) == {"run-1"}
        gate.opened.set()
        while storage._writers["run-1"].served_on is not None:
            await asyncio.sleep(0)
            if not storage._writers:
                break
        assert storage._writers == {}
        assert await ids(client) == ["start"]

    asyncio.run(main())


def test_a_put_that_is_collected_with_its_closed_loop_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waited for it is gone too; waking them would be an error that nobody can handle."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def begin() -> asyncio.Task[int]:
        client = Client()
        storage = RemoteStorage(client)
        gate = client.gate = Gate()
        task = asyncio.create_task(storage.append("run-1", START))
        await gate.reached.wait()
        return task

    task = loop.run_until_complete(begin())
    loop.close()
    assert not task.done()
    waiting_asyncio._TASKS -= {each for each in waiting_asyncio._TASKS if each.get_loop() is loop}
    del task
    gc.collect()
    assert unraisable == []


AT_THE_WRONG_MOMENT = """
import asyncio
from kassette import StartEntry
from kassette_io import RemoteStorage
from tests.io.object_stores import Client

async def main():
    client = Client()
    storage = RemoteStorage(client)
    entry = StartEntry(session=1, timestamp="2026-01-31T12:00:00.000Z")
    task = asyncio.create_task(storage.append("run-1", entry))
    await asyncio.sleep(0)
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        each.cancel()
    await asyncio.wait([task])
    print(task.result() == 0, len(client.store.objects))

asyncio.run(main())
"""

DURING_A_PUT = """
import asyncio
from kassette_io import RemoteStorage, start
from tests.io.object_stores import Client, Gate

async def main():
    client = Client()
    run = await start(RemoteStorage(client), "run-1")
    gate = client.gate = Gate()
    task = asyncio.create_task(run.record("llm", lambda: 1))
    await gate.reached.wait()
    await run.aclose()
    print(True, 1)

asyncio.run(main())
"""

CLOSED_BY_HAND = """
import asyncio
import anyio
from kassette_io import RemoteStorage, start
from tests.io.object_stores import Client, Gate

async def begin(storage, client):
    run = await start(storage, "run-1")
    gate = client.gate = Gate()
    tasks = [asyncio.create_task(run.record(name, lambda: 1)) for name in ("llm", "tool")]
    await gate.reached.wait()
    return run, tasks

async def go_on(storage):
    async with await start(storage, "run-1") as run:
        await run.record("llm", lambda: 2)
        await run.complete()

def main(backend):
    client = Client()
    storage = RemoteStorage(client)
    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(begin(storage, client))
    loop.close()
    anyio.run(go_on, storage, backend=backend)
    assert storage._writers == {}
    return left

left = [main("asyncio"), main("trio")]
print(True, 1)
import os, sys
sys.stdout.flush()
os._exit(0)  # what the closed loops left behind would complain
"""


@pytest.mark.parametrize("program", [AT_THE_WRONG_MOMENT, DURING_A_PUT, CLOSED_BY_HAND])
def test_d2_a_process_that_drops_its_tasks_ends_or_goes_on(program: str) -> None:
    """A service that shuts down while an append begins would hang for ever.

    So would one that closes its loop in the middle of a put, and starts the run in the next loop.
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True", "1"], "")
