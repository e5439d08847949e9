"""The verbs: storage in, values out; no argument is parsed and nothing is printed here."""

from __future__ import annotations

import os
from asyncio import Runner
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

import anyio

import kassette
import kassette_io
from kassette_io.storages.local import LocalStorage
from kassette_io.storages.protocol import Storage

if TYPE_CHECKING:
    from kassette_io.storages.remote import RemoteStorage

OpenStorage: TypeAlias = "LocalStorage | RemoteStorage"
Unreadable: TypeAlias = kassette.JournalCorruptionError | kassette.StorageError
P = ParamSpec("P")
T = TypeVar("T")

TOGETHER = 16
"""How many journals are read from an object store at a time."""


class Call(Protocol):
    """Runs one verb on a storage that is open."""

    def __call__(self, verb: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run ``verb(storage, *args)``."""
        ...


def perform(
    storage: OpenStorage,
    verb: Callable[Concatenate[OpenStorage, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run ``verb(storage, …)`` in an event loop of its own, and close the storage after it."""

    async def perform_and_close() -> T:
        async with storage:
            return await verb(storage, *args, **kwargs)

    return anyio.run(perform_and_close)


@contextmanager
def open_loop(storage: OpenStorage) -> Generator[Call]:
    """Open ``storage`` in an event loop that stands still between the verbs it is given.

    For what goes on step by step: an interrupt finds no loop to wait for in between.
    """
    with Runner() as runner:

        def call(verb: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
            return runner.run(verb(storage, *args))

        try:
            yield call
        finally:
            runner.run(storage.aclose())


def check_exists(storage: Storage) -> None:
    """Refuse a local storage whose directory is not there.

    To LocalStorage that is a service's first start; to somebody who inspects runs it is a typo.
    Raises UsageError, or StorageError if the directory cannot be looked at.
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
        raise kassette.UsageError(f"{directory!r} is not a directory; a storage is one")


async def list_runs(storage: Storage, limit: int | None = None) -> list[str]:
    """Give the ids of all runs, or of ``limit`` of them."""
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
    """Return the journal of a run; a file may be empty, where the first append never happened.

    Raises UsageError for a run that the storage does not know. Of an object store only the journal
    is asked for: an object begins with an entry, and a listing may be long.
    """
    entries = await storage.read_all(run_id)
    if entries or (isinstance(storage, LocalStorage) and run_id in await list_runs(storage)):
        return entries
    raise unknown_run(storage, run_id)


async def read_two(
    storage: Storage, one: str, other: str
) -> tuple[list[kassette.Entry], list[kassette.Entry]]:
    """Give the journals of two runs. Raises as ``read_run`` does."""
    return await read_run(storage, one), await read_run(storage, other)


def unknown_run(storage: Storage, run_id: str) -> kassette.UsageError:
    """Say that a storage has no such run."""
    return kassette.UsageError(f"there is no run {run_id!r} in {storage!r}", run_id=run_id)


async def read_runs(
    storage: Storage, run_ids: Sequence[str]
) -> list[list[kassette.Entry] | Unreadable]:
    """Give the journals of some runs, read at the same time; an error for what cannot be read."""
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


async def fork_run(
    storage: Storage,
    run_id: str,
    *,
    from_offset: int | None = None,
    from_step: str | None = None,
    new_run_id: str | None = None,
) -> str:
    """Fork ``run_id`` below the one cut given, and give the new run's id. Raises as ``fork`` does.

    The session that the fork opens is closed, so anybody may ``start`` the new run.
    """
    if new_run_id is None:
        new_run_id = kassette_io.create_run_id()
    run = await kassette_io.fork(
        storage, new_run_id, source=run_id, from_offset=from_offset, from_step_id=from_step
    )
    await run.aclose()
    return run.run_id


async def check_storage(storage: Storage) -> None:
    """Prove that an object store keeps its promises; a local disk has none to prove.

    Raises StorageError that names every promise the store breaks.
    """
    check = getattr(storage, "check", None)
    if check is not None:
        await check()
