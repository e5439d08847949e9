"""D3 for plain values: what a step returns live is what it returns on replay, or it is refused."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from anyio import create_task_group

from kassette_io import (
    Context,
    Failed,
    MemoryStorage,
    Success,
    UsageError,
    ValueRefusedError,
    fork,
    resume,
    start,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


class Level(IntEnum):
    HIGH = 3


class Color(StrEnum):
    RED = "red"


class Plain(Enum):
    A = "a"


class Number(int):
    pass


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Card:
    name: str


VALUES: dict[str, tuple[object, object]] = {
    "nothing": (None, None),
    "zero": (0, 0),
    "minus zero": (-0.0, -0.0),
    "no text": ("", ""),
    "no items": ([], []),
    "no members": ({}, {}),
    "no": (False, False),
    "yes": (True, True),
    "a whole float": (1.0, 1.0),
    "a tiny float": (5e-324, 5e-324),
    "a huge float": (1.7976931348623157e308, 1.7976931348623157e308),
    "a long fraction": (0.1 + 0.2, 0.30000000000000004),
    "the largest integer": (2**64 - 1, 2**64 - 1),
    "the smallest integer": (-(2**63), -(2**63)),
    "unicode": ("é\u2028\u0000\U0001f600\x7f", "é\u2028\u0000\U0001f600\x7f"),
    "what looks like a line": ('{"type":"complete"}\n', '{"type":"complete"}\n'),
    "what looks like a result": ({"result": '"},"result":1}'}, {"result": '"},"result":1}'}),
    "odd keys": ({"": 1, "#": {"a.b": [None]}}, {"": 1, "#": {"a.b": [None]}}),
    "nested": ([{"a": [1, [2, {"b": None}]]}], [{"a": [1, [2, {"b": None}]]}]),
    "a tuple": ((1, (2, ())), [1, [2, []]]),
    "a tuple inside": ({"t": (1, 2)}, {"t": [1, 2]}),
    "an int enum": (Level.HIGH, 3),
    "a text enum": ([Color.RED], ["red"]),
    "an int subclass": (Number(7), 7),
    "a text subclass": ({"a": Text("t")}, {"a": "t"}),
    "an ordered dict": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "a default dict": (defaultdict(list, {"a": [1]}), {"a": [1]}),
    "a counter": (Counter("aab"), {"a": 2, "b": 1}),
}


@pytest.mark.parametrize(("value", "plain"), VALUES.values(), ids=VALUES)
async def test_live_equals_replay(world: World, value: object, plain: object) -> None:
    """If it fails, a result is one thing on the first run and another after a crash."""
    seen: list[object] = []
    for _ in range(2):
        async with await start(world.open(), RUN) as run:
            seen.append(await run.record("a", lambda: value))
    assert [repr(each) for each in seen] == [repr(plain)] * 2
    assert repr(await journal_steps(world.open())) == repr({"a": plain})


@pytest.mark.parametrize(("value", "plain"), VALUES.values(), ids=VALUES)
async def test_d3_metadata_and_payloads_come_back_as_they_are(
    memory: MemoryStorage, value: object, plain: object
) -> None:
    """If it fails, an input or an answer reaches the workflow as something else."""

    @workflow(storage=memory)
    async def flow(ctx: Context, given: Any) -> list[Any]:
        assert repr(ctx.input) == repr(given)
        return [given, await ctx.suspend("ok")]

    await flow.start(value, run_id=RUN)
    outcome = await flow.resume(RUN, "ok", value)
    assert isinstance(outcome, Success)
    assert repr(outcome.result) == repr([plain, plain])


async def test_d3_what_is_returned_is_not_what_was_given(world: World) -> None:
    """If it fails, changing a result live changes nothing on replay, and the two paths part."""
    original = {"items": [1]}
    async with await start(world.open(), RUN, metadata=original) as run:
        first = await run.record("a", lambda: original)
        assert first == original
        assert first is not original
        first["items"].append(2)
        run.metadata["items"].append(3)
        assert run.metadata == {"items": [1]}
    async with await start(world.open(), RUN) as run:
        assert await run.record("a", dict) == {"items": [1]}
        assert run.metadata == {"items": [1]}


def cyclic() -> list[Any]:
    inner: list[Any] = []
    inner.append({"again": inner})
    return [inner]


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "nan": (lambda: {"a": [1, float("nan")]}, "['a'][1] is nan"),
    "infinity": (lambda: [float("inf")], "[0] is inf"),
    "minus infinity": (lambda: float("-inf"), " is -inf"),
    "too large": (lambda: {"n": 2**64}, "['n'] is an integer beyond 64 bits"),
    "too small": (lambda: [-(2**63) - 1], "[0] is an integer beyond 64 bits"),
    "a number as key": (lambda: {"a": {1: "x"}}, "['a'] has the key 1; JSON keys are strings"),
    "nothing as key": (lambda: {None: 1}, " has the key None; JSON keys are strings"),
    "half a character": (lambda: ["ok", "\ud800"], "[1] contains a lone surrogate"),
    "half a character as key": (lambda: {"\udfff": 1}, "contains a lone surrogate"),
    "a cycle": (cyclic, "[0][0]['again'] contains itself"),
    "too deep": (lambda: deep(300), "is nested deeper than"),
    "a set": (lambda: {"s": {1}}, "['s'] is a builtins.set"),
    "bytes": (lambda: [b"x"], "[0] is a builtins.bytes"),
    "a datetime": (lambda: datetime(2026, 1, 1, tzinfo=UTC), " is a datetime.datetime"),
    "a date": (lambda: [date(2026, 1, 1)], "[0] is a datetime.date"),
    "a duration": (lambda: timedelta(1), " is a datetime.timedelta"),
    "a uuid": (lambda: {"id": UUID(int=0)}, "['id'] is a uuid.UUID"),
    "a decimal": (lambda: Decimal("1.1"), " is a decimal.Decimal"),
    "an enum": (lambda: [Plain.A], f"[0] is a {__name__}.Plain"),
    "a dataclass": (lambda: {"c": Card("x")}, f"['c'] is a {__name__}.Card"),
    "a named tuple": (lambda: [Point(1, 2)], f"[0] is a {__name__}.Point"),
    "an object": (object, " is a builtins.object"),
    "a path": (lambda: [Path()], "[0] is a pathlib."),
    "a generator": (lambda: (str(each) for each in range(0)), " is a builtins.generator"),
    "a complex number": (lambda: 1j, " is a builtins.complex"),
}


@pytest.mark.parametrize(("make", "complaint"), REFUSED.values(), ids=REFUSED)
async def test_d3_a_result_that_cannot_be_written_is_refused(
    memory: MemoryStorage, make: Callable[[], object], complaint: str
) -> None:
    """If it fails, a value is quietly written as something else, or half of it is, or the message
    does not say which step and where inside its result.
    """
    async with await start(memory, RUN) as run:
        with pytest.raises(UsageError) as caught:
            await run.record("bad", make)
        assert str(caught.value).startswith("the result of step 'bad'")
        assert complaint in str(caught.value)
        assert await journal_types(memory) == ["start"]
        assert await run.record("good", lambda: 1) == 1
        await run.complete()
    assert await journal_types(memory) == ["start", "step", "complete"]


@pytest.mark.parametrize(("make", "complaint"), REFUSED.values(), ids=REFUSED)
async def test_d3_an_input_or_answer_that_cannot_be_written_is_refused_before_anything_is(
    memory: MemoryStorage, make: Callable[[], object], complaint: str
) -> None:
    """If it fails, a bad input begins a run, or a bad answer opens a session of it."""
    with pytest.raises(UsageError, match="the metadata") as caught:
        await start(memory, RUN, metadata=make())
    assert complaint in str(caught.value)
    assert await journal_types(memory) == []

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        return await ctx.suspend("ok")

    await flow.start(run_id=RUN)
    with pytest.raises(UsageError, match="the value of event 'ok'") as caught:
        await resume(memory, RUN, "ok", make())
    assert complaint in str(caught.value)
    assert await journal_types(memory) == ["start", "suspend"]
    assert await flow.resume(RUN, "ok", "fine") == Success("fine", RUN)


async def test_d3_a_workflow_may_catch_a_refusal_and_go_on(world: World) -> None:
    """If it fails, one bad value costs the whole run."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            return await ctx.step("a", lambda: {1, 2})
        except UsageError:
            return await ctx.step("b", lambda: [1, 2])

    assert await flow.start(run_id=RUN) == Success([1, 2], RUN)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"\x89", {1: 2}], ids=repr)
