"""``crash_everywhere`` on good workflows: it tries every point, and has nothing to say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from kassette_io import Context, Failed, MemoryStorage, Retry, Success, Suspended, workflow
from kassette_io.testing import crash_everywhere
from tests.testing.flows import World, answering

pytestmark = pytest.mark.anyio
MAIL = {"question": "life"}


class NotYetError(Exception):
    """What a busy service says; nobody waits for it in a test."""

    retry_after = 3600


async def test_every_point_of_a_good_workflow_is_tried() -> None:
    """A point where the user's workflow breaks would be passed over."""
    world = World()
    survived = await crash_everywhere(
        answering(world), MAIL, reset=world.reset, probe=lambda: dict(world.mails)
    )
    assert survived.outcome == Success("sent 42 for life", "run-1")
    assert survived.crashes == (
        "killed after entry 0 (start)",
        "cancelled after entry 0 (start)",
        "killed before the function of step 'think'",
        "cancelled in the function of step 'think'",
        "killed after the function of step 'think'",
        "cancelled after the function of step 'think'",
        "killed after entry 1 (step 'think')",
        "cancelled after entry 1 (step 'think')",
        "killed before the function of step 'send'",
        "cancelled in the function of step 'send'",
        "killed after the function of step 'send'",
        "cancelled after the function of step 'send'",
        "killed after entry 2 (step 'send')",
        "cancelled after entry 2 (step 'send')",
        "killed after entry 3 (complete)",
        "cancelled after entry 3 (complete)",
    )


async def test_each_crash_makes_a_step_run_again_where_it_was_in_flight() -> None:
    """The crash would be none: the session would have gone on behind our back."""
    world = World()
    runs: list[list[str]] = []

    def keep() -> None:
        runs.append(list(world.calls))
        world.reset()

    await crash_everywhere(answering(world), MAIL, reset=keep)
    keep()
    think, send = "think life", "send run-1-send"
    once, twice_think, twice_send = [think, send], [think, think, send], [think, send, send]
    assert runs[1:3] == [once, once]
    assert [run for run in runs[3:] if run != once] == [twice_think, twice_send]


@dataclass
class Verdict:
    ok: bool
    by: str


@dataclass
class Report:
    topic: str


async def test_waits_branches_sleeps_retries_and_types_survive() -> None:
    """A user's real workflow would be reported broken, or could not be tested at all."""
    attempts: list[str] = []

    async def ask(question: str) -> str:
        await checkpoint()
        return f"answer to {question}"

    def flaky() -> int:
        attempts.append("flaky")
        if len(attempts) == 1:
            raise NotYetError
        return 7

    def judge(text: str) -> Verdict:
        return Verdict(len(text) > 3, "ada")

    async def triage(ctx: Context, report: Report) -> list[Any]:
        topic = report.topic

        async def search(branch: Context) -> str:
            return await branch.step("ask", ask, topic)

        async def approve(branch: Context) -> Verdict:
            await branch.sleep(3600)
            given: Verdict = await branch.suspend("approval", timeout=timedelta(days=1))
            assert isinstance(given, Verdict)
            return given

        both = await ctx.parallel({"a": search, "b": approve})
        retry = Retry(3, delay=60)
        number = await ctx.step("flaky", flaky, retry=retry, timeout=60, interchangeable=True)
        verdict = await ctx.step("judge", judge, "text")
        second = await ctx.suspend("publish")
        return [both["a"], both["b"], number, verdict, second]

    survived = await crash_everywhere(
        workflow(triage, storage=MemoryStorage(), events={"approval": Verdict}, version="2"),
        Report("cats"),
        answers={"approval": {"ok": True, "by": "bob"}, "publish": "now"},
        reset=attempts.clear,
    )
    assert isinstance(survived.outcome, Success)
    found = survived.outcome.result
    assert found == ["answer to cats", Verdict(True, "bob"), 7, Verdict(True, "ada"), "now"]
    assert "killed after entry 3 (suspend)" in survived.crashes
    assert "cancelled in the function of step 'b:delay:3600000ms'" in survived.crashes


