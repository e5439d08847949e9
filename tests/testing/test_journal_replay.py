"""``JournalReplay``: a workflow from a journal file, and the first place where the two part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import Event
from anyio.lowlevel import checkpoint

from kassette import decode_journal
from kassette_io import (
    Context,
    Failed,
    LocalStorage,
    MetadataMismatchError,
    StepEntry,
    Success,
    Suspended,
    UsageError,
    VersionMismatchError,
    workflow,
)
from kassette_io.testing import JournalReplay, Mode

pytestmark = pytest.mark.anyio

Flow = Callable[..., Awaitable[Any]]


async def ask(question: str) -> str:
    await checkpoint()
    return f"answer to {question}"


async def never(*args: object) -> Any:
    raise AssertionError(f"ran live with {args}")


def triage(step: Callable[..., Any]) -> Flow:
    """Give a workflow that thinks, waits for a verdict, sends in two branches, and takes note."""

    async def flow(ctx: Context, topic: str) -> list[Any]:
        text = await ctx.step("think", step, topic)
        verdict = await ctx.suspend("verdict")
        await ctx.sleep(3600)

        mailed = Event()

        async def mail(branch: Context) -> str:
            try:
                return await branch.step("send", step, verdict)
            finally:
                mailed.set()

        async def chat(branch: Context) -> str:
            await mailed.wait()
            return await branch.step("send", step, verdict)

        sent = await ctx.parallel({"mail": mail, "chat": chat})
        return [text, await ctx.step("note", step, sent["mail"])]

    return flow


ENDED = Success(["answer to cats", "answer to answer to ok"], "run-7")


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    """Give the journal of a run of ``triage`` that a real storage has kept."""
    recording = JournalReplay(tmp_path / "run-7.jsonl", mode="once")
    await recording.run(triage(ask), "cats", answers={"verdict": "ok"})
    return recording.path


async def test_a_journal_from_production_replays_and_nothing_runs(tmp_path: Path) -> None:
    """A test from yesterday's journal would call the model, or would refuse a run that is over."""
    storage = LocalStorage(tmp_path / "prod")
    flow = workflow(triage(ask), storage=storage)
    outcome = await flow.start("cats", run_id="run-7")
    assert isinstance(outcome, Suspended)
    path = tmp_path / "prod" / "run-7.jsonl"
    waiting = JournalReplay(path)
    assert await waiting.run(triage(never)) == outcome


async def test_a_run_that_is_over_replays_to_its_end(journal: Path) -> None:
    """A finished journal, the commonest of all, could not be a fixture."""
    before = journal.read_bytes()
    replay = JournalReplay(journal)
    assert await replay.run(triage(never)) == ENDED
    assert replay.asked == dict.fromkeys(
        ["think", "delay:3600000ms", "mail:send", "chat:send", "note"], "replayed"
    )
    assert journal.read_bytes() == before
    assert await replay.run(triage(never), "cats") == ENDED


async def test_a_partial_journal_replays_its_part_and_then_calls_the_stub(journal: Path) -> None:
    """``head -n 8`` of a journal would not be the start of a test."""
    replay = JournalReplay(journal, lines=2)
    with pytest.raises(AssertionError, match="diverge at offset 2"):
        await replay.run(triage(never), answers={"verdict": "ok"})
    cut = journal.with_name("run-8.jsonl")
    cut.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]) + b'{"torn')
    outcome = await JournalReplay(cut).run(
        triage(never),
        answers={"verdict": "no"},
        stubs={"mail:send": lambda verdict: f"mailed {verdict}", "send": lambda _: "chatted"},
        allow_live=["note"],
    )
    assert isinstance(outcome, Failed)
    assert "ran live with ('mailed no',)" in str(outcome.error)
    replay = JournalReplay(cut)
    outcome = await replay.run(
        triage(ask),
        answers={"verdict": "no"},
        stubs={"send": lambda verdict: f"to {verdict}"},
        allow_live=["note"],
    )
    assert outcome == Success(["answer to cats", "answer to to no"], "run-8")
    assert replay.asked == {
        "think": "replayed",
        "delay:3600000ms": "ran",
        "mail:send": "stubbed",
        "chat:send": "stubbed",
        "note": "ran",
    }
    assert cut.read_bytes().endswith(b'{"torn')