async def test_d3_3_a_refusal_that_nobody_catches_leaves_the_run_open(
    world: World, value: object
) -> None:
    """If it fails, a call that was paid for ends its run, though mended code could go on with it.

    It used to fail the run: but a value that JSON does not have says that the step was written
    wrongly, and nothing of what the workflow does.
    """
    work = Ledger()

    async def flow(ctx: Context) -> Any:
        await ctx.step("before", work.note, "before")
        return await ctx.step("paid", work.note, "paid", answer)

    answer: object = value
    with pytest.raises(ValueRefusedError) as caught:
        await workflow(flow, storage=world.open()).start(run_id=RUN)
    assert caught.value.run_id == RUN
    assert "'paid'" in str(caught.value)
    assert "function was called, and its result is not recorded. The run stays open" in str(
        caught.value
    )
    assert await journal_types(world.open()) == ["start", "step"]
    answer = [1, 2]
    assert await workflow(flow, storage=world.open()).start(run_id=RUN) == Success([1, 2], RUN)
    assert work.done == ["before", "paid", "paid"]


async def test_d3_3_a_refusal_inside_a_task_group_leaves_the_run_open(world: World) -> None:
    """If it fails, steps in tasks of a workflow's own end the run where a step alone would not."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async with create_task_group() as group:
            group.start_soon(ctx.step, "a", lambda: {1, 2})

    with pytest.raises(ValueRefusedError, match="step 'a'"):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == ["start"]


async def test_d3_3_an_error_made_of_a_refusal_is_the_workflows_own(world: World) -> None:
    """If it fails, a workflow cannot decide that a refused value ends its run."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        try:
            await ctx.step("a", lambda: {1, 2})
        except ValueRefusedError as refused:
            raise LookupError("no answer") from refused

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LookupError)


