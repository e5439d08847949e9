"""D12: forks; what they copy, what they leave alone, and what a crash in the middle leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kassette import ForkSource
from kassette_io import (
    Context,
    FencedError,
    KassetteError,
    LocalStorage,
    ResumeEntry,
    StartEntry,
    Storage,
    Success,
    Suspended,
    SuspendError,
    UsageError,
    Workflow,
    fork,
    start,
    workflow,
)
from tests.io.storages import Failing, ThreeMethods, World
from tests.io.stories import RUN, Clock, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


def agent(storage: Storage, work: Ledger, **options: Any) -> Workflow[str, list[Any]]:
    """Make a workflow of three steps with a question between the first two."""

    async def body(ctx: Context, topic: str) -> list[Any]:
        plan = await ctx.step("llm", work.work, "plan", topic)
        approved = await ctx.suspend("ok", timeout=60)
        draft = await ctx.step("llm", work.work, "draft", 2)
        return [plan, approved, draft, await ctx.step("send", work.work, "send", 3)]

    return workflow(body, storage=storage, **options)


async def finished(world: World) -> None:
    """Leave a source that is complete: start, llm, suspend, start, resume, llm#2, send, complete."""
    flow = agent(world.open(), Ledger(), version="v1")
    await flow.start("topic", run_id="source")
    assert isinstance(await flow.resume("source", "ok", False), Success)


@pytest.mark.parametrize(
    ("cut", "replayed", "live"),
    [
        ({"from_step_id": "send"}, ["llm", "llm#2"], ["send"]),
        ({"from_step_id": "llm#2"}, ["llm"], ["draft", "send"]),
        ({"from_offset": 6}, ["llm", "llm#2"], ["send"]),
        ({"from_offset": 8}, ["llm", "llm#2", "send"], []),
        ({"from_offset": 7}, ["llm", "llm#2", "send"], []),
    ],
)
async def test_a_fork_replays_what_is_below_the_cut_and_runs_the_rest(
    world: World, cut: dict[str, Any], replayed: list[str], live: list[str]
) -> None:
    """If it fails, a fork pays again for what it copied, or keeps what it was to do anew."""
    await finished(world)
    before = await world.open().read_all("source")
    work = Ledger()
    outcome = await agent(world.open(), work).fork("source", run_id=RUN, **cut)
    assert outcome == Success(["topic", False, 2, 3], RUN)
    assert work.done == live
    assert list(await journal_steps(world.open()))[: len(replayed)] == replayed
    assert await world.open().read_all("source") == before


@pytest.mark.parametrize("cut", [{"from_offset": 0}, {"from_offset": 1}, {"from_step_id": "llm"}])
async def test_a_fork_from_the_beginning_keeps_the_input(world: World, cut: Any) -> None:
    """If it fails, a fork of nothing but the start has lost what the run was about."""
    await finished(world)
    work = Ledger()
    assert await agent(world.open(), work).fork("source", run_id=RUN, **cut) == Suspended("ok", RUN)
    assert work.done == ["plan"]
    assert await journal_steps(world.open()) == {"llm": "topic"}


async def test_a_fork_names_its_source_and_takes_the_callers_version(
    world: World, clock: Clock
) -> None:
    """If it fails, nobody can tell where a run came from, or it is bound to a version of old."""
    await finished(world)
    async with await fork(world.open(), RUN, source="source", from_step_id="send", version="v2"):
        pass
    first, *copied, last = await world.open().read_all(RUN)
    assert isinstance(first, StartEntry)
    assert isinstance(last, StartEntry)
    assert (first.session, first.version, first.metadata) == (1, "v2", "topic")
    assert first.source is None
    assert (last.session, last.version, last.metadata_json) == (2, "v2", None)
    assert last.source == ForkSource(run_id="source", from_offset=6)
    assert [(entry.type, entry.session) for entry in copied] == [
        ("step", 1),
        ("resume", 1),
        ("step", 1),
    ]


