"""Waiting for a job under asyncio, proof against ``Task.cancel`` as well as anyio's scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anyio import CancelScope

from kassette_io._writers import Job

current_waker = asyncio.get_running_loop


def deliver(waker: asyncio.AbstractEventLoop, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs``, from another thread; a loop that is gone awaits nothing."""
    try:
        waker.call_soon_threadsafe(_wake, jobs)
    except RuntimeError:
        return


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
