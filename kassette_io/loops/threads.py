"""Runs blocking work in a few threads and wakes the event loop once per batch; knows no files.

Rules:
- A mailbox takes jobs and is served by one thread at a time, in order; the jobs waiting in it are
  served together, so that they can share a write and an fsync.
- A caller always waits until a write has finished; a cancellation is delivered at its next
  checkpoint. A read that is cancelled is abandoned.
- Threads are created when all others are busy, up to ``MAX_THREADS``, and end when idle for a
  while. Reads have their own threads: no append waits for a long journal to be read.
- No thread prevents the interpreter from exiting, whatever it is blocked on and however the loop
  ended.
- A forked child has none of the threads: it begins with an empty pool.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, final

from kassette import StorageError

if TYPE_CHECKING:
    from kassette_io.calling import Flight

T = TypeVar("T")

MAX_THREADS = 8
IDLE_SECONDS = 5.0


class EventLoop(Protocol):
    """How the jobs of one event loop are waited for (``waiting_asyncio``, ``waiting_trio``)."""

    @property
    def current_waker(self) -> Callable[[], Any]:
        """Return a handle that wakes the running loop from another thread."""
        ...

    async def carry_out(self, post: Callable[[Job], None], job: Job) -> None:
        """Post ``job`` and wait until it is delivered, despite cancellations."""
        ...

    async def ask(self, post: Callable[[Job], None], job: Job) -> None:
        """Post ``job`` and wait until it is delivered; abandon it on a cancellation."""
        ...

    @property
    def current_task(self) -> Callable[[], Any]:
        """Return the running task, or None outside of any."""
        ...

    async def fly(
        self, call: Callable[[], Coroutine[Any, Any, T]], context: Context, flight: Flight
    ) -> T:
        """Await ``call()`` in ``context``; cancellations reach it until the flight is held."""
        ...

    async def checkpoint_if_cancelled(self) -> None:
        """Raise a pending cancellation; otherwise return without yielding."""
        ...

    def times_cancelled(self) -> int:
        """Return how often the current task has been cancelled; 0 if that is not counted."""
        ...

    def is_stray(self, error: BaseException, before: int, /) -> bool:
        """Return whether ``error`` cancelled something the current task awaits, not the task."""
        ...

    def deliver(self, waker: Any, jobs: Sequence[Job]) -> None:
        """Wake the task of every job. Called from any thread."""
        ...

    def wake(self, waker: Any, jobs: Sequence[Job]) -> None:
        """Wake the task of every job. Called on the loop's own thread."""
        ...

    def is_gone(self, waker: Any) -> bool:
        """Return whether the loop of ``waker`` has ended. Called from any thread."""
        ...

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run ``function``, which must not raise, in a task protected from cancellation."""
        ...


@final
class Job:
    """One piece of work: the request, the task that waits for it, and its outcome.

    ``loop`` and ``waker`` are used to wake the waiting ``task``; without them nobody waits.
    """

    __slots__ = ("delivered", "error", "loop", "request", "result", "task", "waker")

    def __init__(self, request: object, loop: EventLoop | None = None, waker: Any = None) -> None:
        self.request = request
        self.loop = loop
        self.waker = waker
        self.task: Any = None
        self.delivered = False
        self.result: Any = None
        self.error: BaseException | None = None

    def notify(self) -> None:
        """Wake the waiting task, from any thread."""
        if self.loop is not None:
            self.loop.deliver(self.waker, [self])

    def notify_here(self) -> None:
        """Wake the waiting task, on its own running loop."""
        if self.loop is not None:
            self.loop.wake(self.waker, [self])

    def is_orphaned(self) -> bool:
        """Return whether the loop of the waiting task has ended."""
        return self.loop is not None and self.loop.is_gone(self.waker)

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


@final
class Mailbox:
    """A queue of jobs that ``serve`` processes in order, all that are waiting at once.

    ``serve`` sets the result or the error of every job and must not raise.
    """

    __slots__ = ("busy", "jobs", "serve")

    def __init__(self, serve: Callable[[list[Job]], None]) -> None:
        self.serve = serve
        self.jobs: list[Job] = []
        self.busy = False


@final
class Threads:
    """A pool of threads, called ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._ready: queue.SimpleQueue[Mailbox | None] = queue.SimpleQueue()
        self._deferred: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._queued = 0

    def post(self, mailbox: Mailbox, job: Job) -> None:
        """Put ``job`` into ``mailbox`` and ensure that a thread serves it."""
        with self._lock:
            self._put(mailbox, job)

    def try_post(self, mailbox: Mailbox, job: Job) -> bool:
        """Post unless that would block, since a finalizer under this lock would block forever."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._put(mailbox, job)
        finally:
            self._lock.release()
        return True

    def _put(self, mailbox: Mailbox, job: Job) -> None:
        mailbox.jobs.append(job)
        if mailbox.busy:
            return
        self._queued += 1
        self._ready.put(mailbox)
        mailbox.busy = True
        if self._queued > self._idle and self._threads < MAX_THREADS:
            self._spawn(mailbox, job)

    def _spawn(self, mailbox: Mailbox, job: Job) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._threads += 1
        try:
            thread.start()
        except RuntimeError as error:
            self._threads -= 1
            if self._threads == 0:
                self._queued -= 1
                self._ready = queue.SimpleQueue()
                mailbox.busy = False
                mailbox.jobs.remove(job)
                raise StorageError(
                    f"cannot start a thread for it: {error}", rolled_back=True
                ) from error

    def post_later(self, post: Callable[[], None]) -> None:
        """Call ``post`` in a writer thread, without any lock held.

        It is for finalizers, which the garbage collector may run at any point and under any lock,
        so it takes no lock itself.
        """
        self._deferred.put(post)
        self._ready.put(None)

    def _work(self) -> None:
        while (mailbox := self._take()) is not None:
            with self._lock:
                jobs, mailbox.jobs = mailbox.jobs, []
            mailbox.serve(jobs)
            with self._lock:
                mailbox.busy = bool(mailbox.jobs)
                if mailbox.busy:
                    self._queued += 1
                    self._ready.put(mailbox)
            _deliver(jobs)
            del jobs, mailbox

    def _take(self) -> Mailbox | None:
        """Wait for a mailbox; return None when idle for a while. Never wait under the lock.

        The last thread remains, for calls deferred by finalizers.
        """
        with self._lock:
            self._idle += 1
        while True:
            try:
                mailbox = self._ready.get(timeout=None if self._threads == 1 else IDLE_SECONDS)
            except queue.Empty:
                mailbox = None
            self._call_deferred()
            with self._lock:
                if mailbox is not None:
                    self._queued -= 1
                elif self._queued or self._threads == 1:
                    continue
                else:
                    self._threads -= 1
                self._idle -= 1
                return mailbox

    def _call_deferred(self) -> None:
        with suppress(queue.Empty):
            while not self._deferred.empty():
                self._deferred.get_nowait()()


def _deliver(jobs: list[Job]) -> None:
    batches: dict[Any, list[Job]] = {}
    for job in jobs:
        if job.loop is not None:
            batches.setdefault(job.waker, []).append(job)
    for waker, batch in batches.items():
        cast("EventLoop", batch[0].loop).deliver(waker, batch)


def _call(jobs: list[Job]) -> None:
    for job in jobs:
        try:
            job.result = cast("Callable[[], Any]", job.request)()
        except BaseException as error:
            job.error = error


def post_reading(job: Job) -> None:
    """Call the job's request, a function, in a thread for reads."""
    _READERS.post(Mailbox(_call), job)


WRITERS = Threads("kassette-writer")
_READERS = Threads("kassette-reader")
for _pool in (WRITERS, _READERS):
    os.register_at_fork(after_in_child=_pool._reset)  # pyright: ignore[reportPrivateUsage]
