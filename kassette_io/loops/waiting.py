"""How a task waits for a job on whichever event loop runs it; neither loop is imported before.

Trio counts where it runs the current task. In its guest mode the host's own tasks share the thread
with a trio run, and are asyncio's all the same. Trio says where it runs in ``sniffio``, as it does
to anyio; a look there costs less than asking trio, and holds for every version of it.
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
except ImportError:  # trio would have brought it
    _library: Any = SimpleNamespace(name=None)  # type: ignore[no-redef]

T = TypeVar("T")


async def perform(post: Callable[[Job], None], request: object) -> Any:
    """Hand ``request`` over with ``post`` and give what comes of it, waiting to the end (D2)."""
    loop = _running_loop()
    job = Job(request, loop, loop.current_waker())
    await loop.carry_out(post, job)
    return job.outcome()


async def read_in_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a thread; when it is cancelled, the caller leaves and it goes on."""
    loop = _running_loop()
    job = Job(function, loop, loop.current_waker())
    await loop.ask(post_reading, job)
    return cast("T", job.outcome())


async def finish(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``function(*args)`` in a task of its own, waiting to the end (D2)."""
    return cast("T", await perform(partial(spawn, _run), (function, args)))


async def _run(job: Job) -> None:
    function, args = cast("tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]", job.request)
    try:
        job.result = await function(*args)
    except BaseException as error:
        job.error = error
    job.notify_here()


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function``, which raises nothing, in a task that no cancellation reaches."""
    _running_loop().spawn(function, *args)


async def checkpoint_if_cancelled() -> None:
    """Feel a cancellation that is pending, native ones included; otherwise do not yield."""
    await _running_loop().checkpoint_if_cancelled()


def current_task() -> Any:
    """Return the task that runs."""
    return _running_loop().current_task()


async def fly(call: Callable[[], Coroutine[Any, Any, T]], context: Context, flight: Flight) -> T:
    """Await ``call()`` in ``context``; a cancellation reaches it until ``flight`` is held.

    One that arrives later is felt after the end.
    """
    return await _running_loop().fly(call, context, flight)


def times_cancelled() -> int:
    """Return how often the current task has been cancelled, where that is counted."""
    return _running_loop().times_cancelled()


def is_stray_cancellation(error: BaseException, before: int) -> bool:
    """Return whether ``error`` cancelled something that the current task awaits, not the task.

    ``before`` is what ``times_cancelled`` has said before the awaiting. A coroutine that is being
    closed has no task, and perhaps no loop any more.
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
