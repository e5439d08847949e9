"""The table of runs at its borders: what just fits, what is folded, what no calendar knows."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from kassette import Completed, StorageError, SuspendedRun
from kassette.evidence.summary import RunSummary
from kassette_cli.output import pieces
from kassette_cli.verbs.list import Listing

NOW = datetime(2026, 2, 1, tzinfo=UTC)
AT = "2026-01-31T12:00:00.000Z"
BESIDE = 85
"""Columns that a row needs beside its run id, with dates."""


def completed(run_id: str = "run-1", started: str = AT, last_entry: str = AT) -> RunSummary:
    return RunSummary(
        run_id=run_id,
        status=Completed(),
        steps=1,
        sessions=1,
        started=started,
        last_entry=last_entry,
    )


def waiting(event: str) -> RunSummary:
    return completed().replace(status=SuspendedRun(waiting_for=event))


def table(*summaries: RunSummary, width: int = 100, colours: bool = False) -> list[str]:
    """Give the lines that are shown."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        highlight=False,
    )
    made = Listing([each.run_id for each in summaries], console, now=NOW)
    for each in (made.header(), made.rows(summaries), *made.footer()):
        console.print(each, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_dates_are_shown_as_soon_as_they_fit() -> None:
    """A terminal that is just wide enough would be shown ages, or lines that it breaks."""
    run_id = "r" * 15
    header, row, _ = table(completed(run_id), width=BESIDE + 15)
    assert "started (UTC)" in header
    assert len(header.rstrip()) == BESIDE + 15
    assert "2026-01-31 12:00:00  2026-01-31 12:00:00" in row
    header, row, _ = table(completed(run_id), width=BESIDE + 14)
    assert "(UTC)" not in header
    assert "12h" in row


@pytest.mark.parametrize("width", [106, 110, 130])
def test_a_long_event_is_folded_below_its_own_beginning(width: int) -> None:
    """The name to answer to would be cut off, or stand below the run's id."""
    event = "".join(f"{n:02}." for n in range(20))
    header, *rows, _ = table(waiting(event), width=width)
    column = header.index("waiting for")
    assert "".join(row[column:] for row in rows) == event
    assert all(row[:column].isspace() for row in rows[1:])
    assert max(map(len, rows)) == width
    assert len(rows) == -(-len(event) // (width - column))


@pytest.mark.parametrize("width", [3, 4, 5, 20])
def test_no_line_is_wider_than_the_narrowest_terminal(width: int) -> None:
    """A pane of a few columns would be shown lines that it breaks in the middle of a word."""
    *lines, _ = table(waiting("an-event"), width=width)
    text = "".join("".join(lines).split())
    assert "run-1" in text
    assert "an-event" in text
    if width > 3:
        assert max(map(len, lines)) <= width


def test_what_is_wrong_is_red_and_the_count_is_dim() -> None:
    """An unreadable run would not be noticed in a table of a hundred."""
    broken = RunSummary(run_id="r", status=StorageError("no permission"))
    *_, problem, count = table(broken, completed(), colours=True)
    assert problem == "\x1b[31mno permission\x1b[0m"
    assert count == "\x1b[2m2 runs: 1 unreadable, 1 completed\x1b[0m"


@pytest.mark.parametrize(
    ("timestamp", "shown"),
    [
        (AT, "2026-01-31 12:00:00"),
        ("2026-01-31T12:00:00+0100", "2026-01-31 11:00:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31 12:00:00"),
        ("2026-01-31T12:00Z", "2026-01-31 12:00:00"),
        ("2026-01-31T12:00:00.123456Z", "2026-01-31 12:00:00"),
        ("yesterday at half past nine", "yesterday at half p"),
        ("2026-01-31T12:\x1b0:00.000Z", r"2026-01-31T12:\x1b0"),
        ("2026\x1b01-31T12:00:00.000Z", r"2026\x1b01-31T12:00"),
    ],
)
def test_dates_of_any_form_are_shown_in_utc_or_as_they_stand(timestamp: str, shown: str) -> None:
    """A run of a machine in another zone would seem an hour older; an odd one would break the row."""
    _, row, _ = table(completed(started=timestamp, last_entry=timestamp), width=120)
    assert row.rstrip().endswith(f"  {shown}  {shown}")


def test_no_calendar_is_asked_for_dates_of_our_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of ten thousand runs would take as long as parsing their dates."""

    def moment(timestamp: str) -> None:
        raise AssertionError(f"it reads {timestamp}")

    monkeypatch.setattr(pieces, "moment", moment)
    assert "2026-01-31 12:00:00" in table(completed(), width=120)[1]


def test_an_age_that_nobody_can_tell_is_a_question_mark() -> None:
    """A run with a date of its own form would be as old as the calendar, or crash the table."""
    _, row, _ = table(completed(started="noon", last_entry=AT), width=85)
    assert row.split() == ["run-1", "completed", "1", "1", "?", "12h"]
