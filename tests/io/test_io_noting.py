"""What sessions note of themselves in the journal, under both loops, and what they refuse."""

from __future__ import annotations

import os
import re
from typing import Any

import anyio
import pytest

from kassette import ReplayMismatchError
from kassette.notes import start_notes_of, step_notes_of
from kassette_io import (
    CompleteEntry,
    Context,
    ErrorEntry,
    Failed,
    MemoryStorage,
    Observer,
    ResumeEntry,
    Retry,
    SessionInfo,
    StartEntry,
    StepEntry,
    Success,
    Suspended,
    SuspendEntry,
    UsageError,
    fork,
    resume,
    start,
    workflow,
)
from kassette_io.noting import fingerprint
from tests.io.stories import RUN

pytestmark = pytest.mark.anyio


async def test_a_session_notes_its_process_its_code_and_how_it_was_opened(
    memory: MemoryStorage,
) -> None:
    """Nobody could tell which of three machines, or which deploy, a run was left by."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        return await ctx.suspend("ok")

    assert isinstance(await flow.start(run_id=RUN), Suspended)
    assert await flow.resume(RUN, "ok", 1, by="dana") == Success(1, RUN)
    assert isinstance(await flow.fork(RUN, from_offset=0, run_id="other"), Suspended)
    async with await start(memory, "plain"):
        pass
    entries = [*await memory.read_all(RUN), *await memory.read_all("other")]
    entries += await memory.read_all("plain")
    starts = [start_notes_of(each) for each in entries if isinstance(each, StartEntry)]
    assert [each.opened for each in starts] == ["start", "resume", None, "fork", "start"]
    for each in (starts[0], starts[1], starts[3], starts[4]):
        assert (each.pid, each.host) == (os.getpid(), os.uname().nodename)
        assert re.fullmatch(r"kassette-py/[0-9.]+", each.lib or "")
    assert [each.code for each in starts] == [
        fingerprint(flow.fn),
        fingerprint(flow.fn),
        None,
        fingerprint(flow.fn),
        None,
    ]
    assert starts[1].delivers == {"event": "ok"}
    (delivered,) = [each for each in entries if isinstance(each, ResumeEntry)]
    assert delivered.extra == {"by": "dana"}


async def test_a_value_that_came_too_late_is_noted_with_who_sent_it(memory: MemoryStorage) -> None:
    """Two people answer, one is ignored, and nobody can say who."""
    async with await start(memory, RUN) as run:
        with pytest.raises(BaseException, match="suspended"):
            await run.wait_for_event("ok")
    async with await resume(memory, RUN, "ok", True, by="ada"):
        pass
    async with await resume(memory, RUN, "ok", False, by="bob"):
        pass
    async with await resume(memory, RUN, "ok", True, by="cyd"):
        pass
    starts = [each for each in await memory.read_all(RUN) if isinstance(each, StartEntry)]
    noted = [start_notes_of(each).delivers or {} for each in starts]
    assert noted[1] == {"event": "ok"}
    assert noted[2] == {"event": "ok", "ignored": noted[2]["ignored"], "by": "bob"}
    assert re.fullmatch("[0-9a-f]{16}", noted[2]["ignored"])
    assert noted[3] == {"event": "ok"}


@pytest.mark.parametrize("by", ["", 7, "\ud800"])
async def test_who_gave_an_event_is_text(memory: MemoryStorage, by: Any) -> None:
    """A journal would hold a name that cannot be shown."""
    async with await start(memory, RUN) as run:
        with pytest.raises(BaseException, match="suspended"):
            await run.wait_for_event("ok")
    with pytest.raises(UsageError, match="who gave the event"):
        await resume(memory, RUN, "ok", True, by=by)
    assert len(await memory.read_all(RUN)) == 2


async def test_attempts_and_their_errors_are_noted_with_the_step(memory: MemoryStorage) -> None:
    """A step that took half an hour for five refusals would look like a slow one."""
    calls: list[int] = []

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async def overloaded() -> str:
            calls.append(1)
            if len(calls) < 5:
                raise ConnectionError(f"529 overloaded, call {len(calls)}" + "!" * 300)
            return "ok"

        return await ctx.step("ask", overloaded, retry=Retry(6, delay=0))

    assert await flow.start(run_id=RUN) == Success("ok", RUN)
    (entry,) = [each for each in await memory.read_all(RUN) if isinstance(each, StepEntry)]
    notes = step_notes_of(entry)
    assert notes.started_at is not None
    assert notes.started_at <= entry.timestamp
    assert notes.attempts == 5
    assert [each.name for each in notes.errors] == ["ConnectionError"] * 3
    assert [each.message[:22] for each in notes.errors] == [
        f"529 overloaded, call {n}" for n in (2, 3, 4)
    ]
    assert all(len(each.message) == 200 and each.seconds >= 0 for each in notes.errors)


async def test_what_runs_beside_a_step_and_what_has_failed_before_it_is_noted(
    memory: MemoryStorage,
) -> None:
    """After a crash nobody could say what else was going on."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        done, running = anyio.Event(), anyio.Event()

        async def slow() -> str:
            running.set()
            await done.wait()
            return "slow"

        async def fails() -> None:
            raise ValueError("no")

        async def first(own: Context) -> Any:
            return await own.step("slow", slow)

        async def second(own: Context) -> Any:
            await running.wait()
            with pytest.raises(ValueError, match="no"):
                await own.step("fails", fails)
            result = await own.step("quick", lambda: 1)
            done.set()
            return result

        return await ctx.parallel({"a": first, "b": second})

    assert await flow.start(run_id=RUN) == Success({"a": "slow", "b": 1}, RUN)
    steps = {
        each.step_id: step_notes_of(each)
        for each in await memory.read_all(RUN)
        if isinstance(each, StepEntry)
    }
    assert steps["b:quick"].running == ("a:slow",)
    assert steps["b:quick"].failed == ("b:fails",)
    assert steps["b:quick"].lane == "b"
    assert (steps["a:slow"].running, steps["a:slow"].failed) == ((), ())


