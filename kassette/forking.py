"""What a fork's journal holds; planning only, the copy is storage's.

Rules: the target begins with a ``start`` that carries the source's metadata and the caller's
version; the source's ``step`` and ``resume`` entries below the cut follow, renumbered, as they
stand otherwise; a second ``start`` names the source and is the session the fork goes on in.
Waits, deadlines and terminal entries are not copied, so an expired or finished source forks well.
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
    """Give every entry of the new run's journal, the open session's ``start`` last.

    Exactly one cut point: ``from_offset`` (0 to the number of source entries) or ``from_step_id``
    (the first step with that id). ``notes`` are those of ``Start``.

    Raises UsageError for an unknown source or cut point.
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
        raise UsageError("give exactly one of from_offset and from_step_id", run_id=run_id)
    if from_offset is not None:
        if type(from_offset) is not int or not 0 <= from_offset <= len(source):
            raise UsageError(
                f"from_offset is {from_offset!r}; run {run_id!r} has {len(source)} entries, "
                f"so it is 0 to {len(source)}",
                run_id=run_id,
            )
        return from_offset
    for position, entry in enumerate(source):
        if isinstance(entry, StepEntry) and entry.step_id == from_step_id:
            return position
    raise UsageError(f"run {run_id!r} has no step {from_step_id!r}", run_id=run_id)
