"""The verbs: storage in, values out; no argument is parsed and nothing is printed here."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from stat import S_ISDIR
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeAlias, TypeVar

import anyio

import kassette
import kassette_io
from kassette_io.local_storage import LocalStorage
from kassette_io.storage import Storage

if TYPE_CHECKING:
    from kassette_io.remote_storage import RemoteStorage

OpenStorage: TypeAlias = "LocalStorage | RemoteStorage"
P = ParamSpec("P")
T = TypeVar("T")


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
    """Give the journal of a run; it may be empty, where the first append never happened.

    Raises UsageError for a run that the storage does not know.
    """
    entries = await storage.read_all(run_id)
    if not entries and run_id not in await list_runs(storage):
        raise kassette.UsageError(f"there is no run {run_id!r} in {storage!r}", run_id=run_id)
    return entries


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
