"""``kassette steps``: where a run can be forked, with the command to do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line
from kassette_cli.parser import add_run

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType

    from kassette.evidence.fork_points import ForkPoint
    from kassette_io.storages.protocol import Storage

PLACE = 50
SUMMARY = "list every point where a run can be forked, with the command to do it"
DESCRIPTION = (
    "A fork replays the steps before that point and re-runs those after it, side effects\nincluded."
)
PROGRESS = "reading the journal"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run."""
    add_run(parser)


async def find(storage: Storage, arguments: Namespace) -> Sequence[ForkPoint]:
    """Return every fork point of the run's journal."""
    from kassette.evidence.fork_points import fork_points
    from kassette_cli.storage import read_run

    return fork_points(await read_run(storage, arguments.run))


def lines(points: Sequence[ForkPoint], arguments: Namespace) -> Iterable[bytes]:
    """Return a line for each point."""
    from kassette_cli.output.json_lines import json_line

    for point in points:
        yield json_line({**point.to_json(), "command": command(point, arguments)})


def view(points: Sequence[ForkPoint], arguments: Namespace) -> Iterable[RenderableType]:
    """Show every fork point, with the command that forks there underneath."""
    if not points:
        yield pieces.Text("the journal is empty, so there is nothing to fork", style="dim")
    for point in points:
        name = "the end" if point.step is None else on_one_line(point.step.step_id)
        said = f"replays {pieces.counted(point.kept, 'step')}, re-runs {point.again}"
        if point.events:
            said += f", waits again for {', '.join(map(on_one_line, point.events))}"
        row = pieces.Table.grid(padding=(0, 2))
        row.add_column(style="dim", justify="right", min_width=4)
        row.add_column(overflow="fold")
        row.add_row(str(point.offset), pieces.Text.assemble((name, "bold"), f"  {said}"))
        yield row
        yield pieces.to_paste(f"      {command(point, arguments)}")


def command(point: ForkPoint, arguments: Namespace) -> str:
    """Return the command that forks at a point, to paste into a shell."""
    from kassette_cli.output.pasting import command_line

    return command_line(
        arguments.storage, "fork", arguments.run, "--from-offset", str(point.offset)
    )
