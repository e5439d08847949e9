"""Waiting for a job under asyncio, proof against ``Task.cancel`` as well as anyio's scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from anyio import CancelScope, lowlevel

from kassette_io._threads import Job

current_waker = asyncio.get_running_loop


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
    _ask_again(cancelled)


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


def _ask_again(cancelled: asyncio.CancelledError) -> None:
    """Cancel the task once more, keeping the count that timeouts and task groups go by.

    A scope of anyio asks again by itself, as long as the task is inside it.
    """
    task = asyncio.current_task()
    if task is not None and not str(*cancelled.args[:1]).startswith(_BY_ANYIO):
        task.uncancel()
        task.cancel(*cancelled.args[:1])


_BY_ANYIO: Final = ("Cancelled by cancel scope ", "Cancelled via cancel scope ")


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.delivered = True
        if not job.task.done():
            job.task.set_result(None)