async def test_d3_3_a_refusal_of_another_run_is_an_error_like_others(world: World) -> None:
    """If it fails, a workflow started inside of a step keeps its caller's run open for ever."""

    @workflow(storage=world.open())
    async def inner(ctx: Context) -> Any:
        return await ctx.step("a", lambda: {1, 2})

    @workflow(storage=world.open())
    async def outer(ctx: Context) -> Any:
        await inner.start(run_id="inner")

    outcome = await outer.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ValueRefusedError)
    assert outcome.error.run_id == "inner"


async def test_d3_falsy_results_count_as_recorded(world: World) -> None:
    """If it fails, a step whose result is nothing is done again on every recovery."""
    work = Ledger()
    falsy: list[object] = [None, 0, "", [], {}, False, 0.0]
    for _ in range(2):
        async with await start(world.open(), RUN) as run:
            for value in falsy:
                assert await run.record("a", work.note, "a", value) == value
    assert work.done == ["a"] * len(falsy)


async def test_d3_a_fork_copies_results_as_they_are_written(world: World) -> None:
    """If it fails, a number changes its spelling, or a key its place, on the way into a fork."""
    line = b'{"type":"%s","session":1,"offset":%d,"timestamp":"2026-01-31T12:00:00.000Z"%s}\n'
    text = b'{"b":1.0,"a":1e0,"c":"\\u00e9\\/","d":10000000000000000}'
    storage = MemoryStorage(
        {
            "source": line % (b"start", 0, b"")
            + line % (b"step", 1, b',"stepId":"a","name":"a","result":' + text)
        }
    )
    run = await fork(storage, RUN, source="source", from_offset=2)
    await run.complete()
    assert b'"result":' + text + b"}\n" in storage.data[RUN]
