"""``JournalReplay`` at its borders: what it shows, names, hides and leaves alone."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kassette import Entry, StartEntry, StepEntry, decode_journal, encode_entry
from kassette_io import Context, MemoryStorage, Success, Suspended, workflow
from kassette_io.testing import JournalReplay
from kassette_io.testing.watching import WorkflowOrFunction
from tests.testing.test_journal_replay import Flow, ask, never

pytestmark = pytest.mark.anyio

STAMP = "2026-01-31T12:00:00.000Z"


async def recorded(path: Path, flow: WorkflowOrFunction, *given: object, **how: Any) -> bytes:
    """Record a run; return its journal."""
    await JournalReplay(path, mode="once").run(flow, *given, **how)
    return path.read_bytes()


async def parting(replay: JournalReplay, flow: Flow, **how: Any) -> list[str]:
    """Return the lines that show where a flow and a journal part."""
    with pytest.raises(AssertionError) as caught:
        await replay.run(flow, **how)
    return str(caught.value).splitlines()


async def pages(ctx: Context) -> None:
    for page in "ab":
        await ctx.step("fetch", ask, page)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run-7.jsonl"


def test_a_replay_that_has_not_run_is_empty_and_says_what_it_is(path: Path) -> None:
    """A debugger would show an address, or the attributes of a replay would not be there."""
    replay = JournalReplay(path, mode="new")
    assert repr(replay) == f"<JournalReplay {str(path)!r} new>"
    assert replay.storage.data == {}
    assert replay.asked == {}


async def test_a_failure_ends_where_the_test_called(path: Path) -> None:
    """Pytest would show our code, at length, to somebody who looks for the fault in theirs."""
    await recorded(path, pages)

    async def other(ctx: Context) -> None:
        await ctx.step("other", never)

    for calling in (JournalReplay(path).run, JournalReplay(path).crash_everywhere):
        with pytest.raises(AssertionError) as caught:
            await calling(other)
        shown = [entry.path for entry in caught.traceback if not entry.ishidden(caught)]
        assert shown == [Path(__file__)]


async def test_an_interrupt_in_branches_goes_to_the_caller(path: Path) -> None:
    """Whoever ends the test would be told of steps that nobody has asked for."""
    await recorded(path, pages)

    class Stop(BaseException):
        pass

    async def stop(ctx: Context) -> None:
        raise Stop

    async def flow(ctx: Context) -> None:
        await ctx.parallel({"a": stop, "b": stop})

    with pytest.raises(BaseExceptionGroup) as caught:
        await JournalReplay(path).run(flow)
    assert caught.value.subgroup(Stop) is not None


async def test_a_part_of_a_journal_is_never_written_over_the_whole(path: Path) -> None:
    """A test that looks at the first lines would cost the rest, which somebody has paid for."""
    before = await recorded(path, pages)
    for mode in ("new", "all"):
        await JournalReplay(path, mode=mode, lines=2).run(pages)
        assert path.read_bytes() == before


async def test_a_journal_that_did_not_grow_is_not_written(path: Path) -> None:
    """Every run of the tests would change a file that is kept under version control."""
    before = await recorded(path, pages)
    torn = before + b'{"torn'
    path.write_bytes(torn)
    await JournalReplay(path, mode="new").run(pages)
    assert path.read_bytes() == torn


async def test_an_answer_alone_is_recorded(path: Path) -> None:
    """A wait would have to be answered anew by every test, though it was recorded with its answer."""

    async def wait(ctx: Context) -> Any:
        return await ctx.suspend("verdict")

    assert await JournalReplay(path, mode="once").run(wait) == Suspended("verdict", "run-7")
    recording = JournalReplay(path, mode="new")
    assert await recording.run(wait, answers={"verdict": 3}) == Success(3, "run-7")
    assert await JournalReplay(path).run(wait) == Success(3, "run-7")


async def test_a_run_goes_by_the_first_name_that_its_journal_has(path: Path) -> None:
    """A journal that another version began without a name would be refused to every workflow."""
    entries: list[Entry] = [
        StartEntry(session=1, timestamp=STAMP),
        StepEntry.of(session=1, timestamp=STAMP, step_id="a", name="a", result=1),
        StartEntry(session=2, timestamp=STAMP, workflow="shop:order"),
    ]
    path.write_bytes(b"".join(map(encode_entry, entries, range(3))))

    async def renamed(ctx: Context) -> int:
        return await ctx.step("a", int)

    assert await JournalReplay(path).run(renamed) == Success(1, "run-7")


async def test_a_workflow_is_recorded_under_its_name_and_replays_under_another(path: Path) -> None:
    """A journal would belong to a function of ours, or to nobody once its workflow is renamed."""
    first = workflow(pages, storage=MemoryStorage(), name="crawl")
    await recorded(path, first)
    (begun, *_) = decode_journal(path.read_bytes()).entries
    assert isinstance(begun, StartEntry)
    assert begun.workflow == "crawl"
    renamed = workflow(pages, storage=MemoryStorage(), name="fetch-all")
    assert await JournalReplay(path).run(renamed) == Success(None, "run-7")


async def test_nothing_runs_once_they_have_parted(path: Path) -> None:
    """A step that a test allows would run, and be paid for, on a way that leads nowhere."""
    await recorded(path, pages)
    ran: list[int] = []

    async def stubborn(ctx: Context) -> None:
        for _ in range(3):
            try:
                await ctx.step("other", never)
            except BaseException:
                await ctx.step("pay", ran.append, 1)

    lines = await parting(JournalReplay(path), stubborn, allow_live=["pay"])
    assert lines[2] == "  requested:  step 'other', with the arguments ()"
    assert ran == []


@pytest.mark.parametrize(
    ("allowed", "left"),
    [
        (["fetch#2"], "fetch"),
        (["fetch"], None),
        (["fetch#2", "fetch"], None),
    ],
)
async def test_what_may_be_unused_goes_by_its_id_and_by_its_name(
    allowed: list[str], left: str | None, path: Path
) -> None:
    """To allow the second of two calls would allow both, or neither."""
    await recorded(path, pages)

    async def shorter(ctx: Context) -> None:
        pass

    replay = JournalReplay(path)
    if left is None:
        assert await replay.run(shorter, allow_unused=allowed) == Success(None, "run-7")
    else:
        lines = await parting(replay, shorter, allow_unused=allowed)
        assert lines[-1] == f"If this is intended, pass allow_unused=[{left!r}]"


async def test_a_branch_that_the_journal_does_not_have_is_compared_with_what_is_left(
    path: Path,
) -> None:
    """The journal would seem to end where it goes on."""
    await recorded(path, pages)

    async def split(ctx: Context) -> None:
        await ctx.parallel({"a": lambda own: own.step("fetch", never)})

    lines = await parting(JournalReplay(path), split)
    assert lines[1] == "  recorded:   step 'fetch' -> 'answer to a'"
    assert lines[2] == "  requested:  step 'a:fetch', with the arguments ()"


async def test_a_step_that_was_answered_without_the_journal_has_no_offset(path: Path) -> None:
    """A stub would be shown at the place of another step."""
    await recorded(path, pages)

    async def longer(ctx: Context) -> None:
        await ctx.step("look", never)
        await pages(ctx)
        await ctx.step("other", never)

    lines = await parting(JournalReplay(path), longer, stubs={"look": lambda: 1})
    assert lines[3:7] == [
        "  before it:",
        "             -  'look' stubbed",
        "    offset   1  'fetch' replayed",
        "    offset   2  'fetch#2' replayed",
    ]


@pytest.mark.parametrize(("size", "end"), [(155, "',)"), (156, "',… (161 characters)")])
async def test_what_fits_on_the_line_is_shown_whole(size: int, end: str, path: Path) -> None:
    """Arguments of just the length would be cut off, to say that they were."""
    await recorded(path, pages)

    async def other(ctx: Context) -> None:
        await ctx.step("other", never, "x" * size)

    lines = await parting(JournalReplay(path), other)
    shown = lines[2].removeprefix("  requested:  step 'other', with the arguments ")
    assert shown == f"('{'x' * size}{end}"


async def test_a_journal_may_lie_deep(path: Path) -> None:
    """A recording would be lost, once paid for, because nobody had made its directory."""
    deep = path.parent / "journals" / "mail" / path.name
    assert await recorded(deep, pages)


async def test_a_recorded_run_is_crashed_strictly(path: Path) -> None:
    """A clock outside of a step would be found in a workflow, and not in its journal."""
    clock = count()

    async def log(ctx: Context) -> None:
        await ctx.step("log", ask, f"it is {next(clock)}")

    await recorded(path, log)
    with pytest.raises(AssertionError, match="was requested with the arguments"):
        await JournalReplay(path).crash_everywhere(log)
    survived = await JournalReplay(path).crash_everywhere(log, strict=False)
    assert survived.outcome == Success(None, "run-1")
