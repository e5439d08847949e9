"""How values look: renderables on a console in memory, of any width; no process, no terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console, RenderableType

from kassette import (
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    StorageError,
    SuspendEntry,
    Unsettled,
)
from kassette_cli import pretty
from kassette_cli.escaping import on_one_line, visible
from kassette_cli.evidence import RunReport, RunSummary, open_waits

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
        console.print(each)
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


def panel(entries: Iterable[Entry], *, run_id: str = "r", url: str = "file:s") -> str:
    report = RunReport(run_id=run_id, entries=journal_of(*entries))
    return words(shown(pretty.status(report, url, now=NOW), width=200))


def test_a_deadline_that_has_passed_is_told() -> None:
    """An operator would deliver an event that only cancels the run."""
    later = (NOW + timedelta(seconds=1)).isoformat()
    assert "which has passed" not in panel([start(), suspend("e", later)])
    assert "which has passed" in panel([start(), suspend("e", AT)])


def test_every_open_event_is_told() -> None:
    """Of several branches that wait (D7), only the last would be known."""
    text = panel([start(), suspend("one"), suspend("two"), start(2), resume("one"), suspend("3")])
    assert "waits for one" not in text
    assert "waits for two (why)" in text
    assert "waits for 3 (why)" in text


def test_a_wait_reached_again_is_one_wait_with_its_first_deadline() -> None:
    """A wait that outlived a crash would be shown twice, once with a deadline that is not kept."""
    first = suspend("e", AT).at(1)
    again = suspend("e", "2999-01-01T00:00:00Z", 2).at(3)
    assert open_waits([start().at(0), first, start(2).at(2), again]) == [first]


def test_a_run_cancelled_for_no_reason_says_so() -> None:
    """The panel would say None."""
    assert "the journal gives no reason" in panel([start(), CancelEntry(session=1, timestamp=AT)])
    other = CancelEntry(session=1, timestamp=AT, reason="by hand")
    assert "by hand" in panel([start(), other])
    assert "1 cancel by hand" in words(shown(*pretty.journal(journal_of(start(), other))))


def test_advice_is_quoted_for_a_shell() -> None:
    """A storage with a space in its path: the advised command would look somewhere else."""
    entries: list[Entry] = [start(), CompleteEntry(session=1, timestamp=AT)]
    assert "kassette --storage 'file:my runs' dump r" in panel(entries, url="file:my runs")


@pytest.mark.parametrize("width", [30, 60, 120])
def test_a_run_id_is_never_shortened(width: int) -> None:
    """The id of a run would have an ellipsis where a copy needs its last half."""
    run_id = "0123456789abcdef" * 8
    summary = RunSummary(run_id=run_id, status=Unsettled(), steps=1, started=AT)
    report = RunReport(run_id=run_id, entries=journal_of(start()))
    for renderable in (pretty.runs([summary], "file:s"), pretty.forked("a", run_id)):
        text = shown(renderable, width=width)
        assert max(map(len, text.splitlines())) <= width
        column = "".join(
            re.sub("[^0-9a-f]", "", re.split("[│┃]", line)[1] if "│" in line else line)
            for line in text.splitlines()
            if "┃" not in line
        )
        assert run_id in column
    assert run_id in re.sub(r"\W", "", shown(pretty.status(report, "file:s", now=NOW), width=width))


def test_text_from_a_journal_neither_steers_the_terminal_nor_is_markup() -> None:
    """A model's answer or a failed call's message could clear the screen, or hide what follows."""
    entries = journal_of(
        start(version=EVIL, source=ForkSource(run_id=EVIL, from_offset=1)),
        StepEntry.of(session=1, timestamp=EVIL, step_id=EVIL, name="s", result={EVIL: EVIL}),
        suspend(EVIL),
        resume(EVIL),
        ErrorEntry(session=1, timestamp=AT, message=EVIL, name=EVIL, stack=f"{EVIL}\n  {EVIL}"),
    )
    report = RunReport(run_id="r", entries=entries)
    for renderables in (
        list(pretty.journal(entries)),
        [pretty.status(report, EVIL, now=NOW)],
        [pretty.status(RunReport(run_id="r", entries=entries[:3]), EVIL, now=NOW)],
        [pretty.runs([RunSummary(run_id=EVIL, status=StorageError(EVIL))], EVIL)],
        [pretty.runs([], EVIL)],
    ):
        text = shown(*renderables, width=200)
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\u202e" not in text
        assert "[bold]" in text
    assert HARMLESS in shown(*pretty.journal(entries), width=200)


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
    assert "of a fork of old at offset 7" in words(shown(*pretty.journal(entries)))


def test_a_timestamp_is_shown_in_utc_or_as_it_stands() -> None:
    """Times of two journals could not be compared; a foreign one would be a crash."""
    assert pretty.moment("2026-01-31T13:00:00.250+01:00").plain == "2026-01-31 12:00:00"
    assert pretty.moment("0001-01-01T00:00:00+14:00").plain == "0001-01-01T00:00:00+14:00"
    assert pretty.moment("yester\nday").plain == r"yester\nday"
    assert pretty.moment(None).plain == ""


def test_results_are_coloured_by_what_they_are() -> None:
    """Text, numbers and keys would look alike."""
    text = shown(pretty.value({"key": ["text", 1]}), colours=True)
    styles = {
        word: re.search(rf"(\x1b\[[0-9;]+m){word}\x1b", text) for word in ('"key"', '"text"', "1")
    }
    assert None not in styles.values()
    assert len({match[1] for match in styles.values() if match}) == 3


def test_an_unreadable_run_has_no_step_count() -> None:
    """A journal that cannot be read would be said to hold 0 steps."""
    summary = RunSummary(run_id="r", status=StorageError("no permission"))
    text = words(shown(pretty.runs([summary], "file:s")))
    assert text.endswith("r unreadable no permission")
