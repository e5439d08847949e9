"""Instants as the journal writes them: UTC, ISO 8601, milliseconds, ``Z``; no clock.

Rules for deadlines:
- ``timeout=`` of a wait is seconds or a timedelta from now, or an instant: an aware datetime, or
  ISO 8601 text with an offset. Anything else is refused before anything is written: a datetime or
  text without an offset means a different instant on every machine.
- An instant in the past is a valid deadline too: a crash may have come before the wait.
- A deadline in a journal is whatever text its author wrote. It has passed if its instant is not
  after now. One after the year 9999 never passes, and neither does one that cannot be parsed: a
  wait that is too long can still be answered or cancelled, but a cancelled run has ended.
- In a journal, an instant without an offset is in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeAlias

from kassette.brief import brief
from kassette.errors import UsageError

Timeout: TypeAlias = float | timedelta | datetime | str
"""The timeout of a wait: seconds, a timedelta, an aware datetime, or ISO 8601 text."""

_ISO_8601 = r"""
    (?P<year>[+-]\d{6}|\d{4})
    (?: -?(?P<month>\d\d)-?(?P<day>\d\d) | -(?P<whole_month>\d\d)
      | -?(?P<of_year>\d{3}) | -?W(?P<week>\d\d)(?:-?(?P<weekday>\d))? )?
    (?: [Tt\ ](?P<hour>\d\d)
        (?: :?(?P<minute>\d\d)(?: :?(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,99}))?)? )?
        (?P<zone>[Zz]|(?P<sign>[+-])(?P<zone_hour>\d\d)(?: :?(?P<zone_minute>\d\d))?)? )?
"""
_CYCLE = 400
"""The number of years after which the calendar repeats."""

_DIGITS = 6
"""How many digits of a fraction are used, as many as a datetime has."""


def format_timestamp(instant: datetime, what: str = "an instant") -> str:
    """Format an aware ``instant`` as ``2026-01-31T12:00:00.000Z``.

    ``what`` describes the instant in messages. Raise UsageError for a naive datetime, and for one
    outside the years 1 to 9999 in UTC.
    """
    if instant.tzinfo is not UTC:
        if instant.utcoffset() is None:
            raise UsageError(
                f"{what} is a naive datetime, which is ambiguous; pass one with a time zone"
            )
        try:
            instant = instant.astimezone(UTC)
        except OverflowError as error:
            raise UsageError(f"{what}, {instant}, is outside the years 1 to 9999 in UTC") from error
    return instant.isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 instant; one without an offset is in UTC.

    Raise ValueError for other text, and for an instant outside the years 1 to 9999.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        year, instant = _read(text)
        if year != instant.year:
            raise ValueError(f"{brief(text)} is outside the years 1 to 9999") from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def has_passed(deadline: str, now: datetime) -> bool:
    """Return whether a journal's ``deadline`` has passed at the aware instant ``now``."""
    try:
        return parse_timestamp(deadline) <= now
    except ValueError:
        pass
    try:
        return _read(deadline)[0] < 1
    except ValueError:
        return False


def deadline_of(timeout: Timeout | None, now: datetime, what: str = "a timeout") -> str | None:
    """Return the deadline for ``timeout``, as the journal writes it; None for None.

    ``what`` describes the timeout in messages. Raise UsageError for anything that is not an instant
    in the years 1 to 9999: a negative number, a bool, a datetime or text without an offset.
    """
    match timeout:
        case None:
            return None
        case str():
            instant = _read_given(timeout, what)
        case datetime():
            instant = timeout
        case timedelta():
            instant = after(now, timeout.total_seconds(), what)
        case int() | float():
            instant = after(now, timeout, what)
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise UsageError(
                f"{what} must be seconds, a timedelta, an aware datetime or ISO 8601 text, "
                f"not {brief(timeout)}"
            )
    if instant.utcoffset() is None:
        raise UsageError(
            f"{what} of {brief(timeout)} has no UTC offset, so it is ambiguous; "
            "add one (such as Z or +02:00), or pass seconds or a timedelta"
        )
    return format_timestamp(instant, what)