async def test_a_fork_of_a_suspended_run_can_answer_differently(world: World) -> None:
    """If it fails, what was answered in the source cannot be asked again in a fork."""
    flow = agent(world.open(), Ledger())
    await flow.start("topic", run_id="source")
    assert await flow.fork("source", from_offset=3, run_id=RUN) == Suspended("ok", RUN)
    assert await flow.resume(RUN, "ok", "in the fork") == Success(
        ["topic", "in the fork", 2, 3], RUN
    )
    assert await journal_types(world.open(), "source") == ["start", "step", "suspend"]
    assert await flow.resume("source", "ok", "in the source") == Success(
        ["topic", "in the source", 2, 3], "source"
    )


async def test_a_fork_of_an_expired_run_gets_a_deadline_of_its_own(
    world: World, clock: Clock
) -> None:
    """If it fails, a run whose deadline has passed cannot be taken up in a fork."""
    flow = agent(world.open(), Ledger())
    await flow.start("topic", run_id="source")
    clock.forward(3600)
    assert await flow.fork("source", from_offset=3, run_id=RUN) == Suspended("ok", RUN)
    assert await flow.resume(RUN, "ok", True) == Success(["topic", True, 2, 3], RUN)


async def test_a_fork_gets_a_fresh_run_id_where_none_is_given(world: World) -> None:
    """If it fails, two forks without a name overwrite or refuse each other."""
    await finished(world)
    flow = agent(world.open(), Ledger())
    outcomes = [await flow.fork("source", from_step_id="send") for _ in range(2)]
    run_ids = {outcome.run_id for outcome in outcomes}
    assert len(run_ids) == 2
    assert "source" not in run_ids
    for run_id in run_ids:
        assert len(await world.open().read_all(run_id)) == 7


async def test_a_fork_of_a_fork(world: World) -> None:
    """If it fails, branching off twice loses entries, or mixes the sessions up."""
    await finished(world)
    async with await fork(world.open(), "child", source="source", from_step_id="send") as run:
        await run.record("llm", lambda: "never")
    work = Ledger()
    outcome = await agent(world.open(), work).fork("child", from_step_id="llm#2", run_id=RUN)
    assert outcome == Success(["topic", False, 2, 3], RUN)
    assert work.done == ["draft", "send"]


BAD_CUTS: dict[str, dict[str, Any]] = {
    "none": {},
    "both": {"from_offset": 1, "from_step_id": "llm"},
    "negative": {"from_offset": -1},
    "beyond": {"from_offset": 9},
    "a truth": {"from_offset": True},
    "a float": {"from_offset": 1.0},
    "an unknown step": {"from_step_id": "llm#3"},
    "an empty step": {"from_step_id": ""},
}


@pytest.mark.parametrize("cut", BAD_CUTS.values(), ids=BAD_CUTS)
async def test_a_bad_cut_is_refused_and_creates_nothing(world: World, cut: Any) -> None:
    """If it fails, a fork begins somewhere else than it was asked to, or leaves half a run."""
    await finished(world)
    with pytest.raises(UsageError) as caught:
        await fork(world.open(), RUN, source="source", **cut)
    assert caught.value.run_id == "source"
    assert await journal_types(world.open()) == []


async def test_a_bad_source_or_target_is_refused_and_creates_nothing(world: World) -> None:
    """If it fails, a fork overwrites a run, forks it into itself, or invents its source."""
    await finished(world)
    storage = world.open()
    before = await storage.read_all("source")
    for source, target, complaint in (
        ("nobody", RUN, "there is no run 'nobody' to fork"),
        ("source", "source", "already has a journal"),
        ("../source", RUN, "is not a valid run id"),
        ("source", "../run", "is not a valid run id"),
    ):
        with pytest.raises(UsageError, match=complaint):
            await fork(storage, target, source=source, from_offset=1)
    assert [run_id async for run_id in storage.list_runs()] == ["source"]
    assert await storage.read_all("source") == before


async def test_a_fork_into_a_live_run_leaves_it_alone(world: World) -> None:
    """If it fails, forking into a run that somebody works on throws them out."""
    await finished(world)
    async with await start(world.open(), RUN) as run:
        with pytest.raises(KassetteError):
            await fork(world.open(), RUN, source="source", from_offset=1)
        assert await run.record("a", lambda: 1) == 1
        await run.complete()


