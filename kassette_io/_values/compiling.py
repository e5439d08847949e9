"""Compiles a declared type into its shape: decides what is taken apart, and what pydantic does."""

from __future__ import annotations

import functools
import types
import typing
from collections import abc
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from importlib import import_module
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from kassette_io._values.containers import (
    DataclassShape,
    DictShape,
    ListShape,
    NamedTupleShape,
    SetShape,
    TupleShape,
    TypedDictShape,
)
from kassette_io._values.json_types import (
    DICTS,
    LISTS,
    Keys,
    NotJson,
    constraint_of,
    constraints,
    json_check,
)
from kassette_io._values.shapes import (
    Ahead,
    BytesShape,
    CodecShape,
    ConstrainedShape,
    JsonShape,
    Shape,
    UnionShape,
    is_special,
)
from kassette_io._values.type_forms import (
    is_annotated,
    is_codec,
    is_read_by_pydantic,
    is_typed_dict,
    spelled,
    substituted,
    typed_dict_fields,
    unwrap,
)

_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_SETS: Final[dict[Any, Any]] = {set: set, frozenset: frozenset}


@functools.lru_cache(maxsize=1024)
def _remembered_shape(declared: Any, spelling: str) -> Shape:
    return _Builder().shape(declared)


def shape_of(declared: Any) -> Shape:
    """Return the shape of ``declared``.

    Raise ImportError if pydantic is needed and missing, and whatever pydantic raises for a type
    that it does not support.
    """
    if is_codec(declared):
        return CodecShape(declared)
    import_module("pydantic")  # every type that is not JSON needs it, whether or not this one does
    try:
        # Unions that differ in their order are equal, and are not the same here.
        return _remembered_shape(declared, repr(declared))
    except TypeError:
        return _Builder().shape(declared)


