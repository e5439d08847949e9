"""JSON values: what may be journaled, how it is encoded and decoded; no entries, no files.

Rule, live equals replay: a step returns what its encoded form decodes to, so a value is encoded,
decoded and compared before anything is journaled. If the two differ, the value is either equivalent
to plain JSON (a tuple, a dict subclass: accepted, and returned as the plain value immediately) or
not a JSON value at all (refused, with the path to the offending part).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NoReturn, cast

import orjson

from kassette.errors import ValueRefusedError

_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_MAX_DIGITS = 20
_MAX_DEPTH = 254


def encode_value(value: object, what: str = "value") -> bytes:
    """Encode a JSON value compactly. Raise what ``settle_value`` raises."""
    return settle_value(value, what)[0]


def settle_value(value: object, what: str = "value") -> tuple[bytes, Any]:
    """Encode a JSON value compactly; return that text and what it decodes to.

    ``what`` begins the path in messages, for example ``result of step 'llm'``. Raise
    ValueRefusedError for anything that would not come back equal: NaN and infinities, integers
    beyond 64 bits, keys that are not strings, lone surrogates, cycles, nesting beyond 254 levels,
    and every type that JSON does not support.
    """
    try:
        raw = orjson.dumps(value, option=_STRICT)
        settled = orjson.loads(raw)
        if settled == value:
            return raw, settled
    except (orjson.JSONEncodeError, orjson.JSONDecodeError, RecursionError) as error:
        _explain(value, what)
        raise ValueRefusedError(f"{what} cannot be written as JSON: {error}") from error
    _explain(value, what)
    return raw, settled


def _explain(value: object, what: str) -> None:
    """Raise ValueRefusedError for the part of ``value`` that is not JSON, if there is one."""
    try:
        _check(value, what, ())
    except RecursionError as error:
        raise ValueRefusedError(f"{what} is nested too deeply for the available stack") from error


def decode_value(raw: bytes) -> Any:
    """Decode a JSON value. Raise ValueError if ``raw`` is not JSON.

    A lone surrogate escape is legal JSON and occurs in journals written by JavaScript (a text cut
    in the middle of an emoji), so if the stricter parser refuses, a second one is tried.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if b"\\u" not in raw:
            raise
    try:
        return json.loads(
            raw.decode(), parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def rewrite_value(value: object) -> bytes:
    """Encode any value that ``decode_value`` has returned."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def json_equal(left: object, right: object) -> bool:
    """Return whether two decoded JSON values are equal: ``1`` equals ``1.0`` but not ``true``."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        one, other = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        return one.keys() == other.keys() and all(json_equal(one[k], other[k]) for k in one)
    if isinstance(left, list) and isinstance(right, list):
        ones, others = cast("Sequence[Any]", left), cast("Sequence[Any]", right)
        return len(ones) == len(others) and all(map(json_equal, ones, others))
    return left == right


def writable_text(text: str) -> str:
    """Return text that can always be encoded: lone surrogates become visible escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("a number is beyond the range of a double")
    return number


def _whole(digits: str) -> int | float:
    """Parse an integer as the stricter parser does: one beyond 64 bits becomes a double."""
    if len(digits) <= _MAX_DIGITS and _MIN_INT <= (number := int(digits)) <= _MAX_INT:
        return number
    return _finite(digits)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _check(value: object, path: str, above: tuple[int, ...]) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(path, "contains a lone surrogate, which UTF-8 cannot represent")
    elif isinstance(value, int):
        if not _MIN_INT <= value <= _MAX_INT:
            _refuse(path, "is an integer beyond 64 bits; use a string")
    elif type(value) is float:
        if not isfinite(value):
            _refuse(path, f"is {value!r}, which JSON does not support; use None or a string")
    elif isinstance(value, dict):
        inside = _descend(value, path, above)  # pyright: ignore[reportUnknownArgumentType]
        for key, item in cast("Mapping[object, object]", value).items():
            if type(key) is not str:
                _refuse(path, f"has the key {key!r}; JSON keys are strings")
            _check(key, f"{path}, key {key!r}", inside)
            _check(item, f"{path}[{key!r}]", inside)
    elif isinstance(value, list) or type(value) is tuple:
        inside = _descend(value, path, above)  # pyright: ignore[reportUnknownArgumentType]
        for index, item in enumerate(cast("Sequence[object]", value)):
            _check(item, f"{path}[{index}]", inside)
    else:
        _refuse(
            path,
            f"is a {type(value).__module__}.{type(value).__qualname__}, which JSON does not "
            "support; convert it to plain values, or declare its type (result_type, a return "
            "annotation, events=) with pydantic installed",
        )


def _descend(value: object, path: str, above: tuple[int, ...]) -> tuple[int, ...]:
    if id(value) in above:
        _refuse(path, "contains itself")
    if len(above) >= _MAX_DEPTH:
        _refuse(path[:200] + "…", f"is nested deeper than {_MAX_DEPTH} levels")
    return (*above, id(value))


def _refuse(path: str, why: str) -> NoReturn:
    raise ValueRefusedError(f"{path} {why}. Nothing was written")
