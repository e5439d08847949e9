"""D3.1b and D3.2: types that are JSON are checked, and never change a value."""

# ruff: noqa: UP006, UP007, UP045 - types are declared as older code writes them
from __future__ import annotations

import dataclasses
import datetime as dt
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
import typing_extensions as te
from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from kassette_io import UsageError, ValueRefusedError
from tests.io.keeping import assert_kept, every_way

pytestmark = pytest.mark.anyio

T = t.TypeVar("T")


class Block(t.TypedDict):
    type: Literal["text"]
    text: str


class Picture(te.TypedDict, total=False):
    type: te.Required[Literal["picture"]]
    url: str
    size: t.Tuple[int, int]


class Message(te.TypedDict):
    role: Literal["user", "assistant"]
    content: t.Union[str, Iterable[Block]]
    name: te.NotRequired[te.ReadOnly[str]]


class Reply(Message, total=False):
    parent: t.Required[int]
    score: float


class Tree(t.TypedDict):
    name: str
    children: t.List[Tree]


class Page(t.TypedDict, t.Generic[T]):
    items: t.List[T]
    after: t.Optional[str]


class Extra(te.TypedDict, extra_items=int):  # type: ignore[call-arg]
    name: str


class Dated(t.TypedDict):
    on: dt.date
    blocks: t.NotRequired[Iterable[Block]]


Json = te.TypeAliasType("Json", t.Union["dict[str, Json]", "list[Json]", str, int, None])
BLOCK = {"type": "text", "text": "hello"}

EQUAL: dict[str, tuple[Any, Any]] = {
    "no": (bool, False),
    "a number": (int, 0),
    "a whole number as a float": (float, 1),
    "a float": (float, 1.0),
    "text": (str, "1"),
    "nothing": (type(None), None),
    "numbers by name": (dict[str, int], {"a": 1}),
    "anything by name": (t.Dict[str, Any], {"a": [None, 1.5, {"b": True}]}),
    "any list": (list, [1, "a", None]),
    "any dict": (t.Dict, {"a": [1]}),
    "any JSON": (JsonValue, {"a": [1, None]}),
    "any object": (object, [1]),
    "an option": (t.Optional[int], None),
    "one of three": (t.Union[int, str, None], "x"),
    "one of two lists": (list[int] | list[str], ["a"]),
    "a literal": (Literal["a", 1, None], 1),
    "a literal as key": (dict[Literal["a", "b"], int], {"a": 1}),
    "a sequence": (Sequence[int], [1]),
    "a mapping": (Mapping[str, float], {"a": 1, "b": 1.5}),
    "a constraint": (Annotated[int, Field(gt=0, description="how many")], 3),
    "constraints inside": (dict[str, Annotated[list[int], Field(max_length=1)]], {"a": [1]}),
    "a remark": (Annotated[str, "a remark", 7], "x"),
    "itself inside": (Json, {"a": [{"b": None}, "c", 1]}),
    "a typed dict": (Block, BLOCK),
    "a typed dict without what may lack": (Picture, {"type": "picture"}),
    "an iterable of typed dicts": (list[Message], [{"role": "user", "content": [BLOCK]}]),
    "one of two typed dicts": (list[Block | Picture], [{"type": "picture", "url": "u"}, BLOCK]),
    "an inherited one": (Reply, {"role": "user", "content": "x", "parent": 1, "score": 1}),
    "a tree of typed dicts": (Tree, {"name": "a", "children": [{"name": "b", "children": []}]}),
    "a generic typed dict": (Page[int], {"items": [1], "after": None}),
    "more keys where they are declared": (Extra, {"name": "a", "b": 1}),
    "a typed dict that holds more than JSON": (
        Dated,
        {"on": dt.date(2026, 1, 2), "blocks": [BLOCK]},
    ),
    "such ones in an iterable": (Iterable[Dated], [{"on": dt.date(2026, 1, 2)}]),
}


