"""What pydantic encodes and decodes: models, and every other type that is not taken apart.

Rules:
- pydantic encodes a model, including defaults, so that a later default changes no recorded run, and
  decodes it by validation. If that does not return the same value and the model has parts that
  pydantic does not handle faithfully (bytes, models that an SDK builds, TypedDicts), it is encoded
  field by field, under the names that validation expects, without excluded fields. If validation
  cannot decode that, it is decoded field by field too, each by its own type, but an error of a
  validator is final. The same applies to text with a lone surrogate, which pydantic cannot read.
- An int in the place of a float or a Decimal, such as an unvalidated default, stays an int
  (``numbers``).
- Models that their SDK builds unvalidated are in ``answers``. google-genai validates its answers,
  and so does this module; they are written as received too.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime, time, timezone
from typing import Annotated, Any, Final, Literal, cast

from pydantic import (  # noqa: TID253 - this module is loaded once a type needs pydantic
    AliasChoices,
    BaseModel,
    RootModel,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo  # noqa: TID253 - as above

from kassette.values import rewrite_value
from kassette_io._values.answers import Built, holds_answers
from kassette_io._values.compiling import shape_of
from kassette_io._values.json_types import Misfit, inside, refuse
from kassette_io._values.numbers import numbers_read, numbers_written
from kassette_io._values.sameness import builds_itself, is_received
from kassette_io._values.shapes import Reading, Shape, Writing, asked, is_special, said
from kassette_io._values.type_forms import is_dict, spelled

_REFUSED_BY_A_VALIDATOR: Final = frozenset({"value_error", "assertion_error"})


def leaf(declared: Any) -> Shape:
    """Return the shape of a type that pydantic encodes and decodes.

    Raise whatever pydantic raises for a type that it does not support.
    """
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return Built(declared) if builds_itself(declared) else Model(declared)
    return Time(declared) if declared in (datetime, time) else Leaf(declared)


class Leaf(Shape):
    """A type that pydantic encodes and decodes as a whole."""

    def __init__(self, declared: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(declared)
        self._is_received = isinstance(declared, type) and is_received(declared)
        self.cls = declared if isinstance(declared, type) else None
        package = self.cls.__module__.partition(".")[0] if self.cls else ""
        self._is_standard = package in sys.stdlib_module_names and package != "builtins"

    def dump(self, value: Any, writing: Writing) -> Any:
        if type(value) is str and self._is_standard:  # pydantic would accept text for a path
            refuse(value, spelled(self.cls))
        return asked(lambda: self._write(value, warnings="error"))

    def _write(self, value: Any, *, warnings: Literal["none", "error"]) -> Any:
        return self._adapter.dump_python(
            value,
            mode="json",
            by_alias=True,
            round_trip=True,
            warnings=warnings,
            exclude_unset=self._is_received,
        )

    def load(self, plain: Any, reading: Reading) -> Any:
        return asked(lambda: self._validated(rewrite_value(plain)))

    def _validated(self, raw: bytes) -> Any:
        try:
            return self._adapter.validate_json(raw)
        except Warning:  # an SDK's enum warns of a new member, and warnings may be errors
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._adapter.validate_json(raw)


class Time(Leaf):
    """A datetime or a time, with the standard library's time zones."""

    def load(self, plain: Any, reading: Reading) -> Any:
        value = super().load(plain, reading)
        offset = value.utcoffset()
        return value if offset is None else value.replace(tzinfo=timezone(offset))


