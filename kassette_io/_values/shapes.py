"""The structure of a declared type: how a value of it becomes JSON, and is read back as itself.

Rules:
- The declared type decides the structure: lists, tuples, sets, dicts, TypedDicts, dataclasses,
  named tuples and unions are taken apart here, so that what they hold is judged by its own type
  and named by its path. What is left, models and everything else, is ``_models``.
- A part that is declared as JSON passes through as it is, in both directions.
- Writing never converts: a value of another class than declared is a misfit. Only when the whole
  value is JSON is it read as the journal's own form of the type, as a recorded one would be.
- Of a union the variant of the value's own class writes. What is written says which variant reads
  it: the first that holds all of it, that is, writes the same again; where none does, the first
  that fits. A type that an SDK builds unchecked takes anything, so it is asked after the others;
  of several the one that validation has least against. Where TypedDicts are declared beside models
  that an SDK builds, a model may come back as the dict that says the same.
- ``bytes`` are text where they are UTF-8, as older journals have them, else ``{"base64": …}``.
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
    """What holds while one value is written.

    ``fieldwise`` writes models field by field, under the names that reading takes. ``trusted`` are
    the parts that a codec or a union answers for, by id.
    """

    def __init__(self, *, fieldwise: bool) -> None:
        self.fieldwise = fieldwise
        self.trusted: dict[int, object] = {}


class Reading:
    """What holds while one value is read.

    ``given`` says that a caller gave the JSON, and it was not read from a journal. ``trusted`` are
    the parts that a codec or a union has made, by id. The same object may stand where neither is
    declared: only where one has written the part and one has made it is there nothing to compare.
    """

    def __init__(self, *, given: bool = False) -> None:
        self.given = given
        self.trusted: dict[int, object] = {}


class Shape:
    """One declared type. ``parts`` are the types that it is made of."""

    cls: Any = None
    parts: Sequence[Shape] = ()
    special = False
    """Whether pydantic cannot be left alone with it."""

    def dump(self, value: Any, writing: Writing) -> Any:
        """Return ``value`` as JSON. Raises Misfit if it is not of this type."""
        raise NotImplementedError

    def load(self, plain: Any, reading: Reading) -> Any:
        """Return what ``plain`` stands for.

        Raises Misfit if it stands for nothing of this type.
        """
        raise NotImplementedError


class JsonShape(Shape):
    """A type that is JSON: checked, and passed as it is."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def dump(self, value: Any, writing: Writing) -> Any:
        self.check(value)
        return value

    def load(self, plain: Any, reading: Reading) -> Any:
        self.check(plain)
        return plain


class BytesShape(Shape):
    """Bytes: text where they are UTF-8, an object that holds base64 otherwise."""

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
    """A way of one's own; it answers for what counts as the same."""

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
            raise Changed("would come back from from_json as another one")
        if not json_equal(decode_value(raw), asked(lambda: self._codec.to_json(again))):
            raise Changed("would be written differently once it came back from from_json")
        writing.trusted[id(value)] = value
        return plain

    def load(self, plain: Any, reading: Reading) -> Any:
        value = asked(lambda: self._codec.from_json(plain))
        reading.trusted[id(value)] = value
        return value


class ConstrainedShape(Shape):
    """A type with constraints, of which pydantic cannot be given the whole."""

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
        """Tell whether what an SDK's model is written as comes back as just that JSON."""
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
    """Compare as the class does, if it does; None where that says nothing."""
    if not has_equality(type(one)):
        return None
    try:
        return None if one != one else one == other  # NaN is another one to itself
    except Exception:
        return None


def asked(ask: Callable[[], Any]) -> Any:
    """Return what somebody else's code answers; whatever it raises is a misfit with a cause."""
    try:
        return ask()
    except Misfit:
        raise
    except Exception as error:
        raise_what_was_wrapped(error)
        raise Misfit(f"is refused: {said(error)}") from error


def raise_what_was_wrapped(error: Exception) -> None:
    """Raise the interrupt that pydantic has made an ordinary error of, if it has."""
    if error.__cause__ is not None and not isinstance(error.__cause__, Exception):
        raise error.__cause__


def said(error: Exception) -> str:
    """Return the name and the message of an error, whatever its ``__str__`` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


class Ahead(Shape):
    """A recursive alias, met inside of itself."""

    def dump(self, value: Any, writing: Writing) -> Any:
        return self.parts[0].dump(value, writing)

    def load(self, plain: Any, reading: Reading) -> Any:
        return self.parts[0].load(plain, reading)


def is_special(shape: Shape, seen: set[int] | None = None) -> bool:
    """Tell whether pydantic alone would lose or refuse a part of it."""
    seen = set() if seen is None else seen
    if id(shape) in seen:
        return False
    seen.add(id(shape))
    return shape.special or any(is_special(each, seen) for each in shape.parts)
