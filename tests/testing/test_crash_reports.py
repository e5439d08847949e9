"""What ``crash_everywhere`` says word for word, and what it lets through."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import anyio
import pytest
from anyio import CancelScope, sleep_forever
from anyio.lowlevel import checkpoint

from kassette_io import Context, MetadataMismatchError, Retry, Success
from kassette_io.testing import crash_everywhere
from tests.testing.test_crash_findings import Flow, fetch

pytestmark = pytest.mark.anyio


class Vanished(BaseException):
    """What is no failure of the workflow."""


STRAYED = "two uninterrupted runs already differ: "


async def report(flow: Flow, **how: Any) -> list[str]:
    """Return the lines with which ``flow`` is caught."""
    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(flow, **how)
    return str(caught.value).splitlines()


async def test_a_step_too_many_is_named() -> None:
    """A step that only some runs ask for would be a failure without a place."""
    runs = count()

    async def crawl(ctx: Context) -> None:
        for page in "ab"[: 1 + next(runs)]:
            await ctx.step("fetch", fetch, page)

    found = (await report(crawl))[0]
    assert found == f"{STRAYED}step 'fetch#2' was requested; uninterrupted it is not"


async def test_no_arguments_are_shown_as_none() -> None:
    """The place where arguments belong would be blank, and look like an omission."""
    runs = count()

    async def roll(ctx: Context) -> None:
        await ctx.step("roll", lambda *_: 6, *[6] * next(runs))

    found = (await report(roll))[0]
    said = "step 'roll' was requested with the arguments 6; uninterrupted with (none)"
    assert found == f"{STRAYED}{said}"


@pytest.mark.parametrize("steps", [5, 8])
async def test_of_a_long_session_the_end_is_shown(steps: int) -> None:
    """The part that explains the difference would drown, or be what is left out."""
    runs = count()

    async def work(ctx: Context) -> int:
        await ctx.suspend("go")
        for number in range(steps):
            await ctx.step(f"s{number}", int, number)
        return next(runs)

    lines = await report(work, answers={"go": True})
    did = [f"ran 's{number}', journaled step 's{number}'" for number in range(steps)]
    told = ["resume 'go', journaled event 'go'", *did, "journaled complete"]
    if steps == 8:
        told = ["… 3 more", "journaled step 's0'", *did[1:], "journaled complete"]
    assert lines[0] == f"{STRAYED}it ended with Success(1); uninterrupted with Success(0)"
    assert lines[-3:] == [
        "What the sessions did:",
        "  session 1: start, journaled suspend",
        f"  session 2: {', '.join(told)}",
    ]


async def test_a_session_of_just_the_length_is_shown_whole() -> None:
    """The first thing that it did would be left out in favour of saying so."""
    runs = count()

    async def work(ctx: Context) -> int:
        for number in range(7):
            await ctx.step(f"s{number}", int, number)
        return next(runs)

    did = [f"ran 's{number}', journaled step 's{number}'" for number in range(7)]
    shown = ", ".join(["start", *did, "journaled complete"])
    assert (await report(work))[-1] == f"  session 1: {shown}"


async def test_an_end_that_only_the_journal_knows_is_compared() -> None:
    """A run that fails in another way would pass if its process died right behind the entry."""
    begun: list[None] = []

    async def fail(ctx: Context) -> None:
        raise ValueError("late" if len(begun) == 5 else "early")

    assert await report(fail, reset=lambda: begun.append(None)) == [
        "killed after entry 1 (error), then recovered: it ended with status 'failed'; "
        "uninterrupted with Failed(ValueError('early'))",
        "What the sessions did:",
        "  session 1: start, journaled error, killed after entry 1 (error)",
    ]


async def test_what_comes_first_is_told_first_and_five_more() -> None:
    """The list of all that differs would hide where it began."""
    pages = count()

    async def crawl(ctx: Context) -> None:
        for number in range(7):
            await ctx.step(f"s{number}", pages.__next__)

    lines = await report(crawl)
    said = [
        f"step 's{each}' is journaled as {7 + each}; uninterrupted as {each}" for each in range(7)
    ]
    assert lines[:7] == [f"{STRAYED}{said[0]}", "also:", *(f"  - {each}" for each in said[1:6])]
    assert lines[7].startswith("The workflow is not deterministic: ")


async def test_what_a_killed_session_did_ends_there() -> None:
    """A step would seem to have run that was killed before it."""
    runs = count()

    async def pay(ctx: Context) -> None:
        await ctx.step("pay", fetch, "a")

    assert await report(pay, probe=lambda: next(runs) == 4) == [
        "killed before the function of step 'pay', then recovered: "
        "the probe returned True; uninterrupted False",
        "What the sessions did:",
        "  session 1: start, killed before the function of step 'pay'",
        "  session 2: start, ran 'pay', journaled step 'pay', journaled complete",
    ]


async def test_what_a_session_raises_to_its_caller_is_the_cause() -> None:
    """The traceback would have to be dug out by hand."""
    mail: dict[str, int] = {}

    async def count_up(ctx: Context, given: dict[str, int]) -> None:
        await ctx.step("count", lambda: mail.update(n=mail.get("n", 0) + 1))

    with pytest.raises(AssertionError) as caught:
        await crash_everywhere(count_up, mail)
    assert isinstance(caught.value.__cause__, MetadataMismatchError)


async def test_whoever_waits_has_swallowed_nothing() -> None:
    """A workflow would be blamed for its suspension, which is how it has to end when cancelled."""
    runs = count()

    async def wait(ctx: Context) -> None:
        with CancelScope(shield=True):
            await ctx.suspend("go")

    lines = await report(wait, answers={"go": 1}, probe=lambda: next(runs) == 5)
    assert lines[0].startswith(
        "cancelled after entry 1 (suspend), then recovered: the probe returned"
    )
    assert [line for line in lines if "swallowed" in line] == []


async def test_a_workflow_that_swallows_its_cancellation_and_waits_is_told(
    anyio_backend: str,
) -> None:
    """A shutdown would leave a step out, and ask the customer instead; nobody would know why.

    With trio the session is cancelled all the same, at its next await.
    """

    async def careless(ctx: Context) -> None:
        try:
            await ctx.step("fetch", fetch, "a")
        except BaseException:
            await ctx.suspend("what to do")
        await ctx.suspend("what next")

    lines = await report(careless)
    assert lines[0].startswith("cancelled in the function of step 'fetch', then recovered: ")
    told = [line for line in lines if line.startswith("The workflow swallowed its cancellation")]
    assert len(told) == (anyio_backend == "asyncio")


async def test_a_step_that_fails_may_run_in_every_session() -> None:
    """A workflow with a plan for a step that fails would be called broken: nothing records it."""

    async def fail() -> None:
        await checkpoint()
        raise OSError("no line")

    async def flow(ctx: Context) -> str:
        try:
            await ctx.step("call", fail, retry=Retry(3))
        except OSError:
            return await ctx.step("write", fetch, "letter")
        return "called"

    assert (await crash_everywhere(flow)).outcome == Success("page letter", "run-1")


async def test_no_step_runs_in_a_process_that_is_dead() -> None:
    """A workflow that cleans up in a step of its own would be blamed for what never happens."""
    undone: list[str] = []

    async def tidy(ctx: Context) -> None:
        try:
            await ctx.step("pay", fetch, "a")
        except BaseException:
            with CancelScope(shield=True):
                await ctx.step("undo", undone.append, "pay")
            raise

    lines = await report(tidy, reset=undone.clear, probe=lambda: len(undone))
    assert lines[0].startswith("cancelled in the function of step 'pay', then recovered: ")
    assert "the probe returned 1; uninterrupted 0" in "".join(lines)


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_whoever_ends_the_process_is_obeyed(
    leaving: type[BaseException], anyio_backend: str
) -> None:
    """Ctrl-C while a workflow is crashed would be taken for a part of its crash."""

    async def flow(ctx: Context) -> None:
        try:
            await ctx.step("one", fetch, "a")
        except BaseException:
            raise leaving from None

    with pytest.raises(leaving):
        anyio.run(crash_everywhere, flow, backend=anyio_backend)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("swallows", [False, True])
async def test_a_task_that_is_cancelled_waits_for_its_workflow(swallows: bool) -> None:
    """A test with a timeout would leave its workflow running, or go on although it is cancelled.

    Only asyncio's own cancellation strikes once.
    """
    did: list[str] = []

    async def flow(ctx: Context) -> None:
        did.append("begun")
        try:
            await sleep_forever()
        except BaseException:
            await checkpoint()
            await checkpoint()
            did.append("cleaned up")
            if not swallows:
                raise Vanished from None

    task = asyncio.create_task(crash_everywhere(flow))
    while not did:
        await checkpoint()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert did == ["begun", "cleaned up"]


async def test_a_test_that_is_cancelled_before_it_begins_runs_nothing() -> None:
    """A fixture that failed would still have its workflow run."""
    called: list[Context] = []

    async def flow(ctx: Context) -> None:
        called.append(ctx)

    with CancelScope() as scope:
        scope.cancel()
        await crash_everywhere(flow)
    assert scope.cancelled_caught
    assert called == []
