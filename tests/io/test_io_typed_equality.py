"""D3.1: a value of a declared type comes back equal, or is refused before anything is written."""

# ruff: noqa: UP007, UP045 - types are declared as older code writes them

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import typing as t
import zoneinfo
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pydantic
import pytest
from pydantic.alias_generators import to_camel
from typing_extensions import TypeAliasType

from kassette_io import UsageError, ValueRefusedError
from tests.io.keeping import assert_kept, every_way, strictly_same

pytestmark = pytest.mark.anyio

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class Base(pydantic.BaseModel):
    id: str


class Approval(Base):
    call_id: str = ""


class A(pydantic.BaseModel):
    text: str


class B(pydantic.BaseModel):
    text: str


class Aliased(pydantic.BaseModel):
    count: int = pydantic.Field(default=0, serialization_alias="Count")


class Excluding(pydantic.BaseModel):
    a: int
    token: str = pydantic.Field(default="", exclude=True)


class Private(pydantic.BaseModel):
    a: int
    _seen: int = pydantic.PrivateAttr(default=0)


def private(seen: int) -> Private:
    made = Private(a=1)
    made._seen = seen
    return made


class Loose(pydantic.BaseModel):
    payload: Any


class Hiding(pydantic.BaseModel):
    data: bytes
    token: str = pydantic.Field(default="", exclude=True)


class Secret(pydantic.BaseModel):
    key: pydantic.SecretStr


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    width: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.width


class Cached(pydantic.BaseModel):
    a: int

    @cached_property
    def half(self) -> float:
        return self.a / 2


def cached() -> Cached:
    made = Cached(a=1)
    assert made.half == 0.5
    return made


class Camel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True)
    first_name: str
    born_on: dt.date | None = None


class Numbers(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="strings")
    x: float


class NullNumbers(pydantic.BaseModel):
    x: float | None


class Tree(pydantic.BaseModel):
    name: str
    children: list[Tree] = []


class Ids(pydantic.RootModel[list[UUID]]):
    pass


@dataclasses.dataclass
class Point:
    x: float


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


@dataclasses.dataclass
class Counted:
    a: int
    calls: int = dataclasses.field(init=False, default=0)


def counted(calls: int) -> Counted:
    made = Counted(1)
    made.calls = calls
    return made


@dataclasses.dataclass
class Hidden:
    a: int
    b: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    at: dt.datetime
    next: Slotted | None = None


@dataclasses.dataclass
class Needy:
    seed: dataclasses.InitVar[int]
    a: int = 0


class Liar(pydantic.BaseModel):
    """Equal to everything."""

    a: int
    b: Any = None

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(enum.StrEnum):
    ANN = "ann"


class Flags(enum.Flag):
    R = 1
    W = 2


class Pair(t.NamedTuple):
    left: int
    right: dt.date


T = t.TypeVar("T")


@dataclasses.dataclass
class Box(t.Generic[T]):
    item: T


class Text(str):
    __slots__ = ()


def cyclic() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


Money = Annotated[
    int,
    pydantic.PlainSerializer(lambda cents: f"{cents / 100:.2f}", return_type=str),
    pydantic.BeforeValidator(lambda text: round(float(text) * 100) if type(text) is str else text),
]
Count = t.NewType("Count", int)
Nested = TypeAliasType("Nested", t.Union[dt.date, "list[Nested]"])

