"""Whether a session may be opened on what a journal records; the session itself is the machine's.

Rules, in the reference's order, the first that applies decides:
1. a run that is over refuses (TerminalRunError);
2. a workflow other than the one that the journal began with refuses (UsageError), and so does a
   version other than the first journaled one (VersionMismatchError);
3. a suspended run with a passed deadline is to be cancelled, and so is one in any other state that
   is resumed with an event whose own deadline has passed; what counts is the instant at which the
   answer was given, where the caller says it (it may have been refused as busy until now);
4. ``Start``: a suspended run refuses (EventPendingError), and so does other metadata than the
   journal's (MetadataMismatchError); ``Resume``: an event that is neither awaited nor journaled
   refuses (UsageError).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kassette.brief import brief
from kassette.commands import Resume, Start
from kassette.entries import MAX_SESSION, Entry, StartEntry, Unset
from kassette.errors import (
    EventPendingError,
    MetadataMismatchError,
    TerminalRunError,
    UsageError,
    VersionMismatchError,
)
from kassette.naming import check_event_name, check_label
from kassette.replay import Recorded
from kassette.timestamps import format_timestamp
from kassette.values import decode_value, encode_value, json_equal


def check_command(command: Start | Resume, recorded: Recorded, run_id: str) -> bytes | None:
    """Refuse what no journal could hold; give the metadata to write with a new run, if any."""
    if command.version is not None:
        check_label("a version", command.version)
    if command.workflow is not None:
        check_label("a workflow's name", command.workflow)
    if isinstance(command, Resume):
        check_event_name(command.event_name)
        if command.given_at is not None:
            if not isinstance(command.given_at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UsageError(f"given_at is an aware datetime, not {brief(command.given_at)}")
            format_timestamp(command.given_at)
        if command.by is not None:
            check_label("who gave the event (by)", command.by)
        if recorded.count == 0:
            raise UsageError(f"there is no run {run_id!r} to resume", run_id=run_id)
        if command.event_name not in recorded.resumes:
            encode_value(command.value, f"the value of event {command.event_name!r}")
        return None
    if isinstance(command.metadata, Unset):
        return None
    metadata_json = encode_value(command.metadata, "the metadata (input)")
    return metadata_json if recorded.count == 0 else None


def must_cancel(command: Start | Resume, recorded: Recorded, run_id: str, now: datetime) -> bool:
    """Take steps 1 to 4; True if the session may only cancel the run. Raises the refusals."""
    check_not_over(recorded, run_id)
    if recorded.session >= MAX_SESSION:
        raise UsageError(f"run {run_id!r} has used up its session numbers; fork it", run_id=run_id)
    _check_workflow(command.workflow, recorded.workflow, run_id)
    stored, current = recorded.version, command.version
    if stored is not None and current is not None and stored != current:
        raise VersionMismatchError(stored, current, run_id=run_id)
    if isinstance(command, Resume) and command.given_at is not None:
        now = min(now, command.given_at)
    late = isinstance(command, Resume) and recorded.is_late(command.event_name, now)
    if late or recorded.expired(now):
        return True
    if isinstance(command, Start):
        if recorded.suspended_on is not None:
            raise EventPendingError(recorded.suspended_on, run_id=run_id)
        if recorded.count and not isinstance(command.metadata, Unset):
            _check_metadata(command.metadata, recorded, run_id)
    elif command.event_name not in recorded.resumes:
        _check_awaited(command.event_name, recorded, run_id)
    return False


def check_not_over(recorded: Recorded, run_id: str) -> None:
    """Take step 1."""
    if recorded.terminal is not None:
        raise TerminalRunError(recorded.terminal.type, run_id=run_id)


def _check_workflow(asking: str | None, recorded: str | None, run_id: str) -> None:
    """Refuse another workflow than the one that began the run.

    What counts is the last part of the name, behind the module and what surrounds the function: a
    module is ``__main__`` in one process and has its name in the next.
    """
    if asking is None or recorded is None:
        return
    own, first = _last_part(asking), _last_part(recorded)
    if own != first:
        raise UsageError(
            f"run {run_id!r} was begun by workflow {recorded!r}, not by {asking!r}, which would "
            "take its results for its own. Use another run id; or, if the function was renamed, "
            f"declare it with the name it had, workflow(name={first!r})",
            run_id=run_id,
        )


def _last_part(name: str) -> str:
    return name.rpartition(":")[2].rpartition(".")[2]


def _check_metadata(provided: object, recorded: Recorded, run_id: str) -> None:
    raw = recorded.metadata_json
    stored = None if raw is None else decode_value(raw)
    given = decode_value(encode_value(provided, "the metadata (input)"))
    if raw is None or not json_equal(stored, given):
        raise MetadataMismatchError(stored, given, run_id=run_id)


def _check_awaited(event: str, recorded: Recorded, run_id: str) -> None:
    awaited = recorded.open_events()
    if event not in awaited:
        waits = f"waits for {', '.join(map(repr, awaited))}" if awaited else "does not wait"
        raise UsageError(f"run {run_id!r} {waits}; event {event!r} has no place")


def own_start(entries: Sequence[Entry], session: int, writer: str | None) -> int | None:
    """Return where the ``start`` of a session stands that ``writer`` has opened.

    None if somebody else's stands there first, or a newer session has written.
    """
    if any(entry.session > session for entry in entries):
        return None
    for at, entry in enumerate(entries):
        if isinstance(entry, StartEntry) and entry.session == session:
            return at if entry.writer == writer else None
    return None
