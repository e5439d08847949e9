"""Waits for jobs under trio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any

import trio  # noqa: TID253 - this module is loaded only where trio runs

from kassette_io.calling import Flight, in_context
from kassette_io.loops.threads import Job

current_waker = trio.lowlevel.current_trio_token
current_task = trio.lowlevel.current_task
checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled


def deliver(waker: trio.lowlevel.TrioToken, jobs: Sequence[Job]) -> None:
    """Wake the tasks of ``jobs`` from another thread; do nothing if the run has ended."""
    try:
        waker.run_sync_soon(_wake, jobs)
    except trio.RunFinishedError:
        return


wake = deliver
"""Tasks of this run: one rescheduled after its run has crashed would end up in the next run."""


def is_gone(waker: trio.lowlevel.TrioToken) -> bool:
    """Return whether the run has ended, which trio reports when its token is used."""
    try:
        waker.run_sync_soon(_wake, ())
    except trio.RunFinishedError:
        return True
    return False


def spawn(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Run ``function`` in its own task."""
    trio.lowlevel.spawn_system_task(function, *args, context=copy_context())


@trio.lowlevel.enable_ki_protection
async def carry_out(post: Callable[[Job], None], job: Job) -> None:
    """Post the job and wait until it is delivered; a cancellation takes effect afterwards.

    So does Ctrl-C, which would otherwise leave a task that is woken without waiting.
    """
    job.task = trio.lowlevel.current_task()
    post(job)
    await trio.lowlevel.wait_task_rescheduled(_cannot_be_aborted)


@trio.lowlevel.enable_ki_protection
async def ask(post: Callable[[Job], None], job: Job) -> None:
    """Post the job and wait until it is delivered; abandon it on a cancellation."""

    def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        job.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    job.task = trio.lowlevel.current_task()
    post(job)
    await trio.lowlevel.wait_task_rescheduled(leave)


async def fly(
    call: Callable[[], Coroutine[Any, Any, Any]], context: Context, flight: Flight
) -> Any:
    """Await ``call()`` here, in a scope that becomes a shield when the flight is held."""
    with trio.CancelScope(shield=flight.held) as flight.scope:
        return await in_context(context, call())


def times_cancelled() -> int:
    """Return 0: trio does not count."""
    return 0


def is_stray(_: BaseException, __: int) -> bool:
    """Return False: under trio a scope's cancellation does not leave the scope."""
    return False


def _cannot_be_aborted(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.task is not None:
            trio.lowlevel.reschedule(job.task)
