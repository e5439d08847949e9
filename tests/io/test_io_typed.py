"""D3 for declared types: rebuilt alike live and on replay, from annotations or ``result_type``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from kassette_io import (
    Context,
    MemoryStorage,
    Run,
    StepEntry,
    UsageError,
    ValueRefusedError,
    start,
    workflow,
)
from tests.io.stories import RUN, journal_steps, journal_types

pytestmark = pytest.mark.anyio


class Color(Enum):
    RED = "r"


@dataclass
class Line:
    item: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Order:
    id: UUID
    lines: tuple[Line, ...]
    placed: datetime


class Verdict(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    is_ok: bool = Field(alias="isOk")
    score: float = 0.0


def verdict(*, is_ok: bool, score: float = 0.0) -> Verdict:
    return Verdict.model_validate({"isOk": is_ok, "score": score})


class Row(TypedDict):
    day: date
    note: Optional[str]  # noqa: UP045 - as older code writes it


ORDER = Order(UUID(int=7), (Line("x", Decimal("1.10"), {"a"}),), datetime(2026, 1, 1, tzinfo=UTC))

TYPED: dict[str, tuple[Any, object, object]] = {
    "a datetime": (datetime, datetime(2026, 1, 1, 12, tzinfo=UTC), "2026-01-01T12:00:00Z"),
    "a naive datetime": (datetime, datetime(2026, 1, 1, 12, 0, 0, 5), "2026-01-01T12:00:00.000005"),  # noqa: DTZ001
    "a date": (date, date(2026, 1, 2), "2026-01-02"),
    "a duration": (timedelta, timedelta(days=1, microseconds=1), "P1DT0.000001S"),
    "a uuid": (UUID, UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "a decimal": (Decimal, Decimal("0.10"), "0.10"),
    "an enum": (Color, Color.RED, "r"),
    "a path": (Path, Path("a/b"), "a/b"),
    "bytes": (bytes, b"abc", "abc"),
    "a tuple": (tuple[int, str], (1, "a"), [1, "a"]),
    "an empty tuple": (tuple[int, ...], (), []),
    "a set": (set[int], {1}, [1]),
    "a frozen set": (frozenset[str], frozenset("a"), ["a"]),
    "a dataclass": (Line, Line("x", Decimal("1.10")), {"item": "x", "price": "1.10", "tags": []}),
    "nested dataclasses": (
        Order,
        ORDER,
        {
            "id": "00000000-0000-0000-0000-000000000007",
            "lines": [{"item": "x", "price": "1.10", "tags": ["a"]}],
            "placed": "2026-01-01T00:00:00Z",
        },
    ),
    "a model with aliases": (Verdict, verdict(is_ok=True), {"isOk": True, "score": 0.0}),
    "a list of models": (list[Verdict], [verdict(is_ok=False)], [{"isOk": False, "score": 0.0}]),
    "models by key": (dict[str, Line | None], {"a": None}, {"a": None}),
    "a typed dict": (
        Row,
        {"day": date(2026, 1, 2), "note": None},
        {"day": "2026-01-02", "note": None},
    ),
    "an option given": (Optional[date], date(2026, 1, 2), "2026-01-02"),  # noqa: UP045
    "an option left out": (date | None, None, None),
    "a union": (Union[Line, Verdict], verdict(is_ok=True), {"isOk": True, "score": 0.0}),  # noqa: UP007
    "a literal": (Literal["a", "b"], "b", "b"),
    "a sequence": (Sequence[date], [date(2026, 1, 2)], ["2026-01-02"]),
    "a mapping": (Mapping[str, UUID], {"a": UUID(int=0)}, {"a": str(UUID(int=0))}),
    "an annotated type": (Annotated[int, Field(gt=0)], 3, 3),
    "falsy inside": (tuple[Any, ...], (None, 0, "", False), [None, 0, "", False]),
}


async def both_ways(memory: MemoryStorage, record: Callable[[Run], Any]) -> tuple[object, object]:
    """Give what a step returns live, and what it returns on replay."""
    seen = []
    for _ in range(2):
        async with await start(memory, RUN) as run:
            seen.append(await record(run))
    return seen[0], seen[1]


@pytest.mark.parametrize(("declared", "value", "plain"), TYPED.values(), ids=TYPED)
async def test_d3_result_type_rebuilds_both_ways(
    memory: MemoryStorage, declared: Any, value: object, plain: object
) -> None:
    """If it fails, a typed result is lost in JSON, or comes back as another type."""
    live, replayed = await both_ways(
        memory, lambda run: run.record("a", lambda: value, result_type=declared)
    )
    assert live == replayed == value
    assert type(live) is type(replayed) is type(value)
    assert repr(await journal_steps(memory)) == repr({"a": plain})


@pytest.mark.parametrize(("declared", "value", "plain"), TYPED.values(), ids=TYPED)
async def test_d3_a_return_annotation_rebuilds_both_ways(
    memory: MemoryStorage, declared: Any, value: object, plain: object
) -> None:
    """If it fails, a function that says what it returns is not believed."""

    async def annotated() -> Any:
        return value

    annotated.__annotations__["return"] = declared
    live, replayed = await both_ways(memory, lambda run: run.record("a", annotated))
    assert live == replayed == value
    assert type(live) is type(replayed) is type(value)
    assert repr(await journal_steps(memory)) == repr({"a": plain})


async def plain_function() -> Line:
    return Line("x", Decimal(1))


def sync_function(price: str) -> Line:
    return Line("x", Decimal(price))


class Shop:
    async def method(self) -> Line:
        return Line("x", Decimal(1))

    @classmethod
    def of_class(cls) -> Line:
        return Line("x", Decimal(1))

    @staticmethod
    async def static() -> Line:
        return Line("x", Decimal(1))

    async def __call__(self) -> Line:
        return Line("x", Decimal(1))


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def wrapper(*args: Any) -> Any:
        return await fn(*args)

    return wrapper


CALLABLES: dict[str, Callable[..., Any]] = {
    "a function": plain_function,
    "a partial": partial(sync_function, "1"),
    "a partial of a partial": partial(partial(sync_function), "1"),
    "a method": Shop().method,
    "a class method": Shop.of_class,
    "a static method": Shop.static,
    "a callable object": Shop(),
    "a partial of a callable object": partial(Shop()),
    "a decorated function": decorated(plain_function),
}


@pytest.mark.parametrize("fn", CALLABLES.values(), ids=CALLABLES)
async def test_d3_string_annotations_of_every_callable_are_resolved(
    memory: MemoryStorage, fn: Callable[..., Any]
) -> None:
    """If it fails, ``from __future__ import annotations`` turns typed results into refusals."""
    live, replayed = await both_ways(memory, lambda run: run.record("a", fn))
    assert live == replayed == Line("x", Decimal(1))
    assert type(live) is type(replayed) is Line


@decorated
async def gives_line() -> Line:
    return Line("x", Decimal(1))


@decorated
async def gives_verdict() -> Verdict:
    return verdict(is_ok=True)


@decorated
async def gives_row() -> Row:
    return {"day": date(2026, 1, 2), "note": "n"}


async def test_d3_functions_behind_one_decorator_keep_their_own_types(
    memory: MemoryStorage,
) -> None:
    """If it fails, two tools that share a decorator are taken to return the same type."""

    async def all_three(run: Run) -> list[Any]:
        return [
            await run.record("line", gives_line),
            await run.record("verdict", gives_verdict),
            await run.record("row", gives_row),
        ]

    live, replayed = await both_ways(memory, all_three)
    expected = [Line("x", Decimal(1)), verdict(is_ok=True), {"day": date(2026, 1, 2), "note": "n"}]
    assert live == replayed == expected


async def test_d3_an_annotation_that_cannot_be_resolved_is_a_remark(memory: MemoryStorage) -> None:
    """If it fails, a name that exists for type checkers alone breaks a step."""

    async def odd() -> Any:
        return {"plain": 1}

    for annotation in ("OnlyForCheckers", "list[", 7, object()):
        odd.__annotations__["return"] = annotation
        live, replayed = await both_ways(memory, lambda run: run.record("a", odd))
        assert live == replayed == {"plain": 1}


async def test_d3_result_type_wins_over_the_annotation(memory: MemoryStorage) -> None:
    """If it fails, a caller cannot say better than the function what it returns."""

    def annotated() -> dict[str, Any]:
        return {"isOk": True}

    live, replayed = await both_ways(
        memory, lambda run: run.record("a", annotated, result_type=Verdict)
    )
    assert live == replayed == verdict(is_ok=True)


async def test_d3_plain_annotations_leave_values_alone(memory: MemoryStorage) -> None:
    """If it fails, an annotation of JSON's own types begins to convert values."""

    def annotated() -> dict[str, list[float | str | None]]:
        return {"a": [1, "1", None, 1.5]}

    live, replayed = await both_ways(memory, lambda run: run.record("a", annotated))
    assert repr(live) == repr(replayed) == repr({"a": [1, "1", None, 1.5]})


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Verdict, {"isOk": "perhaps"}),
        (Line, 7),
        (datetime, "soon"),
        (tuple[int, str], [1]),
        (Color, 1),
    ],
)
async def test_d3_a_result_that_does_not_fit_its_type_is_refused(
    memory: MemoryStorage, declared: Any, value: object
) -> None:
    """If it fails, a misfit is recorded, and the run can never be replayed."""
    async with await start(memory, RUN) as run:
        with pytest.raises(ValueRefusedError) as caught:
            await run.record("a", lambda: value, result_type=declared)
    assert "the result of step 'a' does not fit its declared type" in str(caught.value)
    assert "as journaled" not in str(caught.value)
    assert await journal_types(memory) == ["start"]


