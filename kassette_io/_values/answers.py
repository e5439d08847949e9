"""Answers of SDKs: models that an SDK builds, unvalidated, from a provider's response.

Rules:
- A model that has its own builder (``builds_itself``: the models of openai, anthropic and SDKs
  generated the same way) is written as it was received: the fields that were set, under the names
  that were sent, and any additional fields. It is decoded by that builder, which validates
  nothing. So values outside of its literals, missing counters and unknown blocks survive.
- The decoded class, of an answer and of its parts, is the declared one. The value may be of a
  subclass, or of another form of the same generic class: an SDK's parser creates
  ``ParsedChatCompletion[~ResponseFormatT]`` where its type is ``ParsedChatCompletion[Out]``. Data
  for which the declared class has no field is stored as extra data.
- The value of a type parameter of a generic answer (the ``Out``) is decoded as the declared type's
  argument, and is plain JSON if the type has no argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar, cast, get_args

from pydantic import (  # noqa: TID253 - this module is loaded once a type needs pydantic
    BaseModel,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import to_jsonable_python

from kassette.values import rewrite_value
from kassette_io._values.compiling import shape_of
from kassette_io._values.json_types import Misfit, inside, is_json, refuse
from kassette_io._values.sameness import builds_itself
from kassette_io._values.shapes import Reading, Shape, Writing, asked
from kassette_io._values.type_forms import is_dict, is_list, spelled

_REQUEST_ID: Final = "_request_id"
"""The attribute in which openai and anthropic store the id of the HTTP request."""
_HUNG_ON: Final = "_beside"
"""The JSON key for other attributes that an SDK has set on an answer and that are not fields."""


class Built(Shape):
    """A model that its SDK builds, unvalidated, from a provider's response."""

    special = True

    def __init__(self, cls: type[BaseModel]) -> None:
        self.cls = cls
        self._family = family(cls)
        self._has_parameters = _is_generic(cls)
        self._adapter: TypeAdapter[Any] = TypeAdapter(cls)
        self._known = _names(cls)

    def dump(self, value: Any, writing: Writing) -> Any:
        if not isinstance(value, self._family):
            refuse(value, spelled(self.cls))
        return _answer(value, writing)

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_dict(plain):
            refuse(plain, spelled(self.cls))
        if plain and not plain.keys() & self._known:
            raise Misfit(f"has no field of {spelled(self.cls)}")
        value = _built(lambda sent: self.cls.model_construct(**sent), plain)
        return _with_arguments(value, plain, reading) if self._has_parameters else value

    def complaints(self, plain: Any) -> int:
        """Count the validation errors of ``plain``."""
        return _complaints(self._adapter, self._known, plain)


class BuiltUnion(Shape):
    """A union that an SDK builds by a rule of its own, for example content blocks."""

    special = True

    def __init__(self, declared: Any, variants: Sequence[type[BaseModel]]) -> None:
        base = [each for each in variants[0].__mro__ if builds_itself(each)][-1]
        self._holder: Any = create_model("Holder", __base__=base, value=(declared, ...))
        self._adapter: TypeAdapter[Any] = TypeAdapter(declared)
        self._variants = tuple(variants)
        self._families = tuple(map(family, variants))
        self._has_parameters = any(map(_is_generic, variants))
        self._known = frozenset(name for each in variants for name in _names(each))

    def dump(self, value: Any, writing: Writing) -> Any:
        if not isinstance(value, self._families):
            refuse(value, " or ".join(map(spelled, self._variants)))
        return _answer(value, writing)

    def load(self, plain: Any, reading: Reading) -> Any:
        if not is_dict(plain):
            refuse(plain, " or ".join(map(spelled, self._variants)))
        value = _built(lambda sent: self._holder.model_construct(value=sent).value, plain)
        return _with_arguments(value, plain, reading) if self._has_parameters else value

    def complaints(self, plain: Any) -> int:
        """Count the validation errors of ``plain``."""
        return _complaints(self._adapter, self._known, plain)


def built_by_their_sdk(declared: Any, base: Any, extras: Sequence[Any]) -> Shape | None:
    """Return the shape of a union of SDK models whose extras name its discriminator."""
    if not any(hasattr(e, "discriminator") or hasattr(e, "field_name") for e in extras):
        return None
    variants = get_args(base)
    if not variants or not all(isinstance(e, type) and builds_itself(e) for e in variants):
        return None
    return BuiltUnion(declared, variants)


def holds_answers(shape: Shape, seen: frozenset[int] = frozenset()) -> bool:
    """Return whether a part of ``shape`` is built by its SDK."""
    if isinstance(shape, (Built, BuiltUnion)):
        return True
    seen |= {id(shape)}
    return any(holds_answers(each, seen) for each in shape.parts if id(each) not in seen)


