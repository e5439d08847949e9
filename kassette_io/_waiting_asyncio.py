"""Waiting for a job under asyncio, proof against ``Task.cancel`` as well as anyio's scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from anyio import CancelScope, lowlevel

from kassette_io._writers import Job

current_waker = asyncio.get_running_loop


def deliver(waker: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs``, from another thread; a loop that is gone awaits nothing."""
    try:
        waker.call_soon_threadsafe(_wake, jobs)
    except RuntimeError:
        return


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function`` in a task of its own."""
    task = asyncio.get_running_loop().create_task(function(*args))
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


_TASKS: set[asyncio.Task[None]] = set()
"""The loop itself refers to its tasks only weakly."""


def prepare(job: Job) -> None:
    """Make the future to wake."""
    job.task = asyncio.get_running_loop().create_future()


async def wait(job: Job) -> None:
    """Wait until the job is delivered; a cancellation that arrives meanwhile is asked for again."""
    try:
        await job.task
    except asyncio.CancelledError as error:
        cancelled = error
    else:
        return
    with CancelScope(shield=True):
        while not job.delivered:
            prepare(job)
            try:
                await job.task
            except asyncio.CancelledError as error:
                cancelled = error
    _ask_again(cancelled)


async def checkpoint_if_cancelled() -> None:
    """Feel a cancellation by one of anyio's scopes, or by ``Task.cancel``."""
    await lowlevel.checkpoint_if_cancelled()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)


def _ask_again(cancelled: asyncio.CancelledError) -> None:
    """Cancel the task once more, keeping the count that timeouts and task groups go by."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
        task.cancel(*cancelled.args[:1])


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.delivered = True
        if not job.task.done():
            job.task.set_result(None)