async def test_the_failure_shows_where_they_part(journal: Path) -> None:
    """A developer would see that a test fails, and have to find out from the journal why."""

    async def changed(ctx: Context, topic: str) -> None:
        await ctx.step("think", never, topic)
        await ctx.suspend("verdict")
        try:
            await ctx.step("translate", never, topic, "x" * 200)
        except Exception as error:
            raise SystemExit("an except Exception must not hide it") from error

    with pytest.raises(AssertionError) as caught:
        await JournalReplay(journal).run(changed)
    shown = "('cats', '" + "x" * 151
    assert str(caught.value).splitlines() == [
        f"the workflow and {str(journal)!r} diverge at offset 5",
        "  recorded:   step 'delay:3600000ms' -> " + repr(_recorded(journal)[1].result),
        f"  requested:  step 'translate', with the arguments {shown[:160]}… (212 characters)",
        "  before it:",
        "    offset   1  'think' replayed",
        "  unused:     offset 6  'mail:send'",
        "  unused:     offset 7  'chat:send'",
        "  unused:     offset 8  'note'",
        "Allow it to run with allow_live=['translate'], answer it with stubs={'translate': …}, "
        "or record it: pytest --kassette-mode=new",
    ]


def _recorded(journal: Path) -> list[StepEntry]:
    entries = decode_journal(journal.read_bytes()).entries
    return [each for each in entries if isinstance(each, StepEntry)]


async def test_a_branch_is_compared_with_the_same_branch(journal: Path) -> None:
    """The failure of one branch would show what another one had recorded."""

    async def changed(ctx: Context, topic: str) -> None:
        async def post(branch: Context) -> None:
            await branch.step("post", never)

        await ctx.parallel({"chat": post})

    with pytest.raises(AssertionError, match="diverge at offset 7") as caught:
        await JournalReplay(journal).run(changed)
    assert "recorded:   step 'chat:send' -> 'answer to ok'" in str(caught.value)
    assert "requested:  step 'chat:post', with the arguments ()" in str(caught.value)


async def test_of_branches_that_part_the_first_is_shown(journal: Path) -> None:
    """Two branches that part would end in a group of exceptions instead of a report."""

    async def changed(ctx: Context, topic: str) -> None:
        async def post(branch: Context) -> None:
            await branch.step("post", never)

        await ctx.parallel({"mail": post, "chat": post})

    with pytest.raises(AssertionError, match=r"requested:  step '(mail|chat):post'") as caught:
        await JournalReplay(journal).run(changed)
    assert str(caught.value).count("requested:") == 1


async def test_a_bare_except_cannot_hide_that_they_part(journal: Path) -> None:
    """A test would pass although the workflow went another way than the journal."""

    async def careless(ctx: Context, topic: str) -> Any:
        try:
            return await ctx.step("other", never)
        except BaseException:
            return "all is well"

    with pytest.raises(AssertionError, match="requested:  step 'other'"):
        await JournalReplay(journal).run(careless, allow_unused=["think"])


async def test_a_recorded_step_that_nobody_asks_for_fails(journal: Path) -> None:
    """Code that leaves a step out, say the mail to the customer, would pass its test."""

    async def shorter(ctx: Context, topic: str) -> Any:
        text = await ctx.step("think", never, topic)
        await ctx.suspend("verdict")
        await ctx.sleep(3600)
        return text

    with pytest.raises(AssertionError) as caught:
        await JournalReplay(journal).run(shorter)
    message = str(caught.value)
    assert "diverge at offset 6" in message
    assert "requested:  nothing more; the workflow ended with Success(" in message
    assert "If this is intended, pass allow_unused=['mail:send', 'chat:send', 'note']" in message
    replay = JournalReplay(journal)
    allowed = await replay.run(shorter, allow_unused=["mail:send", "chat:send", "note"])
    assert allowed == Success("answer to cats", "run-7")