async def test_the_end_says_the_result_or_whose_error_it_was(memory: MemoryStorage) -> None:
    """What a workflow returned would be known to the process that ran it alone."""

    @workflow(storage=memory)
    async def returns(ctx: Context, given: Any) -> Any:
        return given

    @workflow(storage=memory)
    async def raises(ctx: Context) -> None:
        def broken() -> None:
            raise OSError("disk")

        async def branch(own: Context) -> None:
            try:
                await own.step("write", broken, retry=Retry(2, delay=0))
            except OSError as error:
                raise RuntimeError("gave up") from error

        await ctx.parallel({"x": branch})

    for at, given in enumerate([{"a": [1]}, None, False]):
        await returns.start(given, run_id=f"r{at}")
        end = (await memory.read_all(f"r{at}"))[-1]
        assert isinstance(end, CompleteEntry)
        assert end.result_json is not None
        assert end.result == given
    assert isinstance(await raises.start(run_id="failed"), Failed)
    failure = (await memory.read_all("failed"))[-1]
    assert isinstance(failure, ErrorEntry)
    assert failure.extra == {"stepId": "x:write", "attempts": 2, "branch": "x"}


async def test_a_result_that_json_does_not_hold_is_left_out(memory: MemoryStorage) -> None:
    """A run that is done would fail for a result that nobody asked to keep."""

    @workflow(storage=memory)
    async def flow(ctx: Context, size: int) -> Any:
        return "x" * size if size else object()

    for at, size in enumerate((0, 2**20)):
        assert isinstance(await flow.start(size, run_id=f"r{at}"), Success)
        end = (await memory.read_all(f"r{at}"))[-1]
        assert isinstance(end, CompleteEntry)
        assert (end.result_json, end.result) == (None, None)


