"""What pydantic writes and reads: models, and every other type that is not taken apart.

Rules:
- A model is written by pydantic, defaults included, so that a later default changes no recorded
  run, and read by its validation. Where that does not give the same value and the model has parts
  for which pydantic is no judge (bytes, models that an SDK builds, TypedDicts), it is written field
  by field, under the names that validation takes, without the fields that are excluded. What
  validation then cannot read is read field by field as well, each by its own type; a validator's
  refusal stands.
- A model that brings its own builder (``builds_itself``: those of openai, anthropic and every SDK
  made alike) is written as it was received: the fields that were set, under the names that they
  came with, and what came beside them. It is read by that builder, which validates nothing, as it
  was made (D3.3). So values beyond its literals, missing counters and unknown blocks are there
  again. google-genai validates its answers, and so does this; they are written as received too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, time, timezone
from typing import Annotated, Any, Final, cast

from pydantic import (  # noqa: TID253 - this module is loaded once a type needs pydantic
    AliasChoices,
    BaseModel,
    RootModel,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo  # noqa: TID253 - as above
from pydantic_core import to_jsonable_python

from kassette.values import rewrite_value
from kassette_io._values.compiling import shape_of
from kassette_io._values.json_types import Misfit, refuse
from kassette_io._values.sameness import builds_itself, is_received
from kassette_io._values.shapes import Shape, Writing, asked, is_special, said
from kassette_io._values.type_forms import is_dict, is_list, spelled

_OF_THE_ANSWER: Final = "_request_id"
"""What openai and anthropic set beside the fields of an answer: the id of its HTTP request."""

_REFUSED_BY_A_VALIDATOR: Final = frozenset({"value_error", "assertion_error"})


def leaf(declared: Any) -> Shape:
    """Return the shape of a type that is pydantic's to write and to read.

    Raises whatever pydantic raises for a type that it cannot describe.
    """
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return Built(declared) if builds_itself(declared) else Model(declared)
    return Time(declared) if declared in (datetime, time) else Leaf(declared)


class Leaf(Shape):
    """A type that is written and read by pydantic as a whole."""

    def __init__(self, declared: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(declared)
        self._is_received = isinstance(declared, type) and is_received(declared)
        self.cls = declared if isinstance(declared, type) else None

    def dump(self, value: Any, writing: Writing) -> Any:
        return asked(
            lambda: self._adapter.dump_python(
                value,
                mode="json",
                by_alias=True,
                round_trip=True,
                warnings="error",
                exclude_unset=self._is_received,
            )
        )

    def load(self, plain: Any, given: bool) -> Any:
        return asked(lambda: self._validated(rewrite_value(plain)))

    def _validated(self, raw: bytes) -> Any:
        try:
            return self._adapter.validate_json(raw)
        except Warning:  # an SDK's enum warns of a new member, where warnings are errors
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._adapter.validate_json(raw)


class Time(Leaf):
    """An instant or a time of the day, with the standard library's zones."""

    def load(self, plain: Any, given: bool) -> Any:
        value = super().load(plain, given)
        offset = value.utcoffset()
        return value if offset is None else value.replace(tzinfo=timezone(offset))


class Model(Leaf):
    """A pydantic model of somebody's own."""

    def __init__(self, cls: type[BaseModel]) -> None:
        super().__init__(cls)
        self.cls = cls
        self._is_root = issubclass(cls, RootModel)
        self._shapes: dict[str, Shape] | None = None

    def dump(self, value: Any, writing: Writing) -> Any:
        if type(value) is not self.cls:
            refuse(value, spelled(self.cls))
        if not writing.fieldwise or not self._has_special_parts():
            return super().dump(value, writing)
        shapes = self._fields()
        done: dict[str, Any] = {}
        for name, field in self.cls.model_fields.items():
            if name not in value.__dict__:
                raise Misfit(f"has no {name!r}")
            if field.exclude:  # on purpose, as for a secret; its default may do
                continue
            with _inside(name):
                done[_key(name, field)] = shapes[name].dump(value.__dict__[name], writing)
        if self._is_root:
            return done["root"]
        return done | cast("dict[str, Any]", value.__pydantic_extra__ or {})

    def load(self, plain: Any, given: bool) -> Any:
        try:
            return self._validated(rewrite_value(plain))
        except ValidationError as error:
            refusal: Exception = error
            if self._may_be_read_fieldwise(error):
                try:
                    return self._loaded_fieldwise(plain, given)
                except Misfit:
                    pass
        except Exception as error:
            refusal = error
        raise Misfit(f"is refused: {said(refusal)}") from refusal

    def _fields(self) -> dict[str, Shape]:
        if self._shapes is None:
            self._shapes = {
                name: shape_of(_declared(field)) for name, field in self.cls.model_fields.items()
            }
        return self._shapes

    def _may_be_read_fieldwise(self, error: ValidationError) -> bool:
        if any(each["type"] in _REFUSED_BY_A_VALIDATOR for each in error.errors()):
            return False
        return self._has_special_parts()

    def _has_special_parts(self) -> bool:
        try:
            return is_special(self)
        except Exception:  # a field is of a type that only this model's validation knows
            return False

    @property
    def parts(self) -> Sequence[Shape]:  # type: ignore[override]
        """The types of the fields; found out when they are asked for, as models may be circular."""
        return list(self._fields().values())

    def _loaded_fieldwise(self, plain: Any, given: bool) -> Any:
        if self._is_root:
            root = self._fields()["root"].load(plain, given)
            return self.cls.model_construct(root=root)
        if not is_dict(plain):
            refuse(plain, spelled(self.cls))
        shapes, rest = self._fields(), dict(cast("dict[str, Any]", plain))
        values: dict[str, Any] = {}
        for name, field in self.cls.model_fields.items():
            key = _key(name, field)
            if key in rest:
                with _inside(name):
                    values[name] = shapes[name].load(rest.pop(key), given)
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


