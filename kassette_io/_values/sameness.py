"""Whether a decoded value is the same as the original: type by type, field by field.

``==`` alone is not enough: the equality of a class may ignore parts on purpose
(``field(compare=False)``, private attributes, time zones), or be wrong. What is compared:

- Types, everywhere: an int is not the float that equals it, a subclass is not its base.
- Numbers and text by content: NaN equals itself, ``-0.0`` is not ``0.0``, ``Decimal("1.10")`` has
  its digits. Times by clock reading, ``fold`` and offset; a named zone is more than an offset.
- Lists and tuples in order; dicts and sets by their members, in any order.
- pydantic models: fields, extra fields, private attributes and anything else set on the instance.
  For models that an SDK builds (``answers``), also which fields were received. For other models
  that is ignored: their defaults are written, so that a later default changes no recorded run.
- For an answer and its parts the declared type decides the class: the received data must be the
  same, whichever of the SDK's classes contains it. If the declared type does not cover a part that
  an SDK's parser created, JSON from which that part can be recreated counts as the same.
- Dataclasses: every field, including ``init=False`` and ``compare=False``, and other attributes.
- Attributes are those in ``__dict__`` and in slots, except for classes of the standard library and
  pydantic. A deque also has its ``maxlen``, a defaultdict its factory.
- Objects of other classes: ``==``, and their attributes if they have any. An object with neither
  equality nor attributes cannot be compared, and is refused.
- Cached properties are ignored.
"""

from __future__ import annotations

import functools
import sys
from collections import defaultdict, deque
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from math import copysign, isnan
from typing import Any, Final, cast

from kassette_io._values.json_types import described

_KNOWN: Final = sys.stdlib_module_names | {"pydantic", "pydantic_core"}
_BY_VALUE: Final = frozenset({str, int, bool, type(None), bytes, bytearray, timedelta, date})


def difference(
    given: Any,
    rebuilt: Any,
    *,
    trusted: tuple[Collection[int], Collection[int]] = ((), ()),
    loosely: bool = False,
) -> tuple[str, str] | None:
    """Return where the two differ and how; None if they are the same.

    ``trusted`` has the ids of original and of decoded values for which codecs are responsible.
    ``loosely`` treats equal numbers as the same, as the comparison of inputs does.
    """
    return _Comparison(trusted, loosely).of(given, rebuilt, "")


