"""The structure of a declared type: how its values are encoded as JSON and decoded again.

Rules:
- The declared type decides the structure: lists, tuples, sets, dicts, TypedDicts, dataclasses,
  named tuples and unions are taken apart here, so that their items are checked by their own type
  and named by their path. Models and everything else are in ``models``.
- A part that is declared as JSON passes through unchanged, in both directions.
- Encoding never converts: a value of another class than declared is a misfit. Only if the whole
  value is JSON is it decoded as the journal's own form of the type, like a recorded one.
- For a union, the variant of the value's own class encodes. The JSON decides which variant decodes:
  the first that covers all of it, that is, encodes it to the same again; otherwise the first that
  fits. A type that an SDK builds unvalidated accepts anything, so it comes last; of several, the
  one with the fewest validation errors is used. If TypedDicts are declared next to models that an
  SDK builds, a model may come back as the equivalent dict.
- ``bytes`` are text if they are UTF-8, as in older journals, otherwise ``{"base64": …}``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from kassette.values import decode_value, encode_value, json_equal
from kassette_io._values.json_types import Changed, Check, Misfit, described, nearer, refuse
from kassette_io._values.sameness import has_equality
from kassette_io._values.type_forms import is_dict


class Writing:
    """The state of encoding one value.

    ``fieldwise`` encodes models field by field, under the names that decoding expects. ``trusted``
    has the parts for which a codec or a union is responsible, by id.
    """

    def __init__(self, *, fieldwise: bool) -> None:
        self.fieldwise = fieldwise
        self.trusted: dict[int, object] = {}


class Reading:
    """The state of decoding one value.

    ``given`` means that the JSON comes from a caller, not from a journal. ``trusted`` has the parts
    that a codec or a union has decoded, by id. The same object may also occur where neither is
    declared: the comparison skips a part only if it was both encoded and decoded by one.
    """

    def __init__(self, *, given: bool = False) -> None:
        self.given = given
        self.trusted: dict[int, object] = {}


class Shape:
    """One declared type. ``parts`` are the types that it consists of."""

    cls: Any = None
    parts: Sequence[Shape] = ()
    special = False
    """Whether pydantic alone would lose or refuse it."""

    def dump(self, value: Any, writing: Writing) -> Any:
        """Return ``value`` as JSON. Raise Misfit if it is not of this type."""
        raise NotImplementedError

    def load(self, plain: Any, reading: Reading) -> Any:
        """Return the value encoded as ``plain``.

        Raise Misfit if it is not JSON of this type.
        """
        raise NotImplementedError


class JsonShape(Shape):
    """A type that is JSON: checked, and passed through unchanged."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def dump(self, value: Any, writing: Writing) -> Any:
        self.check(value)
        return value

    def load(self, plain: Any, reading: Reading) -> Any:
        self.check(plain)
        return plain


class BytesShape(Shape):
    """Bytes: text if they are UTF-8, otherwise an object with base64."""

    cls = bytes
    special = True

    def dump(self, value: Any, writing: Writing) -> Any:
        if type(value) is not bytes:
            refuse(value, "bytes")
        if not writing.fieldwise:
            try:
                return value.decode()
            except UnicodeDecodeError:
                pass
        return {"base64": base64.b64encode(value).decode()}

    def load(self, plain: Any, reading: Reading) -> Any:
        if type(plain) is str:
            return plain.encode()
        if is_dict(plain) and plain.keys() == {"base64"}:
            try:
                return base64.b64decode(plain["base64"], validate=True)
            except (binascii.Error, TypeError, ValueError) as error:
                raise Misfit(f"is not base64: {error}", "['base64']") from error
        return refuse(plain, "bytes, as text or as {'base64': …},")


class CodecShape(Shape):
    """A user's ``ValueCodec``, which decides what counts as the same."""

    special = True

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def dump(self, value: Any, writing: Writing) -> Any:
        plain = asked(lambda: self._codec.to_json(value))
        what = f"what {type(self._codec).__name__}.to_json made of it"
        raw = asked(lambda: encode_value(plain, what))
        again = self.load(decode_value(raw), Reading())
        if type(again) is not type(value):
            raise Changed(f"would come back from from_json as {described(again)}")
        if _equality(value, again) is False:
            raise Changed("would not come back equal from from_json")
        if not json_equal(decode_value(raw), asked(lambda: self._codec.to_json(again))):
            raise Changed("would be written differently once it came back from from_json")
        writing.trusted[id(value)] = value
        return plain

    def load(self, plain: Any, reading: Reading) -> Any:
        value = asked(lambda: self._codec.from_json(plain))
        reading.trusted[id(value)] = value
        return value


