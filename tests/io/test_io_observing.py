"""Observers are told what is true, in order, and can do no harm."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from kassette_io import (
    Attempt,
    Context,
    MemoryStorage,
    Observer,
    Retry,
    RunCancelledError,
    Success,
    Suspended,
    UsageError,
    fork,
    resume,
    start,
    workflow,
)
from tests.io.stories import RUN, Clock

pytestmark = pytest.mark.anyio
MOMENTS = [name for name in vars(Observer) if not name.startswith("_")]


def telling(heard: list[tuple[Any, ...]]) -> Observer:
    """Return an observer that notes every moment, with what it was told in short."""

    def method(moment: str) -> Any:
        def note(self: Observer, about: Any, *said: Any) -> None:
            session = about if isinstance(about, str) else about.session
            heard.append((moment, session, *map(short, said)))

        return note

    made: Observer = type("Telling", (Observer,), {each: method(each) for each in MOMENTS})()
    return made


def short(value: Any) -> Any:
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, tuple):
        return tuple(map(short, value))
    for name in ("step_id", "event_name", "waiting_for", "type"):
        if hasattr(value, name):
            return getattr(value, name)
    return value


async def test_an_observer_hears_of_every_moment(memory: MemoryStorage) -> None:
    """If it fails, a trace has a hole, or tells of what never became durable."""
    heard: list[tuple[Any, ...]] = []
    left = [1]

    def flaky() -> str:
        if left:
            left.pop()
            raise ConnectionError
        return "ok"

    def broken() -> None:
        raise KeyError

    @workflow(storage=memory, observers=[telling(heard)])
    async def flow(ctx: Context) -> Any:
        await ctx.step("flaky", flaky, retry=Retry(2, delay=0))
        with suppress(KeyError):
            await ctx.step("broken", broken, retry=Retry(1))
        begun = await ctx.begin("half")
        if not isinstance(begun, tuple):
            async with begun:
                await begun.succeed(1)
        return await ctx.suspend("go")

    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    assert heard == [
        ("opened", 1),
        ("step_started", 1, "flaky"),
        ("attempt_failed", 1, "flaky", 1, "ConnectionError", 0.0),
        ("step_succeeded", 1, "flaky"),
        ("step_started", 1, "broken"),
        ("attempt_failed", 1, "broken", 1, "KeyError", None),
        ("step_failed", 1, "broken", "KeyError"),
        ("step_started", 1, "half"),
        ("step_succeeded", 1, "half"),
        ("waiting", 1, "go"),
        ("suspended", 1, ("go",)),
    ]
    heard.clear()
    assert await flow.resume(RUN, "go", 5) == Success(5, RUN)
    assert heard == [
        ("opened", 2),
        ("step_replayed", 2, "flaky"),
        ("step_started", 2, "broken"),
        ("attempt_failed", 2, "broken", 1, "KeyError", None),
        ("step_failed", 2, "broken", "KeyError"),
        ("step_replayed", 2, "half"),
        ("event_delivered", 2, "go"),
        ("closed", 2, "complete", None),
    ]
    heard.clear()
    with pytest.raises(UsageError):
        await flow.start(run_id=RUN)
    assert heard == [("refused", RUN, "TerminalRunError")]


async def test_an_observer_hears_why_an_attempt_has_no_result(memory: MemoryStorage) -> None:
    """If it fails, a trace of an adapter's call says that it failed, and not of what."""
    heard: list[tuple[Any, ...]] = []

    @workflow(storage=memory, observers=[telling(heard)])
    async def flow(ctx: Context) -> None:
        for error in (None, KeyError("early")):
            begun = await ctx.begin("half")
            assert isinstance(begun, Attempt)
            await begun.fail(error)
        for error in (None, KeyError("late")):
            begun = await ctx.begin("half")
            assert isinstance(begun, Attempt)
            async with begun:
                await begun.fail(error)

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    failed = [each for each in heard if each[0] == "step_failed"]
    errors = ("_Unfinished", "KeyError", "_Unfinished", "KeyError")
    assert failed == [("step_failed", 1, "half", error) for error in errors]


async def test_sessions_without_the_wrapper_are_told_of_as_well(memory: MemoryStorage) -> None:
    """If it fails, a framework that drives sessions itself cannot be traced."""
    heard: list[tuple[Any, ...]] = []
    observer = telling(heard)
    async with await start(memory, RUN, observers=[observer]) as run:
        await run.record("a", lambda: 1)
    assert [each[0] for each in heard] == ["opened", "step_started", "step_succeeded", "closed"]
    assert heard[-1] == ("closed", 1, None, None)
    heard.clear()
    with pytest.raises(UsageError):
        await resume(memory, RUN, "go", 1, observers=[observer])
    async with await fork(memory, "b", source=RUN, from_offset=2, observers=[observer]) as run:
        await run.complete()
    assert heard == [("refused", RUN, "UsageError"), ("opened", 2), ("closed", 2, "complete", None)]
    heard.clear()
    async with await fork(memory, "c", source=RUN, from_offset=2, observers=[observer]):
        pass
    assert heard == [("opened", 2), ("closed", 2, None, None)]


