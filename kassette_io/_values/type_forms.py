"""The forms of declared types, from ``typing`` and ``typing_extensions``."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import (
    Any,
    ClassVar,
    Final,
    ForwardRef,
    Literal,
    NewType,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

_QUALIFIERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})
_TYPING: Final = ("typing", "typing_extensions")
_NEVER: Final = frozenset({"Never", "NoReturn", "Self"})


def unwrap(declared: Any) -> Any:
    """Return the type behind an alias (PEP 695), a NewType or a qualifier."""
    origin = get_origin(declared)
    if isinstance(declared, NewType):
        return declared.__supertype__
    if getattr(origin, "_name", None) in _QUALIFIERS or origin in (Final, ClassVar):
        return get_args(declared)[0]
    alias = declared if origin is None else origin
    if type(alias).__name__ == "TypeAliasType":
        if alias.__name__ == "JsonValue" and alias.__module__ == "pydantic.types":
            return Any
        parameters = dict(zip(alias.__type_params__, get_args(declared), strict=False))
        value: Any = alias.__value__
        if refers_ahead(value):
            module = sys.modules.get(alias.__module__)
            value = resolved(value, vars(module) if module is not None else {})
        return substituted(value, parameters)
    return declared


class _Holder:
    """Carries one annotation, for ``typing`` to resolve."""

    def __init__(self, raw: object) -> None:
        self.__annotations__ = {"it": raw}


def resolved(
    raw: object, names: dict[str, Any], parameters: Mapping[str, Any] | None = None
) -> Any:
    """Return ``raw`` with its forward references evaluated with ``names``.

    Raise whatever evaluating them raises.
    """
    return get_type_hints(_Holder(raw), names, dict(parameters or {}), include_extras=True)["it"]


def refers_ahead(declared: object) -> bool:
    """Return whether ``declared`` has unresolved forward references."""
    if isinstance(declared, (str, ForwardRef)):
        return True
    if isinstance(declared, type) and not isinstance(declared, types.GenericAlias):
        return False
    if get_origin(declared) is Literal:
        return False
    arguments: Sequence[Any] = get_args(declared)
    return any(map(refers_ahead, arguments[:1] if is_annotated(declared) else arguments))


def substituted(declared: Any, parameters: Mapping[Any, Any]) -> Any:
    """Return ``declared`` with its type variables replaced; Any for those without a value."""
    if isinstance(declared, TypeVar):
        return parameters.get(declared, Any)
    free = getattr(declared, "__parameters__", ())
    if not free or (isinstance(declared, type) and not isinstance(declared, types.GenericAlias)):
        return declared
    return declared[tuple(parameters.get(each, Any) for each in free)]


def is_anything(declared: Any) -> bool:
    """Return whether ``declared`` accepts anything: Any, object, a type variable, Never."""
    if declared is Any or declared is object or isinstance(declared, TypeVar):
        return True
    return getattr(declared, "_name", None) in _NEVER


def is_typed_dict(origin: Any) -> bool:
    """Return whether ``origin`` is a TypedDict of either module."""
    return isinstance(origin, type) and dict in origin.__mro__ and hasattr(origin, "__total__")


def is_annotated(declared: Any) -> bool:
    """Return whether ``declared`` is an ``Annotated`` type."""
    return hasattr(declared, "__metadata__")


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Return whether ``value`` is exactly a list, not a subclass."""
    return type(value) is list


def is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    """Return whether ``value`` is exactly a dict, not a subclass."""
    return type(value) is dict


def is_codec(extra: object) -> bool:
    """Return whether ``extra`` is a ``ValueCodec`` object; a class with its methods is not one."""
    return (
        not isinstance(extra, type)
        and callable(getattr(extra, "to_json", None))
        and callable(getattr(extra, "from_json", None))
    )


def is_read_by_pydantic(extra: object) -> bool:
    """Return whether pydantic interprets an ``Annotated`` extra."""
    kind = extra if isinstance(extra, type) else type(extra)
    return kind.__module__.partition(".")[0] in ("pydantic", "annotated_types") or hasattr(
        extra, "__get_pydantic_core_schema__"
    )


def typed_dict_fields(declared: Any) -> tuple[dict[str, tuple[Any, bool]], Any | None]:
    """Return each key's type and whether it is required, and the type of extra keys, if allowed.

    The markers are read from the resolved types: with ``from __future__ import annotations`` they
    are not known before.
    """
    origin = get_origin(declared) or declared
    parameters = dict(zip(getattr(origin, "__parameters__", ()), get_args(declared), strict=False))
    fields: dict[str, tuple[Any, bool]] = {}
    for key, hint in get_type_hints(origin, include_extras=True).items():
        required, kind = key in origin.__required_keys__, hint
        while True:
            marker = getattr(get_origin(kind), "_name", None)
            if marker in ("Required", "NotRequired"):
                required = marker == "Required"
            if marker not in _QUALIFIERS:
                break
            kind = get_args(kind)[0]
        fields[key] = substituted(kind, parameters), required
    extra = getattr(origin, "__extra_items__", None)
    if extra is None or _is_sentinel(extra) or is_never(extra):
        return fields, None
    return fields, substituted(extra, parameters)


def _is_sentinel(extra: object) -> bool:
    """Return whether ``extra`` marks a TypedDict that does not declare extra items (PEP 728)."""
    marks = (getattr(sys.modules.get(each), "NoExtraItems", None) for each in _TYPING)
    return any(extra is mark for mark in marks)


def is_never(declared: Any) -> bool:
    """Return whether ``declared`` is ``Never``, the type without values."""
    return getattr(declared, "_name", None) in ("Never", "NoReturn")


def spelled(declared: Any) -> str:
    """Format a type as in source code, without module names, on one line."""
    if isinstance(declared, type) and not isinstance(declared, types.GenericAlias):
        return declared.__name__
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(declared).replace("<locals>.", ""))
    return text if len(text) <= 100 else text[:99] + "…"


def is_hashable(declared: Any) -> bool:
    """Return whether a type is hashable."""
    try:
        hash(declared)
    except TypeError:
        return False
    return True