class ConstrainedShape(Shape):
    """A type with constraints that cannot be left to pydantic as a whole."""

    special = True

    def __init__(self, shape: Shape, constraint: Check) -> None:
        self.cls = shape.cls
        self.parts = (shape,)
        self._constraint = constraint
        if _takes_anything(shape):
            self.complaints = cast("Any", shape).complaints

    def dump(self, value: Any, writing: Writing) -> Any:
        plain = self.parts[0].dump(value, writing)
        self._constraint(value)
        return plain

    def load(self, plain: Any, reading: Reading) -> Any:
        value = self.parts[0].load(plain, reading)
        self._constraint(value)
        return value


class UnionShape(Shape):
    """One of several types."""

    def __init__(self, variants: Sequence[Shape], expected: str, *, offers_dicts: bool) -> None:
        self.parts = [part for each in variants for part in _alternatives(each)]
        self._expected = expected
        self._unchecked = [each for each in self.parts if _takes_anything(each)]
        self._checked = [each for each in self.parts if not _takes_anything(each)]
        self._offers_dicts = offers_dicts

    def dump(self, value: Any, writing: Writing) -> Any:
        own = [each for each in self.parts if each.cls is type(value)]
        nearest: Misfit | None = None
        for variant in (*own, *(each for each in self.parts if each not in own)):
            try:
                plain = variant.dump(value, writing)
            except Misfit as misfit:
                nearest = nearer(nearest, misfit)
                continue
            if self._offers_dicts and _takes_anything(variant) and self._is_json(plain):
                writing.trusted[id(value)] = value
            return plain
        return self._refuse(value, nearest)

    def _is_json(self, plain: Any) -> bool:
        """Return whether the JSON of an SDK's model decodes as that same JSON."""
        try:
            again = self.load(plain, Reading())
        except Misfit:
            return False
        return is_dict(again) and json_equal(again, plain)

    def load(self, plain: Any, reading: Reading) -> Any:
        fitting: list[Any] = []
        nearest: Misfit | None = None
        for variant in self._checked:
            try:
                value = variant.load(plain, reading)
            except Misfit as misfit:
                nearest = nearer(nearest, misfit)
                continue
            if _holds_all(variant, value, plain):
                if self._offers_dicts and is_dict(value):
                    reading.trusted[id(value)] = value
                return value
            fitting.append(value)
        if self._unchecked and not (reading.given and self._offers_dicts):
            try:
                return self._least_wrong(plain).load(plain, reading)
            except Misfit as misfit:
                nearest = nearer(nearest, misfit)
        if fitting:
            return fitting[0]
        return self._refuse(plain, nearest)

    def _least_wrong(self, plain: Any) -> Shape:
        if len(self._unchecked) == 1:
            return self._unchecked[0]
        return min(self._unchecked, key=lambda each: cast("Any", each).complaints(plain))

    def _refuse(self, value: Any, nearest: Misfit | None) -> NoReturn:
        if nearest is None or not (nearest.path or nearest.is_meant or nearest.__cause__):
            refuse(value, self._expected)
        raise nearest


def _alternatives(shape: Shape) -> Sequence[Shape]:
    return shape.parts if isinstance(shape, UnionShape) else (shape,)


def _takes_anything(shape: Shape) -> bool:
    return hasattr(shape, "complaints")


def _holds_all(variant: Shape, value: Any, plain: Any) -> bool:
    if isinstance(variant, JsonShape):
        return True
    for fieldwise in (False, True):
        try:
            if json_equal(variant.dump(value, Writing(fieldwise=fieldwise)), plain):
                return True
        except Exception:
            continue
    return False


def _equality(one: Any, other: Any) -> object:
    """Return the result of the class's own equality; None if that is inconclusive."""
    if not has_equality(type(one)):
        return None
    try:
        return None if one != one else one == other  # NaN is not equal to itself
    except Exception:
        return None


def asked(ask: Callable[[], Any]) -> Any:
    """Return the result of a user's code; whatever it raises becomes a misfit with a cause."""
    try:
        return ask()
    except Misfit:
        raise
    except Exception as error:
        raise_what_was_wrapped(error)
        raise Misfit(f"is refused: {said(error)}") from error


def raise_what_was_wrapped(error: Exception) -> None:
    """Raise the interrupt that pydantic has wrapped in an ordinary error, if there is one."""
    if error.__cause__ is not None and not isinstance(error.__cause__, Exception):
        raise error.__cause__


def said(error: Exception) -> str:
    """Return the type and message of an error, even if its ``__str__`` raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


class Ahead(Shape):
    """A recursive alias, referred to inside of itself."""

    def dump(self, value: Any, writing: Writing) -> Any:
        return self.parts[0].dump(value, writing)

    def load(self, plain: Any, reading: Reading) -> Any:
        return self.parts[0].load(plain, reading)


def is_special(shape: Shape, seen: set[int] | None = None) -> bool:
    """Return whether pydantic alone would lose or refuse a part of it."""
    seen = set() if seen is None else seen
    if id(shape) in seen:
        return False
    seen.add(id(shape))
    return shape.special or any(is_special(each, seen) for each in shape.parts)
