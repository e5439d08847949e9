"""``kassette diff``: where two runs diverge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import kassette
from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line, visible
from kassette_cli.parser import add_run

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType
    from rich.text import Text

    from kassette import Entry
    from kassette.evidence.difference import Comparison, Difference
    from kassette_io.storages.protocol import Storage

PLACE = 60
SUMMARY = "show where two runs diverge, by structure and by result"
DESCRIPTION = (
    "Steps and events are matched by their ids. Print one object per difference, then a\n"
    "summary. The exit code is 0 even if the runs differ."
)
PROGRESS = "reading the journal"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the two runs."""
    add_run(parser, metavar="RUN_A", help="one run's id")
    add_run(parser, "other", metavar="RUN_B", help="the other's")


async def find(storage: Storage, arguments: Namespace) -> Comparison:
    """Return the comparison of the two journals."""
    from kassette.evidence.difference import compare
    from kassette_cli.storage import read_run

    a = await read_run(storage, arguments.run)
    return compare(a, await read_run(storage, arguments.other))


def lines(found: Comparison, _: Namespace) -> Iterable[bytes]:
    """Return a line for each difference, then the summary."""
    from kassette_cli.output.json_lines import json_line

    return map(json_line, (*(each.to_json() for each in found.differences), found.to_json()))


def view(found: Comparison, arguments: Namespace) -> Iterable[RenderableType]:
    """Show a verdict, then the differences with both sides."""
    a, b = on_one_line(arguments.run), on_one_line(arguments.other)
    yield pieces.Text.assemble("a is ", (a, "bold"), ", b is ", (b, "bold"))
    yield pieces.Text(_verdict(found))
    table = pieces.Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", style="bold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for each in found.differences:
        table.add_row(_name(each), pieces.Text("a"), _side(each.a))
        table.add_row("", pieces.Text("b"), _side(each.b))
    yield table


def _name(each: Difference) -> Text:
    match each.a or each.b:
        case kassette.StepEntry(step_id=step_id):
            return pieces.Text(on_one_line(step_id))
        case kassette.ResumeEntry(event_name=event_name):
            return pieces.Text(f"event {on_one_line(event_name)}")
        case _:
            return pieces.Text("the end")


def _side(entry: Entry | None) -> RenderableType:
    match entry:
        case None:
            return pieces.Text("absent", style="dim")
        case (
            kassette.StepEntry(result_json=value_json) | kassette.ResumeEntry(value_json=value_json)
        ):
            at = pieces.Text(f"offset {entry.offset}", style="dim")
            return pieces.Group(at, pieces.preview(value_json))
        case _:
            message = getattr(entry, "message", "")
            return pieces.Text(visible(f"{entry.type} {message}".rstrip()))


def _verdict(found: Comparison) -> str:
    alike = f"{pieces.counted(found.same, 'equal entry', 'equal entries')}"
    if not found.differences:
        return f"{alike}, no differences"
    parts: list[str] = []
    for kind, words in (
        ("result", "first different result:"),
        ("structure", "first in only one run:"),
    ):
        first = found.first(kind)
        if first is not None:
            parts.append(f"{words} {_name(first).plain}")
    if found.first("end") is not None:
        parts.append("the runs ended differently")
    return f"{alike}; {'; '.join(parts)}"