def after(instant: datetime, seconds: float, what: str = "a duration") -> datetime:
    """Return the instant ``seconds`` later.

    Raise UsageError unless ``seconds`` is a non-negative number, and the result is before the year
    10000.
    """
    try:
        if isinstance(seconds, bool):
            raise TypeError
        if not seconds >= 0:
            raise UsageError(
                f"{what} must be a number of seconds, 0 or greater, not {brief(seconds)}"
            )
        return instant + timedelta(seconds=seconds)
    except (OverflowError, TypeError) as error:
        raise UsageError(
            f"{what} must be a number of seconds that ends before the year 10000, "
            f"not {brief(seconds)}"
        ) from error


def instant(timestamp: str | None) -> datetime | None:
    """Return the instant of a journal's timestamp; None if it is absent or cannot be parsed."""
    try:
        return None if timestamp is None else parse_timestamp(timestamp)
    except ValueError:
        return None


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Return the seconds from one timestamp to another, to the millisecond.

    Return None if one of them cannot be parsed, or if the clock went backwards in between.
    """
    first, second = instant(earlier), instant(later)
    if first is None or second is None or second < first:
        return None
    return round((second - first).total_seconds(), 3)


def _read_given(text: str, what: str) -> datetime:
    try:
        instant = parse_timestamp(text)
    except ValueError as error:
        raise UsageError(
            f"{what} of {brief(text)} is not an ISO 8601 instant in the years 1 to 9999; write it "
            "like 2026-01-31T12:00:00Z, or pass seconds, a timedelta or an aware datetime"
        ) from error
    return instant if _names_offset(text) else instant.replace(tzinfo=None)


def _names_offset(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return _match(text)["zone"] is not None


def _match(text: str) -> re.Match[str]:
    found = re.fullmatch(_ISO_8601, text, re.ASCII | re.VERBOSE)
    if found is None:
        raise ValueError(f"{brief(text)} is not an ISO 8601 instant")
    return found


def _read(text: str) -> tuple[int, datetime]:
    """Parse ISO 8601 that Python's own parser refuses, as JavaScript and others write it.

    Return the year in UTC, which may have six digits or be 0, and the instant, moved to another
    year with the same calendar if a datetime cannot represent it. Raise ValueError.
    """
    found = _match(text)
    year = int(found["year"])
    stand_in = 2000 + year % _CYCLE
    hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
    micro = int((found["fraction"] or "")[:_DIGITS].ljust(_DIGITS, "0"))
    time = timedelta(hours=hour, minutes=minute, seconds=second, microseconds=micro)
    zone_minute = int(found["zone_minute"] or 0)
    if max(minute, zone_minute) >= 60 or second > 60 or time > timedelta(days=1):
        raise ValueError(f"{brief(text)} has no valid time of day")
    zone = timedelta(hours=int(found["zone_hour"] or 0), minutes=zone_minute)
    if found["sign"] == "-":
        zone = -zone
    instant = _midnight(found, stand_in).replace(tzinfo=timezone(zone)) + time
    instant = instant.astimezone(UTC)
    year += instant.year - stand_in
    return year, instant.replace(year=year) if 1 <= year <= 9999 else instant


def _midnight(found: re.Match[str], year: int) -> datetime:
    if found["of_year"]:
        day = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=int(found["of_year"]) - 1)
        if day.year != year:
            raise ValueError(f"the year has no day {found['of_year']}")
        return day
    if found["week"]:
        return datetime.fromisocalendar(year, int(found["week"]), int(found["weekday"] or 1))
    month = int(found["month"] or found["whole_month"] or 1)
    return datetime(year, month, int(found["day"] or 1), tzinfo=UTC)
