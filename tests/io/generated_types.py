"""Declared types with values of them, generated: models, dataclasses, TypedDicts, nested anyhow."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
import types
import typing as t
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import typing_extensions as te
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict


class Kind(NamedTuple):
    """A declared type and a strategy for its values."""

    declared: Any
    values: st.SearchStrategy[Any]


typing: Any = t  # its forms are called with what is only known here
ext: Any = te


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


names = map("Made{}".format, count())
text = st.text(st.characters(codec="utf-8"), max_size=4)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
LEAVES = [
    Kind(int, st.integers(-(2**63), 2**63 - 1)),
    Kind(float, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5)),
    Kind(bool, st.booleans()),
    Kind(str, text),
    Kind(type(None), st.none()),
    Kind(Any, plain),
    Kind(bytes, st.binary(max_size=4)),
    Kind(dt.date, st.dates()),
    Kind(
        dt.datetime,
        st.datetimes(timezones=st.none() | st.just(dt.UTC)).map(lambda at: at.replace(fold=0)),
    ),
    Kind(dt.timedelta, st.timedeltas(dt.timedelta(days=-5), dt.timedelta(days=5))),
    Kind(UUID, st.uuids()),
    Kind(Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=2)),
    Kind(Colour, st.sampled_from(Colour)),
    Kind(Level, st.sampled_from(Level)),
    Kind(t.Literal["a", 1, None], st.sampled_from(["a", 1, None])),
]
HASHABLE = (int, bool, str, dt.date, UUID, Colour, Level)


def collected(inner: Kind) -> list[Kind]:
    """Give the containers of one kind."""
    many = st.lists(inner.values, max_size=3)
    of: Any = inner.declared
    made = [
        Kind(list[of], many),
        Kind(typing.Iterable[of], many),
        Kind(tuple[of, ...], many.map(tuple)),
        Kind(dict[str, of], st.dictionaries(text, inner.values, max_size=2)),
        Kind(dict[int, of], st.dictionaries(st.integers(0, 9), inner.values, max_size=2)),
        Kind(typing.Optional[of], st.none() | inner.values),
        Kind(ext.Annotated[of, "a remark"], inner.values),
    ]
    if inner.declared in HASHABLE:
        made.append(Kind(set[of], many.map(set)))
        made.append(Kind(frozenset[of], many.map(frozenset)))
    return made


def fielded(fields: dict[str, Kind], number: int, style: Any) -> list[Kind]:
    """Give classes with these fields, whose annotations are evaluated or text."""
    name = next(names)
    module = types.ModuleType(name)
    sys.modules[name] = module
    declared: dict[str, Any] = {key: kind.declared for key, kind in fields.items()}
    vars(module).update({f"T{key}": each for key, each in declared.items()}, te=te)
    hints: dict[str, Any] = {key: f"T{key}" for key in declared} if style == "text" else declared
    space: dict[str, Any] = {"__module__": name, "__annotations__": dict(hints)}
    values = st.fixed_dictionaries({key: kind.values for key, kind in fields.items()})

    def built(make: Callable[..., Any]) -> st.SearchStrategy[Any]:
        return values.map(lambda given: make(**given))

    def model(config: ConfigDict) -> Any:
        meta: Any = type(BaseModel)
        made: Any = meta(f"{name}m", (BaseModel,), space | {"model_config": config})
        vars(module)[made.__name__] = made
        made.model_rebuild(_types_namespace=vars(module))
        return made

    dataclass: Any = dataclasses.dataclass(type(name, (), dict(space)))
    closed = model(ConfigDict(extra="forbid", alias_generator=str.upper, populate_by_name=True))
    opened = model(ConfigDict(extra="allow"))
    # pydantic's models take those of typing from 3.12 on
    make: Any = (te.TypedDict, t.TypedDict)[number % 2 if sys.version_info >= (3, 12) else 0]
    whole: Any = make(f"{name}d", dict(declared))
    partly: Any = make(f"{name}e", {key: ext.NotRequired[each] for key, each in declared.items()})
    some = values.flatmap(
        lambda given: st.sets(st.sampled_from([*given]) if given else st.nothing()).map(
            lambda keys: {key: given[key] for key in given if key in keys}
        )
    )
    checked = [Kind(closed, built(closed)), Kind(opened, built(opened).flatmap(extended))]
    if "Iterable" in repr(declared):  # a model itself makes of it what can be read but once
        checked = []
    return [*checked, Kind(dataclass, built(dataclass)), Kind(whole, values), Kind(partly, some)]


def extended(model: Any) -> st.SearchStrategy[Any]:
    """Give the model with a field beside the declared ones."""
    return text.map(lambda extra: with_extra(model, extra))


def with_extra(model: Any, extra: str) -> Any:
    made = model.model_copy()
    made.__pydantic_extra__ = {"beside": extra}
    return made


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> Kind:
    """Give a declared type with a strategy for its values."""
    leaf: Kind = draw(st.sampled_from(LEAVES))
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return leaf
    form = draw(st.sampled_from(["container", "union", "class", "alias"]))
    if form == "container":
        held: Kind = draw(st.sampled_from(collected(draw(kinds(depth - 1)))))
        return held
    if form == "union":
        variants = [draw(kinds(depth - 1)) for _ in range(draw(st.integers(2, 3)))]
        declared = typing.Union[tuple(each.declared for each in variants)]
        return Kind(declared, st.one_of(*(each.values for each in variants)))
    if form == "alias":
        inner = draw(kinds(depth - 1))
        return Kind(ext.TypeAliasType("Alias", inner.declared), inner.values)
    keys = draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True))
    fields = {key: draw(kinds(depth - 1)) for key in keys}
    style = draw(st.sampled_from(["text", "evaluated"]))
    classed: Kind = draw(st.sampled_from(fielded(fields, draw(st.integers(0, 1)), style)))
    return classed
