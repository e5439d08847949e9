"""Ints in models: pydantic writes them as floats, but they must come back as ints.

Rules:
- An int in a float field of a model stays an int, whether it is an unvalidated default or was
  assigned. JSON distinguishes ``1`` from ``1.0``, and so does the journal.
- An int that is the default of a Decimal field is written as a number, while a Decimal is text, and
  is decoded as that default. Any other number in its place is decoded as a Decimal.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, cast

from kassette_io._values.type_forms import is_dict, is_list

_ABSENT: Final = object()
_SETTLED: Final = frozenset({str, float, bool, type(None)})
"""Types that neither are nor contain an int."""


def numbers_written(plain: Any, value: Any, default: Any = _ABSENT) -> Any:
    """Return ``plain``, which pydantic encoded from ``value``, with its ints as ints."""
    if type(value) is int:
        is_float = type(plain) is float and plain == value
        is_default = type(default) is int and value == default and type(plain) is str
        return value if is_float or is_default else plain
    if getattr(value, "__pydantic_root_model__", False):
        return numbers_written(plain, value.root)
    if is_list(plain):
        members = _members(value)
        if len(members) == len(plain) and not _SETTLED.issuperset(map(type, members)):
            return list(map(numbers_written, plain, members, _defaults(default, len(plain))))
    elif is_dict(plain):
        for key, part, _, usual in _parts(value, plain):
            if type(part) not in _SETTLED:
                plain[key] = numbers_written(plain[key], part, usual)
    return plain


def numbers_read(value: Any, plain: Any, default: Any = _ABSENT) -> Any:
    """Return ``value``, which pydantic decoded from ``plain``, with its ints as ints."""
    if type(plain) is int:
        is_default = type(default) is int and plain == default and isinstance(value, Decimal)
        return plain if (type(value) is float or is_default) and value == plain else value
    if getattr(value, "__pydantic_root_model__", False):
        vars(value)["root"] = numbers_read(value.root, plain)
    elif is_list(plain):
        members = [] if _SETTLED.issuperset(map(type, plain)) else _members(value)
        if members and len(members) == len(plain):
            return _with_members(
                value, list(map(numbers_read, members, plain, _defaults(default, len(plain))))
            )
    elif is_dict(plain):
        for key, part, name, usual in [*_parts(value, plain)]:
            if type(plain[key]) in _SETTLED:
                continue
            done = numbers_read(part, plain[key], usual)
            if done is part:
                continue
            if _is_a(value, dict):
                value[name] = done
            elif hasattr(value, "__dict__"):
                vars(value)[name] = done
            else:
                object.__setattr__(value, name, done)
    return value


def _members(value: Any) -> list[Any]:
    return [*value] if _is_a(value, list, tuple, set, frozenset, deque) else []


def _is_a(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds)


def _defaults(default: Any, count: int) -> list[Any]:
    known: list[Any] = default if is_list(default) and len(default) == count else []
    return known or [_ABSENT] * count


def _with_members(value: Any, members: list[Any]) -> Any:
    if all(one is other for one, other in zip(value, members, strict=True)):
        return value
    if isinstance(value, deque):
        return deque(members, value.maxlen)
    kind = cast("Any", type(value))
    return kind._make(members) if hasattr(kind, "_make") else kind(members)


def _parts(value: Any, plain: dict[Any, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield for each field its key in JSON, its value, its name, and its default."""
    kind = cast("Any", type(value))
    if _is_a(value, dict):
        if len(value) == len(plain):
            for key, (name, part) in zip(plain, value.items(), strict=True):
                yield key, part, name, _ABSENT
    elif hasattr(value, "__pydantic_fields_set__"):
        held = value.__dict__
        for name, keys, usual in _fields(kind):
            for key in keys:
                if key in plain and name in held:
                    yield key, held[name], name, usual
                    break
        extra: dict[str, Any] = value.__pydantic_extra__ or {}
        for name, part in extra.items():
            if name in plain and type(part) not in (int, float):
                yield name, part, name, _ABSENT
    elif hasattr(kind, "__dataclass_fields__"):
        for name, field in kind.__dataclass_fields__.items():
            if name in plain and hasattr(value, name):
                yield name, getattr(value, name), name, field.default


@functools.lru_cache(maxsize=1024)
def _fields(model: Any) -> list[tuple[str, list[str], Any]]:
    """Return the fields of a model: the names in JSON, and the default."""
    fields: dict[str, Any] = model.model_fields
    return [
        (
            name,
            [
                each
                for each in (field.serialization_alias, field.alias, field.validation_alias, name)
                if isinstance(each, str)
            ],
            field.default,
        )
        for name, field in fields.items()
    ]