EQUAL: dict[str, tuple[Any, Any]] = {
    "an iterable of numbers": (t.Iterable[int], [1, 2, 3]),
    "an iterable of dates": (t.Iterable[dt.date], [dt.date(2026, 1, 2)]),
    "text by number": (dict[int, str], {1: "a", 2: "b"}),
    "a model by number": (dict[int, A], {1: A(text="x")}),
    "numbers by day": (dict[dt.date, list[int]], {dt.date(2026, 1, 2): [1]}),
    "by colour": (dict[Colour, dict[int, float]], {Colour.RED: {1: 1}}),
    "an int where a float is declared": (Point, Point(1)),
    "ints and floats in a tuple": (tuple[float, float], (0, 1.5)),
    "a set of text": (set[str], {"a", "b", "c"}),
    "a frozen set of dates": (frozenset[dt.date], frozenset({dt.date(2026, 1, 2)})),
    "an enum": (Colour, Colour.RED),
    "an int enum": (Level, Level.HIGH),
    "a text enum": (list[Name], [Name.ANN]),
    "a flag": (Flags, Flags.R),
    "a named tuple": (Pair, Pair(1, dt.date(2026, 1, 2))),
    "nothing": (t.Optional[A], None),
    "some option": (t.Optional[A], A(text="x")),
    "the longer of two": (Base | Approval, Approval(id="1", call_id="2")),
    "the shorter of two": (Approval | Base, Base(id="1")),
    "the first of two that look alike": (t.Union[A, B], A(text="a")),
    "a model or text": (A | str, "x"),
    "a day or an instant": (dt.date | dt.datetime, dt.datetime(2026, 1, 2)),  # noqa: DTZ001
    "an instant or a day": (dt.datetime | dt.date, dt.date(2026, 1, 2)),
    "a number or its text": (int | Decimal, Decimal("5.0")),
    "an instant in UTC": (dt.datetime, dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)),
    "an instant with an offset": (
        dt.datetime,
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    ),
    "a private attribute that is fresh": (Private, private(0)),
    "an excluded field at its default": (Excluding, Excluding(a=1)),
    "that, beside bytes": (Hiding, Hiding(data=b"\xff")),
    "a field that is not taken, as it begins": (Counted, counted(0)),
    "a field that is not compared": (Hidden, Hidden(1, "b")),
    "fields beside the declared ones": (Open, Open.model_validate({"a": 1, "b": [1, None]})),
    "a computed field of a closed model": (Closed, Closed(width=2)),
    "a cached property": (Cached, Cached(a=1)),
    "names in two spellings": (Camel, Camel(first_name="a", born_on=dt.date(2026, 1, 2))),
    "minus zero": (Numbers, Numbers(x=-0.0)),
    "a tree": (Tree, Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])),
    "a root model": (Ids, Ids([UUID(int=1)])),
    "a linked list": (Slotted, Slotted(dt.datetime(2026, 1, 2), Slotted(dt.datetime.min))),  # noqa: DTZ001, DTZ901
    "a generic dataclass": (Box[dt.date], Box(dt.date(2026, 1, 2))),
    "a generic dataclass of whatever": (Box, Box([1, "a"])),
    "an odd equality": (Liar, Liar(a=1)),
    "a serializer and its validator": (dict[str, Money], {"a": 150}),
    "a new type": (list[Count], [1]),
    "nested dates": (Nested, [dt.date(2026, 1, 2), [dt.date(2026, 1, 3), []]]),
    "bytes": (bytes, b"\x89PNG\x00"),
    "bytes that are text": (list[bytes], [b"abc", "ä".encode(), b""]),
    "bytes or text": (bytes | str, b"abc"),
    "text or bytes": (str | bytes, b"\xff"),
    "text that is text": (str | bytes, "abc"),
    "duration, path, id": (
        tuple[dt.timedelta, Path, UUID],
        (dt.timedelta(days=-1, microseconds=1), Path("a/b"), UUID(int=3)),
    ),
    "any JSON in a tuple": (tuple[Any, ...], ({"a": [1, None]}, "x")),
}


@pytest.mark.parametrize(("declared", "value"), EQUAL.values(), ids=EQUAL)
async def test_d3_1_it_comes_back_equal(declared: Any, value: Any) -> None:
    """If it fails, a workflow works on something else than its step has given."""
    await assert_kept(declared, value)


