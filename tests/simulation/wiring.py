"""Puts the simulated world under the real drivers, in place of loops, threads, files and dice.

What stays real: the core, the object append loop, LocalStorage with its journal and its lock,
RemoteStorage, Run, Context and Workflow. What is replaced: how a task waits for another, the writer
threads, the module ``os``, the wall clock, the process and random tokens.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import Context
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any

from kassette_io import _clock, context, driver, lifecycle, run, workflows
from kassette_io.calling import Flight, in_context
from kassette_io.loops.threads import Job, Mailbox
from kassette_io.storages import local, local_journal, remote, run_lock
from tests.simulation.disk import Disk
from tests.simulation.world import Fiber, World, complete


class _Now:
    world: World


def _world() -> World:
    return _Now.world


class _Scope:
    def __init__(self, *, shield: bool = False) -> None:
        pass

    def __enter__(self) -> _Scope:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Event:
    def __init__(self) -> None:
        self._set = False
        self._waiters: list[Fiber] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for fiber in self._waiters:
            _world().wake(fiber)

    async def wait(self) -> None:
        while not self._set:
            self._waiters.append(_world().fiber)
            _world().wait()


class _TaskGroup:
    def __init__(self) -> None:
        self._children: list[Fiber] = []
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> _TaskGroup:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for fiber in self._children:
            _world().join(fiber)
        if self._errors:
            raise BaseExceptionGroup("unhandled errors in a task group", self._errors)

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        world = _world()

        def call() -> None:
            try:
                complete(function(*args))  # type: ignore[arg-type]
            except Exception as error:
                self._errors.append(error)

        self._children.append(world.spawn(world.process, f"branch {args[0]}", call))


class _Job(Job):
    """A job that a fiber waits for."""

    __slots__ = ("done", "fiber")

    def notify(self) -> None:
        self.done = True
        _world().wake(self.fiber)

    notify_here = notify


async def _perform(post: Callable[[Job], None], request: object) -> Any:
    job = _Job(request)
    job.waker = _world().process
    job.done = False
    job.fiber = _world().fiber
    post(job)
    _WRITERS.serve_posted()
    while not job.done:
        _world().wait()
    return job.outcome()


class _Writers:
    """The writer threads: a mailbox is served by one fiber at a time, all that waits together."""

    def __init__(self) -> None:
        self._posted: Mailbox | None = None

    def post(self, mailbox: Mailbox, job: Job) -> None:
        mailbox.jobs.append(job)
        if not mailbox.busy:
            mailbox.busy = True
            self._posted = mailbox

    def serve_posted(self) -> None:
        """Serve what the running fiber has just posted, with its locks given up, in its stead."""
        mailbox, self._posted = self._posted, None
        if mailbox is not None:
            self._serve(mailbox)

    def _serve(self, mailbox: Mailbox) -> None:
        jobs, mailbox.jobs = mailbox.jobs, []
        mailbox.serve(jobs)
        if mailbox.jobs:
            world = _world()
            world.spawn(world.process, "writer", partial(self._serve, mailbox))
        else:
            mailbox.busy = False
        for job in jobs:
            job.notify()


_WRITERS = _Writers()


def _spawn(function: Callable[..., Any], *args: Any) -> None:
    world = _world()
    world.spawn(world.process, "sender", lambda: complete(function(*args)))


async def _fly(
    call: Callable[[], Coroutine[Any, Any, Any]], context: Context, flight: Flight
) -> Any:
    fiber = _world().fiber
    fiber.flights.append(flight)
    try:
        return await in_context(context, call())
    finally:
        fiber.flights.remove(flight)


async def _finish(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    with _Scope(shield=True):
        return await function(*args)


async def _sleep(seconds: float) -> None:
    _world().sleep(seconds)


def _current_time() -> float:
    return _world().elapsed


async def _read_in_thread(function: Callable[[], Any]) -> Any:
    return function()


async def _nothing() -> None:
    pass


def connect(world: World, disk: Disk) -> None:
    """Have the drivers work in ``world`` from now on; only inside of ``wired``."""
    _Now.world = world
    local_journal.os = disk  # type: ignore[attr-defined]
    local_journal.open = disk.open_to_read  # type: ignore[attr-defined]
    run_lock.os = disk  # type: ignore[attr-defined]
    run_lock.fcntl = disk.fcntl  # type: ignore[attr-defined]
    run_lock._DESCRIPTORS.clear()
    local.os = disk  # type: ignore[attr-defined]


@contextmanager
def wired() -> Iterator[None]:
    """Take the drivers off the real world; ``connect`` puts them into a simulated one."""
    missing = object()
    replaced: list[tuple[Any, str, Any]] = [
        (_clock, "now", lambda: _world().now()),
        (local_journal, "os", None),
        (local_journal, "open", None),
        (run_lock, "os", None),
        (local_journal, "read_lock", lambda path: None),
        (run_lock, "fcntl", None),
        (run_lock, "_GUARD", nullcontext()),
        (run_lock, "_DESCRIPTORS", set()),
        (local, "os", None),
        (local, "perform", _perform),
        (local, "read_in_thread", _read_in_thread),
        (local, "WRITERS", _WRITERS),
        (local, "_STORAGES", set()),
        (remote, "perform", _perform),
        (remote, "spawn", _spawn),
        (remote, "anyio", SimpleNamespace(sleep=_sleep, current_time=_current_time)),
        (remote, "random", lambda: 0.5),
        (driver, "CancelScope", _Scope),
        (driver, "Event", _Event),
        (driver, "checkpoint_if_cancelled", _nothing),
        (driver, "finish", _finish),
        (run, "sleep", _sleep),
        (run, "checkpoint", _nothing),
        (run, "checkpoint_if_cancelled", _nothing),
        (run, "current_task", lambda: _world().fiber),
        (run, "fly", _fly),
        (run, "finish", _finish),
        (workflows, "times_cancelled", lambda: 0),
        (workflows, "is_stray_cancellation", lambda error, before: False),
        (run.Run, "__del__", lambda self: None),
        (context, "create_task_group", _TaskGroup),
        (context, "sleep", _sleep),
        (lifecycle, "as_session_storage", lambda storage: storage),
        (workflows, "as_session_storage", lambda storage: storage),
        (lifecycle, "checkpoint_if_cancelled", _nothing),
        (lifecycle, "_token", lambda: f"w{_world().count()}"),
        (lifecycle, "session_notes", lambda code: {"host": "simulated", "pid": 7, "code": code}),
    ]
    before = [(where, name, where.__dict__.get(name, missing)) for where, name, _ in replaced]
    logger = logging.getLogger("kassette")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        for where, name, value in replaced:
            setattr(where, name, value)
        yield
    finally:
        gc.collect()  # what crashed was never closed, and is not to be told of that outside
        logger.disabled = was_disabled
        for where, name, value in before:
            if value is missing:
                delattr(where, name)
            else:
                setattr(where, name, value)
