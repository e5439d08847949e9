"""JSON that a caller passes instead of a typed value: a webhook's body, a job's raw input.

Rules:
- It is treated as the journal's own form of its type, so the decoded value must encode to the same
  JSON. Decoding may be lax (pydantic reads 20260701 as an instant in 1970); such a conversion is
  refused, with the path.
- Equal numbers are the same, ``1`` and ``1.0``, and so is the same value in another spelling: times
  in ISO 8601 (``Z`` and ``+00:00``, zeros of a fraction), durations in ISO 8601, digits of a
  Decimal, and text that classes of the standard library and pydantic read as equal (UUIDs, paths,
  addresses). Text is never a number, and a number is never text.
- Fields may be omitted if they have defaults. A key that would be dropped is refused, unless the
  model has ``extra="ignore"``; the key of a computed field must have the computed value.
- Answers of SDKs are decoded as their SDK does.
- A default factory may return a new value each time, so two inputs that omit such a field are the
  same input. A factory that is a builtin class always returns the same, and counts as a default.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple, cast

from kassette.values import json_equal
from kassette_io._values.json_types import Changed, described, inside
from kassette_io._values.sameness import is_received
from kassette_io._values.shapes import BytesShape, Reading
from kassette_io._values.type_forms import is_dict, is_list

_ISO_DURATION = re.compile(r"[+-]?P")
_FRACTION = re.compile(r"[.,](\d+)")


def check_read(given: Any, written: Any, value: Any) -> None:
    """Check that ``written``, encoded from the ``value`` decoded from ``given``, is the same JSON.

    Raise Changed if it is not.
    """
    if json_equal(given, written) or is_received(cast("Any", type(value))):
        return
    if getattr(value, "__pydantic_root_model__", False):
        check_read(given, written, value.root)
    elif is_dict(given) and is_dict(written):
        _check_object(given, written, value)
    elif is_list(given) and is_list(written):
        _check_list(given, written, value)
    elif not _says_the_same(given, written, value):
        raise Changed(f"is {described(given)}, and would be read as {value!r}")


def _check_object(given: dict[Any, Any], written: dict[Any, Any], value: Any) -> None:
    fields = _fields(value)
    if fields is None:
        _check_dict(given, written, value)
        return
    by_name = {each: field for field in fields for each in field.names}
    for key, each in given.items():
        with inside(f"[{key!r}]"):
            field = by_name.get(key)
            if field is None:
                if key not in written and not _may_go(key, each, value):
                    raise Changed(f"would be lost: {type(value).__name__} does not declare it")
                check_read(each, written.get(key, each), None)
                continue
            name = field.key_in(written)
            if name is None:
                raise Changed("would be lost")
            check_read(each, written[name], getattr(value, field.name, None))


def _may_go(key: str, said: Any, value: Any) -> bool:
    """Return whether a model ignores a key, or computes the value that it has."""
    kind = cast("Any", type(value))
    if key in getattr(kind, "model_computed_fields", ()):
        return json_equal(said, value.model_dump(mode="json", include={key})[key])
    config: Any = getattr(value, "model_config", getattr(value, "__pydantic_config__", {}))
    return bool(config.get("extra") == "ignore")


def _check_dict(given: dict[Any, Any], written: dict[Any, Any], value: Any) -> None:
    held: dict[Any, Any] = value if _is_a(value, dict) else {}
    in_order = [*held.items()] if len(held) == len(given) == len(written) else []
    for place, (key, each) in enumerate(given.items()):
        with inside(f"[{key!r}]"):
            if key in written:
                part = held.get(key, in_order[place][1] if in_order else None)
                check_read(each, written[key], part)
            elif in_order and _says_the_same(key, [*written][place], in_order[place][0]):
                check_read(each, [*written.values()][place], in_order[place][1])
            else:
                raise Changed("would be lost")


def _check_list(given: list[Any], written: list[Any], value: Any) -> None:
    is_set = isinstance(value, (set, frozenset))
    defaults = len(written) - len(given) if hasattr(value, "_fields") else 0
    if len(given) != len(written) - max(defaults, 0):
        raise Changed(f"has {len(given)} items, and would be read as {len(written)}")
    left = [*zip(written, _members(value, len(written)), strict=False)]
    for place, each in enumerate(given):
        with inside(f"[{place}]"):
            if is_set:
                left.remove(next(filter(_is_read_of(each), left), left[0]))
            else:
                check_read(each, *left[place])


def _members(value: Any, count: int) -> list[Any]:
    return [*value] if _is_a(value, list, tuple, set, frozenset, deque) else [None] * count


def _is_a(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds)


def _is_read_of(given: Any) -> Callable[[tuple[Any, Any]], bool]:
    def is_it(candidate: tuple[Any, Any]) -> bool:
        try:
            check_read(given, *candidate)
        except Changed:
            return False
        return True

    return is_it


def _says_the_same(given: Any, written: Any, value: Any) -> bool:
    if type(value) is bytes:
        return _bytes(given) == value or _base64(given) == _base64(written) is not None
    if type(given) is not str or type(written) is not str:
        return json_equal(given, written)
    try:
        return given == written or _is_spelled(given, value)
    except Exception:
        return False


def _bytes(plain: Any) -> Any:
    try:
        return BytesShape().load(plain, Reading())
    except Exception:
        return None


def _base64(text: Any) -> str | None:
    """Return base64 in one of its two alphabets, without padding."""
    return text.replace("+", "-").replace("/", "_").rstrip("=") if type(text) is str else None


def _is_spelled(text: str, value: Any) -> bool:
    """Return whether ``text`` is one of the usual spellings of ``value``."""
    digits = _FRACTION.search(text)
    if isinstance(value, (date, time, timedelta)) and digits and digits[1][6:].strip("0"):
        return False  # for example a fraction in nanoseconds
    if isinstance(value, timedelta):
        return _ISO_DURATION.match(text) is not None
    if isinstance(value, (date, time)):
        if isinstance(value, datetime) and len(text) <= len("2026-07-01"):
            return False
        again: Any = type(value).fromisoformat(text.upper())
        return again == value and str(again) == str(value)
    if isinstance(value, Decimal):
        return Decimal(text).as_tuple() == value.as_tuple()
    kind = cast("Any", type(value))
    package = kind.__module__.partition(".")[0]
    if isinstance(value, (str, Enum)) or package not in _READERS:
        return False
    return bool(kind(text) == value)


_READERS: Final = (sys.stdlib_module_names | {"pydantic", "pydantic_core"}) - {"builtins"}


# --- inputs that leave fields to factories ------------------------------------------------


def made_alike(given: Any, written: Any, value: Any, recorded: Any) -> Any:
    """Return ``recorded`` with the factories' values of ``given`` in the fields that it omits.

    If the two still differ, they are different inputs.
    """
    if is_list(given) and is_list(written) and is_list(recorded):
        parts = _members(value, len(written))
        if len(given) == len(written) == len(recorded) == len(parts):
            sides = zip(given, written, parts, recorded, strict=True)
            return [made_alike(*each) for each in sides]
    if not (is_dict(given) and is_dict(written) and is_dict(recorded)):
        return recorded
    done = dict(recorded)
    for field in _fields(value) or _keys(given, value):
        key, name = field.key_in(given), field.key_in(written)
        if name is None or name not in recorded:
            continue
        part: Any = getattr(value, field.name, None) if field.names else field.held
        if key is not None:
            done[name] = made_alike(given[key], written[name], part, recorded[name])
        elif field.factory is not None:
            done[name] = _made(field.factory, written[name], part, recorded[name])
    return done


def _made(factory: Any, written: Any, value: Any, recorded: Any) -> Any:
    if isinstance(factory, type):
        if factory.__module__ == "builtins":
            return recorded
        if _fields(value) is not None:
            return made_alike({}, written, value, recorded)
    return written


class _Field(NamedTuple):
    """A field of an object: its possible names in JSON, and its default factory, if any."""

    name: str
    names: tuple[str, ...]
    factory: Any = None
    held: Any = None

    def key_in(self, plain: Mapping[Any, Any]) -> str | None:
        return next((each for each in self.names or (self.name,) if each in plain), None)


def _fields(value: Any) -> list[_Field] | None:
    """Return the fields of a model or dataclass; None for any other object."""
    kind = cast("Any", type(value))
    if hasattr(kind, "__pydantic_validator__"):
        own: Any = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", {})
        return [
            _Field(name, tuple(_names(name, each)), each.default_factory)
            for name, each in own.items()
        ]
    if not hasattr(kind, "__dataclass_fields__"):
        return None
    own = kind.__dataclass_fields__.values()
    return [
        _Field(
            each.name,
            (each.name,),
            each.default_factory if callable(each.default_factory) else None,
        )
        for each in own
    ]


def _keys(given: dict[Any, Any], value: Any) -> Iterator[_Field]:
    held: dict[Any, Any] = value if _is_a(value, dict) else {}
    in_order = [*held.values()] if len(held) == len(given) else [None] * len(given)
    for place, key in enumerate(given):
        yield _Field(key, (), None, held.get(key, in_order[place]))


def _names(name: str, field: Any) -> Iterator[str]:
    said = field.validation_alias
    for each in (field.serialization_alias, field.alias, said, *getattr(said, "choices", ()), name):
        if isinstance(each, str):
            yield each
