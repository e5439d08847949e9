"""The event loops that can be had here, and how a contestant runs on one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")


def installed(*names: str) -> list[str]:
    """Give those of ``asyncio``, ``trio`` and ``uvloop`` that are installed, in this order."""
    return [name for name in names if name == "asyncio" or find_spec(name) is not None]


def run(loop: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` to its end on a fresh event loop of that name."""
    import anyio

    if loop == "uvloop":
        return anyio.run(main, backend_options={"use_uvloop": True})
    return anyio.run(main, backend=loop)
