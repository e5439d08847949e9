"""Waiting for a job under asyncio, proof against ``Task.cancel`` as well as anyio's scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, lowlevel

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
    before = _times_cancelled()
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
    """
    before = _times_cancelled()
    scope = CancelScope()

    async def run() -> Any:
        with scope:
            return await call()

    task = asyncio.get_running_loop().create_task(run(), context=context)
    passed_on: asyncio.CancelledError | None = None
    kept: asyncio.CancelledError | None = None
    with CancelScope() as waiting:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                waiting.shield = True
                if flight.held:
                    kept = error
                    continue
                passed_on = error
                if _is_by_anyio(error):
                    scope.cancel()
                else:
                    task.cancel(*error.args[:1])
            except GeneratorExit:
                task.cancel()
                raise
    if passed_on is not None and (task.cancelled() or scope.cancelled_caught):
        try:
            raise passed_on
        finally:
            del passed_on
    if kept is not None:
        _ask_again(kept, before)
    return task.result()


async def ask(post: Callable[[Job], None], job: Job) -> None:
    """Hand the job over and wait until it is delivered, or leave it if that is cancelled."""
    _prepare(job)
    post(job)
    await job.task


def _prepare(job: Job) -> None:
    job.task = asyncio.get_running_loop().create_future()


async def checkpoint_if_cancelled() -> None:
    """Feel a cancellation by one of anyio's scopes, or by ``Task.cancel``."""
    await lowlevel.checkpoint_if_cancelled()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def is_stray(error: BaseException) -> bool:
    """Return whether ``error`` cancelled something that the current task awaits, not the task.

    Asyncio counts who cancels a task, and anyio's scopes do it in asyncio's way.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


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