class _Builder:
    def __init__(self) -> None:
        self._begun: dict[tuple[int, str], Shape] = {}

    def shape(self, declared: Any) -> Shape:
        try:
            return JsonShape(json_check(declared))
        except NotJson:
            pass
        if isinstance(declared, _FUNCTIONS):
            raise TypeError("a function is not a type")
        if isinstance(declared, (str, typing.ForwardRef)):
            raise NameError(f"{declared!r} cannot be resolved; pass the type itself")
        unwrapped = unwrap(declared)
        if unwrapped is not declared:
            return self._alias(declared, unwrapped)
        if is_annotated(declared):
            return self._annotated(declared)
        origin, arguments = get_origin(declared) or declared, get_args(declared)
        if origin in (Union, types.UnionType):
            return self._union(declared, arguments)
        if is_typed_dict(origin):
            return self._typed_dict(declared)
        if origin is bytes:
            return BytesShape()
        if origin in LISTS:
            return ListShape(self.shape(arguments[0]))
        if origin in _SETS and arguments:
            return SetShape(_SETS[origin], self.shape(arguments[0]))
        if origin is tuple:
            return self._tuple(declared, arguments)
        if origin in DICTS:
            return DictShape(arguments[0], self.shape(arguments[1]))
        if origin is cast("Any", abc).Callable:
            raise TypeError("a callable cannot be journaled")
        if not isinstance(origin, type):
            return _leaf(declared)
        if issubclass(origin, (abc.Iterator, abc.AsyncIterable, abc.Awaitable)):
            raise TypeError("an iterator can be read only once, so it cannot be journaled")
        return self._class(declared, origin, arguments)

    def _alias(self, declared: Any, unwrapped: Any) -> Shape:
        key = id(get_origin(declared) or declared), repr(declared)
        if key in self._begun:
            return self._begun[key]
        self._begun[key] = ahead = Ahead()
        ahead.parts = [self.shape(unwrapped)]
        return ahead.parts[0]

    def _annotated(self, declared: Any) -> Shape:
        base, *extras = get_args(declared)
        codec = next(filter(is_codec, extras), None)
        if codec is not None:
            return CodecShape(codec)
        from kassette_io._values.answers import built_by_their_sdk

        together = built_by_their_sdk(declared, base, extras)
        if together is not None:
            return together
        shape = self.shape(base)
        said = [each for each in extras if is_read_by_pydantic(each)]
        if said and not is_special(shape):
            return _leaf(declared)
        rules = [rule for some in constraints(said) for rule in some]
        rules += [each for each in said if type(each).__name__ == "AfterValidator"]
        constraint = constraint_of(rules)
        return shape if constraint is None else ConstrainedShape(shape, constraint)

    def _union(self, declared: Any, arguments: Sequence[Any]) -> Shape:
        variants: list[Shape] = []
        refused: Exception | None = None
        for each in arguments:
            try:
                variants.append(self.shape(each))
            except ImportError:
                raise
            except Exception as error:  # a variant that cannot be decoded is never written: skip it
                refused = error
        if refused is not None and not variants:
            raise refused
        offers_dicts = any(map(_offers_dict, arguments))
        return UnionShape(variants, spelled(declared), offers_dicts=offers_dicts)

    def _typed_dict(self, declared: Any) -> Shape:
        key = id(get_origin(declared) or declared), repr(declared)
        if key in self._begun:
            return self._begun[key]
        fields, extra = typed_dict_fields(declared)
        shape = TypedDictShape(Keys(declared, fields, extra is not None))
        self._begun[key] = shape
        shape.fill(
            {key: self.shape(each) for key, (each, _) in fields.items()},
            None if extra is None else self.shape(extra),
        )
        return shape

    def _tuple(self, declared: Any, arguments: Sequence[Any]) -> Shape:
        if declared in (tuple, typing.Tuple):  # noqa: UP006 - as older code spells it
            return TupleShape([self.shape(Any)], any_length=True)
        if len(arguments) == 2 and arguments[1] is ...:
            return TupleShape([self.shape(arguments[0])], any_length=True)
        return TupleShape([self.shape(each) for each in arguments], any_length=False)

    def _class(self, declared: Any, cls: Any, arguments: Sequence[Any]) -> Shape:
        parameters = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
        if hasattr(cls, "__dataclass_fields__") and not hasattr(cls, "__pydantic_validator__"):
            return self._dataclass(declared, cls, parameters)
        if tuple in cls.__mro__ and hasattr(cls, "_fields"):
            return self._named_tuple(declared, cls, parameters)
        return _leaf(declared)

    def _named_tuple(self, declared: Any, cls: Any, parameters: Mapping[Any, Any]) -> Shape:
        key = id(cls), repr(declared)
        if key in self._begun:
            return self._begun[key]
        self._begun[key] = shape = NamedTupleShape(cls)
        hints = _hints(cls, parameters)
        shape.fill([self.shape(hints.get(each, Any)) for each in cls._fields])
        return shape

    def _dataclass(self, declared: Any, cls: Any, parameters: Mapping[Any, Any]) -> Shape:
        key = id(cls), repr(declared)
        if key in self._begun:
            return self._begun[key]
        self._begun[key] = shape = DataclassShape(cls)
        hints = _hints(cls, parameters)
        taken = [each for each in cls.__dataclass_fields__.values() if each.init]
        taken = [each for each in taken if each._field_type.name == "_FIELD"]
        shape.fill(
            {each.name: self.shape(hints[each.name]) for each in taken},
            frozenset(
                each.name
                for each in taken
                if each.default is MISSING and each.default_factory is MISSING
            ),
        )
        return shape


def _offers_dict(declared: Any) -> bool:
    """Return whether a TypedDict is among the alternatives of ``declared``."""
    unwrapped = unwrap(declared)
    if unwrapped is not declared:
        return _offers_dict(unwrapped)
    origin, arguments = get_origin(declared) or declared, get_args(declared)
    if is_annotated(declared):
        return _offers_dict(arguments[0])
    if origin in (Union, types.UnionType):
        return any(map(_offers_dict, arguments))
    return is_typed_dict(origin)


def _hints(cls: Any, parameters: Mapping[Any, Any]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: substituted(each, parameters) for name, each in hints.items()}


def _leaf(declared: Any) -> Shape:
    from kassette_io._values.models import leaf

    return leaf(declared)
