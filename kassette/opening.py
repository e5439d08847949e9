"""Whether a session may be opened on a journal; the session itself is in ``machine``.

Rules, in the order of the TypeScript kassette; the first that applies decides:
1. A run that has ended is refused (TerminalRunError).
2. A workflow other than the one that started the run is refused (UsageError), and so is a version
   other than the first recorded one (VersionMismatchError).
3. A suspended run whose deadline has passed is cancelled, and so is one in any other state that is
   resumed with an event whose own deadline has passed. If the caller passes the instant at which
   the answer was given (the run may have been busy since), that instant counts.
4. ``Start``: a suspended run is refused (EventPendingError), and so is metadata that differs from
   the journal's (MetadataMismatchError). ``Resume``: an event that is neither awaited nor recorded
   is refused (UsageError).
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
    """Check the arguments of a command; return the metadata to write with a new run, if any."""
    if command.version is not None:
        check_label("a version", command.version)
    if command.workflow is not None:
        check_label("a workflow's name", command.workflow)
    if isinstance(command, Resume):
        check_event_name(command.event_name)
        if command.given_at is not None:
            if not isinstance(command.given_at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UsageError(
                    f"given_at must be an aware datetime, not {brief(command.given_at)}"
                )
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
    """Apply rules 1 to 4; return whether the session may only cancel the run, or raise."""
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
    """Apply rule 1."""
    if recorded.terminal is not None:
        raise TerminalRunError(recorded.terminal.type, run_id=run_id)


def _check_workflow(asking: str | None, recorded: str | None, run_id: str) -> None:
    """Refuse another workflow than the one that started the run.

    Only the last part of the name counts, without the module and the enclosing scopes: a module is
    ``__main__`` in one process and has its own name in another.
    """
    if asking is None or recorded is None:
        return
    own, first = _last_part(asking), _last_part(recorded)
    if own != first:
        raise UsageError(
            f"run {run_id!r} was started by workflow {recorded!r}, not by {asking!r}. Use another "
            "run id; or, if the function was renamed, declare it with its old name: "
            f"workflow(name={first!r})",
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
        waits = (
            f"is waiting for {', '.join(map(repr, awaited))}, not for {event!r}"
            if awaited
            else f"is not waiting for an event, so {event!r} cannot be delivered"
        )
        raise UsageError(f"run {run_id!r} {waits}")


def own_start(entries: Sequence[Entry], session: int, writer: str | None) -> int | None:
    """Return the position of the ``start`` entry that ``writer`` wrote for a session.

    Return None if another writer's comes first, or if a newer session has written.
    """
    if any(entry.session > session for entry in entries):
        return None
    for at, entry in enumerate(entries):
        if isinstance(entry, StartEntry) and entry.session == session:
            return at if entry.writer == writer else None
    return None
