"""``crash_everywhere`` on bad workflows: each is caught, and the message says where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from anyio import CancelScope, sleep_forever
from anyio.lowlevel import checkpoint

from kassette_io import Context, Retry, Success, UsageError
from kassette_io.testing import crash_everywhere

pytestmark = pytest.mark.anyio

Flow = Callable[..., Awaitable[Any]]


async def fetch(url: str) -> str:
    await checkpoint()
    return f"page {url}"


async def finding(flow: Flow, **how: Any) -> str:
    """Give the message with which ``flow`` is caught."""
    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(flow, **how)
    return str(caught.value)


async def test_an_order_of_steps_that_chance_decides() -> None:
    """After a crash two results would change places."""
    sessions = count()

    async def crawl(ctx: Context) -> dict[str, str]:
        urls = ["a", "b"] if next(sessions) < 3 else ["b", "a"]
        return {url: await ctx.step("fetch", fetch, url) for url in urls}

    assert (await finding(crawl)).splitlines() == [
        "cancelled after entry 0 (start), then recovered: step 'fetch' was requested with the "
        'arguments "b"; uninterrupted with "a"',
        "also:",
        "  - step 'fetch' is journaled as 'page b'; uninterrupted as 'page a'",
        "  - step 'fetch#2' is journaled as 'page a'; uninterrupted as 'page b'",
        "What the sessions did:",
        "  session 1: start, cancelled after entry 0 (start)",
        "  session 2: start, ran 'fetch', journaled step 'fetch', ran 'fetch#2', "
        "journaled step 'fetch#2', journaled complete",
    ]


async def test_an_order_of_named_steps_that_a_clock_decides() -> None:
    """Two steps would change places, and the second crash would find a third order."""
    clock = count()

    async def crawl(ctx: Context) -> None:
        for name in sorted("ab", reverse=next(clock) % 2 == 1):
            await ctx.step(name, fetch, name)

    message = await finding(crawl)
    assert message.startswith(
        "two uninterrupted runs already differ: "
        "step 'b' was requested, where the uninterrupted run requests 'a'"
    )
    assert "read clocks, random numbers and external systems only inside of steps" in message


async def test_a_clock_that_is_read_outside_of_steps() -> None:
    """A recorded result would be taken for the answer to another question."""
    clock = count()

    async def log(ctx: Context) -> None:
        await ctx.step("log", fetch, f"it is {next(clock)}")

    assert 'arguments "it is 1"; uninterrupted with "it is 0"' in await finding(log)
    assert 'arguments "it is' in await finding(log, stubs={"log": lambda _: "noted"})
    loose = await crash_everywhere(log, stubs={"log": lambda _: "noted"}, strict=False)
    assert loose.outcome == Success(None, "run-1")


async def test_a_counter_outside_of_steps() -> None:
    """The recovered run would have counted what the crashed one did once more."""
    seen: list[str] = []

    async def shop(ctx: Context) -> int:
        for item in ("tea", "cake"):
            seen.append(await ctx.step("buy", fetch, item))
        return len(seen)

    message = await finding(shop, reset=seen.clear)
    assert "it ended with Success(3); uninterrupted with Success(2)" in message
    assert "session 2: start, ran 'buy#2', journaled step 'buy#2'" in message


async def test_state_that_steps_change_beside_their_results() -> None:
    """A replayed step would not fill the basket, and the order would go out without it."""

    async def shop(ctx: Context) -> list[str]:
        basket: list[str] = []

        async def put(item: str) -> None:
            await checkpoint()
            basket.append(item)

        await ctx.step("tea", put, "tea")
        await ctx.step("cake", put, "cake")
        return await ctx.step("order", list, basket)

    message = await finding(shop)
    assert message.startswith(
        "cancelled after the function of step 'tea', then recovered: step 'order' was requested "
        'with the arguments ["cake"]; uninterrupted with ["tea","cake"]'
    )
    assert "  - it ended with Success(['cake']); uninterrupted with Success(['tea', 'cake'])" in (
        message
    )


async def test_a_cancellation_that_is_swallowed(anyio_backend: str) -> None:
    """A shutdown of the host would leave a step out, and the run would be complete without it.

    trio strikes again at the next await, so that nothing can go on: no harm is done there.
    """

    async def careless(ctx: Context) -> str:
        try:
            page = await ctx.step("fetch", fetch, "a")
        except BaseException:
            page = "none"
        return await ctx.step("print", fetch, page)

    if anyio_backend == "trio":
        assert (await crash_everywhere(careless)).outcome == Success("page page a", "run-1")
        return
    message = await finding(careless)
    assert message.startswith("cancelled in the function of step 'fetch', then recovered: ")
    assert "step 'fetch' is missing from the journal" in message
    assert "The workflow swallowed its cancellation and continued" in message


async def test_a_killed_process_does_no_more(anyio_backend: str) -> None:
    """A workflow that cleans up would be blamed for what no dead process can do.

    Cleaning up when it is cancelled is another matter: that does reach the journal.
    """
    undone: list[str] = []

    async def tidy(ctx: Context) -> str:
        try:
            return await ctx.step("fetch", fetch, "a")
        except BaseException:
            with CancelScope(shield=True):
                await ctx.step("undo", undone.append, "fetch")
            raise

    message = await finding(tidy, reset=undone.clear, probe=lambda: len(undone))
    assert message.startswith("cancelled in the function of step 'fetch', then recovered: ")
    assert "step 'undo' is in the journal; uninterrupted it is not" in message

    async def stubborn(ctx: Context) -> str:
        try:
            return await ctx.step("fetch", fetch, "a")
        except BaseException:
            with suppress(BaseException):
                await checkpoint()
            return "gave up"

    if anyio_backend == "asyncio":
        message = await finding(stubborn)
        assert message.startswith("cancelled in the function of step 'fetch', then recovered: ")
        assert "The workflow swallowed its cancellation" in message
    else:
        assert (await crash_everywhere(stubborn)).outcome == Success("page a", "run-1")


async def test_a_result_that_depends_on_an_object_s_identity() -> None:
    """The outcome would change with the address at which a process keeps an object."""
    kept: list[object] = []

    async def identify(ctx: Context) -> int:
        kept.append(await ctx.step("load", dict))
        return id(kept[-1])

    assert "it ended with Success(" in await finding(identify)


async def test_an_effect_outside_of_a_step() -> None:
    """A mail would go out once more for each crash, and nothing in the journal would tell."""
    sent: list[str] = []

    async def notify(ctx: Context) -> None:
        text = await ctx.step("write", fetch, "a")
        sent.append(text)
        await ctx.step("note", fetch, "b")

    message = await finding(notify, reset=sent.clear, probe=lambda: len(sent))
    assert ": the probe returned 2; uninterrupted 1" in message


async def test_an_effect_that_is_not_idempotent() -> None:
    """Money would be paid twice: the step was cut off behind its payment, and ran again."""
    paid: list[int] = []

    async def pay(ctx: Context) -> None:
        await ctx.step("pay", paid.append, 10)

    message = await finding(pay, reset=paid.clear, probe=lambda: sum(paid))
    assert message.startswith(
        "killed after the function of step 'pay', then recovered: "
        "the probe returned 20; uninterrupted 10"
    )


async def test_a_step_that_stumbles_over_its_own_leavings() -> None:
    """A step that was cut off would exhaust its retries on the lock that it left behind."""
    locked: list[str] = []
    calls = count()

    async def work() -> str:
        next(calls)
        if locked:
            locked.pop()
            raise OSError("locked")
        locked.append("work")
        await checkpoint()
        locked.clear()
        return "done"

    async def flow(ctx: Context) -> str:
        return await ctx.step("work", work, retry=Retry(3))

    message = await finding(flow, reset=locked.clear)
    assert message.startswith(
        "cancelled in the function of step 'work', then recovered: the function of step 'work' was "
        "called 3 times, uninterrupted 1; a crash may add one"
    )


async def test_steps_whose_results_vary_are_named_before_anything_is_crashed() -> None:
    """A sound workflow would be called broken, and nobody would know what to do about it."""
    tickets = count(1)

    async def draw(ctx: Context) -> int:
        return await ctx.step("draw", tickets.__next__)

    message = await finding(draw)
    assert message.startswith(
        "two uninterrupted runs already differ: step 'draw' is journaled as 2; uninterrupted as 1"
    )
    assert "stub the steps whose results vary (stubs=)" in message
    assert (await crash_everywhere(draw, stubs={"draw": lambda: 7})).outcome.result == 7


async def test_an_error_that_no_journal_holds_goes_to_the_caller() -> None:
    """A mistake in the test would be reported as a mistake in the workflow."""

    async def flow(ctx: Context, topic: str) -> None:
        await ctx.step("one", str, topic)

    with pytest.raises(UsageError, match="needs the input that the workflow takes"):
        await crash_everywhere(flow)
    with pytest.raises(UsageError, match="7 is neither a workflow nor the function of one"):
        await crash_everywhere(7)  # type: ignore[arg-type]


async def test_an_exception_that_only_a_recovered_run_raises_is_the_cause() -> None:
    """The traceback that explains the difference would have to be dug out by hand."""
    opened: dict[str, str] = {}

    async def use(ctx: Context) -> str:
        handle = await ctx.step("open", lambda: opened.setdefault("h", "handle") and "h")
        first = opened.pop(handle)
        await ctx.step("use", fetch, first)
        return first

    with pytest.raises(AssertionError, match=r"it ended with Failed\(KeyError") as caught:
        await crash_everywhere(use, reset=opened.clear)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__traceback__ is not None


async def test_an_input_that_the_workflow_changes() -> None:
    """A dispatcher that delivers the job again would be refused: the run began with other input."""
    mail: dict[str, int] = {}

    async def count_up(ctx: Context, given: dict[str, int]) -> None:
        await ctx.step("count", lambda: mail.update(n=mail.get("n", 0) + 1))

    message = await finding(count_up, input=mail)
    assert message.startswith("cancelled in the function of step 'count', then recovered: ")
    assert "it ended with MetadataMismatchError(" in message
    assert ", raised to the caller; uninterrupted with Success(None)" in message


async def test_a_workflow_that_is_over_before_its_point_comes() -> None:
    """A run that took a short cut, and never crashed, would count as one that has survived."""
    calls = count()
    in_peace, crashed_at_the_start, crashed_in_the_first_step = 2, 2, 6
    before = in_peace + crashed_at_the_start + 2 * crashed_in_the_first_step

    async def lazy(ctx: Context) -> None:
        short = next(calls) >= before
        for page in "a" if short else "ab":
            await ctx.step("fetch", fetch, page)

    message = await finding(lazy)
    assert message.startswith("killed before the function of step 'fetch#2', then recovered: ")
    assert "step 'fetch#2' is missing from the journal" in message
    assert "the run never reached this point, but the uninterrupted run did" in message


async def test_a_wait_that_only_some_sessions_come_to() -> None:
    """A refund would be paid after a crash without anybody having been asked."""
    sessions = count()

    async def refund(ctx: Context) -> None:
        first = next(sessions) < 4
        await ctx.step("read", str, 1)
        if first:
            await ctx.suspend("approval")

    message = await finding(refund, answers={"approval": True})
    assert "event 'approval' is missing from the journal" in message


async def test_a_wait_that_is_new_after_a_crash() -> None:
    """A run that was about to end would wait for somebody who was never told."""
    sessions = count()

    async def refund(ctx: Context) -> None:
        late = next(sessions) >= 2
        await ctx.step("read", str, 1)
        if late:
            await ctx.suspend("approval")

    message = await finding(refund, answers={"approval": True})
    assert "event 'approval' is in the journal; uninterrupted it is not" in message


async def test_a_run_that_waits_for_something_else_after_a_crash() -> None:
    """The answer that somebody was asked for would never be looked at."""
    sessions = count()

    async def refund(ctx: Context) -> None:
        late = next(sessions) >= 2
        await ctx.suspend("manager" if late else "clerk")

    message = await finding(refund)
    assert "it ended with Suspended, waiting for 'manager'" in message
    assert "uninterrupted with Suspended, waiting for 'clerk'" in message


async def test_whoever_cancels_the_test_is_obeyed() -> None:
    """A test with a timeout would hang, or go on behind its back."""
    calls = count()
    with CancelScope() as outer:

        async def slow() -> None:
            if next(calls) == 5:
                outer.cancel()
                await sleep_forever()

        async def flow(ctx: Context) -> None:
            await ctx.step("slow", slow)

        await crash_everywhere(flow)
    assert outer.cancelled_caught
    assert next(calls) == 6
