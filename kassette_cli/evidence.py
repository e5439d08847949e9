"""What a terminal shows beyond the contract: who has a run open; nothing is rendered.

Imported on a terminal only, so it may need what start-up cannot afford.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import aiofiles  # noqa: TID253 - see this module's header
import orjson

from kassette import Entry, ResumeEntry, SuspendEntry
from kassette.immutable import Immutable
from kassette_cli.verbs import read_run
from kassette_io.storages.local import LocalStorage
from kassette_io.storages.protocol import Storage


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


async def _holder(storage: Storage, run_id: str) -> Holder | None:
    if not isinstance(storage, LocalStorage):
        return None  # nothing is locked in an object store
    try:
        async with aiofiles.open(Path(storage.directory, f"{run_id}.lock"), "rb") as file:
            signed = orjson.loads(await file.read())
        return Holder(pid=int(signed["pid"]), host=str(signed["host"]), since=str(signed["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
