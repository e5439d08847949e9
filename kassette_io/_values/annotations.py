"""Resolves a function's annotations, however they are written.

Rules:
- Each annotation is resolved by itself: a name on another parameter that exists only for type
  checkers does no harm.
- Names are looked up in the module of the original function, behind decorators that set
  ``__wrapped__``, partials, methods and callable objects. Local variables around a nested function
  are not accessible, so an annotation that needs them cannot be resolved, and is ignored.
- The result type is the awaited one: ``Awaitable[X]`` and ``Coroutine[…, X]`` mean X.
- ``Annotated`` extras are preserved; the code that uses the type interprets them.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Optional, Union, cast, get_args, get_origin

from kassette_io._values.type_forms import refers_ahead, resolved

_PLAIN_NAMES: Final[dict[str, Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "dict": dict,
    "list": list,
    "object": object,
    "None": None,
    "Any": Any,
    "Optional": Optional,
    "Union": Union,
}


def written(function: Callable[..., object], name: str) -> tuple[Callable[..., object], Any]:
    """Return the original function and its unresolved annotation; Any if there is none."""
    if type(function) is not types.FunctionType:
        function = _function_of(function)
    return function, getattr(function, "__annotations__", {}).get(name, Any)


def annotation(function: Callable[..., object], name: str) -> Any:
    """Return the resolved annotation of parameter ``name`` (or ``"return"``) of ``function``.

    Return Any if there is none, or if it cannot be resolved.
    """
    function, raw = written(function, name)
    if raw is Any:
        return Any
    if isinstance(raw, str):
        plain = plainly(raw)
        return _resolved(function, raw) if plain is None else plain[0]
    return _resolved(function, raw) if refers_ahead(raw) else raw


def awaited(declared: Any) -> Any:
    """Return the result type of an awaitable type; any other type unchanged."""
    while _is_awaited(get_origin(declared) or declared):
        arguments = get_args(declared)
        declared = arguments[-1] if arguments else Any
    return declared


def _is_awaited(origin: Any) -> bool:
    if origin is Awaitable or origin is Coroutine:
        return True
    return isinstance(origin, type) and origin.__module__ in ("asyncio", "_asyncio")


def _function_of(given: Callable[..., object]) -> Callable[..., object]:
    """Return the function that a partial, a method or a callable object calls."""
    while True:
        if isinstance(given, functools.partial):
            given = cast("functools.partial[object]", given).func
        elif isinstance(given, types.MethodType):
            given = given.__func__
        elif isinstance(given, types.FunctionType):
            return given
        elif isinstance(given, type):
            return _says_nothing
        elif hasattr(given, "__wrapped__"):  # functools.cache and the like
            given = cast("Any", given).__wrapped__
        else:
            called = getattr(type(given), "__call__", None)  # noqa: B004
            if not isinstance(called, (types.FunctionType, functools.partial)):
                return _says_nothing
            given = cast("Callable[..., object]", called)


def _says_nothing() -> Any:
    """Serve as a callable without annotations."""


@functools.lru_cache(maxsize=1024)
def plainly(text: str) -> tuple[Any] | None:
    """Resolve an annotation that names only JSON's own types, without its function.

    The cache is bounded, because annotations may be created while a program runs.
    """
    if not _PLAIN_NAMES.keys() >= set(re.findall(r"[^][|, ]+", text)):
        return None
    try:
        return (eval(text, {"__builtins__": {}}, _PLAIN_NAMES),)
    except Exception:
        return None


def _resolved(function: Callable[..., object], raw: object) -> Any:
    source: Any = function
    while hasattr(source, "__wrapped__"):
        source = source.__wrapped__
    parameters = {each.__name__: each for each in getattr(source, "__type_params__", ())}
    try:
        return resolved(raw, getattr(source, "__globals__", {}), parameters)
    except Exception:
        return Any
