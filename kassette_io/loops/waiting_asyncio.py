"""Waits for jobs under asyncio, protected from ``Task.cancel`` as well as anyio's scopes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from anyio import CancelScope, lowlevel
from anyio._backends import _asyncio

from kassette_io.loops.threads import Job

if TYPE_CHECKING:
    from kassette_io.calling import Flight

current_waker = asyncio.get_running_loop
current_task = asyncio.current_task


def deliver(waker: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs`` from another thread; do nothing if the loop is closed."""
    try:
        waker.call_soon_threadsafe(_wake, jobs)
    except RuntimeError:
        return


def wake(waker: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs`` directly, without the loop's self-pipe."""
    if not waker.is_closed():
        _wake(jobs)


def is_gone(waker: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop has been closed."""
    return waker.is_closed()


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function`` in its own task; if that is cancelled before it begins, start another."""
    task = asyncio.get_running_loop().create_task(function(*args))
    _TASKS.add(task)
    task.add_done_callback(partial(_ended, function, args))


def _ended(
    function: Callable[..., Coroutine[Any, Any, None]],
    args: tuple[Any, ...],
    task: asyncio.Task[None],
) -> None:
    _TASKS.discard(task)
    if task.cancelled():
        spawn(function, *args)


_TASKS: set[asyncio.Task[None]] = set()
"""Strong references to tasks: the loop itself has only weak ones."""


def in_spawned_task() -> bool:
    """Return whether only a timeout or scope of the current task itself can cancel it."""
    return asyncio.current_task() in _TASKS


async def carry_out(post: Callable[[Job], None], job: Job) -> None:
    """Post the job and wait until it is delivered.

    A cancellation that arrives meanwhile is requested again afterwards.
    """
    before = times_cancelled()
    _prepare(job)
    post(job)
    try:
        await job.task
    except asyncio.CancelledError as error:
        cancelled = error
    else:
        return
    with CancelScope(shield=True):
        while not job.delivered:
            _prepare(job)
            try:
                await job.task
            except asyncio.CancelledError as error:
                cancelled = error
    _ask_again(cancelled, before)


async def fly(
    call: Callable[[], Coroutine[Any, Any, Any]], context: Context, flight: Flight
) -> Any:
    """Await ``call()`` in its own task.

    A cancellation of the caller cancels that task, in the same way, unless the flight is held. One
    that arrives when the task is already done takes effect at the caller's next await.
    """
    before = times_cancelled()
    loop = asyncio.get_running_loop()
    scope = CancelScope() if _is_in_scope() else None
    waiter: asyncio.Future[None] = loop.create_future()
    task = _begin(loop, _within(scope, call, waiter), context)
    try:
        await _until_done(task, loop, waiter)
    except asyncio.CancelledError as error:
        with CancelScope(shield=True):
            await _cancelled(error, task, scope, flight, before)
    except GeneratorExit:
        if not loop.is_closed():
            task.cancel()
        raise
    result = task.result()
    if type(result) is _Exit:
        raise result.error
    return result


class _Exit(NamedTuple):
    """An exception that ends the process, but must not end the loop before the caller gets it."""

    error: KeyboardInterrupt | SystemExit


def _is_in_scope() -> bool:
    """Return whether an anyio scope may cancel the current task; True if that is unknown.

    Without one, the task of a step needs none either: anyio keeps a reference to a task inside of a
    scope, even after its loop has been discarded.
    """
    states = getattr(_asyncio, "_task_states", None)
    if states is None:
        return True
    return getattr(states.get(asyncio.current_task()), "cancel_scope", None) is not None


def _begin(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context
) -> asyncio.Task[Any]:
    """Return a task that runs ``coroutine``, started eagerly if asyncio supports that.

    An eager task saves two iterations of the loop if it never has to wait. A loop with its own task
    factory creates its tasks itself.
    """
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
    return loop.create_task(coroutine, context=context)


async def _within(
    scope: CancelScope | None,
    call: Callable[[], Coroutine[Any, Any, Any]],
    waiter: asyncio.Future[None],
) -> Any:
    try:
        if scope is None:
            return await call()
        with scope:
            return await call()
    except (KeyboardInterrupt, SystemExit) as error:
        return _Exit(error)
    finally:
        # The task is done when the waiter wakes, one iteration before its callbacks would run.
        if not waiter.get_loop().is_closed():
            _settle(waiter)


async def _until_done(
    task: asyncio.Task[Any],
    loop: asyncio.AbstractEventLoop,
    waiter: asyncio.Future[None] | None = None,
) -> None:
    """Wait until ``task`` is done; a cancellation of the caller does not cancel it.

    The task itself sets ``waiter`` at its end, unless it is cancelled before it begins.
    """
    while not task.done():
        if waiter is None or waiter.done():
            waiter = loop.create_future()
        wake = partial(_settle, waiter)
        task.add_done_callback(wake)
        try:
            await waiter
        finally:
            task.remove_done_callback(wake)


def _settle(waiter: asyncio.Future[None], _: asyncio.Task[Any] | None = None) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _cancelled(
    error: asyncio.CancelledError,
    task: asyncio.Task[Any],
    scope: CancelScope | None,
    flight: Flight,
    before: int,
) -> None:
    """Forward a cancellation to ``task``, and every further one, until it is done.

    Raise the last one that has ended it, and request again one that came too late or was held.
    """
    loop = asyncio.get_running_loop()
    passed_on: asyncio.CancelledError | None = None
    missed: asyncio.CancelledError | None = None
    while True:
        if flight.held or task.done():
            missed = error
        else:
            passed_on = error
            if scope is not None and _is_by_anyio(error):
                scope.cancel()
            else:
                task.cancel(*error.args[:1])
        try:
            await _until_done(task, loop)
            break
        except asyncio.CancelledError as another:
            error = another
    if passed_on is not None and (task.cancelled() or (scope and scope.cancelled_caught)):
        try:
            raise passed_on
        finally:
            del passed_on
    if missed is not None:
        _ask_again(missed, before)


async def ask(post: Callable[[Job], None], job: Job) -> None:
    """Post the job and wait until it is delivered; abandon it on a cancellation."""
    _prepare(job)
    post(job)
    await job.task


def _prepare(job: Job) -> None:
    job.task = asyncio.get_running_loop().create_future()


async def checkpoint_if_cancelled() -> None:
    """Raise a pending cancellation by an anyio scope or by ``Task.cancel``."""
    if _is_in_scope():
        await lowlevel.checkpoint_if_cancelled()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)


def times_cancelled() -> int:
    """Return how often the current task has been cancelled, minus uncancelled requests."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_stray(error: BaseException, before: int) -> bool:
    """Return whether ``error`` cancelled something that the current task awaits, not the task.

    Asyncio counts the cancellations of a task, and anyio's scopes use the same mechanism.
    ``before`` is the count before the await.
    """
    return isinstance(error, asyncio.CancelledError) and times_cancelled() <= before


def _ask_again(cancelled: asyncio.CancelledError, before: int) -> None:
    """Cancel the task once more at its next await, unless it is uncancelled until then.

    A timeout does so when its block ends in time, which it now does: the result is available.
    ``before`` is how often the task had been cancelled before the wait. An anyio scope cancels
    again by itself as long as the task is inside of it.
    """
    task = asyncio.current_task()
    if task is not None and not _is_by_anyio(cancelled):
        before = min(before, task.cancelling() - 1)
        asyncio.get_running_loop().call_soon(_cancel_again, task, before, cancelled.args[:1])


def _cancel_again(task: asyncio.Task[Any], before: int, message: tuple[Any, ...]) -> None:
    if not task.done() and task.cancelling() > before:
        task.uncancel()
        task.cancel(*message)


def _is_by_anyio(cancelled: asyncio.CancelledError) -> bool:
    return str(*cancelled.args[:1]).startswith(_BY_ANYIO)


_BY_ANYIO: Final = ("Cancelled by cancel scope ", "Cancelled via cancel scope ")


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.delivered = True
        if not job.task.done():
            job.task.set_result(None)