Unsigned = Annotated[float, pydantic.PlainSerializer(abs, return_type=float)]
Rounded = Annotated[
    Decimal, pydantic.PlainSerializer(lambda one: str(one.normalize()), return_type=str)
]

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "a sign that zero has": (Unsigned, -0.0, "is the number -0.0"),
    "digits that equality ignores": (Rounded, Decimal("1.10"), "is a decimal.Decimal"),
    "an excluded field beside bytes": (Hiding, Hiding(data=b"\xff", token="keep"), ".token is"),
    "a subclass": (Base, Approval(id="1", call_id="c"), "Approval, but Base is declared"),
    "subclasses in a list": (list[Base], [Base(id="0"), Approval(id="1")], "[1] is a "),
    "a subclass of a dataclass": (Point, Point3(1, 7), "Point3, but Point is declared"),
    "the second of two that look alike": (t.Union[A, B], B(text="b"), "would come back as a "),
    "an alias for writing": (Aliased, Aliased(count=5), ".count is the number 5"),
    "an excluded field": (Excluding, Excluding(a=1, token="keep"), ".token is the text 'keep'"),
    "a secret": (
        Secret,
        Secret(key=pydantic.SecretStr("sk")),
        ".key is a pydantic.types.SecretStr",
    ),
    "a private attribute": (Private, private(2), "._seen is the number 2"),
    "a field that is not taken": (Counted, counted(3), ".calls is the number 3"),
    "what a dataclass was only made from": (Needy, Needy(1, 2), "missing 1 required"),
    "a model under Any": (Loose, Loose(payload=A(text="x")), ".payload is a "),
    "a tuple under Any": (Loose, Loose(payload=(1, 2)), ".payload is a tuple"),
    "a date under Any": (Box, Box(dt.date(2026, 1, 2)), "['item'] is a datetime.date"),
    "what an odd equality hides": (Liar, Liar(a=1, b=A(text="x")), ".b is a "),
    "a named zone": (dt.datetime, dt.datetime(2026, 7, 1, tzinfo=BERLIN), "has the time zone"),
    "the second of two equal hours": (
        dt.datetime,
        dt.datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001
        "fold=1",
    ),
    "not a number": (Numbers, Numbers.model_construct(x=A(text="")), "is refused"),
    "not a number under an option": (
        NullNumbers,
        NullNumbers(x=math.nan),
        "is nan, which JSON does not support",
    ),
    "infinity": (Point, Point(math.inf), "is inf, which JSON does not support"),
    "infinity in a model": (Numbers, Numbers(x=math.inf), "is inf, which JSON does not support"),
    "an attribute that was added": (Point, Point(1), ".extra would be lost"),
    "a class that only counts": (dict[str, dt.date], Counter(a=1), "a collections.Counter"),
    "an ordered dict": (dict[str, Decimal], OrderedDict(a=Decimal(1)), "OrderedDict"),
    "a dict with a factory": (dict[str, list[dt.date]], defaultdict(list), "defaultdict"),
    "a text of its own": (list[str], [Text("a")], "[0] is a "),
    "a member of an enum as text": (str, Name.ANN, "Name, but str is declared"),
    "a member of an enum as number": (int, Level.HIGH, "Level, but int is declared"),
    "a named tuple as a tuple": (tuple[int, dt.date], Pair(1, dt.date(2026, 1, 2)), "Pair"),
    "an instant as a day": (dt.date, dt.datetime(2026, 1, 2), "is declared|come back|refused"),  # noqa: DTZ001
    "text that looks like a day": (dt.date | str, "2026-01-02", "would come back as a datetime"),
    "keys that JSON writes alike": (dict[int | str, A], {1: A(text=""), "1": A(text="")}, "keys"),
    "a combined flag as its number": (int, Flags.R | Flags.W, "but int is declared"),
    "a generator": (t.Iterable[dt.date], iter(()), "can be read only once"),
    "true as a number in a model": (Point, Point(True), ".x is True, but float is declared"),
    "half a surrogate": (A, A.model_construct(text="\ud800"), "refused|surrogate"),
    "a cycle": (list[Any], cyclic(), "contains itself"),
}
vars(REFUSED["an attribute that was added"][1])["extra"] = 1