async def test_a_wait_says_its_branch(memory: MemoryStorage) -> None:
    """Of three open approvals nobody could say which part of the run each belongs to."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        async def branch(own: Context) -> None:
            await own.suspend("ok:x")

        await ctx.parallel({"x": branch})

    await flow.start(run_id=RUN)
    last = (await memory.read_all(RUN))[-1]
    assert isinstance(last, SuspendEntry)
    assert last.extra == {"branch": "x"}


class Heard(Observer):
    """Keeps what it hears of divergences."""

    def __init__(self) -> None:
        self.diverged_at: list[tuple[str, tuple[str, ...]]] = []

    def diverged(self, session: SessionInfo, step_id: str, passed_over: Any) -> None:
        """Keep what was said."""
        self.diverged_at.append((step_id, tuple(passed_over)))


async def crash_after(memory: MemoryStorage, *names: str) -> None:
    """Leave a run that has taken these steps, as a crash does."""
    async with await start(memory, RUN) as run:
        for name in names:
            await run.record(name, lambda: 1)


async def test_a_renamed_step_is_told_and_runs(
    memory: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """A payment that was recorded under its old name would be made again without a word."""
    heard = Heard()

    @workflow(storage=memory, observers=[heard])
    async def flow(ctx: Context) -> Any:
        return await ctx.step("pay_now", lambda: 2)

    await crash_after(memory, "pay")
    assert await flow.start(run_id=RUN) == Success(2, RUN)
    assert heard.diverged_at == [("pay_now", ("pay",))]
    assert "diverge at step 'pay_now'" in caplog.text
    assert "'pay'" in caplog.text
    assert (await memory.read_all(RUN))[-1].extra == {"passedOver": ["pay"]}


async def test_a_strict_workflow_refuses_and_its_run_stays_open(memory: MemoryStorage) -> None:
    """Code that would pay twice could not be kept from it."""
    ran: list[str] = []

    def make(name: str) -> Any:
        async def flow(ctx: Context) -> Any:
            return await ctx.step(name, lambda: ran.append(name))

        return workflow(flow, storage=memory, name="flow", on_divergence="raise")

    await crash_after(memory, "pay")
    before = await memory.read_all(RUN)
    with pytest.raises(ReplayMismatchError, match="requested before the recorded 'pay'"):
        await make("pay_now").start(run_id=RUN)
    assert [each.type for each in (await memory.read_all(RUN))[len(before) :]] == ["start"]
    assert await make("pay").start(run_id=RUN) == Success(1, RUN)
    assert ran == []


async def test_a_strict_fork_refuses_too(memory: MemoryStorage) -> None:
    """The setting would hold for some ways of opening a session only."""

    @workflow(storage=memory, on_divergence="raise")
    async def flow(ctx: Context) -> Any:
        return await ctx.step("pay_now", lambda: 2)

    await crash_after(memory, "pay")
    with pytest.raises(ReplayMismatchError):
        await flow.fork(RUN, from_offset=2, run_id="other")
    async with await fork(memory, "lenient", source=RUN, from_offset=2) as run:
        assert await run.record("pay_now", lambda: 2) == 2


@pytest.mark.parametrize("setting", ["ignore", None, True])
def test_a_setting_that_is_none_is_refused(memory: MemoryStorage, setting: Any) -> None:
    """A mistyped setting would be taken for the lenient one."""
    with pytest.raises(UsageError, match="on_divergence"):

        @workflow(storage=memory, on_divergence=setting)
        async def flow(ctx: Context) -> None: ...


def test_a_fingerprint_tells_code_from_code() -> None:
    """A deploy in the middle of a run could not be seen."""

    def one(ctx: Context) -> Any:
        return ctx.step("a", lambda: {"x", "y", 1})

    def two(ctx: Context) -> Any:
        return ctx.step("b", lambda: {"x", "y", 1})

    def like_one(ctx: Context) -> Any:
        return ctx.step("a", lambda: {"x", "y", 1})

    assert fingerprint(one) == fingerprint(like_one) != fingerprint(two)
    assert fingerprint(len) is None
    assert re.fullmatch(r"py3\.[0-9]+-[0-9a-f]{12}", fingerprint(one) or "")