class OneWay(BaseModel):
    shown: str = Field(validation_alias="taken", serialization_alias="shown")


class Partly(BaseModel):
    kept: int
    dropped: int = Field(exclude=True)


@pytest.mark.parametrize("value", [OneWay(taken="x"), Partly(kept=1, dropped=2)])  # type: ignore[call-arg]
async def test_a_type_that_does_not_survive_json_is_refused_before_it_is_written(
    memory: MemoryStorage, value: BaseModel
) -> None:
    """If it fails, a model that cannot be read back is journaled, and every recovery fails."""
    async with await start(memory, RUN) as run:
        with pytest.raises(UsageError, match="the result of step 'a'"):
            await run.record("a", lambda: value, result_type=type(value))
    assert await journal_types(memory) == ["start"]


class Changed(BaseModel):
    is_ok: bool = Field(alias="isOk")
    since_added: str


@pytest.mark.parametrize("declared", [Changed, date, Line])
async def test_d3_a_type_that_changed_since_is_a_clear_error(
    memory: MemoryStorage, declared: Any
) -> None:
    """If it fails, a deploy that changed a type crashes deep inside, or runs the step again."""
    async with await start(memory, RUN) as run:
        await run.record("a", lambda: verdict(is_ok=True), result_type=Verdict)
    async with await start(memory, RUN) as run:
        with pytest.raises(
            UsageError, match="rename the step, or change the workflow's version"
        ) as caught:
            await run.record("a", lambda: 1 / 0, result_type=declared)
        assert "the result of step 'a' as journaled does not fit" in str(caught.value)
        assert caught.value.run_id == RUN
    assert await journal_types(memory) == ["start", "step", "start"]


