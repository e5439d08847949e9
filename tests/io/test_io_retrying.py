"""D13: retries inside one step, and sleeps that survive a crash; nobody waits in these tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kassette_io import (
    Context,
    Failed,
    KassetteError,
    MemoryStorage,
    Retry,
    Success,
    Suspended,
    UsageError,
    start,
    workflow,
)
from kassette_io.calling import Call
from tests.io.storages import World
from tests.io.stories import RUN, Clock, Ledger, journal_steps, journal_types, opening, recording

pytestmark = pytest.mark.anyio


class Naps:
    """What was slept, in seconds; the clock moves on with it."""

    def __init__(self, clock: Clock) -> None:
        self.taken: list[float] = []
        self._clock = clock

    async def sleep(self, seconds: float) -> None:
        self.taken.append(round(seconds, 3))
        self._clock.forward(seconds)
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Naps:
    naps = Naps(clock)
    monkeypatch.setattr("kassette_io.context.sleep", naps.sleep)
    monkeypatch.setattr("kassette_io.calling.sleep", naps.sleep)
    return naps


class Flaky:
    """Fails as often as it is told, then gives its number of attempts."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = lambda: OSError("busy")):
        self.attempts = 0
        self._failures = failures
        self._error = error

    def sync(self) -> int:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise self._error()
        return self.attempts

    async def __call__(self) -> int:
        await anyio.lowlevel.checkpoint()
        return self.sync()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_d13_attempts_are_one_record(world: World, naps: Naps, kind: str) -> None:
    """If it fails, failed attempts are journaled, or shift the numbers of later steps."""
    flaky = Flaky(3)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[Any]:
        fn = flaky.sync if kind == "sync" else flaky
        retry = Retry(5, delay=1, backoff_rate=2, max_delay=3)
        return [await ctx.step("a", fn, retry=retry), await ctx.step("a", lambda: "next")]

    assert await flow.start(run_id=RUN) == Success([4, "next"], RUN)
    assert naps.taken == [1, 2, 3]
    assert await journal_steps(world.open()) == {"a": 4, "a#2": "next"}


async def test_d13_the_last_error_is_raised_and_nothing_is_recorded(
    world: World, naps: Naps
) -> None:
    """If it fails, a step that never succeeded is recorded, or its error is another one."""
    flaky = Flaky(9, lambda: OSError(f"attempt {flaky.attempts}"))

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            return await ctx.step("a", flaky, retry=Retry(3))
        except OSError as error:
            return await ctx.step("after", str, str(error))

    assert await flow.start(run_id=RUN) == Success("attempt 3", RUN)
    assert naps.taken == [1, 1]
    assert await journal_steps(world.open()) == {"after": "attempt 3"}


async def test_d13_only_errors_that_are_named_are_tried_again(naps: Naps) -> None:
    """If it fails, a bug in a tool is repeated as if the network had failed."""
    flaky = Flaky(9, lambda: ValueError("bug"))

    @workflow(storage=MemoryStorage())
    async def flow(ctx: Context) -> Any:
        return await ctx.step("a", flaky, retry=Retry(3, retry_on=(OSError,)))

    assert isinstance(await flow.start(run_id=RUN), Failed)
    assert (flaky.attempts, naps.taken) == (1, [])


@pytest.mark.parametrize("error", [UsageError("no"), KeyboardInterrupt(), SystemExit()])
async def test_d13_kassettes_errors_and_exits_are_never_tried_again(
    naps: Naps, error: BaseException
) -> None:
    """If it fails, Ctrl-C has to be pressed once per attempt, or a lost session is hammered."""
    flaky = Flaky(9, lambda: error)
    async with await start(MemoryStorage(), RUN) as run:
        with pytest.raises(type(error)):
            await run.record_at((), "a", Call(flaky, (), Retry(3)))
    assert (flaky.attempts, naps.taken) == (1, [])


async def test_d13_a_suspension_inside_a_retried_step_suspends(naps: Naps) -> None:
    """If it fails, a wait counts as a failed attempt."""
    attempts: list[int] = []

    @workflow(storage=MemoryStorage())
    async def flow(ctx: Context) -> Any:
        async def asks() -> Any:
            attempts.append(1)
            return await ctx.suspend("ok")

        return await ctx.step("a", asks, retry=Retry(3))

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    assert len(attempts) == 1
    assert await flow.resume(RUN, "ok", 1) == Success(1, RUN)


async def test_d13_a_result_that_cannot_be_written_is_not_tried_again(naps: Naps) -> None:
    """If it fails, a payload that can never be recorded is paid for again and again."""
    work = Ledger()
    async with await start(MemoryStorage(), RUN) as run:
        with pytest.raises(UsageError, match=r"is a builtins.set"):
            await run.record_at((), "a", Call(work.work, ("a", {1}), Retry(3)))
    assert work.done == ["a"]
    assert naps.taken == []


async def test_d13_a_replayed_step_asks_no_schedule(world: World, naps: Naps) -> None:
    """If it fails, a recovered step runs again because it carries a retry."""
    flaky = Flaky(1)
    for _ in range(2):
        async with await start(world.open(), RUN) as run:
            assert await run.record_at((), "a", Call(flaky, (), Retry(2, delay=0))) == 2
    assert flaky.attempts == 2


