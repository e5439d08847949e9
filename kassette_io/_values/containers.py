"""Shapes of containers: lists, sets, tuples, dicts, TypedDicts, dataclasses.

Rules:
- A value must be of exactly the declared class: a Counter would come back as a plain dict.
- A misfit in a part names the path to that part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from kassette.values import rewrite_value
from kassette_io._values.json_types import Keys, Misfit, refuse
from kassette_io._values.shapes import Reading, Shape, Writing, asked
from kassette_io._values.type_forms import is_dict, is_list, spelled


class ListShape(Shape):
    """A list, whatever the declared kind of sequence."""

    cls = list
    special = False

    def __init__(self, item: Shape) -> None:
        self.parts = (item,)

    def dump(self, value: Any, writing: Writing) -> Any:
        if not is_list(value):
            refuse(value, "a list")
        return _each(value, lambda each: self.parts[0].dump(each, writing))

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_list(plain):
            refuse(plain, "a list")
        return _each(plain, lambda each: self.parts[0].load(each, reading))


class SetShape(Shape):
    """A set or a frozen set, written as a list."""

    def __init__(self, cls: type[set[Any]] | type[frozenset[Any]], item: Shape) -> None:
        self.cls = self._make = cls
        self.parts = (item,)

    def dump(self, value: Any, writing: Writing) -> Any:
        if cast("Any", type(value)) is not self.cls:
            refuse(value, f"a {spelled(self.cls)}")
        return _each([*value], lambda each: self.parts[0].dump(each, writing))

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_list(plain):
            refuse(plain, "a list")
        return self._make(_each(plain, lambda each: self.parts[0].load(each, reading)))


class TupleShape(Shape):
    """A tuple with one item per part, or with any number of items of one type."""

    cls = tuple

    def __init__(self, parts: Sequence[Shape], *, any_length: bool) -> None:
        self.parts = parts
        self._any_length = any_length

    def _pairs(self, value: Any) -> list[tuple[Any, Shape]]:
        if self._any_length:
            return [(each, self.parts[0]) for each in value]
        if len(value) != len(self.parts):
            raise Misfit(f"has {len(value)} items, but {len(self.parts)} are declared")
        return list(zip(value, self.parts, strict=True))

    def dump(self, value: Any, writing: Writing) -> Any:
        if type(value) is not self.cls:
            refuse(value, f"a {spelled(self.cls)}")
        return _each(self._pairs(value), lambda pair: pair[1].dump(pair[0], writing))

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_list(plain):
            refuse(plain, "a list")
        return tuple(_each(self._pairs(plain), lambda pair: pair[1].load(pair[0], reading)))


class NamedTupleShape(TupleShape):
    """A named tuple, written as a list; a shorter one was written before fields were added."""

    def __init__(self, cls: Any) -> None:
        super().__init__((), any_length=False)
        self.cls = cls
        self._names: tuple[str, ...] = cls._fields
        self._defaults: dict[str, Any] = cls._field_defaults
        self._make: Callable[[Any], Any] = cls._make

    def fill(self, parts: Sequence[Shape]) -> None:
        """Set the fields after construction: a class may contain itself."""
        self.parts = parts

    def load(self, plain: Any, reading: Reading) -> Any:
        if is_list(plain):
            left = self._names[len(plain) :]
            if left and self._defaults.keys() >= {*left}:
                shapes = zip(plain, self.parts, strict=False)
                done = _each([*shapes], lambda pair: pair[1].load(pair[0], reading))
                return self._make([*done, *(self._defaults[each] for each in left)])
        return self._make(super().load(plain, reading))


class DictShape(Shape):
    """A dict; keys that are not text are written as pydantic writes them."""

    cls = dict

    def __init__(self, key: Any, item: Shape) -> None:
        self.parts = (item,)
        self._keys: Any = None
        if key is not str:
            from pydantic import TypeAdapter

            self._keys = TypeAdapter(cast("Any", dict)[key, None])

    def dump(self, value: Any, writing: Writing) -> Any:
        if not is_dict(value):
            refuse(value, "a dict")
        keys: Any = value
        if self._keys is not None:
            bare = dict.fromkeys(value)
            keys = asked(lambda: self._keys.dump_python(bare, mode="json", warnings="error"))
            if len(keys) != len(value):
                raise Misfit("has different keys that are equal in JSON")
        return dict(zip(keys, self._items(value, lambda e: self.parts[0].dump(e, writing))))  # noqa: B905

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_dict(plain):
            refuse(plain, "a dict")
        keys: Any = plain
        if self._keys is not None:
            keys = asked(lambda: self._keys.validate_json(rewrite_value(dict.fromkeys(plain))))
            if len(keys) != len(plain):
                raise Misfit("has different keys that decode to the same key")
        return dict(zip(keys, self._items(plain, lambda e: self.parts[0].load(e, reading))))  # noqa: B905

    def _items(self, value: Mapping[Any, Any], do: Callable[[Any], Any]) -> list[Any]:
        done: list[Any] = []
        for key, each in value.items():
            try:
                done.append(do(each))
            except Misfit as misfit:
                raise misfit.inside(f"[{key!r}]") from misfit.__cause__
        return done


class TypedDictShape(Shape):
    """A TypedDict with values that are not JSON."""

    cls = dict
    special = True

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._fields: dict[str, Shape] = {}
        self._more: Shape | None = None

    def fill(self, fields: Mapping[str, Shape], more: Shape | None) -> None:
        """Set the fields after construction: a type may contain itself."""
        self._fields, self._more = dict(fields), more
        self.parts = [*fields.values(), *([] if more is None else [more])]

    def _fitting(self, value: Any, do: Callable[[Shape, Any], Any]) -> Any:
        self._keys.check(value)
        done: dict[str, Any] = {}
        for key, each in value.items():
            try:
                done[key] = do(cast("Shape", self._fields.get(key) or self._more), each)
            except Misfit as misfit:
                raise self._keys.inside(misfit, key, value) from misfit.__cause__
        return done

    def dump(self, value: Any, writing: Writing) -> Any:
        return self._fitting(value, lambda shape, each: shape.dump(each, writing))

    def load(self, plain: Any, reading: Reading) -> Any:
        return self._fitting(plain, lambda shape, each: shape.load(each, reading))


class DataclassShape(Shape):
    """A dataclass, created by its own ``__init__``, which derives the other fields itself."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self._fields: dict[str, Shape] = {}
        self._required: frozenset[str] = frozenset()

    def fill(self, fields: Mapping[str, Shape], required: frozenset[str]) -> None:
        """Set the fields after construction: a class may contain itself."""
        self._fields, self._required = dict(fields), required
        self.parts = list(fields.values())

    def dump(self, value: Any, writing: Writing) -> Any:
        if type(value) is not self.cls:
            refuse(value, spelled(self.cls))
        done: dict[str, Any] = {}
        for name, shape in self._fields.items():
            if not hasattr(value, name):
                raise Misfit(f"has no {name!r}")
            try:
                done[name] = shape.dump(getattr(value, name), writing)
            except Misfit as misfit:
                raise misfit.inside(f".{name}") from misfit.__cause__
        return done

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_dict(plain):
            refuse(plain, spelled(self.cls))
        if not plain.keys() >= self._required:
            missing = ", ".join(map(repr, sorted(self._required - plain.keys())))
            raise Misfit(f"lacks {missing}, which {spelled(self.cls)} requires")
        done: dict[str, Any] = {}
        for name, shape in self._fields.items():
            if name in plain:
                try:
                    done[name] = shape.load(plain[name], reading)
                except Misfit as misfit:
                    raise misfit.inside(f".{name}") from misfit.__cause__
        return asked(lambda: cast("type", self.cls)(**done))


def _each(values: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
    done: list[Any] = []
    try:
        for each in values:
            done.append(do(each))
    except Misfit as misfit:
        raise misfit.inside(f"[{len(done)}]") from misfit.__cause__
    return done
