"""D3.7: a way of one's own to keep a value, in every place where a type can be named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import pydantic
import pytest

from kassette_io import (
    Context,
    MemoryStorage,
    Success,
    UsageError,
    ValueCodec,
    ValueRefusedError,
    start,
    workflow,
)
from tests.io.keeping import every_way
from tests.io.stories import RUN, journal_types

pytestmark = pytest.mark.anyio


class Matrix:
    """Has neither equality nor attributes that a comparison could look at."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[list[int]]) -> None:
        self._rows = tuple(map(tuple, rows))

    def rows(self) -> list[list[int]]:
        return [list(row) for row in self._rows]


class Matrices:
    def to_json(self, value: Matrix) -> Any:
        return value.rows()

    def from_json(self, plain: Any) -> Matrix:
        return Matrix(plain)


class Zoned:
    def to_json(self, value: datetime) -> Any:
        return [value.replace(tzinfo=None).isoformat(), str(value.tzinfo)]

    def from_json(self, plain: Any) -> datetime:
        return datetime.fromisoformat(plain[0]).replace(tzinfo=ZoneInfo(plain[1]))


class Floats:
    def to_json(self, value: float) -> Any:
        return repr(value)

    def from_json(self, plain: Any) -> float:
        return float(plain)


@dataclass
class Meeting:
    at: Annotated[datetime, Zoned()]
    notes: dict[str, Annotated[Matrix, Matrices()]]


NOON = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))


async def test_d3_7_a_codec_in_the_place_of_a_type() -> None:
    """If it fails, a value that no type can describe cannot be kept."""
    seen, journaled = await every_way(Annotated[Matrix, Matrices()], Matrix([[1]]))
    assert journaled == [[1]]
    assert [each.rows() for each in seen] == [[[1]]] * len(seen)
    seen, _ = await every_way(Annotated[float, Floats()], math.nan)
    assert all(map(math.isnan, seen))
    storage = MemoryStorage()

    @workflow(storage=storage, events={"at": Zoned()})
    async def flow(ctx: Context, matrix: Annotated[Matrix, Matrices()]) -> Any:
        one = await ctx.step("one", lambda: Matrix([[1]]), result_type=Matrices())
        return [matrix.rows(), one.rows(), str((await ctx.suspend("at")).tzinfo)]

    await flow.start(Matrix([[2]]), run_id=RUN)
    assert await flow.resume(RUN, "at", NOON) == Success([[[2]], [[1]], "Europe/Berlin"], RUN)


async def test_d3_7_a_codec_inside_of_a_type() -> None:
    """If it fails, one part of its own makes a whole type unfit."""
    given = Meeting(NOON, {"a": Matrix([[1, 2]])})
    seen, journaled = await every_way(Meeting, given)
    assert journaled == {"at": ["2026-07-01T12:00:00", "Europe/Berlin"], "notes": {"a": [[1, 2]]}}
    for each in seen:
        assert (each.at, each.at.tzinfo) == (NOON, NOON.tzinfo)
        assert each.notes["a"].rows() == [[1, 2]]
    seen, _ = await every_way(list[Annotated[Matrix, Matrices()] | None], [None, Matrix([[3]])])
    assert seen[0][1].rows() == [[3]]


class Bad:
    def __init__(self, plain: Any, back: Any) -> None:
        self._plain = plain
        self._back = back

    def to_json(self, value: Any) -> Any:
        if isinstance(self._plain, Exception):
            raise self._plain
        return self._plain

    def from_json(self, plain: Any) -> Any:
        if isinstance(self._back, Exception):
            raise self._back
        return self._back


class Forgetful:
    def to_json(self, value: Matrix) -> Any:
        return value.rows()

    def from_json(self, plain: Any) -> Matrix:
        return Matrix([])


@pytest.mark.parametrize(
    ("codec", "value", "why"),
    [
        (Bad(LookupError("no words"), 1), 1, "LookupError: no words"),
        (Bad(1, LookupError("no value")), 1, "LookupError: no value"),
        (Bad({1, 2}, 1), 1, "which JSON does not support"),
        (Bad(float("nan"), 1), 1, "is nan"),
        (Bad(1, "1"), 1, "would come back from from_json as the text '1'"),
        (Bad(1, 2), 1, "would not come back equal from from_json"),
        (Forgetful(), Matrix([[1]]), "would be written differently"),
    ],
)
async def test_d3_7_a_codec_that_loses_is_refused(codec: Any, value: Any, why: str) -> None:
    """If it fails, a slip in a codec is found when a run recovers."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(Annotated[Any, codec], value)
    assert why in str(caught.value), str(caught.value)


async def test_d3_7_what_a_codec_cannot_read_leaves_the_run_open(memory: MemoryStorage) -> None:
    """If it fails, a codec that changed ends the runs that its elder has written."""
    async with await start(memory, RUN) as run:
        await run.record("a", lambda: "x")
    async with await start(memory, RUN) as run:
        with pytest.raises(ValueRefusedError, match=r"as journaled does not fit.*Zoned") as caught:
            await run.record("a", lambda: NOON, result_type=Zoned())
        assert isinstance(caught.value.__cause__, ValueError)
    assert await journal_types(memory) == ["start", "step", "start"]


async def test_d3_7_a_class_with_such_methods_is_a_type(memory: MemoryStorage) -> None:
    """If it fails, a dataclass that can write itself as JSON is taken for a codec of others."""

    @dataclass
    class Own:
        n: int

        def to_json(self) -> str:
            return "{}"

        @classmethod
        def from_json(cls, text: str) -> Own:
            return cls(0)

    async with await start(memory, RUN) as run:
        assert await run.record("a", lambda: Own(1), result_type=Own) == Own(1)


async def test_d3_7_a_codec_needs_no_pydantic(
    memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, the way out of a missing extra needs the extra."""
    import sys

    monkeypatch.setitem(sys.modules, "pydantic", None)
    async with await start(memory, RUN) as run:
        assert (await run.record("a", lambda: Matrix([[1]]), result_type=Matrices())).rows() == [
            [1]
        ]