async def test_an_observer_hears_how_a_run_has_ended(memory: MemoryStorage, clock: Clock) -> None:
    """If it fails, a dashboard shows a run that failed, or was cancelled, as one that was left."""
    heard: list[tuple[Any, ...]] = []

    @workflow(storage=memory, observers=[telling(heard)])
    async def fails(ctx: Context) -> None:
        raise KeyError

    await fails.start(run_id="a")
    assert heard == [("opened", 1), ("closed", 1, "error", None)]
    heard.clear()

    @workflow(storage=memory, observers=[telling(heard)])
    async def waits(ctx: Context) -> None:
        await ctx.suspend("go", timeout=60)

    assert await waits.start(run_id=RUN) == Suspended("go", RUN)
    heard.clear()
    clock.forward(61)
    with pytest.raises(RunCancelledError):
        await waits.resume(RUN, "go", 1)
    assert heard == [("closed", 2, "cancel", None), ("refused", RUN, "RunCancelledError")]


async def test_a_cancelled_session_is_closed_and_its_step_has_failed(memory: MemoryStorage) -> None:
    """If it fails, a span of a worker that was stopped never ends."""
    heard: list[tuple[Any, ...]] = []

    async def works() -> None:
        scope.cancel()
        await checkpoint()

    @workflow(storage=memory, observers=(telling(heard),))
    async def flow(ctx: Context) -> None:
        await ctx.step("works", works)

    with CancelScope() as scope:
        await flow.start(run_id=RUN)
    assert [each[:3] for each in heard[:2]] == [("opened", 1), ("step_started", 1, "works")]
    assert [each[0] for each in heard[2:]] == ["step_failed", "closed"]


async def test_what_an_observer_raises_is_logged_once_and_goes_no_further(
    memory: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a tracer that is down ends runs, or fills the disk with its complaints."""
    heard: list[tuple[Any, ...]] = []

    def method(moment: str) -> Any:
        def raising(*_: Any) -> None:
            raise OSError(f"no collector for {moment}")

        return raising

    broken = type("Broken", (Observer,), {each: method(each) for each in MOMENTS})()

    @workflow(storage=memory, observers=[broken, telling(heard)])
    async def flow(ctx: Context) -> None:
        await ctx.step("a", lambda: 1)
        await ctx.step("b", lambda: 1)

    with caplog.at_level(logging.ERROR, logger="kassette"):
        assert await flow.start(run_id=RUN) == Success(None, RUN)
    moments = ["opened", "step_started", "step_succeeded", "closed"]
    assert [record.getMessage().split(" ")[0] for record in caplog.records] == moments
    assert {record.name for record in caplog.records} == {"kassette"}
    assert [each[0] for each in heard] == [*moments[:3], *moments[1:3], "closed"]


async def test_a_refusal_is_told_whoever_raises(
    memory: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, an error of an observer hides why the run could not be opened."""

    class Raising(Observer):
        def refused(self, run_id: str, error: BaseException) -> None:
            raise OSError

    with pytest.raises(UsageError, match="there is no run"):
        await resume(memory, RUN, "go", 1, observers=[Raising()])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("given", [None, 5, Observer, Observer(), [print], ["x"], [Observer(), 5]])
async def test_what_is_no_list_of_observers_is_refused_at_once(
    memory: MemoryStorage, given: Any
) -> None:
    """If it fails, a slip is an AttributeError at the first step, or an observer that hears nothing."""

    async def flow(ctx: Context) -> None:
        raise AssertionError

    with pytest.raises(UsageError, match="observers must be a list of Observers, not"):
        workflow(flow, storage=memory, observers=given)
    with pytest.raises(UsageError, match="observers must be a list of Observers, not"):
        await start(memory, RUN, observers=given)
    assert await memory.read_all(RUN) == []


async def test_an_attempt_that_is_never_entered_has_failed(memory: MemoryStorage) -> None:
    """If it fails, the span of a step that was begun and given up never ends."""
    heard: list[tuple[Any, ...]] = []

    @workflow(storage=memory, observers=[telling(heard)])
    async def flow(ctx: Context) -> None:
        begun = await ctx.begin("half")
        assert not isinstance(begun, tuple)
        await begun.fail(KeyError())

    await flow.start(run_id=RUN)
    assert heard[1:3] == [("step_started", 1, "half"), ("step_failed", 1, "half", "KeyError")]
