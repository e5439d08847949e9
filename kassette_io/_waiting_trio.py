"""Waiting for a job under trio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import trio  # noqa: TID253 - this module is loaded only where trio runs

from kassette_io._writers import Job

current_waker = trio.lowlevel.current_trio_token
checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled


def deliver(waker: trio.lowlevel.TrioToken, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs``, from another thread; a run that is over awaits nothing."""
    try:
        waker.run_sync_soon(_wake, jobs)
    except trio.RunFinishedError:
        return


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function`` in a task of its own."""
    trio.lowlevel.spawn_system_task(function, *args)


def prepare(job: Job) -> None:
    """Name the task to wake."""
    job.task = trio.lowlevel.current_task()


async def wait(job: Job) -> None:
    """Wait until the job is delivered; a cancellation waits with us."""
    await trio.lowlevel.wait_task_rescheduled(_cannot_be_aborted)


def _cannot_be_aborted(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        trio.lowlevel.reschedule(job.task)