async def typed(ctx: Context) -> None:
    """What type checkers have to accept, and what they make of it."""

    async def give() -> Any: ...

    zoned: ValueCodec[datetime] = Zoned()
    one: datetime = await ctx.step("a", give, result_type=zoned)
    two: Matrix = await ctx.step("b", give, result_type=Matrices())
    three: Meeting = await ctx.step("c", give, result_type=Meeting)
    four: list[Meeting] = await ctx.step("d", give, result_type=list[Meeting])
    await ctx.step("e", give, result_type=Meeting | None)
    await ctx.step("f", give, result_type=int | str)
    await ctx.step("g", give, result_type=Annotated[int, 1])
    async with await start(MemoryStorage(), RUN) as run:
        await run.record("h", give, result_type=Meeting | None)
        await run.record("i", give, result_type=Annotated[int, 1])
        five: datetime = await run.record("j", give, result_type=Zoned())
    assert None not in (one, two, three, four, five)


async def test_d3_7_type_checkers_accept_what_is_accepted(memory: MemoryStorage) -> None:
    """If it fails, unions and codecs need a cast; mypy and pyright read ``typed`` above."""
    assert typed is not None
    async with await start(memory, RUN) as run:
        assert await run.record("a", lambda: None, result_type=Meeting | None) is None
        assert await run.record("b", lambda: 3, result_type=Annotated[int, 1]) == 3
        with pytest.raises(UsageError):
            await run.record("c", lambda: 1.5, result_type=int | str)


@dataclass
class Interview:
    starts: Annotated[datetime, Zoned()]
    invited: datetime


class Booking(pydantic.BaseModel):
    starts: Annotated[datetime, Zoned()]
    invited: datetime


ONCE_WITHOUT: dict[str, tuple[Any, Any, str]] = {
    "a tuple": (tuple[Annotated[datetime, Zoned()], datetime], (NOON, NOON), "[1] has the time"),
    "the other way round": (
        tuple[datetime, Annotated[datetime, Zoned()]],
        (NOON, NOON),
        "[0] has the time",
    ),
    "a dataclass": (Interview, Interview(NOON, NOON), ".invited has the time"),
    "a model": (Booking, Booking(starts=NOON, invited=NOON), " has the time zone"),
    "a list of models": (list[Booking], [Booking(starts=NOON, invited=NOON)], " has the time zone"),
}


@pytest.mark.parametrize(("declared", "value", "where"), ONCE_WITHOUT.values(), ids=ONCE_WITHOUT)
async def test_d3_7_a_codec_answers_for_its_place_and_not_for_the_object(
    declared: Any, value: Any, where: str
) -> None:
    """If it fails, an object that stands once more, without the codec, is changed in silence."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, value)
    assert where in str(caught.value)


async def test_d3_7_one_object_may_stand_at_two_places_of_codecs() -> None:
    """If it fails, who uses an object twice is refused for it."""
    pair = tuple[Annotated[datetime, Zoned()], Annotated[datetime, Zoned()]]
    seen, _ = await every_way(pair, (NOON, NOON))
    assert [[str(each.tzinfo) for each in pair] for pair in seen] == [["Europe/Berlin"] * 2] * 9


class Isoformat:
    """Writes what pydantic would read as well, in its own way."""

    def to_json(self, value: datetime) -> Any:
        return value.isoformat()

    def from_json(self, plain: Any) -> datetime:
        return datetime.fromisoformat(plain).replace(tzinfo=NOON.tzinfo)


class Reminder(pydantic.BaseModel):
    at: Annotated[datetime, Isoformat()]


async def test_d3_7_what_pydantic_reads_in_the_place_of_a_codec_is_compared() -> None:
    """If it fails, a model's part that its codec wrote and did not read is changed in silence."""
    with pytest.raises(ValueRefusedError, match="at has the time zone"):
        await every_way(Reminder, Reminder(at=NOON))