class _Comparison:
    def __init__(self, trusted: tuple[Collection[int], Collection[int]], loosely: bool) -> None:
        self._written, self._read = trusted
        self._loosely = loosely
        self._in_answer = False
        self._in_argument = False

    def of(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        kind = cast("Any", type(given))
        if kind is not type(rebuilt):
            if id(given) in self._written and id(rebuilt) in self._read:
                return None
            if self._loosely and {kind, type(rebuilt)} == {int, float} and given == rebuilt:
                return None
            if isinstance(given, tzinfo) and _is_fixed(given) and _is_fixed(rebuilt):
                return _unless(given.utcoffset(None) == rebuilt.utcoffset(None), given, path)
            if self._in_answer and _may_be_json(given, rebuilt, anything=self._in_argument):
                return self._as_json(given, rebuilt, path)
            if builds_itself(kind) and builds_itself(type(rebuilt)):
                return self._answers(given, rebuilt, path)
            return path, f"is {described(given)}, and would come back as {described(rebuilt)}"
        if kind in _BY_VALUE:
            return _unless(given == rebuilt, given, path)
        if id(given) in self._written and id(rebuilt) in self._read:
            return None
        if kind is float:
            return _unless(_same_float(given, rebuilt), given, path)
        if kind is list or kind is tuple:
            return self._in_order(given, rebuilt, path)
        if kind is dict:
            return self._by_key(given, rebuilt, path)
        return self._other(given, rebuilt, path)

    def _other(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        if given is rebuilt:
            return None
        if isinstance(given, Enum):
            return self._members(given, rebuilt, path)
        if isinstance(given, Decimal):
            same = given == rebuilt if self._loosely else given.as_tuple() == rebuilt.as_tuple()
            return _unless(same, given, path)
        if isinstance(given, (datetime, time)):
            return self._times(given, rebuilt, path)
        if hasattr(given, "__pydantic_fields_set__"):
            return self._models(given, rebuilt, path)
        if isinstance(given, (deque, defaultdict)):
            found = self._kept_beside(cast("Any", given), rebuilt, path)
            if found is not None:
                return found
        if isinstance(given, (list, tuple, deque)):
            found = self._in_order(cast("list[Any]", given), rebuilt, path)
        elif isinstance(given, dict):
            found = self._by_key(given, rebuilt, path)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(given, (set, frozenset)):
            found = self._sets(cast("set[Any]", given), rebuilt, path)
        elif hasattr(given, "__dataclass_fields__"):
            return self._fields(given, rebuilt, path)
        else:
            return self._objects(given, rebuilt, path)
        return found or self._attributes(given, rebuilt, path)

    def _kept_beside(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        """Compare what a container of the standard library has besides its members."""
        for name in ("maxlen", "default_factory"):
            one = getattr(given, name, None)
            if one != getattr(rebuilt, name, None):
                return f"{path}.{name}", f"is {one!r}, and would be lost"
        return None

    def _in_order(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        if len(given) != len(rebuilt):
            return path, f"has {len(given)} items, and would come back with {len(rebuilt)}"
        of = self.of
        for index, each in enumerate(given):
            found = of(each, rebuilt[index], f"{path}[{index}]")
            if found is not None:
                return found
        return None

    def _by_key(
        self, given: Mapping[Any, Any], rebuilt: Mapping[Any, Any], path: str
    ) -> tuple[str, str] | None:
        if given.keys() != rebuilt.keys():
            lost = next((key for key in given if key not in rebuilt), None)
            if lost is None:
                added = next(key for key in rebuilt if key not in given)
                return path, f"would come back with {added!r} added"
            return f"{path}[{lost!r}]", "would be lost"
        keys = None
        for key, value in given.items():
            if type(key) is not str:
                keys = keys or {each: each for each in rebuilt}
                found = self.of(key, keys[key], f"{path}, key {key!r}")
                if found is not None:
                    return found
            found = self.of(value, rebuilt[key], f"{path}[{key!r}]")
            if found is not None:
                return found
        return None

    def _sets(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        members = {each: each for each in rebuilt}
        if len(given) != len(members) or any(each not in members for each in given):
            return path, "would come back with other members"
        return next(
            filter(None, (self.of(each, members[each], f"{path}{{{each!r}}}") for each in given)),
            None,
        )

    def _members(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        same = given.name == rebuilt.name and given.value == rebuilt.value
        return _unless(same, given, path)

    def _times(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        if self._loosely:
            return _unless(given == rebuilt, given, path)
        if given.replace(tzinfo=None) != rebuilt.replace(tzinfo=None) or given.fold != rebuilt.fold:
            return path, f"is {given!r}, and would come back as {rebuilt!r}"
        found = self.of(given.tzinfo, rebuilt.tzinfo, path)
        if found is None:
            return None
        return path, f"has the time zone {given.tzinfo!r}, and would come back with its offset"

    def _models(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        if builds_itself(type(given)):
            return self._answers(given, rebuilt, path)
        found = self._attributes(given, rebuilt, path)
        if found is None:
            found = self._beside(given, rebuilt, "__pydantic_extra__", path)
        if found is None:
            found = self._beside(given, rebuilt, "__pydantic_private__", path)
        if found is None and is_received(cast("Any", type(given))):
            # extra fields are among them or not, as the object was made
            fields = cast("Any", type(given)).model_fields.keys()
            others: set[str] = (given.model_fields_set ^ rebuilt.model_fields_set) & fields
            if others:
                names = ", ".join(sorted(others))
                return path, f"would come back with other fields set: {names}"
        return found

    def _answers(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        from kassette_io._values.answers import argument, hung_on, sent_parts

        kind = cast("Any", type(given))
        one, other = sent_parts(given), sent_parts(rebuilt)
        for name, (where, value) in one.items():
            if name not in other:
                return f"{path}{where}", "would be lost"
            with self._inside_answer(argument(kind, where[1:]) is not None):
                found = self.of(value, other[name][1], f"{path}{where}")
            if found is not None:
                return found
        added = ", ".join(name for name in other if name not in one)
        if added:
            return path, f"would come back with other fields set: {added}"
        for name in kind.model_fields.keys() - given.model_fields_set:
            # a default that was mutated, not replaced; the other class may not have the field
            other_default = rebuilt.__dict__.get(name)
            found = self.of(given.__dict__.get(name), other_default, f"{path}.{name}")
            if found is not None:
                return found
        found = self._beside(given, rebuilt, "__pydantic_private__", path)
        if found is None and not self._in_answer:  # an SDK sets its own tools on the parts
            found = self._by_name(hung_on(given), hung_on(rebuilt), path)
        return found

    def _as_json(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        """Compare an object that an SDK's parser created with the JSON that replaces it."""
        from kassette_io._values.compiling import shape_of
        from kassette_io._values.shapes import Reading

        if isinstance(given, (tuple, set, frozenset)):
            return self._in_order(list(cast("Any", given)), rebuilt, path)
        try:
            again = shape_of(type(given)).load(rebuilt, Reading())
        except Exception:
            return path, f"is {described(given)}, and cannot be recreated from its JSON"
        return self.of(given, again, path)

    @contextmanager
    def _inside_answer(self, in_argument: bool) -> Generator[None]:
        before = self._in_answer, self._in_argument
        self._in_answer, self._in_argument = True, in_argument or self._in_argument
        try:
            yield
        finally:
            self._in_answer, self._in_argument = before

    def _beside(self, given: Any, rebuilt: Any, name: str, path: str) -> tuple[str, str] | None:
        one = cast("dict[str, Any]", getattr(given, name, None) or {})
        other = cast("dict[str, Any]", getattr(rebuilt, name, None) or {})
        return self._by_name(one, other, path)

    def _fields(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        given_fields, rebuilt_fields = _state(given), _state(rebuilt)
        for name in given.__dataclass_fields__:  # a default may exist only on the class
            for each, state in ((given, given_fields), (rebuilt, rebuilt_fields)):
                if hasattr(each, name):
                    state[name] = getattr(each, name)
        return self._by_name(given_fields, rebuilt_fields, path)

    def _objects(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        kind = cast("Any", type(given))
        by_equality = has_equality(kind)
        state = _state(given)
        if by_equality and (given == rebuilt) is not True:
            return path, f"is {described(given)}, and would not come back equal"
        if not by_equality and not state:
            return path, f"is {described(given)}, which cannot be compared with what comes back"
        return self._by_name(state, _state(rebuilt), path)

    def _attributes(self, given: Any, rebuilt: Any, path: str) -> tuple[str, str] | None:
        return self._by_name(_state(given), _state(rebuilt), path)

    def _by_name(
        self, given: dict[str, Any], rebuilt: dict[str, Any], path: str
    ) -> tuple[str, str] | None:
        for name, value in given.items():
            if name not in rebuilt:
                return f"{path}.{name}", "would be lost"
            found = self.of(value, rebuilt[name], f"{path}.{name}")
            if found is not None:
                return found
        added = next((name for name in rebuilt if name not in given), None)
        return None if added is None else (f"{path}.{added}", "would be added")


def _may_be_json(given: Any, rebuilt: Any, *, anything: bool) -> bool:
    """Return whether ``rebuilt`` may be the JSON of ``given``, created by an SDK's parser."""
    if type(rebuilt) not in (dict, list, str, int, float, bool, type(None)):
        return False
    return anything or is_dataclass(given) or hasattr(given, "__pydantic_fields_set__")


def has_equality(kind: Any) -> bool:
    """Return whether the class defines equality."""
    return kind.__eq__ is not object.__eq__


def builds_itself(cls: Any) -> bool:
    """Return whether a pydantic model has its own unvalidating builder, as models of SDKs do.

    The SDK builds every answer with it, so undeclared fields, types and literals from a provider
    are not an error there, and must not be one here.
    """
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not issubclass(cls, pydantic.BaseModel):
        return False
    builder = cls.model_construct.__func__
    return all(
        builder is not each.model_construct.__func__
        for each in (pydantic.BaseModel, pydantic.RootModel)
    )


def is_received(cls: type) -> bool:
    """Return whether an SDK builds the model from a provider's response, validated or not."""
    return builds_itself(cls) or hasattr(cls, "_from_response")


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, without cached ones."""
    kind = cast("Any", type(value))
    state = dict(getattr(value, "__dict__", None) or {})
    for name in [each for each in state if _is_cached(kind, each)]:
        del state[name]
    for base in kind.__mro__:
        if has_equality(kind) and base.__module__.partition(".")[0] in _KNOWN:
            continue  # its equality covers its slots, and some of them are caches
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = f"_{base.__name__.lstrip('_')}{name}" if _is_private(name) else name
            if name not in ("__dict__", "__weakref__") and hasattr(value, mangled):
                state[mangled] = getattr(value, mangled)
    return state


def _is_private(name: str) -> bool:
    return name.startswith("__") and not name.endswith("__")


def _is_cached(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), functools.cached_property)


def _is_fixed(zone: Any) -> bool:
    return isinstance(zone, timezone) or type(zone).__module__ == "pydantic_core._pydantic_core"


def _same_float(given: float, rebuilt: float) -> bool:
    if isnan(given):
        return isnan(rebuilt)
    return given == rebuilt and copysign(1, given) == copysign(1, rebuilt)


def _unless(same: object, given: object, path: str) -> tuple[str, str] | None:
    return None if same is True else (path, f"is {described(given)}, and would come back changed")
