"""Instants as the journal writes them (D11), read back, and deadlines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kassette import UsageError, format_timestamp, parse_timestamp
from kassette.timestamps import after, deadline_of, has_passed

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


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2026-031T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        ("2026031T120000Z", "2026-01-31T12:00:00.000Z"),
        ("2024-366", "2024-12-31T00:00:00.000Z"),
        ("2026-W05-6T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        ("+002026-W05-6T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        ("+002026-W05", "2026-01-26T00:00:00.000Z"),
        ("2026-01-31T24:00:00Z", "2026-02-01T00:00:00.000Z"),
        ("2024-02-28T24:00Z", "2024-02-29T00:00:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00.500Z"),
        ("2026-01-31T12:00:00.1234567899Z", "2026-01-31T12:00:00.123Z"),
        ("+002026-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000Z"),
        ("+002026-01-31T12:00:00-05:30", "2026-01-31T17:30:00.000Z"),
        ("+002026-01-31T12:00:00+02", "2026-01-31T10:00:00.000Z"),
        ("+002026-01-31T12:00:00", "2026-01-31T12:00:00.000Z"),
        ("+010000-01-01T00:30:00+01:00", "9999-12-31T23:30:00.000Z"),
        ("+000000-12-31T23:30:00-01:00", "0001-01-01T00:30:00.000Z"),
        ("2026-02", "2026-02-01T00:00:00.000Z"),
        ("2026", "2026-01-01T00:00:00.000Z"),
    ],
)
def test_r9_iso_8601_is_read_as_others_write_it(text: str, read: str) -> None:
    """A deadline that JavaScript or a person wrote would be read on some Pythons only."""
    assert format_timestamp(parse_timestamp(text)) == read


@pytest.mark.parametrize(
    "text",
    [
        "+275760-09-13T00:00:00.000Z",
        "-271821-04-20T00:00:00.000Z",
        "9999-12-31T24:00:00Z",
        "+000001-01-01T00:30:00+01:00",
    ],
)
def test_r9_an_instant_of_another_era_is_no_datetime(text: str) -> None:
    """An instant would be read as one of quite another year."""
    with pytest.raises(ValueError, match="outside the years 1 to 9999"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    "text", ["2026-13-01T00:00:00Z", "2026-02-30", "+002026-00-01", "2026-366", "+010100-02-29"]
)
def test_r9_a_day_that_no_calendar_has_is_no_instant(text: str) -> None:
    """A mistyped deadline would be read as another day."""
    with pytest.raises(ValueError, match=r"month|day"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T24:00:01Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:61Z",
        "+002026-01-31T12:00:00+01:60",
    ],
)
def test_r9_a_time_that_no_day_has_is_no_instant(text: str) -> None:
    """A mistyped deadline would be read as another time."""
    with pytest.raises(ValueError, match="has no valid time of day"):
        parse_timestamp(text)


@pytest.mark.parametrize(
    ("deadline", "passed"),
    [
        ("2026-01-31T12:00:00.000Z", True),
        ("2026-01-31T12:00:00.001Z", False),
        ("2026-01-31T12:00:00", True),
        ("2026-01-30T24:00:00Z", True),
        ("2026-032", False),
        ("9999-12-31T23:59:59-23:59", False),
        ("0001-01-01T00:00:00+23:59", True),
        ("+275760-09-13T00:00:00.000Z", False),
        ("-271821-04-20T00:00:00.000Z", True),
        ("+000000-01-01T00:00:00Z", True),
        ("", False),
        ("soon", False),
        ("2026-13-01T00:00:00Z", False),
        ("+275760-13-01T00:00:00Z", False),
        ("\ud800", False),
        ("2" * 100_000, False),
    ],
)
def test_r9_a_deadline_passes_once_its_instant_has_come(deadline: str, passed: bool) -> None:
    """A run would be cancelled too early, or for a deadline that nobody can read."""
    assert has_passed(deadline, NOW) is passed


@pytest.mark.parametrize(
    ("timeout", "deadline"),
    [
        (None, None),
        (90, "2026-01-31T12:01:30.000Z"),
        (0, "2026-01-31T12:00:00.000Z"),
        (0.25, "2026-01-31T12:00:00.250Z"),
        (timedelta(days=3), "2026-02-03T12:00:00.000Z"),
        (timedelta(0), "2026-01-31T12:00:00.000Z"),
        (datetime(2026, 2, 1, 1, tzinfo=CET), "2026-02-01T00:00:00.000Z"),
        (datetime(2020, 1, 1, tzinfo=UTC), "2020-01-01T00:00:00.000Z"),
        ("2026-02-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"),
        ("2026-02-01T02:00+02:00", "2026-02-01T00:00:00.000Z"),
        ("2026-01-31T24:00:00Z", "2026-02-01T00:00:00.000Z"),
        ("+002026-032T00Z", "2026-02-01T00:00:00.000Z"),
    ],
)
def test_r9_a_timeout_is_seconds_a_timedelta_or_an_instant(
    timeout: Any, deadline: str | None
) -> None:
    """A deadline would be another one than the workflow's author named."""
    assert deadline_of(timeout, NOW) == deadline


