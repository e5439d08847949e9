"""D3.4 and D3.5: code changes and jobs are delivered again, and recorded values stay what they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import pydantic
import pytest
from pydantic import BaseModel

from kassette_io import (
    Context,
    LocalStorage,
    MemoryStorage,
    MetadataMismatchError,
    StartEntry,
    Success,
    Suspended,
    TerminalRunError,
    UsageError,
    ValueRefusedError,
    start,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_types

pytestmark = pytest.mark.anyio


class Old(BaseModel):
    text: str
    score: int = 0


class Renamed(BaseModel):
    body: str


class Stricter(BaseModel):
    text: str = pydantic.Field(max_length=1)


class Judging(BaseModel):
    text: str
    picture: bytes = b""

    @pydantic.field_validator("text")
    @classmethod
    def judge(cls, text: str) -> str:
        if text == "abc":
            raise ValueError("no longer")
        return text


@dataclass
class AsDataclass:
    text: str
    needed: int


class Grown(BaseModel):
    text: str
    score: int = 0
    added: list[str] = []


class Shrunk(BaseModel):
    text: str


def asking(storage: Any, declared: Any, work: Ledger) -> Any:
    """Make a workflow that records a paid answer of a type, waits, and gives the answer."""

    async def body(ctx: Context) -> Any:
        answer = await ctx.step("ask", work.note, "ask", Old(text="abc"), result_type=declared)
        await ctx.suspend("go")
        return answer

    return workflow(body, storage=storage)


@pytest.mark.parametrize(
    "changed", [Renamed, Stricter, Judging, AsDataclass, int, dict[str, int], date, list[Old]]
)
async def test_d3_4_a_deploy_that_changes_a_type_leaves_the_run_open_and_rolling_back_ends_it(
    world: World, changed: Any
) -> None:
    """If it fails, a bad deploy ends every run that it touches, paid work and all."""
    work = Ledger()
    before = asking(world.open(), Old, work)
    await before.start(run_id=RUN)
    with pytest.raises(ValueRefusedError) as caught:
        await asking(world.open(), changed, work).resume(RUN, "go", 1)
    assert "the result of step 'ask' as journaled does not fit its declared type" in str(
        caught.value
    )
    assert "rename the step, or change the workflow's version" in str(caught.value)
    assert caught.value.run_id == RUN
    assert "error" not in await journal_types(world.open())
    assert await asking(world.open(), Old, work).start(run_id=RUN) == Success(Old(text="abc"), RUN)
    assert work.done == ["ask"]


@pytest.mark.parametrize("changed", [Grown, Shrunk, dict[str, str | int], Any, Old | None])
async def test_d3_4_a_deploy_that_a_recorded_value_fits_goes_on(world: World, changed: Any) -> None:
    """If it fails, a field cannot be added or dropped while runs are open."""
    work = Ledger()
    await asking(world.open(), Old, work).start(run_id=RUN)
    outcome = await asking(world.open(), changed, work).resume(RUN, "go", 1)
    assert isinstance(outcome, Success)


async def test_d3_4_a_recorded_payload_that_no_longer_fits_goes_to_the_caller(world: World) -> None:
    """If it fails, an answer that was taken unchecked ends the run, or approves a refund."""

    async def body(ctx: Context) -> Any:
        return [await ctx.suspend("approved"), await ctx.suspend("more")]

    before = workflow(body, storage=world.open())
    await before.start(run_id=RUN)
    await before.resume(RUN, "approved", "false")
    after = workflow(body, storage=world.open(), events={"approved": bool})
    with pytest.raises(ValueRefusedError, match="the value of event 'approved' as journaled"):
        await after.resume(RUN, "more", 1)
    assert "error" not in await journal_types(world.open())
    assert await workflow(body, storage=world.open()).start(run_id=RUN) == Success(
        ["false", 1], RUN
    )


async def test_d3_4_a_recorded_input_that_no_longer_fits_goes_to_the_caller(world: World) -> None:
    """If it fails, a redelivered job is told of another input, or ends its run."""

    def taking(declared: Any) -> Any:
        async def body(ctx: Context, given: Any) -> Any:
            if crash:
                raise KeyboardInterrupt
            return given

        body.__annotations__["given"] = declared
        return workflow(body, storage=world.open())

    crash = True
    with pytest.raises(KeyboardInterrupt):
        await taking(Old).start(Old(text="abc"), run_id=RUN)
    crash = False
    for job in ([], [Renamed(body="abc")]):
        with pytest.raises(ValueRefusedError, match="the input as journaled does not fit"):
            await taking(Renamed).start(*job, run_id=RUN)
    assert "error" not in await journal_types(world.open())
    assert await taking(Old).start(Old(text="abc"), run_id=RUN) == Success(Old(text="abc"), RUN)
    with pytest.raises(TerminalRunError):
        await taking(Renamed).start(Renamed(body="abc"), run_id=RUN)


async def test_d3_4_a_misfit_inside_of_an_open_session_ends_nothing(memory: MemoryStorage) -> None:
    """If it fails, a session without the wrapper is lost with the first value that is refused."""
    async with await start(memory, RUN) as run:
        await run.record("a", lambda: "text")
    async with await start(memory, RUN) as run:
        with pytest.raises(ValueRefusedError):
            await run.record("a", lambda: 1, result_type=int)
        assert await run.record("b", lambda: 1) == 1
        await run.complete()


@dataclass
class Job:
    tags: set[str]
    price: float = 0
    by: dict[int, str] = field(default_factory=dict)


@dataclass
class GrownJob:
    tags: set[str]
    price: float = 0
    by: dict[int, str] = field(default_factory=dict)
    urgent: bool = False


SAME: dict[str, tuple[Any, Any, Any, Any]] = {
    "whole and broken numbers": (float, float, 1, 1.0),
    "numbers inside": (Job, Job, Job({"a"}, 1), Job({"a"}, 1.0)),
    "a default that came later": (Job, GrownJob, Job({"a"}), GrownJob({"a"})),
    "a default of a model": (Old, Grown, Old(text="a"), Grown(text="a")),
    "sets of numbers": (set[int], set[int], {1, 2, 3}, {3, 2, 1}),
    "a body and its model": (Old, Old, {"text": "a"}, Old(text="a")),
    "any JSON": (Annotated[Any, "a remark"], Any, {"a": 1}, {"a": 1.0}),
}
OTHER: dict[str, tuple[Any, Any, Any]] = {
    "numbers": (float, 1, 2),
    "members": (set[str], {"a"}, {"b"}),
    "fields": (Job, Job({"a"}, 1), Job({"a"}, 2)),
    "keys": (dict[int, str], {1: "a"}, {2: "a"}),
    "true and one": (float | bool, True, 1.0),
}


def crashing(storage: Any, declared: Any, crash: Callable[[], bool]) -> Any:
    async def body(ctx: Context, given: Any) -> Any:
        if crash():
            raise KeyboardInterrupt
        return given

    body.__annotations__["given"] = declared
    return workflow(body, storage=storage)


@pytest.mark.parametrize(("first", "then", "given", "again"), SAME.values(), ids=SAME)
async def test_d3_5_the_same_input_recovers_the_run(
    memory: MemoryStorage, first: Any, then: Any, given: Any, again: Any
) -> None:
    """If it fails, a job that is delivered again is told that its run began with another input."""
    with pytest.raises(KeyboardInterrupt):
        await crashing(memory, first, lambda: True).start(given, run_id=RUN)
    outcome = await crashing(memory, then, lambda: False).start(again, run_id=RUN)
    assert isinstance(outcome, Success)
    assert outcome.result == again


@pytest.mark.parametrize(("declared", "given", "other"), OTHER.values(), ids=OTHER)
async def test_d3_5_another_input_does_not(
    memory: MemoryStorage, declared: Any, given: Any, other: Any
) -> None:
    """If it fails, a run id that was used twice gives one job the answer of another."""
    with pytest.raises(KeyboardInterrupt):
        await crashing(memory, declared, lambda: True).start(given, run_id=RUN)
    with pytest.raises(MetadataMismatchError):
        await crashing(memory, declared, lambda: False).start(other, run_id=RUN)


PROCESS = """
import asyncio, sys
from kassette_io import LocalStorage, workflow
from kassette_io import Context

