"""What a terminal shows beyond the contract: runs in brief, who has one open; nothing is rendered.

Imported on a terminal only, so it may need what start-up cannot afford.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import aiofiles  # noqa: TID253 - see this module's header
import orjson

from kassette import (
    Entry,
    JournalCorruptionError,
    ResumeEntry,
    RunStatus,
    StepEntry,
    StorageError,
    SuspendEntry,
    run_status,
)
from kassette.immutable import Immutable
from kassette_cli.verbs import list_runs, read_run
from kassette_io.local_storage import LocalStorage
from kassette_io.storage import Storage


@final
class RunSummary(Immutable, kw_only=True):
    """One run in brief; ``status`` is the error where the journal cannot be read."""

    run_id: str
    status: RunStatus | JournalCorruptionError | StorageError
    steps: int | None = None
    started: str | None = None


@final
class Holder(Immutable, kw_only=True):
    """What a run's lock file says of the session that has, or had, the run open."""

    pid: int
    host: str
    since: str


@final
class RunReport(Immutable, kw_only=True):
    """A run's journal; ``holder`` is None unless a lock file names somebody."""

    run_id: str
    entries: list[Entry]
    holder: Holder | None = None


Progress = Callable[[int, int], None]
"""Called with the number of runs that have been read and the number of all."""


async def summarise_runs(
    storage: Storage, limit: int | None, progress: Progress
) -> list[RunSummary]:
    """Give every run, or ``limit`` of them, in brief."""
    runs = await list_runs(storage, limit)
    summaries: list[RunSummary] = []
    for run_id in runs:
        progress(len(summaries), len(runs))
        summaries.append(await _summarise(storage, run_id))
    return summaries


async def report_run(storage: Storage, run_id: str) -> RunReport:
    """Give what is known of a run. Raises as ``read_run`` does."""
    entries = await read_run(storage, run_id)
    return RunReport(run_id=run_id, entries=entries, holder=await _holder(storage, run_id))


def open_waits(entries: list[Entry]) -> list[SuspendEntry]:
    """Give the waits whose event has not arrived, each as it was first journaled."""
    waits: dict[str, SuspendEntry] = {}
    for entry in entries:
        if isinstance(entry, SuspendEntry):
            waits.setdefault(entry.waiting_for, entry)
        elif isinstance(entry, ResumeEntry):
            waits.pop(entry.event_name, None)
    return list(waits.values())


async def _summarise(storage: Storage, run_id: str) -> RunSummary:
    try:
        entries = await storage.read_all(run_id)
    except (JournalCorruptionError, StorageError) as error:
        return RunSummary(run_id=run_id, status=error)
    return RunSummary(
        run_id=run_id,
        status=run_status(entries),
        steps=sum(isinstance(entry, StepEntry) for entry in entries),
        started=entries[0].timestamp if entries else None,
    )


async def _holder(storage: Storage, run_id: str) -> Holder | None:
    if not isinstance(storage, LocalStorage):
        return None  # nothing is locked in an object store
    try:
        async with aiofiles.open(Path(storage.directory, f"{run_id}.lock"), "rb") as file:
            signed = orjson.loads(await file.read())
        return Holder(pid=int(signed["pid"]), host=str(signed["host"]), since=str(signed["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