def _names(cls: type[BaseModel]) -> frozenset[str]:
    """Return the names under which the fields of ``cls`` may be sent."""
    fields = cls.model_fields.items()
    return frozenset(each for name, field in fields for each in (name, field.alias) if each)


def family(cls: Any) -> Any:
    """Return the generic class that ``cls`` specializes; ``cls`` itself if it is not generic."""
    return cls.__pydantic_generic_metadata__["origin"] or cls


def _is_generic(cls: type[BaseModel]) -> bool:
    said = [getattr(each, "__pydantic_generic_metadata__", None) for each in cls.__mro__]
    return any(each["origin"] or each["parameters"] for each in said if each)


@functools.lru_cache(maxsize=1024)
def argument(cls: Any, name: str) -> Any | None:
    """Return the type of a field declared as a type parameter of the class; None for others."""
    template = family(cls).model_fields.get(name)
    if template is None or not _names_parameter(template.annotation):
        return None
    return cls.model_fields[name].annotation


def _names_parameter(declared: Any) -> bool:
    return isinstance(declared, TypeVar) or any(map(_names_parameter, get_args(declared)))


def _with_arguments(value: Any, plain: Any, reading: Reading) -> Any:
    """Return ``value`` with its type parameters decoded as the declared type's arguments."""
    if is_list(value) and is_list(plain):
        for place, each in enumerate(value):
            with inside(f"[{place}]"):
                value[place] = _with_arguments(each, plain[place], reading)
        return value
    if is_dict(value) and is_dict(plain):
        for name, each in value.items():
            with inside(f"[{name!r}]"):
                value[name] = _with_arguments(each, plain[name], reading)
        return value
    if not is_dict(plain) or not isinstance(value, BaseModel):
        return value
    kind: type[BaseModel] = type(value)
    held: dict[str, Any] = vars(value)
    for name, field in kind.model_fields.items():
        key = field.alias if field.alias in plain else name
        if key in plain:
            declared = argument(kind, name)
            with inside(f".{name}"):
                held[name] = (
                    _with_arguments(held[name], plain[key], reading)
                    if declared is None
                    else shape_of(declared).load(plain[key], reading)
                )
    return value


def received(value: Any, writing: Writing) -> Any:
    """Return a part of an answer as it was received: the fields set, under the names sent."""
    kind = cast("Any", type(value))
    if is_dict(value):
        return {n: _received_inside(f"[{n!r}]", each, writing) for n, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        members = enumerate(cast("Sequence[Any]", value))
        return [_received_inside(f"[{place}]", each, writing) for place, each in members]
    if value is None or kind in (str, int, float, bool):
        return value
    if not isinstance(value, BaseModel) and not hasattr(kind, "__dataclass_fields__"):
        return asked(lambda: to_jsonable_python(value, bytes_mode="base64"))
    if not builds_itself(kind):
        return asked(lambda: shape_of(kind)).dump(value, writing)
    parts = sent_parts(value).items()
    return {name: _received_inside(where, each, writing) for name, (where, each) in parts}


def _answer(value: Any, writing: Writing) -> dict[str, Any]:
    """Return a whole answer as it was received, with the attributes that its SDK has set."""
    sent: dict[str, Any] = received(value, writing)
    beside = hung_on(value)
    if _REQUEST_ID in beside:
        sent[_REQUEST_ID] = beside.pop(_REQUEST_ID)
    if beside:
        sent[_HUNG_ON] = beside
    return sent


def hung_on(value: Any) -> dict[str, Any]:
    """Return the attributes that an SDK has set on an answer, such as the request's id.

    Attributes that are not JSON are the SDK's own tools and were not received.
    """
    known = cast("Any", type(value)).model_fields
    return {
        name: each for name, each in value.__dict__.items() if name not in known and is_json(each)
    }


def sent_parts(value: Any) -> dict[str, tuple[str, Any]]:
    """Return the fields that an answer received: for each name sent, the path and the value."""
    parts: dict[str, tuple[str, Any]] = {}
    fields: dict[str, Any] = cast("Any", type(value)).model_fields
    for name, field in fields.items():
        if name in value.model_fields_set and name in value.__dict__:
            parts[field.alias or name] = f".{name}", value.__dict__[name]
    extra: dict[str, Any] = value.__pydantic_extra__ or {}
    for name, each in extra.items():
        parts[name] = f".{name}", each
    return parts


def _received_inside(step: str, value: Any, writing: Writing) -> Any:
    with inside(step):
        return received(value, writing)


def _built(build: Callable[[dict[str, Any]], Any], plain: dict[str, Any]) -> Any:
    sent = dict(plain)
    beside: dict[str, Any] = sent.pop(_HUNG_ON) if is_dict(sent.get(_HUNG_ON)) else {}
    if _REQUEST_ID in sent:
        beside = {_REQUEST_ID: sent.pop(_REQUEST_ID)} | beside
    value = asked(lambda: build(sent))
    value.__dict__.update(beside)
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
