"""Pictures of what a terminal shows, at three widths; KASSETTE_REWRITE_SNAPSHOTS=1 takes them anew."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from kassette import Entry, JournalCorruptionError, decode_journal
from kassette.evidence.difference import compare
from kassette.evidence.fork_points import fork_points
from kassette.evidence.spans import timeline
from kassette.evidence.summary import summarise
from kassette_cli.output import terminal
from kassette_cli.verbs.dump import journal
from kassette_cli.verbs.list import Listing, summarise_file
from kassette_cli.verbs.status import RunReport

from . import showing
from .journals import JOURNALS
from .stories import EXPLAINED, REFUND, REFUND_AGAIN, placed

REWRITE = os.environ.get("KASSETTE_REWRITE_SNAPSHOTS") == "1"
SNAPSHOTS = Path(__file__).parent / "snapshots"
NOW = datetime(2026, 2, 1, tzinfo=UTC)
URL = "file:.kassette"
STATES = ("completed", "failed", "cancelled", "suspended", "suspended-then-start", "resumed")
LONG_ID = "0198f3a2-1c5e-7d0b-9a61-3f2d8c4b7e15"


def entries_of(run_id: str) -> list[Entry]:
    return decode_journal(JOURNALS[run_id].encode()).entries


def listing(run_ids: list[str], store: Path, width: int) -> Iterable[RenderableType]:
    table = Listing([*run_ids, LONG_ID], Console(width=width), now=NOW)
    yield table.header()
    yield table.rows(summarise_file(str(store), each) for each in run_ids)
    yield table.rows([summarise(LONG_ID, placed(REFUND))])
    yield from table.footer()


def picture(name: str, store: Path, width: int) -> Iterable[RenderableType]:
    verb, _, run_id = name.partition("-")
    refund, again = placed(REFUND), placed(REFUND_AGAIN)
    match verb:
        case "list":
            return listing(sorted(JOURNALS), store, width)
        case "status":
            entries = refund if run_id == "refund" else entries_of(run_id)
            return [*showing.status(RunReport(run_id=run_id, entries=entries), URL, now=NOW)]
        case "debug":
            state, entries = EXPLAINED[run_id]
            return [*showing.debug(run_id, placed(entries), URL, now=NOW, lock=state)]
        case "pending":
            runs = {name: placed(entries) for name, (_, entries) in EXPLAINED.items()}
            damage = JournalCorruptionError("journal, line 3: no JSON", line=3)
            return [*showing.pending({**runs, "damaged": damage}, URL, now=NOW)]
        case "dump":
            return journal(refund if run_id == "refund" else again)
        case "timeline":
            return [*showing.timeline(list(timeline(refund if run_id == "refund" else again)))]
        case "steps":
            return [*showing.steps(fork_points(refund), "refund", URL)]
        case _:
            return [*showing.difference(compare(refund, again), "refund", "again")]


NAMES = [
    "list",
    *(f"status-{run_id}" for run_id in (*STATES, "refund")),
    *(f"debug-{run_id}" for run_id in EXPLAINED),
    "pending",
    "dump-refund",
    "dump-again",
    "timeline-refund",
    "timeline-again",
    "steps",
    "diff",
]


@pytest.mark.parametrize("width", [60, 100, 160])
@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_shows_what_the_picture_shows(store: Path, name: str, width: int) -> None:
    """A change would break what people read, and nobody would see it before they do."""
    console = Console(
        file=io.StringIO(),
        width=width,
        markup=False,
        emoji=False,
        highlight=False,
        color_system=None,
    )
    terminal.show(console, (each for each in picture(name, store, width)))
    assert isinstance(console.file, io.StringIO)
    text = "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())
    path = SNAPSHOTS / f"{name}-{width}.txt"
    if REWRITE:
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_every_picture_is_of_something() -> None:
    """A picture of what is gone would be kept for ever."""
    expected = {f"{name}-{width}.txt" for name in NAMES for width in (60, 100, 160)}
    assert {path.name for path in SNAPSHOTS.iterdir()} == expected