class Model(Leaf):
    """An ordinary pydantic model."""

    def __init__(self, cls: type[BaseModel]) -> None:
        super().__init__(cls)
        self.cls = cls
        self._is_root = issubclass(cls, RootModel)
        self._shapes: dict[str, Shape] | None = None

    def dump(self, value: Any, writing: Writing) -> Any:
        if type(value) is not self.cls:
            refuse(value, spelled(self.cls))
        if not writing.fieldwise or not self._has_special_parts():
            return numbers_written(self._dumped(value, writing), value)
        shapes = self._fields()
        done: dict[str, Any] = {}
        for name, field in self.cls.model_fields.items():
            if name not in value.__dict__:
                raise Misfit(f"has no {name!r}")
            if field.exclude:  # on purpose, for example a secret; its default may be equal
                continue
            part = value.__dict__[name]
            with inside(f".{name}"):
                try:
                    done[_key(name, field)] = shapes[name].dump(part, writing)
                except Misfit:
                    if type(part) is not int or part is not field.default:
                        raise
                    done[_key(name, field)] = part  # the default was not validated
        if self._is_root:
            return done["root"]
        return done | cast("dict[str, Any]", value.__pydantic_extra__ or {})

    def _dumped(self, value: Any, writing: Writing) -> Any:
        try:
            return super().dump(value, writing)
        except Misfit:  # of a type that pydantic does not expect; the comparison decides
            return asked(lambda: self._write(value, warnings="none"))

    def load(self, plain: Any, reading: Reading) -> Any:
        try:
            value = self._with_answers(self._validated(rewrite_value(plain)), plain, reading)
            return value if reading.given else numbers_read(value, plain)
        except Misfit:
            raise
        except ValidationError as error:
            refusal: Exception = error
            if self._may_be_read_fieldwise(error):
                try:
                    value = self._loaded_fieldwise(plain, reading)
                    return value if reading.given else numbers_read(value, plain)
                except Misfit:
                    pass
        except Exception as error:
            refusal = error
        raise Misfit(f"is refused: {said(refusal)}") from refusal

    def _with_answers(self, value: Any, plain: Any, reading: Reading) -> Any:
        """Build the SDK answers inside the model as their SDK does; validation does not."""
        for name, shape in self._answers.items():
            if name in value.__dict__:
                key = _key(name, self.cls.model_fields[name])
                part = plain if self._is_root else plain.get(key)
                if part is not None:
                    with inside(f".{name}"):
                        value.__dict__[name] = shape.load(part, reading)
        return value

    @functools.cached_property
    def _answers(self) -> dict[str, Shape]:
        if not self._has_special_parts():
            return {}
        return {name: each for name, each in self._fields().items() if holds_answers(each)}

    def _fields(self) -> dict[str, Shape]:
        if self._shapes is None:
            self._shapes = {
                name: shape_of(_declared(field)) for name, field in self.cls.model_fields.items()
            }
        return self._shapes

    def _may_be_read_fieldwise(self, error: ValidationError) -> bool:
        types = {each["type"] for each in error.errors()}
        if types & _REFUSED_BY_A_VALIDATOR:
            return False
        return "json_invalid" in types or self._has_special_parts()

    def _has_special_parts(self) -> bool:
        try:
            return is_special(self)
        except Exception:  # a field has a type that only this model's validation supports
            return False

    @property
    def parts(self) -> Sequence[Shape]:  # type: ignore[override]
        """Return the shapes of the fields; computed on demand, since models may be recursive."""
        return list(self._fields().values())

    def _loaded_fieldwise(self, plain: Any, reading: Reading) -> Any:
        if self._is_root:
            root = self._fields()["root"].load(plain, reading)
            return self.cls.model_construct(root=root)
        if not is_dict(plain):
            refuse(plain, spelled(self.cls))
        shapes, rest = self._fields(), dict(cast("dict[str, Any]", plain))
        values: dict[str, Any] = {}
        for name, field in self.cls.model_fields.items():
            key = _key(name, field)
            if key in rest:
                with inside(f".{name}"):
                    values[name] = shapes[name].load(rest.pop(key), reading)
            elif field.is_required():
                raise Misfit(f"lacks {key!r}, which {spelled(self.cls)} requires")
        extra = self.cls.model_config.get("extra")
        if rest and extra == "forbid":
            raise Misfit(f"has the key {next(iter(rest))!r}, which {spelled(self.cls)} forbids")
        return asked(
            lambda: self.cls.model_construct(
                set(values), **values, **(rest if extra == "allow" else {})
            )
        )


def _declared(field: FieldInfo) -> Any:
    declared: Any = field.annotation
    return Annotated[(declared, *field.metadata)] if field.metadata else declared


def _key(name: str, field: FieldInfo) -> str:
    """Return the name under which validation looks for a field."""
    alias = field.validation_alias or field.alias
    if isinstance(alias, AliasChoices):
        alias = next((each for each in alias.choices if isinstance(each, str)), None)
    if alias is None:
        return name
    if not isinstance(alias, str):
        raise Misfit("has a validation alias that is a path into another field", f".{name}")
    return alias