@pytest.mark.parametrize(("declared", "value"), EQUAL.values(), ids=EQUAL)
async def test_d3_2_json_stays_as_it_is(declared: Any, value: Any) -> None:
    """If it fails, a schema drops or converts a part of what a step has given."""
    journaled = await assert_kept(declared, value)
    if "on" not in repr(value):
        assert repr(journaled) == repr(value)


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "text as a bool": (bool, "false", "it is the text 'false', but bool is declared"),
    "a number as a bool": (bool, 0, "it is the number 0, but bool is declared"),
    "a bool as a number": (int, True, "it is True, but int is declared"),
    "a bool as a float": (float, False, "it is False, but float is declared"),
    "text as a number": (int, "ten", "it is the text 'ten', but int is declared"),
    "digits as a number": (int, "10", "it is the text '10', but int is declared"),
    "a float as an int": (int, 1.0, "it is the number 1.0, but int is declared"),
    "a number as text": (str, 1, "it is the number 1, but str is declared"),
    "nothing as text": (str, None, "it is None, but str is declared"),
    "something as nothing": (type(None), 0, "it is the number 0, but None is declared"),
    "text among numbers": (dict[str, int], {"a": 1, "b": "2"}, "['b'] is the text '2'"),
    "deep inside": (dict[str, list[int]], {"a": [1, None]}, "['a'][1] is None, but int"),
    "a dict as a list": (list, {}, "it is an object (dict), but a list is declared"),
    "a list as a dict": (dict, [], "it is a list, but a dict is declared"),
    "a tuple as a list": (list[int], (1, 2), "it is a tuple, but a list is declared"),
    "a tuple as a sequence": (Sequence[int], (1, 2), "it is a tuple, but a list is declared"),
    "a generator as an iterable": (Iterable[int], iter([1]), "can be read only once"),
    "none of the options": (t.Union[int, str], 1.5, "it is the number 1.5, but Union[int, str]"),
    "no such literal": (Literal["a", "b"], "c", "it is the text 'c', but 'a' or 'b' is declared"),
    "true for one": (Literal[1], True, "it is True, but 1 is declared"),
    "no such key": (dict[Literal["a"], int], {"b": 1}, "['b'] is the text 'b', but 'a'"),
    "beyond a constraint": (
        Annotated[int, Field(gt=0)],
        0,
        "violates a constraint: Input should be",
    ),
    "text beyond a constraint": (Annotated[int, Field(gt=0)], "3", "it is the text '3', but int"),
    "changed by a constraint": (
        Annotated[str, StringConstraints(strip_whitespace=True)],
        " a ",
        "changed by its own",
    ),
    "not a number": (float, float("nan"), " is nan, which JSON does not support"),
    "a missing key": (Block, {"type": "text"}, "it lacks 'text', which Block requires"),
    "an undeclared key": (
        Block,
        BLOCK | {"x": 1},
        "it has the key 'x', which Block does not declare",
    ),
    "a wrong literal": (
        list[Message],
        [{"role": "robot", "content": ""}],
        "[0]['role'] is the text 'robot'",
    ),
    "wrong inside an iterable": (
        list[Message],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        "[0]['content'][0]['text'] is the number 1, but str is declared",
    ),
    "a generator in a typed dict": (
        Message,
        {"role": "user", "content": iter([BLOCK])},
        "['content'] is a list_iterator, which can be read only once",
    ),
    "an undeclared key in one of two": (
        list[Picture | Block],
        [BLOCK | {"x": 1}],
        "[0] has the key 'x', which Block does not declare",
    ),
    "a missing inherited key": (Reply, {"role": "user", "content": "x"}, "lacks 'parent'"),
    "deep in a tree": (
        Tree,
        {"name": "a", "children": [{"name": 1, "children": []}]},
        "['children'][0]['name']",
    ),
    "another item": (Page[int], {"items": ["a"], "after": None}, "['items'][0] is the text 'a'"),
    "more keys of another type": (Extra, {"name": "a", "b": "c"}, "['b'] is the text 'c'"),
    "more than JSON, undeclared": (Dated, {"on": dt.date(2026, 1, 2), "x": 1}, "has the key 'x'"),
    "more than JSON, and a generator": (
        Dated,
        {"on": dt.date(2026, 1, 2), "blocks": iter(())},
        "['blocks'] is a tuple_iterator",
    ),
}


