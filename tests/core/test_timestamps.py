"""Instants as the journal writes them (D11), read back, and deadlines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kassette import UsageError, format_timestamp, parse_timestamp
from kassette.timestamps import after

from .driving import NOW

CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000Z"),
        (datetime(2026, 1, 31, 12, 0, 0, 999_999, tzinfo=UTC), "2026-01-31T12:00:00.999Z"),
        (datetime(2026, 1, 31, 0, 30, tzinfo=CET), "2026-01-30T23:30:00.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_d11_timestamps_are_utc_with_milliseconds_and_z(instant: datetime, text: str) -> None:
    """Journals of two machines could not be compared, nor be read by the reference."""
    assert format_timestamp(instant) == text


def test_a_naive_datetime_is_refused() -> None:
    """The zone of the machine would decide what a deadline means."""
    with pytest.raises(UsageError, match="time zone"):
        format_timestamp(datetime(2026, 1, 31))  # noqa: DTZ001


def test_an_instant_that_utc_cannot_write_is_refused() -> None:
    """A deadline at the end of the calendar would raise something that is no kassette error."""
    with pytest.raises(UsageError):
        format_timestamp(datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))))


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00.000Z",
        "2026-01-31T12:00:00Z",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00.000000+00:00",
    ],
)
def test_iso_8601_instants_are_read(text: str) -> None:
    """A deadline given by hand or by the reference would be misread."""
    assert parse_timestamp(text) == NOW


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z", "12:00"])
def test_anything_else_is_no_instant(text: str) -> None:
    """A damaged deadline would be read as some other instant."""
    with pytest.raises(ValueError, match=r"isoformat|month"):
        parse_timestamp(text)


@given(st.datetimes(timezones=st.just(CET)).filter(lambda instant: 1 < instant.year < 9999))
def test_what_is_written_is_read_to_the_millisecond(instant: datetime) -> None:
    """A deadline would move each time it passes through the journal."""
    read = parse_timestamp(format_timestamp(instant))
    assert timedelta(0) <= instant - read < timedelta(milliseconds=1)
    assert format_timestamp(read) == format_timestamp(instant)


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0), (1.5, 1.5), (86_400, 86_400)])
def test_after_counts_seconds(seconds: float, expected: float) -> None:
    """Durations are seconds everywhere in the Python API; a unit mixed up is a thousandfold."""
    assert (after(NOW, seconds) - NOW).total_seconds() == expected


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_a_duration_is_at_least_zero(seconds: float) -> None:
    """A deadline before its own wait would cancel the run."""
    with pytest.raises(UsageError, match="at least 0"):
        after(NOW, seconds)


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e12, 10**30, "3", None, timedelta(1)])
def test_a_duration_leads_to_an_instant(seconds: Any) -> None:
    """An endless or mistyped timeout would raise something that is no kassette error."""
    with pytest.raises(UsageError, match="names no instant"):
        after(NOW, seconds)
