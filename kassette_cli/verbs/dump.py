"""``kassette dump``: the entries of a run's journal, also as they are appended."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, assert_never

import kassette
from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line, visible
from kassette_cli.output.units import duration, size
from kassette_cli.parser import add_run, count

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import Console, RenderableType

    from kassette import Entry
    from kassette_cli.storage import OpenStorage

PLACE = 30
SUMMARY = "print the entries of a run's journal"
DESCRIPTION = (
    "In a pipe, print the lines exactly as they are in the journal. Print a damaged journal up\n"
    "to the damage, then exit with an error. --follow ends with the run, or on Ctrl-C."
)
_STYLES = {
    "start": "blue",
    "step": "green",
    "suspend": "yellow",
    "resume": "yellow",
    "complete": "bold green",
    "error": "bold red",
    "cancel": "magenta",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, and which of its entries."""
    add_run(parser)
    parser.add_argument(
        "--offset", type=count, default=0, metavar="N", help="start at entry N, counted from 0"
    )
    parser.add_argument(
        "--follow", action="store_true", help="print new entries as they come, until the run ends"
    )
    parser.add_argument(
        "--full", action="store_true", help="print long results in full on a terminal"
    )


def is_live(arguments: Namespace) -> bool:
    """Return whether each entry is printed as soon as it is appended."""
    follow: bool = arguments.follow
    return follow


def stream_lines(storage: OpenStorage, arguments: Namespace, stdout: int) -> Iterable[bytes]:
    """Return the journal's own lines, batch by batch with ``--follow``."""
    from kassette_cli import journals
    from kassette_cli.output.json_lines import entry_line

    run_id, offset = arguments.run, arguments.offset
    if not arguments.follow:
        return map(entry_line, journals.stream_run(storage, run_id, offset))
    batches = journals.follow_run(storage, run_id, offset, _while_read(stdout))
    return (b"".join(map(entry_line, batch)) for batch in batches)


def stream_view(
    storage: OpenStorage, arguments: Namespace, console: Console
) -> Iterator[RenderableType]:
    """Show the entries one by one."""
    yield from journal(_entries(storage, arguments, console), full=arguments.full)


def journal(entries: Iterable[Entry], *, full: bool = False) -> Iterator[RenderableType]:
    """Show entries one by one, with a rule where a session begins.

    Long results are shortened unless ``full``.
    """
    from kassette.timestamps import seconds_between

    before: Entry | None = None
    for entry in entries:
        if before is None or entry.session != before.session:
            heading = pieces.Text(f"session {entry.session}", style="bold")
            passed = seconds_between(before.timestamp, entry.timestamp) if before else None
            if passed is not None:
                heading.append(f", {duration(passed)} later", "not bold dim")
            yield pieces.Rule(heading, align="left", style="blue")
        before = entry
        row = pieces.Table.grid(padding=(0, 2))
        row.add_column(style="dim", justify="right", min_width=4)
        row.add_column(style=_STYLES[entry.type], min_width=8)
        row.add_column(overflow="fold")
        row.add_row(str(entry.offset), entry.type, pieces.Group(*_body(entry, full=full)))
        yield row


def _while_read(stdout: int) -> Callable[[float], None]:
    """Return a wait that raises BrokenPipeError once the reader has closed the pipe."""
    poll = select.poll()
    poll.register(stdout, 0)

    def wait(seconds: float) -> None:
        if any(event & select.POLLERR for _, event in poll.poll(seconds * 1000)):
            raise BrokenPipeError

    return wait


def _entries(storage: OpenStorage, arguments: Namespace, console: Console) -> Iterable[Entry]:
    from kassette_cli import journals
    from kassette_cli.output.terminal import reading
    from kassette_cli.storage import perform, read_run

    def read_slowly(storage: OpenStorage, run_id: str) -> list[Entry]:
        with reading("reading the journal", console):
            return perform(storage, read_run, run_id)

    run_id, offset = arguments.run, arguments.offset
    if arguments.follow:
        return chain.from_iterable(journals.follow_run(storage, run_id, offset, time.sleep))
    return journals.stream_run(storage, run_id, offset, read_slowly)


def _body(entry: Entry, *, full: bool) -> Iterator[RenderableType]:
    label, instant = on_one_line(_label(entry)), pieces.moment(entry.timestamp)
    instant.stylize("dim")
    written = _written(entry)
    weight = pieces.Text("" if written is None else size(len(written)), style="dim")
    yield pieces.Text("  ").join(filter(None, (pieces.Text(label), instant, weight)))
    if written is not None:
        yield pieces.preview(written, full=full)
    if isinstance(entry, kassette.ErrorEntry) and entry.stack is not None:
        yield pieces.Text(visible(entry.stack.rstrip()), style="dim")
    if entry.extra:
        yield pieces.value(entry.extra)


def _written(entry: Entry) -> bytes | None:
    """Return the caller's value in an entry, as JSON text."""
    match entry:
        case kassette.StartEntry():
            return entry.metadata_json
        case kassette.StepEntry():
            return entry.result_json
        case kassette.ResumeEntry():
            return entry.value_json
        case _:
            return None


def _label(entry: Entry) -> str:
    match entry:
        case kassette.StartEntry(source=source, version=version):
            origin = f"forked from {source.run_id} at offset {source.from_offset}" if source else ""
            return " ".join(filter(None, (f"version {version}" if version else "", origin)))
        case kassette.StepEntry():
            return entry.step_id
        case kassette.SuspendEntry():
            until = f", until {pieces.moment(entry.timeout).plain} UTC" if entry.timeout else ""
            return f"{entry.waiting_for} ({entry.reason}){until}"
        case kassette.ResumeEntry():
            return entry.event_name
        case kassette.ErrorEntry():
            return f"{entry.name}: {entry.message}" if entry.name else entry.message
        case kassette.CancelEntry():
            return entry.reason or ""
        case kassette.CompleteEntry():
            return ""
        case _:
            assert_never(entry)
