"""Checks a workflow's function when it is declared, and finds its name."""

from __future__ import annotations

import inspect
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from kassette import UsageError


def check_function(fn: object) -> None:
    """Raise UsageError for a function that could only fail, permanently, at its first start.

    A sync function is accepted only if its annotation is an awaitable, or if it has none (a lambda,
    or a wrapper of a function with one).
    """
    name = getattr(fn, "__qualname__", None) or repr(fn)
    if isinstance(fn, type) or not callable(fn):
        raise UsageError(f"a workflow needs an async function, not {name}")
    called = _called(fn)
    if inspect.isasyncgenfunction(called):
        raise UsageError(
            f"{name} is an async generator; a workflow is an async function that returns its "
            "result. To pass on partial results, use ctx.stream or do it inside of a step"
        )
    if not inspect.iscoroutinefunction(called) and not _may_return_awaitable(called):
        raise UsageError(f"{name} is not an async function; declare it with `async def`")
    parameters = list(inspect.signature(fn).parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        raise UsageError(
            f"{name} is an unbound method, so it would get no {parameters[0].name!r}; pass a "
            "bound method: workflow(instance.method, storage=…)"
        )
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes_input = sum(each.kind in positional for each in parameters) > 1
    try:
        inspect.signature(fn).bind(*(None,) * (1 + takes_input))
    except TypeError as error:
        raise UsageError(
            f"{name} cannot be called with only a context{' and an input' * takes_input}: {error}"
        ) from error


def full_name(fn: Any) -> str:
    """Return the module and the qualified name of a function, as ``module:name``."""
    while isinstance(fn, partial):
        fn = fn.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not hasattr(fn, "__qualname__"):  # pyright: ignore[reportUnknownArgumentType]
        fn = type(fn)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return f"{fn.__module__}:{fn.__qualname__}"  # pyright: ignore[reportUnknownMemberType]


def _called(fn: Any) -> Any:
    while isinstance(fn, partial):
        fn = fn.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(fn, (FunctionType, MethodType)) or inspect.iscoroutinefunction(fn):
        return fn  # pyright: ignore[reportUnknownVariableType]
    return type(fn).__call__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType, reportUnknownArgumentType]


def _may_return_awaitable(fn: Any) -> bool:
    if inspect.isgeneratorfunction(fn):
        return False
    if not isinstance(fn, (FunctionType, MethodType)) or hasattr(fn, "__wrapped__"):
        return True
    declared = fn.__annotations__.get("return")
    if declared is None:
        return fn.__name__ == "<lambda>"
    return any(
        word in str(declared) for word in ("Awaitable", "Coroutine", "Future", "Task", "Any")
    )