async def test_a_crash_between_the_waits_of_one_suspension_is_tried() -> None:
    """A run with two waits could lose one of them, unseen."""

    async def ask_both(ctx: Context) -> Any:
        return await ctx.parallel(
            {"a": lambda own: own.suspend("ok:a"), "b": lambda own: own.suspend("ok:b")}
        )

    survived = await crash_everywhere(ask_both, answers={"ok:b": 2, "ok:a": 1})
    assert isinstance(survived.outcome, Success)
    assert survived.outcome.result == {"a": 1, "b": 2}
    assert "killed after entry 1 (suspend)" in survived.crashes
    assert "killed after entry 2 (suspend)" in survived.crashes


async def test_a_wait_without_an_answer_ends_the_run() -> None:
    """A workflow that waits for a person could only be tested to its end."""

    async def wait(ctx: Context) -> None:
        await ctx.step("before", str, 1)
        await ctx.suspend("approval")

    survived = await crash_everywhere(wait)
    assert survived.outcome == Suspended("approval", "run-1")


async def test_waits_of_branches_may_be_journaled_in_any_order() -> None:
    """A sound workflow would be called broken: which branch waits first is for the loop to say."""

    async def wait(ctx: Context) -> None:
        async def at_once(branch: Context) -> None:
            await branch.suspend("a")

        async def later(branch: Context) -> None:
            await branch.step("ask", checkpoint)
            await branch.suspend("b")

        await ctx.parallel({"later": later, "at-once": at_once})

    assert isinstance((await crash_everywhere(wait)).outcome, Suspended)
    answers = {"a": 1, "b": 2}
    assert (await crash_everywhere(wait, answers=answers)).outcome == Success(None, "run-1")


async def test_a_workflow_that_fails_fails_alike_after_every_crash() -> None:
    """A failing workflow would have to be left out of the tests."""

    async def fail(ctx: Context) -> None:
        await ctx.step("first", str, 1)
        raise ValueError("no such customer")

    survived = await crash_everywhere(fail)
    assert isinstance(survived.outcome, Failed)
    assert str(survived.outcome.error) == "no such customer"
    assert len(survived.crashes) == 10


async def test_stubs_stand_in_for_steps_and_their_results_are_compared() -> None:
    """A test would pay for a model call at each of its crashes."""
    world = World()
    survived = await crash_everywhere(
        answering(world), MAIL, stubs={"think": lambda question: f"stub {question}"}
    )
    assert survived.outcome == Success("sent stub life", "run-1")
    assert not any(call.startswith("think") for call in world.calls)


async def test_hooks_and_the_workflow_s_own_storage_are_left_alone() -> None:
    """A test would send the user's notifications and fill the storage of production."""
    told: list[object] = []
    storage = MemoryStorage()

    @workflow(storage=storage, on_finish=told.append)
    async def flow(ctx: Context) -> int:
        return await ctx.step("one", int, 1)

    await crash_everywhere(flow)
    assert told == []
    assert storage.data == {}


async def test_hooks_of_a_test_may_be_async() -> None:
    """A world in a database would never be emptied, or its contents never be looked at."""
    world = World()

    async def reset() -> None:
        await checkpoint()
        world.reset()

    async def probe() -> dict[str, str]:
        await checkpoint()
        return dict(world.mails)

    survived = await crash_everywhere(answering(world), MAIL, reset=reset, probe=probe)
    assert isinstance(survived.outcome, Success)

    async def another() -> list[str]:
        await checkpoint()
        return list(world.calls)

    with pytest.raises(AssertionError, match="the probe returned"):
        await crash_everywhere(answering(world), MAIL, reset=reset, probe=another)


async def test_answers_are_given_in_their_own_order() -> None:
    """A test could not try what happens when the second of two people answers first."""
    told: list[str] = []

    async def ask_both(ctx: Context) -> None:
        async def ask(own: Context, event: str) -> None:
            told.append(await own.step("told", str, await own.suspend(event)))

        await ctx.parallel(
            {"x": lambda own: ask(own, "a"), "y": lambda own: ask(own, "b")},
        )

    async def first_told(answers: dict[str, str]) -> str:
        await crash_everywhere(ask_both, answers=answers, reset=told.clear)
        return told[0]

    assert await first_told({"a": "from a", "b": "from b"}) == "from a"
    assert await first_told({"b": "from b", "a": "from a"}) == "from b"