async def test_d3_a_journal_written_plainly_is_read_as_its_type(memory: MemoryStorage) -> None:
    """If it fails, giving a step its type later makes old runs unreadable."""
    async with await start(memory, RUN) as run:
        await run.record("a", lambda: {"isOk": True, "score": 0.5})
    async with await start(memory, RUN) as run:
        replayed = await run.record("a", lambda: verdict(is_ok=False), result_type=Verdict)
    assert replayed == verdict(is_ok=True, score=0.5)
    entry = (await memory.read_all(RUN))[1]
    assert isinstance(entry, StepEntry)
    assert entry.result == {"isOk": True, "score": 0.5}


@pytest.mark.parametrize("declared", [object(), {"a": 1}, 7, ...])
async def test_d3_a_result_type_that_is_none_is_refused_before_the_step_runs(
    memory: MemoryStorage, declared: Any
) -> None:
    """If it fails, a step runs although its result can never be recorded."""
    ran: list[int] = []
    async with await start(memory, RUN) as run:
        with pytest.raises(UsageError, match="cannot be rebuilt from JSON"):
            await run.record("a", ran.append, 1, result_type=declared)
    assert ran == []


class Loud(BaseModel):
    n: int

    def __hash__(self) -> int:
        raise AssertionError("hashed")


async def test_d3_on_replay_is_given_the_typed_value(memory: MemoryStorage) -> None:
    """If it fails, a streaming consumer sees plain dicts after a recovery."""
    shown: list[Any] = []
    await both_ways(
        memory,
        lambda run: run.record("a", lambda: Loud(n=1), result_type=Loud, on_replay=shown.append),
    )
    assert shown == [Loud(n=1)]


def some_function(value: Any) -> Any:
    return value


NO_TYPES: dict[str, Any] = {
    "a lambda": lambda value: value,
    "a function": some_function,
    "a builtin": len,
    "a method": "".join,
    "a list of one": list[some_function],  # type: ignore[valid-type]
    "a number": 5,
    "a list": [int],
    "a name": "int",
    "a class with a codec's methods": type("C", (), {"to_json": id, "from_json": id}),
}


@pytest.mark.parametrize("declared", NO_TYPES.values(), ids=NO_TYPES)
async def test_d3_7_what_is_no_type_is_refused_before_anything_runs(
    memory: MemoryStorage, declared: Any
) -> None:
    """If it fails, a call is paid for before its result is refused for a typing mistake."""
    paid = []

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        return await ctx.step("pay", lambda: paid.append(1), result_type=declared)

    with pytest.raises(UsageError, match="cannot be rebuilt from JSON"):
        await flow.start(run_id=RUN)
    assert not paid
    with pytest.raises(UsageError, match="cannot be rebuilt from JSON"):
        workflow(flow.fn, storage=memory, events={"approved": declared})


@pytest.mark.parametrize("events", [["a"], "a", {("a", int)}, {"": int}, {5: int}])
async def test_d3_7_events_that_map_no_names_are_refused_when_they_are_declared(
    memory: MemoryStorage, events: Any
) -> None:
    """If it fails, a payload is checked by nothing because its event's name was mistyped."""

    async def flow(ctx: Context) -> None: ...

    with pytest.raises(UsageError, match="event"):
        workflow(flow, storage=memory, events=events)
