"""Instants as the journal writes them: UTC, ISO 8601, milliseconds, ``Z``; no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kassette.errors import UsageError


def format_timestamp(instant: datetime) -> str:
    """Write an aware ``instant`` as ``2026-01-31T12:00:00.000Z``.

    Raises UsageError for a naive datetime, and for one beyond the years that UTC can write.
    """
    if instant.tzinfo is None:
        raise UsageError("a naive datetime names no instant; pass one with a time zone")
    if instant.tzinfo is not UTC:
        try:
            instant = instant.astimezone(UTC)
        except OverflowError as error:
            raise UsageError(f"{instant} lies outside the years 1 to 9999 in UTC") from error
    return instant.isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_timestamp(text: str) -> datetime:
    """Read an ISO 8601 instant; one without an offset is taken as UTC. Raises ValueError."""
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def after(instant: datetime, seconds: float) -> datetime:
    """Give the instant ``seconds`` later.

    Raises UsageError unless ``seconds`` is a number of at least 0 that leads to a year before
    10000.
    """
    try:
        if not seconds >= 0:
            raise UsageError(f"a duration is a number of seconds of at least 0, not {seconds!r}")
        return instant + timedelta(seconds=seconds)
    except (OverflowError, TypeError) as error:
        raise UsageError(f"a duration of {seconds!r} seconds names no instant") from error
