"""The entries of a fork's journal; planning only, the storage writes them.

Rules: the new journal begins with a ``start`` that has the source's metadata and the caller's
version; the source's ``step`` and ``resume`` entries before the fork point follow, renumbered but
otherwise unchanged; a second ``start`` names the source and opens the session of the fork. Waits,
deadlines and terminal entries are not copied, so an expired or ended source can be forked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kassette.entries import Entry, ForkSource, ResumeEntry, StartEntry, StepEntry
from kassette.errors import UsageError
from kassette.notes import write_notes
from kassette.timestamps import format_timestamp


def plan_fork(
    source_run_id: str,
    source: Sequence[Entry],
    *,
    from_offset: int | None = None,
    from_step_id: str | None = None,
    version: str | None = None,
    writer: str | None = None,
    workflow: str | None = None,
    notes: Mapping[str, Any] | None = None,
    now: datetime,
) -> list[Entry]:
    """Return every entry of the new run's journal; the open session's ``start`` is the last.

    Pass exactly one fork point: ``from_offset`` (0 to the number of source entries) or
    ``from_step_id`` (the first step with that id). The entry at that point is not copied. ``notes``
    are those of ``Start``. Raise UsageError for an unknown source or fork point.
    """
    cut = _cut(source_run_id, source, from_offset, from_step_id)
    timestamp = format_timestamp(now)
    origin = next((entry for entry in source if isinstance(entry, StartEntry)), None)
    entries: list[Entry] = [
        StartEntry(
            session=1,
            timestamp=timestamp,
            version=version,
            writer=writer,
            workflow=workflow,
            metadata_json=None if origin is None else origin.metadata_json,
        )
    ]
    entries.extend(
        entry.in_session(1) for entry in source[:cut] if isinstance(entry, (StepEntry, ResumeEntry))
    )
    entries.append(
        StartEntry(
            session=2,
            timestamp=timestamp,
            version=version,
            writer=writer,
            workflow=workflow,
            source=ForkSource(run_id=source_run_id, from_offset=cut),
            extra_json=write_notes({**(notes or {}), "opened": "fork"}),
        )
    )
    return [entry.at(offset) for offset, entry in enumerate(entries)]


def _cut(
    run_id: str, source: Sequence[Entry], from_offset: int | None, from_step_id: str | None
) -> int:
    if not source:
        raise UsageError(f"there is no run {run_id!r} to fork", run_id=run_id)
    if (from_offset is None) == (from_step_id is None):
        raise UsageError("pass exactly one of from_offset and from_step_id", run_id=run_id)
    if from_offset is not None:
        if type(from_offset) is not int or not 0 <= from_offset <= len(source):
            raise UsageError(
                f"from_offset is {from_offset!r}, but run {run_id!r} has {len(source)} entries; "
                f"pass 0 to {len(source)}",
                run_id=run_id,
            )
        return from_offset
    for position, entry in enumerate(source):
        if isinstance(entry, StepEntry) and entry.step_id == from_step_id:
            return position
    raise UsageError(f"run {run_id!r} has no step {from_step_id!r}", run_id=run_id)