async def test_a_step_recorded_under_another_name_is_shown(tmp_path: Path) -> None:
    """A journal of other code would end in an error whose place nobody names."""
    path = tmp_path / "run-1.jsonl"
    stamp = '"timestamp":"2026-01-31T12:00:00.000Z"'
    path.write_text(
        f'{{"type":"start","session":1,"offset":0,{stamp}}}\n'
        f'{{"type":"step","session":1,"offset":1,{stamp},"stepId":"a","name":"b","result":1}}\n'
    )

    async def flow(ctx: Context) -> int:
        return await ctx.step("a", never)

    with pytest.raises(AssertionError, match="requested:  step 'a' under the name 'a'") as caught:
        await JournalReplay(path).run(flow)
    assert "diverge at offset 1" in str(caught.value)


async def test_other_input_and_another_version_are_refused(journal: Path) -> None:
    """A test would replay a journal that belongs to other input or other code."""
    with pytest.raises(MetadataMismatchError):
        await JournalReplay(journal).run(triage(never), "dogs")
    versioned = workflow(triage(ask), storage=LocalStorage(journal.parent / "prod"), version="1")
    with pytest.raises(VersionMismatchError) as refused:
        await _of_version(journal).run(workflow_like(versioned, "2"))
    assert (refused.value.stored_version, refused.value.current_version) == ("1", "2")
    says = str(refused.value)
    assert says.startswith(f"{str(journal)!r} was recorded by version '1'")
    assert "pytest --kassette-mode=all" in says
    assert "change the version in the file's first line to '2'" in says
    bumped = journal.read_text().replace('"version":"1"', '"version":"2"', 1)
    journal.write_text(bumped)
    assert await JournalReplay(journal).run(workflow_like(versioned, "2")) == ENDED
    journal.write_text(bumped.replace('"type":"start","version":"2",', '"type":"start",', 1))
    assert await _of_version(journal).run(workflow_like(versioned, "1")) == ENDED


def workflow_like(given: Any, version: str) -> Any:
    return workflow(triage(never), storage=LocalStorage("unused"), version=version)


def _of_version(journal: Path) -> JournalReplay:
    text = journal.read_text().replace('"type":"start",', '"type":"start","version":"1",', 1)
    journal.write_text(text)
    return JournalReplay(journal)


@pytest.mark.parametrize("mode", ["none", "once", "new", "all"])
async def test_what_each_mode_runs_and_writes(mode: str, journal: Path, tmp_path: Path) -> None:
    """A mode would pay for steps, or write files, other than VCR's users expect of its name."""
    calls: list[str] = []

    async def count(text: str) -> str:
        calls.append(text)
        return await ask(text)

    async def longer(ctx: Context, topic: str) -> list[Any]:
        found: list[Any] = await triage(count)(ctx, topic)
        return [*found, await ctx.step("more", count, "more")]

    before = journal.read_bytes()
    known = JournalReplay(journal, mode=mode)
    fresh = JournalReplay(tmp_path / "deep" / "run-9.jsonl", mode=mode)
    if mode in ("none", "once"):
        with pytest.raises(AssertionError, match="requested:  step 'more'"):
            await known.run(longer, "cats", answers={"verdict": "ok"})
        assert (calls, journal.read_bytes()) == ([], before)
    else:
        await known.run(longer, "cats", answers={"verdict": "ok"})
        assert calls == (
            ["more"] if mode == "new" else ["cats", "ok", "ok", "answer to ok", "more"]
        )
        again = JournalReplay(journal)
        await again.run(longer)
        assert again.asked["more"] == "replayed"
        if mode == "new":
            kept = before.splitlines()[:-1]
            assert journal.read_bytes().splitlines()[: len(kept)] == kept
    if mode == "none":
        with pytest.raises(UsageError, match=r"there is no journal .*--kassette-mode=once"):
            await fresh.run(longer, "cats")
    else:
        await fresh.run(longer, "cats", answers={"verdict": "ok"})
        assert set((await JournalReplay(fresh.path).run(longer)).result) == {  # type: ignore[union-attr]
            "answer to cats",
            "answer to answer to ok",
            "answer to more",
        }
    assert [each.name for each in tmp_path.rglob(".*")] == []