@pytest.mark.parametrize(("declared", "value", "why"), REFUSED.values(), ids=REFUSED)
async def test_d3_1b_what_is_not_of_the_type_is_refused(
    declared: Any, value: Any, why: str
) -> None:
    """If it fails, the text "false" approves a refund."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, value)
    assert why in str(caught.value), str(caught.value)


async def test_d3_2_json_in_other_clothes_is_json_where_any_is_declared() -> None:
    """If it fails, rows of a database cannot be kept without a conversion by hand."""
    for declared in (Any, object, dict, dict[str, Any], T):
        seen, _ = await every_way(declared, {"rows": [(1, "a")]})
        assert seen == [{"rows": [[1, "a"]]}] * len(seen)


async def test_d3_1b_a_wrong_type_of_an_option_names_the_option() -> None:
    """If it fails, the message of a refused value is longer than a screen."""
    make: Any = te.TypedDict
    variants: Any = tuple(make(f"Variant{n}", {f"key{n}": int}) for n in range(40))
    many: Any = t.Union[variants]
    with pytest.raises(UsageError) as caught:
        await every_way(list[many], [{"x": 1}])
    assert len(str(caught.value)) < 400


@dataclasses.dataclass
class Drawing:
    data: Annotated[bytes, Field(max_length=1)]


class Line(t.TypedDict):
    role: str
    content: t.Iterable[str]


class Snapshot(t.TypedDict):
    taken: dt.date


def lower(value: bytes) -> bytes:
    return value.lower()


LINES: list[Any] = [{"role": "a", "content": ["x", "y"]}]
DAYS: list[Any] = [{"taken": dt.date(2026, 7, 1)}]
PASSING: dict[str, tuple[Any, Any]] = {
    "a description": (Annotated[list[Line], Field(description="the history")], LINES),
    "a description of bytes": (Annotated[bytes, Field(description="a picture")], b"\x89"),
    "a length": (Annotated[list[Line], Field(min_length=1)], LINES),
    "bytes": (Annotated[bytes, Field(max_length=3)], b"abc"),
    "an option": (Annotated[bytes | None, Field(max_length=3)], None),
    "a text or none": (Annotated[str | None, Field(max_length=3)], None),
    "typed dicts": (Annotated[list[Snapshot], Field(max_length=1)], DAYS),
    "a sequence": (Annotated[t.Sequence[str], Field(max_length=2)], ["a", "b"]),
    "strictly": (Annotated[int, Field(strict=True, ge=1)], 1),
    "what a validator leaves": (Annotated[bytes, AfterValidator(lower)], b"abc"),
    "one of two": (
        Annotated[bytes, Field(max_length=1)] | Annotated[str, Field(min_length=2)],
        "ab",
    ),
}
FAILING: dict[str, tuple[Any, Any]] = {
    "a length": (Annotated[list[Line], Field(min_length=2)], LINES),
    "bytes": (Annotated[bytes, Field(max_length=1)], b"abc"),
    "bytes in a list": (list[Annotated[bytes, Field(max_length=1)]], [b"abc"]),
    "bytes in a dataclass": (Drawing, Drawing(b"abc")),
    "an option": (Annotated[bytes | None, Field(max_length=1)], b"abc"),
    "typed dicts": (Annotated[list[Snapshot], Field(min_length=2)], DAYS),
    "a sequence": (Annotated[t.Sequence[str], Field(max_length=1)], ["a", "b"]),
    "an iterable": (Annotated[t.Iterable[int], Field(min_length=2)], [1]),
    "what a validator changes": (Annotated[bytes, AfterValidator(lower)], b"ABC"),
    "what does not apply": (Annotated[int, Field(max_length=1)], 1),
}


@pytest.mark.parametrize(("declared", "value"), PASSING.values(), ids=PASSING)
async def test_d3_6_extras_change_nothing_of_what_passes_them(declared: Any, value: Any) -> None:
    """If it fails, a description refuses every value of the type that it describes."""
    await assert_kept(declared, value)


@pytest.mark.parametrize(("declared", "value"), FAILING.values(), ids=FAILING)
async def test_d3_6_constraints_hold_whatever_the_type_holds(declared: Any, value: Any) -> None:
    """If it fails, a limit is a limit only for types of which pydantic can be given the whole."""
    with pytest.raises(ValueRefusedError):
        await every_way(declared, value)
