"""How values look: renderables on a console in memory, of any width; no process, no terminal."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from rich.console import Console, RenderableType

from kassette import (
    CancelEntry,
    Completed,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    StorageError,
    SuspendedRun,
    SuspendEntry,
    Unsettled,
)
from kassette.evidence.diagnosis import Lock
from kassette.evidence.difference import compare
from kassette.evidence.fork_points import fork_points
from kassette.evidence.open_waits import open_waits
from kassette.evidence.spans import timeline
from kassette.evidence.summary import RunSummary
from kassette.notes import Running, write_notes
from kassette.timestamps import seconds_between
from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line, visible
from kassette_cli.output.pasting import command_line
from kassette_cli.output.units import age, duration, parse_age, size
from kassette_cli.verbs.dump import journal
from kassette_cli.verbs.list import Listing
from kassette_cli.verbs.status import RunReport

from . import showing

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
AT = "2026-01-31T12:00:00.000Z"
EVIL = "a\x1b[2J[bold]\x9b1m\u202eb"
HARMLESS = r"a\x1b[2J[bold]\x9b1m\u202eb"


def shown(*renderables: RenderableType, width: int = 100, colours: bool = False) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        markup=False,
        emoji=False,
        highlight=False,
    )
    for each in renderables:
        console.print(each, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(re.sub("[─-╿]", " ", text).split())


def journal_of(*entries: Entry) -> list[Entry]:
    return [entry.at(offset) for offset, entry in enumerate(entries)]


def start(session: int = 1, **fields: object) -> StartEntry:
    return StartEntry(**{"session": session, "timestamp": AT, **fields})  # type: ignore[arg-type]


def suspend(event: str, timeout: str | None = None, session: int = 1) -> SuspendEntry:
    return SuspendEntry(
        session=session, timestamp=AT, reason="why", waiting_for=event, timeout=timeout
    )


def resume(event: str) -> ResumeEntry:
    return ResumeEntry.of(session=2, timestamp=AT, event_name=event, value=None)


def table(*summaries: RunSummary, width: int = 100) -> str:
    console = Console(width=width)
    listing = Listing([each.run_id for each in summaries], console, now=NOW)
    return shown(listing.header(), listing.rows(summaries), *listing.footer(), width=width)


def panel(entries: Iterable[Entry], *, run_id: str = "r", url: str = "file:s") -> str:
    report = RunReport(run_id=run_id, entries=journal_of(*entries))
    return words(shown(*showing.status(report, url, now=NOW), width=200))


def test_a_deadline_that_has_passed_is_told() -> None:
    """An operator would deliver an event that only cancels the run."""
    later = (NOW + timedelta(seconds=1)).isoformat()
    assert "which has passed" not in panel([start(), suspend("e", later)])
    assert "which has passed" in panel([start(), suspend("e", AT)])


@pytest.mark.parametrize("deadline", ["soon", "+275760-09-13T00:00:00.000Z"])
def test_r9_a_deadline_that_does_not_pass_is_told(deadline: str) -> None:
    """The panel would end in a traceback, or promise an end that does not come."""
    assert f"until {deadline}, which never passes" in panel([start(), suspend("e", deadline)])


def test_r9_a_deadline_before_all_years_has_passed() -> None:
    """An operator would deliver an event that only cancels the run."""
    assert "which has passed" in panel([start(), suspend("e", "-271821-04-20T00:00:00.000Z")])


def test_a_run_that_sleeps_says_until_when() -> None:
    """A run that waits for the clock would look like a crashed one."""
    wake = (NOW + timedelta(hours=1)).isoformat()

    def slept(name: str, result: object) -> str:
        step = StepEntry.of(session=1, timestamp=AT, step_id=name, name=name, result=result)
        return panel([start(), step])

    assert "sleeping until 2026-01-31 13:00:00 UTC" in slept("delay:3600000ms", wake)
    assert "sleeping until 2026-01-31 13:00:00 UTC" in slept("branch:delay:3600000ms", wake)
    assert "sleeps" not in slept("delay:1ms", AT)
    assert "sleeps" not in slept("llm", wake)
    assert "sleeps" not in slept("delay:1ms", 5)


def test_every_open_event_is_told() -> None:
    """Of several branches that wait (D7), only the last would be known."""
    text = panel([start(), suspend("one"), suspend("two"), start(2), resume("one"), suspend("3")])
    assert "waiting for one" not in text
    assert "waiting for two (why)" in text
    assert "waiting for 3 (why)" in text


def test_a_wait_reached_again_is_one_wait_with_its_first_deadline() -> None:
    """A wait that outlived a crash would be shown twice, once with a deadline that is not kept."""
    first = suspend("e", AT).at(1)
    again = suspend("e", "2999-01-01T00:00:00Z", 2).at(3)
    assert open_waits([start().at(0), first, start(2).at(2), again]) == [first]


def test_a_run_cancelled_for_no_reason_says_so() -> None:
    """The panel would say None."""
    assert "the journal records no reason" in panel([start(), CancelEntry(session=1, timestamp=AT)])
    other = CancelEntry(session=1, timestamp=AT, reason="by hand")
    assert "by hand" in panel([start(), other])
    assert "1 cancel by hand" in words(shown(*journal(journal_of(start(), other))))


def test_advice_is_quoted_for_a_shell() -> None:
    """A storage with a space in its path: the advised command would look somewhere else."""
    entries: list[Entry] = [start(), CompleteEntry(session=1, timestamp=AT)]
    assert "kassette --storage 'file:my runs' dump r" in panel(entries, url="file:my runs")


@pytest.mark.parametrize("width", [30, 60, 120])
def test_a_run_id_is_never_shortened(width: int) -> None:
    """The id of a run would have an ellipsis where a copy needs its last half."""
    run_id = "0123456789abcdef" * 8
    summary = RunSummary(run_id=run_id, status=Unsettled(), steps=1, sessions=1, started=AT)
    report = RunReport(run_id=run_id, entries=journal_of(start()))
    text = table(summary, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert run_id in text.replace("\n", "")
    assert run_id in re.sub("[^0-9a-f]", "", shown(*showing.forked("a", run_id), width=width))
    assert run_id in re.sub(
        r"\W", "", shown(*showing.status(report, "file:s", now=NOW), width=width)
    )


def test_text_from_a_journal_neither_steers_the_terminal_nor_is_markup() -> None:
    """A model's answer or a failed call's message could clear the screen, or hide what follows."""
    entries = journal_of(
        start(version=EVIL, source=ForkSource(run_id=EVIL, from_offset=1)),
        StepEntry.of(session=1, timestamp=EVIL, step_id=EVIL, name="s", result={EVIL: EVIL}),
        suspend(EVIL),
        resume(EVIL),
        ErrorEntry(session=1, timestamp=AT, message=EVIL, name=EVIL, stack=f"{EVIL}\n  {EVIL}"),
    )
    other = journal_of(
        start(), StepEntry.of(session=1, timestamp=AT, step_id=EVIL, name="s", result=EVIL)
    )
    running = Running(EVIL, EVIL, 2, EVIL)
    lock = Lock(held=False, pid=1, host=EVIL, since=EVIL, session=1, running=(running,))
    found = {"session": 1, "torn": EVIL, "running": [running.to_json()]}
    process = write_notes({"host": EVIL, "lib": EVIL, "code": EVIL, "pid": 7, "found": found})
    noted = journal_of(
        start(extra_json=process, workflow=EVIL),
        start(
            2, extra_json=write_notes({"host": "other", "delivers": {"event": EVIL, "by": EVIL}})
        ),
        suspend(EVIL, EVIL).replace(extra_json=write_notes({"branch": EVIL, "passedOver": [EVIL]})),
        suspend(EVIL),
        CompleteEntry(session=1, timestamp=AT, result_json=orjson.dumps({EVIL: EVIL})),
    )
    report = RunReport(run_id="r", entries=entries)
    for renderables in (
        list(journal(entries)),
        [*showing.status(report, EVIL, now=NOW)],
        [*showing.status(RunReport(run_id="r", entries=entries[:3]), EVIL, now=NOW)],
        [*showing.debug("r", entries, EVIL, now=NOW, lock=None)],
        [*showing.debug("r", noted, EVIL, now=NOW, lock=lock)],
        [*showing.debug("r", noted[:3], EVIL, now=NOW, lock=lock)],
        [*showing.pending({"r": noted[:4], "u": StorageError(EVIL)}, EVIL, now=NOW)],
        list(journal(entries, full=True)),
        [*showing.steps(fork_points(entries), EVIL, EVIL)],
        [*showing.timeline(list(timeline(entries)))],
        [*showing.difference(compare(entries, entries[:3]), EVIL, EVIL)],
        [*showing.difference(compare(entries[:2], other), EVIL, EVIL)],
    ):
        text = shown(*renderables, width=200)
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\u202e" not in text
        assert "[bold]" in text
    for width in (10, 30, 200):
        waiting = RunSummary(run_id=EVIL, status=SuspendedRun(waiting_for=EVIL), started=EVIL)
        text = table(RunSummary(run_id=EVIL, status=StorageError(EVIL)), waiting, width=width)
        assert not re.search("[\x1b\x9b\u202e]", text)
    assert HARMLESS in shown(*journal(entries), width=200)


def test_escaping_keeps_what_is_text() -> None:
    """Japanese, emoji with joiners and tabs in a traceback would turn into escapes."""
    harmless = "日本\u3000語 👨\u200d👩\u200d👧 é\u00a0x"
    assert visible(harmless) == on_one_line(harmless) == harmless
    assert visible("a\n\tb\r") == "a\n\tb\\r"
    assert on_one_line("a\n\tb\r") == r"a\n\tb\r"
    assert visible(EVIL) == HARMLESS
    assert visible("\ud83d") == r"\ud83d"


def test_a_fork_s_journal_names_its_source() -> None:
    """Where a run came from would be known to `--json` only."""
    entries = journal_of(start(), start(2, source=ForkSource(run_id="old", from_offset=7)))
    assert "forked from old at offset 7" in words(shown(*journal(entries)))


def test_a_timestamp_is_shown_in_utc_or_as_it_stands() -> None:
    """Times of two journals could not be compared; a foreign one would be a crash."""
    assert pieces.moment("2026-01-31T13:00:00.250+01:00").plain == "2026-01-31 12:00:00"
    assert pieces.moment("0001-01-01T00:00:00+14:00").plain == "0001-01-01T00:00:00+14:00"
    assert pieces.moment("yester\nday").plain == r"yester\nday"
    assert pieces.moment(None).plain == ""


def test_results_are_coloured_by_what_they_are() -> None:
    """Text, numbers and keys would look alike."""
    text = shown(pieces.value({"key": ["text", 1]}), colours=True)
    styles = {
        word: re.search(rf"(\x1b\[[0-9;]+m){word}\x1b", text) for word in ('"key"', '"text"', "1")
    }
    assert None not in styles.values()
    assert len({match[1] for match in styles.values() if match}) == 3


def test_an_unreadable_run_has_no_step_count() -> None:
    """A journal that cannot be read would be said to hold 0 steps."""
    summary = RunSummary(run_id="r", status=StorageError("no permission"))
    assert words(table(summary)).endswith("r unreadable no permission 1 run: 1 unreadable")
    assert words(table(summary, width=20)) == "r unreadable no permission 1 run: 1 unreadable"


def test_a_step_count_that_is_a_guess_says_so() -> None:
    """A figure from a journal's length would be taken for a count."""
    summary = RunSummary(
        run_id="r", status=Completed(), steps=7, exact=False, sessions=1, started=AT, last_entry=AT
    )
    assert "≤7" in table(summary)
    assert "≤7 steps" in table(summary, width=40)