async def test_what_was_paid_for_is_kept_when_recording_breaks_off(
    journal: Path, tmp_path: Path
) -> None:
    """A model call would be paid for again because the step after it failed."""

    async def breaks(ctx: Context, topic: str) -> None:
        await ctx.step("think", ask, topic)
        raise KeyboardInterrupt

    recording = JournalReplay(tmp_path / "run-9.jsonl", mode="once")
    with pytest.raises(KeyboardInterrupt):
        await recording.run(breaks, "cats")
    assert [each.step_id for each in _recorded(recording.path)] == ["think"]
    before = journal.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        await JournalReplay(journal, mode="all").run(breaks, "cats")
    assert journal.read_bytes() == before


async def test_a_recorded_run_is_crashed_everywhere_without_calling_anything(
    journal: Path,
) -> None:
    """The longest run that production ever had would be too dear to crash even once."""
    replay = JournalReplay(journal)
    survived = await replay.crash_everywhere(triage(never))
    assert survived.outcome == Success(ENDED.result, "run-1")
    assert len(survived.crashes) == 4 * 5 + 2 * 10
    again = await JournalReplay(journal, lines=2).crash_everywhere(
        triage(never),
        answers={"verdict": "ok"},
        stubs=dict.fromkeys(("send", "note"), ask),
    )
    assert again.outcome == survived.outcome


async def test_crashing_a_recorded_run_finds_what_is_wrong_with_today_s_code(
    journal: Path,
) -> None:
    """A step that would run live would run some forty times, and bad code would pass."""
    with pytest.raises(AssertionError, match="requested:  step 'think'"):
        await JournalReplay(journal, lines=1).crash_everywhere(triage(never))
    seen: list[str] = []

    async def counting(ctx: Context, topic: str) -> list[Any]:
        seen.append(topic)
        return [*await triage(never)(ctx, topic), len(seen)]

    with pytest.raises(AssertionError, match="two uninterrupted runs already differ"):
        await JournalReplay(journal).crash_everywhere(counting)
    with pytest.raises(AssertionError, match=r"killed before .* 'think', then recovered: it ended"):
        await JournalReplay(journal).crash_everywhere(counting, reset=seen.clear)


async def test_the_run_id_comes_from_the_path(tmp_path: Path) -> None:
    """Idempotency keys that are made of the run id would differ from the recorded ones."""
    assert JournalReplay(tmp_path / "a.b.jsonl").run_id == "a.b"
    assert JournalReplay(tmp_path / "run-3" / "journal.jsonl").run_id == "run-3"
    assert JournalReplay(tmp_path / "a.b.jsonl").mode is Mode.NONE
    assert JournalReplay(tmp_path / "a.b.jsonl", mode="none").mode is Mode.NONE
    with pytest.raises(UsageError, match="is not a run id; name the file after a run"):
        JournalReplay(tmp_path / "no run.jsonl")


def test_a_plain_test_replays_in_a_loop_of_its_own(tmp_path: Path, anyio_backend: str) -> None:
    """A test suite without an async plugin could not use journals."""
    recording = JournalReplay(tmp_path / "run-7.jsonl", mode="once")
    recorded = recording.run_sync(
        triage(ask), "cats", answers={"verdict": "ok"}, backend=anyio_backend
    )
    assert recorded == ENDED
    replay = JournalReplay(recording.path)
    assert replay.run_sync(triage(never), backend=anyio_backend) == ENDED
    assert replay.run_sync(triage(never)) == ENDED
