"""Runs asyncio-only code: on the running loop, or on one in its own thread.

Rules:
- Under asyncio the calls run in tasks of the running loop. Under trio they run in one asyncio loop
  on a background thread, anyio's blocking portal, which lives until the home is closed.
- ``finish`` waits for the end despite cancellations; ``call`` stops when it is cancelled. In a task
  that is already protected from cancellation, ``finish`` does not create another one; a timeout set
  inside of such a task is the caller's own, and takes effect.
- A home belongs to the loop that used it first, until it is closed or that loop has ended.
- The thread of a home that was never closed ends with the home, or before the interpreter exits:
  otherwise the portal would wait for its own thread, which is frozen by then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast, final
from weakref import finalize

from anyio import CancelScope, Event, to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kassette import UsageError
from kassette_io.loops.threads import Job
from kassette_io.loops.waiting import in_trio, perform, spawn
from kassette_io.loops.waiting_asyncio import in_spawned_task

T = TypeVar("T")


@final
class AsyncioHome:
    """Runs coroutine functions on asyncio, from asyncio or trio."""

    def __init__(self) -> None:
        self._owner: object = None
        self._portal: BlockingPortal | None = None
        self._thread: AbstractContextManager[BlockingPortal] | None = None
        self._unclosed: finalize[..., AsyncioHome] | None = None
        self._entering: Event | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether calls run on a thread other than the caller's."""
        return self._portal is not None

    async def finish(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``function(*args)`` to its end; a cancellation takes effect only afterwards."""
        await self._enter()
        if self._portal is None and in_spawned_task():
            return await function(*args)
        return cast("T", await perform(self._post, (function, args)))

    async def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run ``function(*args)``; cancelling the caller cancels it."""
        await self._enter()
        if self._portal is None:
            return await function(*args)
        import trio

        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        future = self._portal.start_task_soon(function, *args)
        future.add_done_callback(lambda _: _set_soon(token, done))
        try:
            await done.wait()
        except BaseException:
            future.cancel()
            raise
        result: T = future.result()
        return result

    async def aclose(self) -> None:
        """End the background thread, if there is one."""
        thread, self._thread, self._portal, self._owner = self._thread, None, None, None
        if self._unclosed is not None:
            self._unclosed.detach()
        if thread is not None:
            with CancelScope(shield=True):
                await to_thread.run_sync(thread.__exit__, None, None, None)

    def _post(self, job: Job) -> None:
        if self._portal is None:
            spawn(_run, job)
        else:
            self._portal.start_task_soon(_run, job)

    async def _enter(self) -> None:
        current = _current_loop()
        if self._owner is not current:
            if self._owner is not None:
                if not _is_gone(self._owner):
                    raise UsageError(
                        "this storage is in use on another event loop; create one for each loop"
                    )
                await self.aclose()
            self._owner = current
        if isinstance(current, asyncio.AbstractEventLoop):
            return
        while self._entering is not None:
            await self._entering.wait()
        if self._portal is None:
            self._entering = Event()
            try:
                thread = start_blocking_portal("asyncio")
                with CancelScope(shield=True):
                    portal = await to_thread.run_sync(thread.__enter__)
                    portal.start_task_soon(_name_thread)
                    self._portal, self._thread = portal, thread
                self._unclosed = finalize(self, _abandon, thread)
            finally:
                self._entering.set()
                self._entering = None


async def _run(job: Job) -> None:
    function, args = cast("tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]", job.request)
    try:
        job.result = await function(*args)
    except BaseException as error:
        job.error = error
    job.notify()


def _name_thread() -> None:
    threading.current_thread().name = "kassette-asyncio"


def _abandon(thread: AbstractContextManager[BlockingPortal]) -> None:
    leaving = SystemExit()
    thread.__exit__(SystemExit, leaving, None)  # cancels what is still running there


def _current_loop() -> object:
    if not in_trio():
        return asyncio.get_running_loop()
    import trio

    return trio.lowlevel.current_trio_token()


def _is_gone(owner: Any) -> bool:
    if isinstance(owner, asyncio.AbstractEventLoop):
        return owner.is_closed()
    import trio

    try:
        owner.run_sync_soon(_nothing)
    except trio.RunFinishedError:
        return True
    return False


def _nothing() -> None:
    pass


def _set_soon(token: Any, done: Any) -> None:
    import trio

    try:
        token.run_sync_soon(done.set)
    except trio.RunFinishedError:
        return