def test_a_long_result_is_cut_short_and_says_so() -> None:
    """One document in a journal would push everything else off the screen."""
    for result in ("x" * 5000, list(range(100))):
        step = StepEntry.of(session=1, timestamp=AT, step_id="s", name="s", result=result)
        entries = journal_of(start(), step)
        short = shown(*journal(entries))
        assert len(short.splitlines()) < 32
        assert f"shortened ({size(len(step.result_json))})" in short
        long = shown(*journal(entries, full=True))
        assert "shortened" not in long
        assert json.loads("".join(line[16:].strip() for line in long.splitlines()[3:])) == result


def test_what_is_to_be_pasted_is_never_folded() -> None:
    """A command copied from a narrow terminal would be cut in two by a new line."""
    entries = journal_of(
        start(), ErrorEntry(session=1, timestamp=AT, message="no", name=None, stack=None)
    )
    url = "file:/" + "deep/" * 30
    report = RunReport(run_id="r", entries=entries)
    for renderables in (
        showing.status(report, url, now=NOW),
        showing.steps(fork_points(entries), "r", url),
        showing.debug("r", entries, url, now=NOW, lock=None),
    ):
        lines = [line.strip() for line in shown(*renderables, width=40).splitlines()]
        assert f"kassette --storage {url} fork r --from-offset 1" in lines


