"""Values of declared types, written as JSON and rebuilt through pydantic; plain JSON passes by.

Rule (D3): a value is rebuilt from what the journal holds on both paths, live and replayed. pydantic
is imported only when a declared type is not plain JSON.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, Union, cast, final, get_args, get_origin
from weakref import WeakKeyDictionary

from kassette import UsageError
from kassette.values import encode_value

T = TypeVar("T")

_PLAIN_NAMES: Final = frozenset(
    {"str", "int", "float", "bool", "None", "dict", "list", "object", "Any", "Optional", "Union"}
)
_PLAIN: Final = frozenset({str, int, float, bool, type(None), None, dict, list, object, Any})


@final
class TypedValue(Generic[T]):
    """One declared type. Made by ``typed_value``."""

    def __init__(self, adapter: Any, declared: object) -> None:
        self._adapter = adapter
        self._declared = getattr(declared, "__name__", None) or str(declared)

    def to_plain(self, value: object, what: str) -> Any:
        """Give ``value`` as plain JSON that ``rebuild`` will take back.

        Raises UsageError, naming ``what``, if it does not fit or would not come back.
        """
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError

        try:
            fitting = self._adapter.validate_python(value)
            plain = self._adapter.dump_python(fitting, mode="json", by_alias=True, warnings="error")
        except (ValidationError, PydanticSerializationError) as error:
            raise UsageError(
                f"{what} does not fit its declared type {self._declared}: {error}"
            ) from error
        self.rebuild(encode_value(plain, what), what)
        return plain

    def rebuild(self, raw: bytes, what: str) -> T:
        """Give the value that the journal text ``raw`` stands for, or raise UsageError."""
        from pydantic import ValidationError

        try:
            return cast("T", self._adapter.validate_json(raw))
        except ValidationError as error:
            raise UsageError(
                f"{what} as journaled does not fit its declared type {self._declared}: {error}. "
                "If the type has changed, rename the step or bump the version"
            ) from error


def typed_value(declared: Any) -> TypedValue[Any] | None:
    """Give the adapter of a type named by the caller; None for plain JSON types.

    Raises UsageError without pydantic installed, or for a type that pydantic cannot describe.
    """
    if is_plain(declared):
        return None
    try:
        return _adapter(declared)
    except ImportError as error:
        raise UsageError(
            f"{declared!r} needs pydantic to be rebuilt from JSON: pip install 'kassette[pydantic]'"
        ) from error
    except Exception as error:  # pydantic raises several unrelated classes for a bad type
        raise UsageError(f"{declared!r} cannot be rebuilt from JSON: {error}") from error


def annotated_value(function: Callable[..., object], name: str) -> TypedValue[Any] | None:
    """Give the adapter of the parameter ``name`` (or ``"return"``) as ``function`` annotates it.

    None where there is no annotation, it is plain JSON, or it cannot be resolved or rebuilt: an
    annotation is a remark, not a demand.
    """
    declared = annotation(function, name)
    if is_plain(declared):
        return None
    try:
        return _adapter(declared)
    except Exception:
        return None


def annotation(function: Callable[..., object], name: str) -> Any:
    """Give the resolved annotation of ``name`` in ``function``, or Any."""
    if type(function) is not types.FunctionType:
        function = _function_of(function)
    raw: object = getattr(function, "__annotations__", {}).get(name, Any)
    if not isinstance(raw, str):
        return raw
    return Any if _reads_plain(raw) else _hints(function).get(name, Any)


def _function_of(given: Callable[..., object]) -> Callable[..., object]:
    """Give the function that a partial, a method or a callable object ends up with."""
    while isinstance(given, functools.partial):
        given = cast("functools.partial[object]", given).func
    if isinstance(given, types.MethodType):
        return given.__func__
    if isinstance(given, types.FunctionType):
        return given
    return cast("Callable[..., object]", getattr(type(given), "__call__", given))  # noqa: B004


_remembered = functools.lru_cache(maxsize=1024)
"""Bounded: types and annotations may be made while a program runs."""


@_remembered
def _reads_plain(annotation: str) -> bool:
    """Tell whether an annotation that is a string names nothing but JSON's own types."""
    return _PLAIN_NAMES.issuperset(re.findall(r"[^][|, ]+", annotation))


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    """Resolve the annotations of ``function``, once."""
    known = _HINTS.get(function)
    if known is None:
        from typing import get_type_hints

        try:
            known = _HINTS[function] = get_type_hints(function)
        except Exception:
            return {}
    return known


_HINTS: WeakKeyDictionary[object, dict[str, Any]] = WeakKeyDictionary()


def is_plain(declared: Any) -> bool:
    """Tell whether ``declared`` is made of JSON's own types, so that nothing has to be rebuilt."""
    try:
        return _is_plain(declared)
    except TypeError:
        return False


@_remembered
def _is_plain(declared: Any) -> bool:
    if declared in _PLAIN or isinstance(declared, TypeVar):
        return True
    origin = get_origin(declared)
    if origin in (dict, list, Union, types.UnionType):
        return all(map(is_plain, get_args(declared)))
    return False


@_remembered
def _adapter(declared: Any) -> TypedValue[Any]:
    from pydantic import TypeAdapter

    return TypedValue(TypeAdapter(declared), declared)
