"""The entries by which a session marks its beginning, its event and its end, as commands ask."""

from __future__ import annotations

from datetime import datetime

from kassette.commands import Fail, Resume, Start
from kassette.entries import (
    SUSPEND_TIMEOUT_EXPIRED,
    CancelEntry,
    CompleteEntry,
    ErrorEntry,
    ResumeEntry,
    StartEntry,
)
from kassette.naming import plain_text
from kassette.timestamps import format_timestamp
from kassette.values import writable_text


def start_entry(
    command: Start | Resume, session: int, now: datetime, metadata_json: bytes | None
) -> StartEntry:
    """Return the entry that opens a session."""
    return StartEntry(
        session=session,
        timestamp=format_timestamp(now),
        version=None if command.version is None else plain_text(command.version),
        writer=command.writer,
        workflow=None if command.workflow is None else plain_text(command.workflow),
        metadata_json=metadata_json,
    )


def resume_entry(command: Resume, session: int, now: datetime) -> ResumeEntry:
    """Return the entry that delivers an event."""
    return ResumeEntry.of(
        session=session,
        timestamp=format_timestamp(now),
        event_name=plain_text(command.event_name),
        value=command.value,
    )


def complete_entry(session: int, now: datetime) -> CompleteEntry:
    """Return the entry that ends a run well."""
    return CompleteEntry(session=session, timestamp=format_timestamp(now))


def cancel_entry(session: int, now: datetime) -> CancelEntry:
    """Return the entry that ends a run whose deadline has passed."""
    return CancelEntry(
        session=session, timestamp=format_timestamp(now), reason=SUSPEND_TIMEOUT_EXPIRED
    )


def error_entry(command: Fail, session: int, now: datetime) -> ErrorEntry:
    """Return the entry that ends a run by a failure."""
    return ErrorEntry(
        session=session,
        timestamp=format_timestamp(now),
        message=writable_text(command.message),
        name=None if command.name is None else writable_text(command.name),
        stack=None if command.stack is None else writable_text(command.stack),
    )