class Built(Shape):
    """A model that its SDK builds from what a provider sends, unchecked."""

    special = True

    def __init__(self, cls: type[BaseModel]) -> None:
        self.cls = cls
        self._adapter: TypeAdapter[Any] = TypeAdapter(cls)
        self._known = _names(cls)

    def dump(self, value: Any, writing: Writing) -> Any:
        if not isinstance(value, self.cls):
            refuse(value, spelled(self.cls))
        return received(value)

    def load(self, plain: Any, given: bool) -> Any:
        if not is_dict(plain):
            refuse(plain, spelled(self.cls))
        if plain and not plain.keys() & self._known:
            raise Misfit(f"has no field of {spelled(self.cls)}")
        return _built(lambda sent: self.cls.model_construct(**sent), plain)

    def complaints(self, plain: Any) -> int:
        """Count what validation has against ``plain``."""
        return _complaints(self._adapter, self._known, plain)


class BuiltUnion(Shape):
    """A union that an SDK builds with a rule of its own, as it does for blocks of content."""

    special = True

    def __init__(self, declared: Any, variants: Sequence[type[BaseModel]]) -> None:
        base = [each for each in variants[0].__mro__ if builds_itself(each)][-1]
        self._holder: Any = create_model("Holder", __base__=base, value=(declared, ...))
        self._adapter: TypeAdapter[Any] = TypeAdapter(declared)
        self._variants = tuple(variants)
        self._known = frozenset(name for each in variants for name in _names(each))

    def dump(self, value: Any, writing: Writing) -> Any:
        if not isinstance(value, self._variants):
            refuse(value, " or ".join(map(spelled, self._variants)))
        return received(value)

    def load(self, plain: Any, given: bool) -> Any:
        if not is_dict(plain):
            refuse(plain, " or ".join(map(spelled, self._variants)))
        return _built(lambda sent: self._holder.model_construct(value=sent).value, plain)

    def complaints(self, plain: Any) -> int:
        """Count what validation has against ``plain``."""
        return _complaints(self._adapter, self._known, plain)


def built_by_their_sdk(declared: Any, base: Any, extras: Sequence[Any]) -> Shape | None:
    """Return the shape of a union of SDK models whose extras say how its SDK tells them apart."""
    if not any(hasattr(each, "discriminator") for each in extras):
        return None
    from typing import get_args

    variants = get_args(base)
    if not variants or not all(isinstance(e, type) and builds_itself(e) for e in variants):
        return None
    return BuiltUnion(declared, variants)


def _names(cls: type[BaseModel]) -> frozenset[str]:
    """Return the names under which the fields of ``cls`` may be sent."""
    fields = cls.model_fields.items()
    return frozenset(each for name, field in fields for each in (name, field.alias) if each)


def received(value: Any) -> Any:
    """Return a part of an answer as it was received: what was set, under the names it came with."""
    kind = cast("Any", type(value))
    if is_dict(value):
        return {name: _received_inside(f"[{name!r}]", each) for name, each in value.items()}
    if is_list(value):
        return [_received_inside(f"[{place}]", each) for place, each in enumerate(value)]
    if value is None or kind in (str, int, float, bool):
        return value
    if not isinstance(value, BaseModel):
        return asked(lambda: to_jsonable_python(value, bytes_mode="base64"))
    if not builds_itself(kind):
        return asked(lambda: value.model_dump(mode="json", by_alias=True, round_trip=True))
    sent: dict[str, Any] = {}
    fields = kind.model_fields
    for name in [name for name in fields if name in value.model_fields_set]:
        if name in value.__dict__:
            with _inside(name):
                sent[fields[name].alias or name] = received(value.__dict__[name])
    for name, each in (value.__pydantic_extra__ or {}).items():
        sent[name] = _received_inside(f".{name}", each)
    if _OF_THE_ANSWER in value.__dict__:
        sent[_OF_THE_ANSWER] = value.__dict__[_OF_THE_ANSWER]
    return sent


def _received_inside(step: str, value: Any) -> Any:
    try:
        return received(value)
    except Misfit as misfit:
        raise misfit.inside(step) from misfit.__cause__


def _built(build: Callable[[dict[str, Any]], Any], plain: dict[str, Any]) -> Any:
    sent = dict(plain)
    missing = object()
    beside = sent.pop(_OF_THE_ANSWER, missing)
    value = asked(lambda: build(sent))
    if beside is not missing:
        value.__dict__[_OF_THE_ANSWER] = beside
    return value


def _complaints(adapter: TypeAdapter[Any], known: Collection[str], plain: Any) -> int:
    """Count the fields that are missing, wrong or unknown."""
    unknown = sum(key not in known for key in plain) if is_dict(plain) else 0
    try:
        adapter.validate_json(rewrite_value(plain))
    except ValidationError as error:
        return unknown + len({each["loc"][:1] for each in error.errors()})
    except Exception:
        return unknown + 1
    return unknown


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
        raise Misfit("is read from inside of another field", f".{name}")
    return alias


class _inside:
    """Names the field in which a misfit was found."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Misfit):
            error.inside(f".{self._name}")
