"""Sessions without the wrapper: steps, replay, order of calls, closing, and what leaks if not."""

from __future__ import annotations

import contextvars
import gc
import os
import warnings
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from kassette import State
from kassette_io import (
    Entry,
    LocalStorage,
    MemoryStorage,
    SessionClosedError,
    Success,
    SuspendError,
    UsageError,
    WriteContentionError,
    resume,
    start,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


async def test_a_session_says_what_it_is(world: World) -> None:
    """If it fails, a log line about a session does not say which one it is."""
    run = await start(world.open(), RUN, metadata={"n": 1})
    assert (run.run_id, run.session, run.metadata) == (RUN, 1, {"n": 1})
    assert (run.state, run.waiting_for, run.lost_to) == (State.ACTIVE, None, None)
    assert repr(run) == "<Run 'run-1' session 1 active>"
    await run.complete()
    assert repr(run) == "<Run 'run-1' session 1 closed>"


@pytest.mark.parametrize("metadata", [None, 0, "", False, [], {}])
async def test_d3_falsy_metadata_is_metadata(world: World, metadata: object) -> None:
    """If it fails, a run whose input is nothing recovers as one that was given none."""
    async with await start(world.open(), RUN, metadata=metadata):
        pass
    async with await start(world.open(), RUN, metadata=metadata) as run:
        assert run.metadata == metadata
        assert type(run.metadata) is type(metadata)
    async with await start(world.open(), "without") as run:
        assert run.metadata is None
    if metadata is None:
        with pytest.raises(UsageError):
            await start(world.open(), "without", metadata=None)


async def test_a_recovery_replays_then_goes_live(world: World) -> None:
    """If it fails, recovery repeats what is recorded, or skips what is not."""
    work = Ledger()
    for names in (["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]):
        async with await start(world.open(), RUN) as run:
            results = [await run.record(name, work.work, name, name.upper()) for name in names]
        assert results == [name.upper() for name in names]
    assert work.done == ["a", "b", "c", "d"]
    types = await journal_types(world.open())
    assert types == ["start", "step", "step", "start", "step", "start", "step"]


async def test_a_function_gets_its_arguments_and_may_be_sync_or_async(world: World) -> None:
    """If it fails, steps need a lambda for every argument, or cannot be plain functions."""

    async def add(*numbers: int) -> int:
        await checkpoint()
        return sum(numbers)

    class Tool:
        async def __call__(self, text: str) -> str:
            return text.upper()

    async with await start(world.open(), RUN) as run:
        assert await run.record("sync", sum, [1, 2]) == 3
        assert await run.record("async", add, 1, 2, 3) == 6
        assert await run.record("object", Tool(), "x") == "X"
        assert await run.record("partial", partial(add, 4), 5) == 9
        assert await run.record("returns an awaitable", lambda: add(7)) == 7


async def test_a_coroutine_instead_of_a_function_is_refused_and_closed(world: World) -> None:
    """If it fails, the mistake everybody makes once ends in a warning from nowhere, or the step
    runs before the session had a say.
    """
    work = Ledger()
    async with await start(world.open(), RUN) as run:
        await run.record("a", work.work, "a")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in ("a", "b"):
                with pytest.raises(UsageError, match="pass the function and its arguments"):
                    await run.record(name, work.work(name))  # type: ignore[call-overload]
                gc.collect()
        assert await run.record("b", work.work, "b") is None
    assert work.done == ["a", "b"]


@pytest.mark.parametrize("thing", [None, 7, "text", object()])
async def test_what_is_no_function_is_refused(world: World, thing: Any) -> None:
    """If it fails, a result handed over instead of a function fails later and elsewhere."""
    async with await start(world.open(), RUN) as run:
        with pytest.raises(UsageError, match="is not a function"):
            await run.record("a", thing)


async def test_a_failing_step_is_not_recorded_and_may_be_tried_again(world: World) -> None:
    """If it fails, a failure is replayed for ever, or ends the session."""
    work = Ledger()

    def failing() -> None:
        raise ValueError("no")

    for _ in range(2):
        async with await start(world.open(), RUN) as run:
            with pytest.raises(ValueError, match="no"):
                await run.record("a", failing)
            assert await run.record("b", work.note, "b", 1) == 1
    assert work.done == ["b"]
    assert await journal_steps(world.open()) == {"b": 1}


async def test_on_replay_is_called_before_the_step_returns_and_only_then(world: World) -> None:
    """If it fails, a stream is shown twice live, not at all on recovery, or after its successors."""
    order: list[str] = []

    async def show_later(result: Any) -> None:
        await checkpoint()
        order.append(f"async {result}")

    for _ in range(2):
        async with await start(world.open(), RUN) as run:
            await run.record("a", lambda: 0, on_replay=lambda each: order.append(f"sync {each}"))
            order.append("a")
            await run.record("b", lambda: None, on_replay=show_later)
            order.append("b")
    assert order == ["a", "b", "sync 0", "a", "async None", "b"]


@pytest.mark.parametrize("error", [OSError("the stream is closed"), SuspendError("ok")])
async def test_what_on_replay_raises_is_logged_and_goes_no_further(
    world: World, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a browser that has gone away ends the run for good."""

    def broken(result: object) -> None:
        raise error

    async def broken_later(result: object) -> None:
        await checkpoint()
        raise error

    for on_replay in (broken, broken_later):
        async with await start(world.open(), RUN) as run:
            assert await run.record("a", lambda: 1, on_replay=on_replay) == 1
            assert await run.record("b", lambda: 2, on_replay=on_replay) == 2
    (first, second) = [record.getMessage() for record in caplog.records]
    assert first == second == f"on_replay raised in run {RUN!r}; the step's result is unaffected"


async def test_leaving_the_block_closes_without_ending_the_run(world: World) -> None:
    """If it fails, an exception in a session's block ends the run, or leaves it locked."""
    run = await start(world.open(), RUN)
    with pytest.raises(ZeroDivisionError):
        async with run:
            await run.record("a", lambda: 1 / 0)
    assert run.state is State.CLOSED
    assert await journal_types(world.open()) == ["start"]
    await run.aclose()
    async with await start(world.open(), RUN) as again:
        assert again.session == 2
        await again.complete()
    assert await journal_types(world.open()) == ["start", "start", "complete"]


async def test_a_step_that_ends_after_its_session_is_not_recorded(world: World) -> None:
    """If it fails, a task that outlives the session writes into somebody else's."""
    from anyio import Event

    begun, go = Event(), Event()

    async def late() -> int:
        begun.set()
        await go.wait()
        return 1

    run = await start(world.open(), RUN)
    async with create_task_group() as group:

        async def records() -> None:
            with pytest.raises(SessionClosedError):
                await run.record("late", late)

        group.start_soon(records)
        await begun.wait()
        await run.complete()
        go.set()
    assert await journal_types(world.open()) == ["start", "complete"]


async def test_a_session_never_closed_is_warned_about_and_its_lock_given_up(
    local: LocalStorage,
) -> None:
    """If it fails, a forgotten session blocks its run until the process ends, in silence."""
    run = await start(local, RUN)
    with pytest.raises(WriteContentionError):
        await start(local, RUN)
    with pytest.warns(ResourceWarning, match=r"<Run 'run-1' session 1 active> was never closed"):
        del run
        gc.collect()
    async with await start(local, RUN) as again:
        assert again.session == 2


@pytest.mark.parametrize("end", ["aclose", "complete", "suspend", "refused", "lost"])
async def test_a_session_that_ended_is_not_warned_about(world: World, end: str) -> None:
    """If it fails, every well-behaved program is warned, and nobody reads the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = await start(world.open(), RUN)
        if end == "suspend":
            with pytest.raises(BaseException, match="control flow"):
                await run.wait_for_event("ok")
        elif end == "refused":
            await run.complete()
            with pytest.raises(UsageError):
                await start(world.open(), RUN)
        elif end == "lost":
            await run.aclose()
            await (await start(world.open(), RUN)).aclose()
        else:
            await getattr(run, end)()
        del run
        gc.collect()


async def test_d14_the_lock_file_is_there_exactly_while_a_session_is_open(
    local: LocalStorage,
) -> None:
    """If it fails, a run that nobody works on looks busy, or the other way round."""
    directory = Path(local.directory)

    def locked() -> bool:
        return (directory / f"{RUN}.lock").exists()

    run = await start(local, RUN)
    assert locked()
    with pytest.raises(BaseException, match="control flow"):
        await run.wait_for_event("ok")
    assert not locked()
    run = await resume(local, RUN, "ok", 1)
    assert locked()
    await run.aclose()
    assert not locked()
    run = await start(local, RUN)
    await run.fail(ValueError())
    assert not locked()
    assert os.listdir(directory) == [f"{RUN}.jsonl"]


async def test_d14_closing_a_storage_lets_its_runs_go(tmp_path: Path) -> None:
    """If it fails, a program that closes its storage leaves its runs locked."""
    async with LocalStorage(tmp_path) as storage:
        run = await start(storage, RUN)
        await run.record("a", lambda: 1)
        with pytest.raises(WriteContentionError):
            await start(LocalStorage(tmp_path), RUN)
    async with await start(LocalStorage(tmp_path), RUN) as again:
        assert await again.record("a", lambda: 2) == 1
    await run.aclose()


@pytest.mark.parametrize("content", [b"", b'{"type":"start","sess', b"\x00" * 7])
async def test_d11_a_journal_without_a_whole_line_is_a_new_run(
    local: LocalStorage, content: bytes
) -> None:
    """If it fails, a crash during the very first append makes a run id unusable."""
    directory = Path(local.directory)
    directory.mkdir()
    (directory / f"{RUN}.jsonl").write_bytes(content)
    assert await local.read_all(RUN) == []
    with pytest.raises(UsageError, match="there is no run"):
        await resume(local, RUN, "ok", 1)
    async with await start(local, RUN, metadata=1) as run:
        assert run.session == 1
        await run.record("a", lambda: 1)
    assert await journal_types(LocalStorage(directory)) == ["start", "step"]


async def test_a_run_of_ten_thousand_replays_lets_others_run(memory: MemoryStorage) -> None:
    """If it fails, one long recovery stops everything else in the process."""
    async with await start(memory, RUN) as run:
        await run.record("a", lambda: 0)
    lines = memory.data[RUN].splitlines(keepends=True)
    for number in range(2, 10_001):
        line = lines[1].replace(b'"offset":1', b'"offset":%d' % number)
        lines.append(line.replace(b'"stepId":"a"', b'"stepId":"a#%d"' % number))
    memory.data[RUN] = b"".join(lines)
    turns = 0
    done = False

    async def turn() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await checkpoint()

    async with create_task_group() as group, await start(memory, RUN) as run:
        group.start_soon(turn)
        for _ in range(10_000):
            await run.record("a", lambda: "never")
        done = True
    assert turns >= 100


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_context_variables_reach_steps_branches_and_foreign_storages() -> None:
    """If it fails, tracing and request ids are lost at the edge of the library, or leak."""
    seen: dict[str, str] = {}

    class Tracing(MemoryStorageOfThree):
        async def append(self, run_id: str, entry: Entry) -> int:
            seen["storage"] = VARIABLE.get()
            return await super().append(run_id, entry)

    async def branch(ctx: Any) -> None:
        seen["branch"] = VARIABLE.get()
        VARIABLE.set("changed in the branch")
        await ctx.step("a", lambda: None)

    async def asynchronous() -> None:
        await checkpoint()
        seen["async step"] = VARIABLE.get()

    @workflow(storage=Tracing())
    async def flow(ctx: Any) -> str:
        await ctx.step("sync", lambda: seen.update({"sync step": VARIABLE.get()}))
        await ctx.step("async", asynchronous)
        await ctx.parallel({"x": branch})
        return VARIABLE.get()

    VARIABLE.set("mine")
    outcome = await flow.start(run_id=RUN)
    assert outcome == Success("mine", RUN)
    assert seen == {
        "sync step": "mine",
        "async step": "mine",
        "branch": "mine",
        "storage": "mine",
    }


class MemoryStorageOfThree:
    """A foreign storage on top of one of ours, without its further methods."""

    def __init__(self) -> None:
        self._memory = MemoryStorage()

    async def append(self, run_id: str, entry: Entry) -> int:
        return await self._memory.append(run_id, entry)

    async def read_all(self, run_id: str) -> list[Entry]:
        return await self._memory.read_all(run_id)

    def list_runs(self) -> AsyncIterator[str]:
        return self._memory.list_runs()