async def test_d13_a_sleep_is_slept_once(world: World, clock: Clock, naps: Naps) -> None:
    """If it fails, a recovered run sleeps again what it has slept already."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        await ctx.sleep(1.5)
        await ctx.sleep(1.5)
        if crash:
            raise KeyboardInterrupt

    crash = True
    with pytest.raises(KeyboardInterrupt):
        await flow.start(run_id=RUN)
    assert naps.taken == [1.5, 1.5]
    assert await journal_steps(world.open()) == {
        "delay:1500ms": "2026-01-31T12:00:01.500Z",
        "delay:1500ms#2": "2026-01-31T12:00:03.000Z",
    }
    crash = False
    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert naps.taken == [1.5, 1.5, 0, 0]


async def test_after_a_crash_only_what_is_left_is_slept(
    world: World, clock: Clock, naps: Naps
) -> None:
    """If it fails, a crash in the middle of a wait begins it anew."""
    storage = world.open()
    async with await start(storage, RUN) as run:
        await run.record("delay:60000ms", lambda: "2026-01-31T12:01:00.000Z")
    clock.forward(45)

    @workflow(storage=storage)
    async def flow(ctx: Context) -> None:
        await ctx.sleep(60)

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert naps.taken == [15]


@pytest.mark.parametrize("back", [86400, 3600 * 24 * 365 * 50])
async def test_r9_a_sleep_is_never_longer_than_its_duration(
    memory: MemoryStorage, clock: Clock, naps: Naps, back: float
) -> None:
    """If it fails, a run recovered after the clock went back a day sleeps for that day."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        await ctx.sleep(0.2)
        if crash:
            raise KeyboardInterrupt

    crash = True
    with pytest.raises(KeyboardInterrupt):
        await flow.start(run_id=RUN)
    clock.forward(-back)
    crash = False
    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert naps.taken == [0.2, 0.2]


async def test_r9_an_errors_retry_after_is_waited_for(world: World, naps: Naps) -> None:
    """If it fails, a service that says when to come back is hammered until it bans the caller."""

    class BusyError(Exception):
        retry_after = 7

    flaky = Flaky(2, BusyError)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        retry = Retry(3, retry_on=lambda error: isinstance(error, BusyError))
        return await ctx.step("a", flaky, retry=retry)

    assert await flow.start(run_id=RUN) == Success(3, RUN)
    assert naps.taken == [7, 7]


async def test_r9_a_predicate_that_raises_leaves_the_steps_own_error(
    world: World, naps: Naps
) -> None:
    """If it fails, the run's journal says what is wrong with the predicate, not with the step."""
    flaky = Flaky(1)

    def wrong(error: Exception) -> bool:
        raise ZeroDivisionError

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return await ctx.step("a", flaky, retry=Retry(3, retry_on=wrong))

    match await flow.start(run_id=RUN):
        case Failed(OSError() as error):
            assert str(error) == "busy"
            assert ["ZeroDivisionError" in note for note in error.__notes__] == [True]
        case other:
            raise AssertionError(other)
    assert (flaky.attempts, naps.taken) == (1, [])


@pytest.mark.parametrize("number", [int, float])
async def test_d13_a_wake_time_of_the_other_implementation_is_read(
    memory: MemoryStorage, clock: Clock, naps: Naps, number: type[float]
) -> None:
    """If it fails, a sleep that JavaScript journaled as milliseconds cannot be gone on with."""
    await memory.append(RUN, opening(1))
    wake = number((clock.time.timestamp() + 20) * 1000)
    await memory.append(RUN, recording("delay:60000ms", wake))

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        await ctx.sleep(60)

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert naps.taken == [20]


@pytest.mark.parametrize("seconds", [0, 0.0004, 0.001, 86400 * 365])
async def test_d13_a_sleep_names_its_milliseconds(
    memory: MemoryStorage, naps: Naps, seconds: float
) -> None:
    """If it fails, journals of the two implementations name the same sleep differently."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        await ctx.sleep(seconds)

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert list(await journal_steps(memory)) == [f"delay:{round(seconds * 1000)}ms"]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None, 1e300])
async def test_d13_what_is_no_duration_is_refused(memory: MemoryStorage, seconds: Any) -> None:
    """If it fails, a bad duration sleeps for ever, or not at all, and is journaled."""
    caught: list[KassetteError] = []

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        with pytest.raises(UsageError) as refusal:
            await ctx.sleep(seconds)
        caught.append(refusal.value)

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert await journal_types(memory) == ["start", "complete"]
    assert caught[0].run_id == RUN


async def test_d13_branches_sleep_at_the_same_time(memory: MemoryStorage, clock: Clock) -> None:
    """If it fails, two sleeps side by side get each other's number, or wait for each other."""

    async def rests(ctx: Context) -> None:
        await ctx.sleep(0)

    @workflow(storage=memory)
    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": rests, "b": rests})

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    assert set(await journal_steps(memory)) == {"a:delay:0ms", "b:delay:0ms"}
