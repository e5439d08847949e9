"""Waiting for a job under asyncio, proof against ``Task.cancel`` as well as anyio's scopes."""

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
    """Wake the tasks of ``jobs``, from another thread; a loop that is gone awaits nothing."""
    try:
        waker.call_soon_threadsafe(_wake, jobs)
    except RuntimeError:
        return


def wake(waker: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs``, without a detour over the loop's self-pipe."""
    if not waker.is_closed():
        _wake(jobs)


def is_gone(waker: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop has been closed."""
    return waker.is_closed()


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function`` in a task of its own; one that is cancelled before it began begins anew."""
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
"""The loop itself refers to its tasks only weakly."""


def in_spawned_task() -> bool:
    """Tell whether only a timeout or scope that the current task made itself can cancel it."""
    return asyncio.current_task() in _TASKS


async def carry_out(post: Callable[[Job], None], job: Job) -> None:
    """Hand the job over and wait until it is delivered.

    A cancellation that arrives meanwhile is asked for again afterwards.
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
    """Await ``call()`` in a task of its own.

    What cancels the caller cancels that task, in the same way, as long as the flight is not held.
    What comes when the task is done already is felt at the caller's next await.
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
    """What ends the process, and is not to end the loop before the caller has heard of it."""

    error: KeyboardInterrupt | SystemExit


def _is_in_scope() -> bool:
    """Return whether one of anyio's scopes may cancel the current task, True if that is unknown.

    Where none may, a task of its own needs none either: anyio holds on to a task that is inside of
    a scope, also when its loop has been thrown away.
    """
    states = getattr(_asyncio, "_task_states", None)
    if states is None:
        return True
    return getattr(states.get(asyncio.current_task()), "cancel_scope", None) is not None


def _begin(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context
) -> asyncio.Task[Any]:
    """Return a task that runs ``coroutine``, begun at once where asyncio can and nothing forbids.

    A task that is begun at once saves two turns of the loop if it never has to wait. A loop with a
    task factory of its own makes its tasks itself.
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
        # The task is done when the waiting one is woken, one turn before its callbacks would do it.
        if not waiter.get_loop().is_closed():
            _settle(waiter)


async def _until_done(
    task: asyncio.Task[Any],
    loop: asyncio.AbstractEventLoop,
    waiter: asyncio.Future[None] | None = None,
) -> None:
    """Wait until ``task`` is done; to be cancelled does not cancel it.

    ``waiter`` is set by the task itself at its end, unless it is cancelled before it begins.
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
    """Hand a cancellation on to ``task``, and every further one, until it is done.

    Raises the last that has ended it, and asks again for one that came too late or was held off.
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
    """Hand the job over and wait until it is delivered, or leave it if that is cancelled."""
    _prepare(job)
    post(job)
    await job.task


def _prepare(job: Job) -> None:
    job.task = asyncio.get_running_loop().create_future()


async def checkpoint_if_cancelled() -> None:
    """Feel a cancellation by one of anyio's scopes, or by ``Task.cancel``."""
    if _is_in_scope():
        await lowlevel.checkpoint_if_cancelled()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)


def times_cancelled() -> int:
    """Return how often the current task has been cancelled and not been let off since."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_stray(error: BaseException, before: int) -> bool:
    """Return whether ``error`` cancelled something that the current task awaits, not the task.

    Asyncio counts who cancels a task, and anyio's scopes do it in asyncio's way. ``before`` is what
    had been counted when the awaiting began.
    """
    return isinstance(error, asyncio.CancelledError) and times_cancelled() <= before


def _ask_again(cancelled: asyncio.CancelledError, before: int) -> None:
    """Cancel the task once more at its next await, unless that is taken back until then.

    A timeout takes it back when its block is left in time, which the block now is: what was waited
    for is there. ``before`` is how often the task had been cancelled when the waiting began. A
    scope of anyio asks again by itself, as long as the task is inside it.
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
