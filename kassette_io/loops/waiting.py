"""Waits for jobs on the event loop that runs the current task; imports neither loop before.

What counts is which loop runs the current task. In trio's guest mode the host's own tasks share the
thread with a trio run, but are asyncio's. Trio announces itself in ``sniffio``, as anyio relies on;
reading that is cheaper than asking trio, and works with every version of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kassette_io.loops.threads import EventLoop, Job, post_reading

if TYPE_CHECKING:
    from kassette_io.calling import Flight

try:
    from sniffio import thread_local as _library
except ImportError:  # trio depends on it, so trio is not installed
    _library: Any = SimpleNamespace(name=None)  # type: ignore[no-redef]

T = TypeVar("T")


async def perform(post: Callable[[Job], None], request: object) -> Any:
    """Post ``request`` and return its result; wait for the end despite cancellation."""
    loop = _running_loop()
    job = Job(request, loop, loop.current_waker())
    await loop.carry_out(post, job)
    return job.outcome()


async def read_in_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread; a cancelled caller returns while the function continues."""
    loop = _running_loop()
    job = Job(function, loop, loop.current_waker())
    await loop.ask(post_reading, job)
    return cast("T", job.outcome())


async def finish(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``function(*args)`` in its own task, and wait for the end despite cancellation."""
    return cast("T", await perform(partial(spawn, _run), (function, args)))


async def _run(job: Job) -> None:
    function, args = cast("tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]", job.request)
    try:
        job.result = await function(*args)
    except BaseException as error:
        job.error = error
    job.notify_here()


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function``, which must not raise, in a task protected from cancellation."""
    _running_loop().spawn(function, *args)


async def checkpoint_if_cancelled() -> None:
    """Raise a pending cancellation, native ones included; otherwise return without yielding."""
    await _running_loop().checkpoint_if_cancelled()


def current_task() -> Any:
    """Return the running task."""
    return _running_loop().current_task()


async def fly(call: Callable[[], Coroutine[Any, Any, T]], context: Context, flight: Flight) -> T:
    """Await ``call()`` in ``context``; cancellations reach it until ``flight`` is held.

    A later one takes effect after the end.
    """
    return await _running_loop().fly(call, context, flight)


def times_cancelled() -> int:
    """Return how often the current task has been cancelled; 0 if that is not counted."""
    return _running_loop().times_cancelled()


def is_stray_cancellation(error: BaseException, before: int) -> bool:
    """Return whether ``error`` cancelled something that the current task awaits, not the task.

    ``before`` is the result of ``times_cancelled`` before the await. A coroutine that is being
    closed has no task, and perhaps no loop.
    """
    return not isinstance(error, GeneratorExit) and _running_loop().is_stray(error, before)


def in_trio() -> bool:
    """Return whether trio runs the current task."""
    return bool(_library.name == "trio")


def _running_loop() -> EventLoop:
    return _trio() if in_trio() else _asyncio()


@cache
def _trio() -> EventLoop:
    from kassette_io.loops import waiting_trio

    return waiting_trio


@cache
def _asyncio() -> EventLoop:
    from kassette_io.loops import waiting_asyncio

    return waiting_asyncio