@pytest.mark.parametrize(("declared", "value", "why"), REFUSED.values(), ids=REFUSED)
async def test_d3_1_what_would_change_is_refused(declared: Any, value: Any, why: str) -> None:
    """If it fails, content is lost in the journal itself, and the run goes on without it."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, value)
    assert any(each in str(caught.value) for each in why.split("|")), str(caught.value)
    assert "Nothing was written" in str(caught.value)


async def test_d3_1_a_cached_property_is_no_content() -> None:
    """If it fails, looking at a model makes it unfit for the journal."""
    seen, _ = await every_way(Cached, cached())
    assert all(each == Cached(a=1) for each in seen)


async def test_d3_1_unions_that_differ_in_their_order_are_two_types() -> None:
    """If it fails, which of two types a value is rebuilt as depends on what was declared before."""
    await assert_kept(A | B, A(text="x"))
    await assert_kept(B | A, B(text="x"))
    with pytest.raises(UsageError):
        await every_way(A | B, B(text="x"))


async def test_d3_1_json_is_taken_for_the_journals_form_of_a_type() -> None:
    """If it fails, a webhook's body has to be made a model first, or is taken for one by half."""
    for declared, plain, value in (
        (
            Camel,
            {"firstName": "a", "bornOn": "2026-01-02"},
            Camel(first_name="a", born_on=dt.date(2026, 1, 2)),
        ),
        (set[int], [1], {1}),
        (tuple[dt.date, ...], ["2026-01-02"], (dt.date(2026, 1, 2),)),
        (Point, {"x": 1}, Point(1)),
        (bytes, {"base64": "iQ=="}, b"\x89"),
    ):
        seen, _ = await every_way(declared, plain)
        assert all(strictly_same(each, value) for each in seen)
    for declared, plain in (
        (Point, {}),
        (Point, {"x": "1"}),
        (bytes, {"base64": "?"}),
        (set[int], ["1"]),
    ):
        with pytest.raises(UsageError):
            await every_way(declared, plain)


async def test_bytes_are_text_where_they_can_be() -> None:
    """If it fails, journals that older versions wrote are read as other bytes."""
    assert await assert_kept(list[bytes], [b"abc", b"\x89"]) == ["abc", {"base64": "iQ=="}]


class Picture(pydantic.BaseModel):
    name: str
    data: bytes
    more: list[bytes] = []


async def test_bytes_in_a_model_come_back() -> None:
    """If it fails, a picture in an answer is a raw UnicodeDecodeError."""
    plain = await assert_kept(Picture, Picture(name="a", data=b"\x89PNG", more=[b"a", b"\xff"]))
    assert plain["data"] == {"base64": "iVBORw=="}
    assert (await assert_kept(Picture, Picture(name="a", data=b"abc")))["data"] == "abc"
    await assert_kept(dict[str, list[Picture]], {"a": [Picture(name="a", data=b"\x89")]})


class Moody(pydantic.BaseModel):
    a: int

    @pydantic.model_validator(mode="after")
    def judge(self) -> Moody:
        if self.a == 1:
            raise RuntimeError("bad mood")
        return self

    @pydantic.field_serializer("a")
    def write(self, a: int) -> int:
        if a == 2:
            raise LookupError("no words")
        return a


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@dataclasses.dataclass
class Careful:
    a: int

    def __post_init__(self) -> None:
        if self.a == 1:
            raise Speechless


@pytest.mark.parametrize(
    ("declared", "value", "cause"),
    [
        (Moody, Moody.model_construct(a=1), RuntimeError),
        (Moody, {"a": 1}, RuntimeError),
        (list[Moody], [Moody(a=2)], Exception),
        (Careful, {"a": 1}, Speechless),
        (Careful | None, {"a": 1}, Speechless),
    ],
)
async def test_d3_6_whatever_a_validator_raises_is_a_refusal_with_its_cause(
    declared: Any, value: Any, cause: type[Exception]
) -> None:
    """If it fails, an error out of a user's class looks like one of the workflow."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, value)
    assert isinstance(caught.value.__cause__, cause)


class Interrupting(pydantic.BaseModel):
    a: int

    @pydantic.field_serializer("a")
    def write(self, a: int) -> int:
        raise KeyboardInterrupt


async def test_d3_6_an_interrupt_is_not_an_error_of_a_type() -> None:
    """If it fails, Ctrl-C while a value is written is taken for a bad value."""
    with pytest.raises(KeyboardInterrupt):
        await every_way(Interrupting, Interrupting(a=1))