def test_a_command_for_a_run_that_looks_like_an_option() -> None:
    """The advised command would be misuse."""
    assert command_line("file:s", "fork", "-x", "--from-offset", "1") == (
        "kassette --storage file:s fork --from-offset 1 -- -x"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "0 ms"),
        (0.2304, "230 ms"),
        (1, "1.0 s"),
        (1.54, "1.5 s"),
        (59, "59.0 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (180, "3 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7300, "2 h 1 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float | None, words: str) -> None:
    """Somebody who compares steps would be shown seconds by the thousand."""
    assert duration(seconds) == words


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    """A result of three megabytes would be a number of seven digits."""
    sizes = [size(each) for each in (812, 1234, 3_400_000, 5_000_000_000_000)]
    assert sizes == ["812 B", "1.2 kB", "3.4 MB", "5000.0 GB"]
    borders = [size(each) for each in (999, 1000, 999_900, 1_000_000, 10**9)]
    assert borders == ["999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.0 GB"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3600, "1h"),
        (86_400, "1d"),
        (10**6, "11d"),
    ],
)
def test_ages_are_told_as_older_than_takes_them(seconds: float | None, words: str) -> None:
    """What the table says could not be typed as `--older-than`."""
    assert age(seconds) == words
    if words:
        assert parse_age(words) <= (seconds or 0)


def test_the_time_between_two_entries_is_told_to_the_millisecond() -> None:
    """A step that took no time would have none told; or one of two clocks a time of minus an hour."""
    assert seconds_between(AT, AT) == 0.0
    assert seconds_between(AT, "2026-01-31T12:00:01.2345678Z") == 1.235
    assert seconds_between("2026-01-31T12:00:00.001Z", AT) is None
    assert seconds_between(None, AT) is seconds_between(AT, "noon") is None


def test_a_run_from_the_future_is_no_age_old() -> None:
    """A machine whose clock is ahead would make runs that began minus one minutes ago."""
    later = (NOW + timedelta(minutes=5)).isoformat()
    summary = RunSummary(run_id="r", status=Unsettled(), started=later, last_entry=later)
    assert "started 0s ago, last entry 0s ago" in words(table(summary, width=60))
