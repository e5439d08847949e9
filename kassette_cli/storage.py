"""The storage that the command reads, and how verbs query it; nothing is printed here."""

from __future__ import annotations

import os
from asyncio import Runner
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from contextlib import contextmanager
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

import anyio

import kassette
from kassette_io.storages.local import LocalStorage
from kassette_io.storages.protocol import Storage

if TYPE_CHECKING:
    from kassette_io.storages.remote import RemoteStorage

OpenStorage: TypeAlias = "LocalStorage | RemoteStorage"
Unreadable: TypeAlias = kassette.JournalCorruptionError | kassette.StorageError
P = ParamSpec("P")
T = TypeVar("T")

TOGETHER = 16
"""How many journals are read from an object store concurrently."""


class Call(Protocol):
    """Queries an open storage."""

    def __call__(self, ask: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run ``ask(storage, *args)``."""
        ...


def open_url(url: str, run_ids: Iterable[str] = ()) -> OpenStorage:
    """Return the storage at ``url``; a local storage's directory must exist.

    LocalStorage accepts a missing directory, as on a service's first start; to somebody who
    inspects runs it is a typo. Raise Misuse for an invalid URL or run id, UsageError for a path
    that is missing or not a directory, and StorageError for one that cannot be accessed.
    """
    from kassette_cli.misuse import Misuse
    from kassette_io.storages.urls import open_storage

    try:
        storage = open_storage(url)
        for run_id in run_ids:
            kassette.check_run_id(run_id)
    except kassette.UsageError as error:
        raise Misuse(str(error)) from error
    check_exists(storage)
    return storage


def perform(
    storage: OpenStorage,
    ask: Callable[Concatenate[OpenStorage, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run ``ask(storage, …)`` in a new event loop, then close the storage."""

    async def ask_and_close() -> T:
        async with storage:
            return await ask(storage, *args, **kwargs)

    return anyio.run(ask_and_close)


@contextmanager
def open_loop(storage: OpenStorage) -> Generator[Call]:
    """Open ``storage`` in an event loop that only runs while a call is in progress.

    Between two calls no loop is running, so an interrupt need not wait for one.
    """
    with Runner() as runner:

        def call(ask: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
            return runner.run(ask(storage, *args))

        try:
            yield call
        finally:
            runner.run(storage.aclose())


def check_exists(storage: Storage) -> None:
    """Check that a local storage's directory exists.

    Raise UsageError if it is missing or not a directory, StorageError if it cannot be accessed.
    """
    if not isinstance(storage, LocalStorage):
        return
    directory = storage.directory
    try:
        found = os.stat(directory)  # noqa: PTH116 - pathlib is not needed otherwise, and slow to import
    except FileNotFoundError:
        raise kassette.UsageError(
            f"there is no directory {directory!r}; check --storage or KASSETTE_STORAGE"
        ) from None
    except OSError as error:
        raise kassette.StorageError(f"cannot open {directory!r}: {error.strerror}") from error
    if not S_ISDIR(found.st_mode):
        raise kassette.UsageError(
            f"{directory!r} is not a directory; check --storage or KASSETTE_STORAGE"
        )


async def list_runs(storage: Storage, limit: int | None = None) -> list[str]:
    """Return the ids of all runs, or of the first ``limit`` of them."""
    runs: list[str] = []
    found = storage.list_runs()
    try:
        async for run_id in found:
            if len(runs) == limit:
                break
            runs.append(run_id)
    finally:
        if isinstance(found, AsyncGenerator):
            await found.aclose()
    return runs


async def read_run(storage: Storage, run_id: str) -> list[kassette.Entry]:
    """Return the journal of a run; a local file may be empty if the first append never finished.

    Raise UsageError for an unknown run. An object store is never listed for this: its journals are
    never empty, and a listing may be long.
    """
    entries = await storage.read_all(run_id)
    if entries or (isinstance(storage, LocalStorage) and run_id in await list_runs(storage)):
        return entries
    raise unknown_run(storage, run_id)


def unknown_run(storage: Storage, run_id: str) -> kassette.UsageError:
    """Return the error to raise for a run that the storage does not have."""
    return kassette.UsageError(f"there is no run {run_id!r} in {storage!r}", run_id=run_id)


async def read_runs(
    storage: Storage, run_ids: Sequence[str]
) -> list[list[kassette.Entry] | Unreadable]:
    """Read several journals concurrently and return each, or the error that prevented it."""
    found: dict[str, list[kassette.Entry] | Unreadable] = {}

    async def read(run_id: str) -> None:
        try:
            found[run_id] = await storage.read_all(run_id)
        except (kassette.JournalCorruptionError, kassette.StorageError) as error:
            found[run_id] = error

    async with anyio.create_task_group() as tasks:
        for run_id in run_ids:
            tasks.start_soon(read, run_id)
    return [found[run_id] for run_id in run_ids]
