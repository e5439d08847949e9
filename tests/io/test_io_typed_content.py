"""D3.1: content that stands in no field, and numbers of models, come back or are refused."""

from __future__ import annotations

import collections
import dataclasses
from collections import defaultdict, deque
from decimal import Decimal
from typing import Any, NamedTuple

import pydantic
import pytest

from kassette_io import ValueRefusedError
from tests.io.keeping import assert_kept, every_way

pytestmark = pytest.mark.anyio


class Node:
    __slots__ = ("source",)


@dataclasses.dataclass
class Answer(Node):
    __slots__ = ("text",)
    text: str


class Hidden:
    __slots__ = ("__mark",)

    def mark(self) -> Hidden:
        self.__mark = 1
        return self


@dataclasses.dataclass
class Marked(Hidden):
    text: str = ""


class Slotted(pydantic.BaseModel):
    __slots__ = ("_beside",)

    text: str = ""


class Held(pydantic.BaseModel):
    answer: Answer | None = None
    last: deque[int] = pydantic.Field(default_factory=deque)
    counts: defaultdict[str, int] = pydantic.Field(default_factory=lambda: defaultdict(int))


def sourced() -> Answer:
    answer = Answer("hi")
    answer.source = "doc-17"  # type: ignore[attr-defined]
    return answer


def slotted() -> Slotted:
    value = Slotted(text="a")
    object.__setattr__(value, "_beside", 1)
    return value


LOST: dict[str, tuple[Any, Any, str]] = {
    "a slot of a base": (Answer, sourced(), ".source would be lost"),
    "in a list": (list[Answer], [Answer("a"), sourced()], "[1].source would be lost"),
    "in a model": (Held, Held(answer=sourced()), ".answer.source would be lost"),
    "a private slot": (Marked, Marked().mark(), "._Hidden__mark would be lost"),
    "a slot of a model": (Slotted, slotted(), "._beside would be lost"),
    "the length of a deque": (deque[int], deque([1], maxlen=2), ".maxlen is 2"),
    "in a model, the length of a deque": (
        Held,
        Held.model_construct(last=deque([1], maxlen=2), counts=defaultdict(int)),
        ".last.maxlen is 2",
    ),
    "a factory": (defaultdict[str, int], defaultdict(lambda: 5, a=1), ".default_factory is"),
    "in a model, a factory": (
        Held,
        Held.model_construct(last=deque(), counts=defaultdict(lambda: 5)),
        ".counts.default_factory is",
    ),
}


@pytest.mark.parametrize(("declared", "value", "why"), LOST.values(), ids=LOST)
async def test_d3_1_what_stands_in_no_field_is_refused(declared: Any, value: Any, why: str) -> None:
    """If it fails, content beside the fields is lost in the journal, and the run goes on."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, value)
    assert why in str(caught.value), str(caught.value)


async def test_d3_1_slots_and_containers_without_more_are_kept() -> None:
    """If it fails, what holds nothing beside its fields is refused for what it could hold."""
    await assert_kept(Answer, Answer("hi"))
    await assert_kept(Slotted, Slotted(text="a"))
    await assert_kept(deque[int], deque([1, 2]))
    await assert_kept(defaultdict[str, int], defaultdict(int, a=1))
    await assert_kept(defaultdict[str, list[int]], defaultdict(list, a=[1]))
    await assert_kept(collections.OrderedDict[str, int], collections.OrderedDict(a=1))
    await assert_kept(Held, Held(answer=Answer("a"), last=deque([1])))


class Pair(NamedTuple):
    one: float
    two: float = 0


@dataclasses.dataclass
class Price:
    net: float = 0
    steps: list[float] = dataclasses.field(default_factory=lambda: [0, 1])


class Cost(pydantic.BaseModel):
    cost: float = 0
    steps: list[float] = [0, 1]
    exact: Decimal = 0  # type: ignore[assignment]
    parts: list[Decimal] = [0]  # type: ignore[list-item]
    limit: float | None = 3
    by: dict[int, float] = {1: 2}
    known: set[float] = {0, 1.5}
    range: tuple[float, ...] = (1, 2)
    pair: Pair = Pair(1)
    price: Price = pydantic.Field(default_factory=Price)
    count: int = pydantic.Field(default=1, alias="n")
    last: deque[float] = pydantic.Field(default_factory=lambda: deque[float]([1]))


class Costs(pydantic.BaseModel):
    total: Cost = Cost()
    all: dict[str, list[Cost]] = {}
    raw: bytes = b""


class Scan(pydantic.BaseModel):
    raw: bytes
    price: Decimal = 0  # type: ignore[assignment]
    scale: float = 1


class Floats(pydantic.RootModel[list[float]]):
    pass


def assigned() -> Cost:
    value = Cost(cost=1.0, exact=Decimal("0"))
    value.limit = 7
    return value


NUMBERS: dict[str, tuple[Any, Any]] = {
    "defaults": (Cost, Cost()),
    "broken numbers": (Cost, Cost(cost=0.0, steps=[0.0], exact=Decimal("0.0"), limit=3.0)),
    "assigned": (Cost, assigned()),
    "in models": (Costs, Costs(all={"a": [Cost(), assigned()]})),
    "in a list": (list[Cost], [Cost(), Cost(cost=2.5)]),
    "a root": (Floats, Floats.model_construct([1, 2.0])),
    "beside bytes": (Costs, Costs(raw=b"\x89", total=assigned())),
    "in a model of bytes": (Scan, Scan(raw=b"\x89")),
    "a dataclass": (Price, Price()),
}


@pytest.mark.parametrize(("declared", "value"), NUMBERS.values(), ids=NUMBERS)
async def test_d3_1b_an_int_in_a_model_stays_the_int_that_it_is(declared: Any, value: Any) -> None:
    """If it fails, a model with ``cost: float = 0`` is refused after it was paid for."""
    await assert_kept(declared, value)


async def test_d3_1b_a_number_in_the_place_of_a_decimal_is_one() -> None:
    """If it fails, recorded JSON whose type became a Decimal is read as what has no ``quantize``."""
    seen, _ = await every_way(Cost, Cost(exact=Decimal(5)))
    assert all(type(each.exact) is Decimal for each in seen)
    value = Cost()
    value.exact = 5  # type: ignore[assignment]
    with pytest.raises(ValueRefusedError, match="exact is the number 5"):
        await every_way(Cost, value)
