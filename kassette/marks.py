"""The entries with which a session records its beginning, its event and its end."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from kassette.commands import Complete, Fail, Resume, Start
from kassette.entries import (
    SUSPEND_TIMEOUT_EXPIRED,
    CancelEntry,
    CompleteEntry,
    ErrorEntry,
    ResumeEntry,
    StartEntry,
    Unset,
)
from kassette.errors import ValueRefusedError
from kassette.naming import plain_text
from kassette.notes import write_notes
from kassette.replay import Recorded
from kassette.timestamps import format_timestamp
from kassette.values import decode_value, encode_value, json_equal, writable_text

MOST_RESULT: Final = 2**20
"""The largest workflow result that is recorded, in bytes of JSON."""


def opening_entry(
    command: Start | Resume,
    session: int,
    now: datetime,
    metadata_json: bytes | None,
    recorded: Recorded,
    cancels: bool,
) -> StartEntry:
    """Return the entry that opens a session; it notes how it was opened and what it delivers."""
    opened, delivers = "start", None
    if isinstance(command, Resume):
        opened = "resume"
        delivers = _delivery(command, recorded.resumes.get(command.event_name))
    if cancels:
        opened = "cancel"
    return StartEntry(
        session=session,
        timestamp=format_timestamp(now),
        version=None if command.version is None else plain_text(command.version),
        writer=command.writer,
        workflow=None if command.workflow is None else plain_text(command.workflow),
        metadata_json=metadata_json,
        extra_json=write_notes({**(command.notes or {}), "opened": opened, "delivers": delivers}),
    )


def resume_entry(command: Resume, session: int, now: datetime) -> ResumeEntry:
    """Return the entry that delivers an event."""
    return ResumeEntry.of(
        session=session,
        timestamp=format_timestamp(now),
        event_name=plain_text(command.event_name),
        value=command.value,
        notes=write_notes({"by": command.by}),
    )


def _delivery(command: Resume, recorded: ResumeEntry | None) -> dict[str, Any]:
    """Return the note on what a session delivers, and on a value that is ignored as too late."""
    noted: dict[str, Any] = {"event": plain_text(command.event_name)}
    if recorded is None:
        return noted
    try:
        given = encode_value(command.value)
    except ValueRefusedError:  # it is ignored anyway
        given = b""
    if not given or not json_equal(recorded.value, decode_value(given)):
        noted["ignored"] = sha256(given).hexdigest()[:16]
        if command.by is not None:
            noted["by"] = command.by
    return noted


def ending_entry(
    command: Complete | Fail, session: int, now: datetime, passed_over: list[str]
) -> CompleteEntry | ErrorEntry:
    """Return the entry that ends a run; it notes recorded steps that were not requested."""
    if isinstance(command, Complete):
        return _complete_entry(command, session, now, passed_over)
    return _error_entry(command, session, now, passed_over)


def _complete_entry(
    command: Complete, session: int, now: datetime, passed_over: list[str]
) -> CompleteEntry:
    """Return the entry that completes a run, with its result if that is JSON and small enough.

    Replay does not need the result; it is for later readers, so one that is not JSON is omitted.
    """
    result_json = None
    if not isinstance(command.result, Unset):
        with suppress(ValueRefusedError):
            result_json = encode_value(command.result, "the workflow's result")
    if result_json is not None and len(result_json) > MOST_RESULT:
        result_json = None
    return CompleteEntry(
        session=session,
        timestamp=format_timestamp(now),
        result_json=result_json,
        extra_json=write_notes({"passedOver": passed_over}),
    )


def cancel_entry(session: int, now: datetime) -> CancelEntry:
    """Return the entry that ends a run whose deadline has passed."""
    return CancelEntry(
        session=session, timestamp=format_timestamp(now), reason=SUSPEND_TIMEOUT_EXPIRED
    )


def _error_entry(command: Fail, session: int, now: datetime, passed_over: list[str]) -> ErrorEntry:
    """Return the entry that ends a run with a failure."""
    return ErrorEntry(
        session=session,
        timestamp=format_timestamp(now),
        message=writable_text(command.message),
        name=None if command.name is None else writable_text(command.name),
        stack=None if command.stack is None else writable_text(command.stack),
        extra_json=write_notes({**(command.notes or {}), "passedOver": passed_over}),
    )