class _NoOffset(tzinfo):
    def utcoffset(self, dt: datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, dt: datetime | None) -> str:
        return "nowhere"


@pytest.mark.parametrize(
    "timeout",
    [
        True,
        False,
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        1e12,
        10**30,
        10**5000,
        -(10**5000),
        timedelta(seconds=-1),
        timedelta.max,
        datetime(2026, 2, 1),  # noqa: DTZ001
        datetime(2026, 2, 1, tzinfo=_NoOffset()),
        datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))),
        date(2026, 2, 1),
        "",
        "3",
        "soon",
        "2026-02-01",
        "2026-02-01T00:00:00",
        "2026-01-31T24:00:00",
        "+275760-09-13T00:00:00.000Z",
        "2026-13-01T00:00:00Z",
        b"2026-02-01T00:00:00Z",
        Decimal(3),
        [],
        object(),
    ],
    ids=lambda timeout: type(timeout).__name__,
)
def test_r9_what_names_no_instant_is_refused_as_a_timeout(timeout: Any) -> None:
    """A mistyped timeout would become some deadline, and the run be cancelled at it, or never."""
    with pytest.raises(UsageError, match="the timeout of event 'ok'"):
        deadline_of(timeout, NOW, "the timeout of event 'ok'")


@pytest.mark.parametrize("text", ["", "soon", "12:00", "20", "2026-1-1", "x2026-01-31", "\ud800"])
def test_anything_else_is_no_instant(text: str) -> None:
    """A damaged deadline would be read as some other instant."""
    with pytest.raises(ValueError, match=r"ISO 8601"):
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
    with pytest.raises(UsageError, match="0 or greater"):
        after(NOW, seconds)


@pytest.mark.parametrize(
    "seconds", [float("inf"), 1e300, 1e12, 10**30, "3", None, timedelta(1), True]
)
def test_a_duration_leads_to_an_instant(seconds: Any) -> None:
    """An endless or mistyped timeout would raise something that is no kassette error."""
    with pytest.raises(UsageError, match="ends before the year 10000"):
        after(NOW, seconds)


@pytest.fixture(params=["EAST-14", "WEST+9:30"])
def far_from_utc(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the process into a zone of its own, whatever that of the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", str(request.param))
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
def test_an_instant_without_an_offset_is_utc_wherever_it_is_read() -> None:
    """A deadline would pass hours too early or too late on a machine that is not set to UTC."""
    assert datetime(2026, 1, 31, 12).astimezone() != NOW
    assert parse_timestamp("2026-01-31T12:00:00") == NOW
    assert parse_timestamp("2026-01-31T12:00:00.000").utcoffset() == timedelta(0)
    assert format_timestamp(parse_timestamp("2026-01-31T12:00:00")) == "2026-01-31T12:00:00.000Z"
