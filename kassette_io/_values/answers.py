"""Answers of SDKs: models that their SDK builds from what a provider sends, unchecked (D3.3).

Rules:
- A model that brings its own builder (``builds_itself``: those of openai, anthropic and every SDK
  made alike) is written as it was received: the fields that were set, under the names that they
  came with, and what came beside them. It is read by that builder, which validates nothing, as it
  was made. So values beyond its literals, missing counters and unknown blocks are there again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, cast, get_args

from pydantic import (  # noqa: TID253 - this module is loaded once a type needs pydantic
    BaseModel,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import to_jsonable_python

from kassette.values import rewrite_value
from kassette_io._values.json_types import Misfit, inside, refuse
from kassette_io._values.sameness import builds_itself
from kassette_io._values.shapes import Reading, Shape, Writing, asked
from kassette_io._values.type_forms import is_dict, is_list, spelled

_OF_THE_ANSWER: Final = "_request_id"
"""What openai and anthropic set beside the fields of an answer: the id of its HTTP request."""


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

    def load(self, plain: Any, reading: Reading) -> Any:
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

    def load(self, plain: Any, reading: Reading) -> Any:
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
            with inside(f".{name}"):
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