async def test_a_built_in_fork_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, a crash in the middle of a fork leaves part of a journal under its name."""
    world = World("local", tmp_path)
    await finished(world)
    storage = world.open()
    assert isinstance(storage, LocalStorage)
    seen: list[set[str]] = []

    def looking(real: Callable[..., None]) -> Callable[..., None]:
        def rename(*args: Any, **kwargs: Any) -> None:
            seen.append({path.name for path in tmp_path.iterdir()})
            real(*args, **kwargs)

        return rename

    for name in ("rename", "replace", "link"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    async with await fork(storage, RUN, source="source", from_step_id="send"):
        pass
    assert seen
    assert all(f"{RUN}.jsonl" not in names for names in seen)
    assert {path.name for path in tmp_path.iterdir()} == {"source.jsonl", f"{RUN}.jsonl"}


async def test_a_fork_copied_entry_by_entry_recovers_after_a_crash() -> None:
    """If it fails, a foreign storage's half-copied fork cannot be finished or is mistaken for whole.

    The reference: reopening it replays what was copied and does the rest anew.
    """
    world = ThreeMethods()
    flow = agent(world, Ledger())
    await flow.start("topic", run_id="source")
    await flow.resume("source", "ok", True)

    class Crashing(ThreeMethods):
        async def append(self, run_id: str, entry: Any) -> int:
            if run_id == RUN and len(self.runs.get(RUN, [])) == 2:
                raise KeyboardInterrupt
            return await super().append(run_id, entry)

    with pytest.raises(KeyboardInterrupt):
        await fork(Crashing(world.runs), RUN, source="source", from_step_id="send")
    assert await journal_types(world) == ["start", "step"]
    work = Ledger()
    assert await agent(world, work).start(run_id=RUN) == Suspended("ok", RUN)
    assert work.done == []
    with pytest.raises(UsageError, match="already has a journal"):
        await fork(world, RUN, source="source", from_step_id="send")


async def test_a_fork_that_fails_to_be_written_says_so() -> None:
    """If it fails, a fork that is not in storage gives out a session."""
    world = ThreeMethods()
    await agent(world, Ledger()).start("topic", run_id="source")
    failing = Failing(world)
    failing.fails.append(OSError("gone"))

    class ThreeFailing(ThreeMethods):
        async def append(self, run_id: str, entry: Any) -> int:
            return await failing.append(run_id, entry)

    with pytest.raises(OSError, match="gone"):
        await fork(ThreeFailing(world.runs), RUN, source="source", from_offset=1)
    assert await journal_types(world) == []


async def test_a_fork_with_the_plain_session(world: World) -> None:
    """If it fails, forks work through the wrapper only."""
    await finished(world)
    async with await fork(world.open(), RUN, source="source", from_step_id="llm#2") as run:
        assert (run.run_id, run.session, run.metadata) == (RUN, 2, "topic")
        shown: list[Any] = []
        assert await run.record("llm", lambda: "never", on_replay=shown.append) == "topic"
        assert await run.wait_for_event("ok") is False
        assert await run.record("llm", lambda: "live") == "live"
        assert shown == ["topic"]
        await run.complete()
    resumes = [each for each in await world.open().read_all(RUN) if isinstance(each, ResumeEntry)]
    assert [each.value for each in resumes] == [False]


async def test_the_task_of_a_fork_knows_whether_it_was_told_of_a_suspension(world: World) -> None:
    """If it fails, a framework that drives a fork itself cannot see that it swallowed one."""
    await finished(world)
    async with await fork(world.open(), RUN, source="source", from_offset=2) as run:
        assert not run.was_told
        with pytest.raises(SuspendError):
            await run.wait_for_event("other")
        assert run.was_told


async def test_a_fork_into_which_somebody_writes_is_fenced() -> None:
    """If it fails, two forks that copy into one foreign storage mix their entries unnoticed."""
    world = ThreeMethods()
    await agent(world, Ledger()).start("topic", run_id="source")

    class Mixing(ThreeMethods):
        async def append(self, run_id: str, entry: Any) -> int:
            offset = await super().append(run_id, entry)
            if offset == 0:
                await super().append(run_id, entry.in_session(2))
            return offset

    with pytest.raises(FencedError):
        await fork(Mixing(world.runs), RUN, source="source", from_offset=2)