@workflow(storage=LocalStorage(sys.argv[1]))
async def flow(ctx: Context, tags: set[str]) -> str:
    if sys.argv[2] == "crash":
        raise KeyboardInterrupt
    return ",".join(sorted(tags))

tags = {f"tag-{n}" for n in range(50)}
try:
    print(asyncio.run(flow.start(tags, run_id="r")).status)
except KeyboardInterrupt:
    print("crashed")
"""


def test_d3_5_a_set_is_the_same_in_another_process(tmp_path: Path) -> None:
    """If it fails, a job with a set cannot be delivered again: its order is another one there."""
    for seed, command, said in (("1", "crash", "crashed"), ("2", "go", "success")):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, str(tmp_path), command],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == said, done.stderr


def defaulting(storage: Any, default: Any, declared: Any = Any) -> Any:
    async def body(ctx: Context, given: Any = default) -> Any:
        await ctx.suspend("go")
        return given

    body.__annotations__["given"] = declared
    return workflow(body, storage=storage)


@pytest.mark.parametrize(
    ("declared", "default"),
    [(int, 7), (int | None, None), (Old, Old(text="a")), (set[int], {1}), (Any, {"a": [1]})],
)
async def test_d3_5_a_new_run_may_leave_out_an_input_with_a_default(
    world: World, declared: Any, default: Any
) -> None:
    """If it fails, a workflow cannot be called as its function can, or a later default changes it."""
    flow = defaulting(world.open(), default, declared)
    assert await flow.start(run_id=RUN) == Suspended("go", RUN)
    first = (await world.open().read_all(RUN))[0]
    assert isinstance(first, StartEntry)
    assert first.metadata_json is not None
    later = defaulting(world.open(), object(), declared)
    assert await later.resume(RUN, "go", 1) == Success(default, RUN)


async def test_d3_5_a_default_that_cannot_be_kept_is_refused_as_an_input_is(world: World) -> None:
    """If it fails, a run begins that no other session can take up."""
    with pytest.raises(UsageError):
        await defaulting(world.open(), object()).start(run_id=RUN)
    with pytest.raises(UsageError, match="the input does not fit"):
        await defaulting(world.open(), "ten", int).start(run_id=RUN)
    assert await journal_types(world.open()) == []


async def test_d3_4_old_journals_of_bytes_and_models_are_read(local: LocalStorage) -> None:
    """If it fails, what an older version has written is read as something else."""
    async with await start(local, RUN) as run:
        await run.record("bytes", lambda: "abc")
        await run.record("model", lambda: {"text": "a", "score": 1})
    async with await start(local, RUN) as run:
        assert await run.record("bytes", lambda: b"", result_type=bytes) == b"abc"
        assert await run.record("model", lambda: 1, result_type=Old) == Old(text="a", score=1)


@dataclass
class Text:
    text: str


class Message(pydantic.BaseModel):
    text: str
    at: date | None = None


HALVES: dict[str, tuple[Any, Any, Any]] = {
    "JSON": (dict[str, str], {"text": "CUT"}, {"text": "\ud83d"}),
    "a dataclass": (Text, {"text": "CUT"}, Text("\ud83d")),
    "a model": (Message, {"text": "CUT"}, Message.model_construct(text="\ud83d")),
    "models": (
        list[Message],
        [{"text": "CUT", "at": "2026-07-01"}],
        [Message.model_construct(text="\ud83d", at=date(2026, 7, 1))],
    ),
    "keys": (dict[int, str], {"1": "CUT"}, {1: "\ud83d"}),
}


@pytest.mark.parametrize(("declared", "plain", "value"), HALVES.values(), ids=HALVES)
async def test_d3_4_half_of_a_surrogate_pair_in_a_journal_of_javascript_is_read(
    tmp_path: Path, declared: Any, plain: Any, value: Any
) -> None:
    """If it fails, a text that JavaScript cut inside of an emoji ends the run that it began."""
    storage, seen = LocalStorage(tmp_path), list[Any]()

    async def body(ctx: Context, given: Any) -> None:
        result = await ctx.step("s", lambda: plain, result_type=declared)
        seen.append((given, result, await ctx.suspend("go")))

    body.__annotations__["given"] = declared
    flow = workflow(body, storage=storage, events={"go": declared})
    await flow.start(plain, run_id=RUN)
    path = tmp_path / f"{RUN}.jsonl"
    path.write_text(path.read_text().replace("CUT", "\\ud83d"))
    with pytest.raises(ValueRefusedError, match="surrogate"):
        await flow.resume(RUN, "go", value)
    await flow.resume(RUN, "go", plain)
    assert seen[0][:2] == (value, value)


class Day(NamedTuple):
    day: date


class Span(NamedTuple):
    day: date
    days: int = 1
    until: date | None = None


class Wider(NamedTuple):
    day: date
    days: int


class Keyed(TypedDict):
    day: date
    note: NotRequired[str]


class Bare(TypedDict):
    day: date


class Tree(NamedTuple):
    day: date
    more: tuple[Tree, ...] = ()


DAY = date(2026, 7, 1)
GROWN: dict[str, tuple[Any, Any, Any, Any]] = {
    "a named tuple": (Day, Day(DAY), Span, Span(DAY)),
    "named tuples": (list[Day], [Day(DAY)], list[Span], [Span(DAY)]),
    "a key that is not needed": (Bare, {"day": DAY}, Keyed, {"day": DAY}),
    "a field that went": (Grown, Grown(text="a", added=["b"]), Old, Old(text="a")),
    "a named tuple that holds itself": (
        Tree,
        Tree(DAY, (Tree(DAY),)),
        Tree,
        Tree(DAY, (Tree(DAY),)),
    ),
}


def given_back(storage: MemoryStorage, declared: Any, value: Any) -> Any:
    async def body(ctx: Context, given: Any) -> Any:
        result = await ctx.step("s", lambda: value, result_type=declared)
        await ctx.suspend("go")
        return [given, result]

    body.__annotations__["given"] = declared
    return workflow(body, storage=storage)


@pytest.mark.parametrize(("old", "value", "new", "read"), GROWN.values(), ids=GROWN)
async def test_d3_4_a_type_may_grow_by_what_has_a_default(
    memory: MemoryStorage, old: Any, value: Any, new: Any, read: Any
) -> None:
    """If it fails, a field with a default ends the runs that were recorded without it."""
    await given_back(memory, old, value).start(value, run_id=RUN)
    outcome = await given_back(memory, new, read).resume(RUN, "go", None)
    assert outcome == Success([read, read], RUN)
    assert type(outcome.result[0]) is type(read)


async def test_d3_4_what_a_type_has_lost_without_saying_so_is_refused(
    memory: MemoryStorage,
) -> None:
    """If it fails, a recorded part is dropped, or a field is made up for which nothing stands."""
    await given_back(memory, Keyed, {"day": DAY, "note": "a"}).start({"day": DAY}, run_id=RUN)
    with pytest.raises(ValueRefusedError, match="has the key 'note'"):
        await given_back(memory, Bare, None).resume(RUN, "go", None)
    other = MemoryStorage()
    await given_back(other, Day, Day(DAY)).start(Day(DAY), run_id=RUN)
    with pytest.raises(ValueRefusedError, match="has 1 items, but 2 are declared"):
        await given_back(other, Wider, None).resume(RUN, "go", None)
