"""``kassette fork``: creates a new run from the first entries of another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line
from kassette_cli.parser import RunId, add_run, count

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType

    from kassette_io.storages.protocol import Storage

PLACE = 70
SUMMARY = "create a new run from the first entries of another"
DESCRIPTION = (
    "The source run is only read. Start the new run from your program: it replays the copied\n"
    "steps and runs the rest."
)
WRITES = True


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run, the cut and the new run's id."""
    add_run(parser)
    cut = parser.add_mutually_exclusive_group(required=True)
    cut.add_argument(
        "--from-offset", type=count, metavar="N", help="copy the entries before offset N"
    )
    cut.add_argument("--from-step", metavar="ID", help="copy the entries before the step ID")
    parser.add_argument(
        "--new-run-id",
        metavar="ID",
        help="the new run's id; random by default",
        action=RunId,
    )


async def find(storage: Storage, arguments: Namespace) -> str:
    """Fork the run at the given point and return the new run's id. Raise what ``fork`` raises.

    The session that the fork opens is closed again, so any process may ``start`` the new run.
    """
    import kassette_io

    run = await kassette_io.fork(
        storage,
        arguments.new_run_id or kassette_io.create_run_id(),
        source=arguments.run,
        from_offset=arguments.from_offset,
        from_step_id=arguments.from_step,
    )
    await run.aclose()
    return run.run_id


def lines(new_run_id: str, _: Namespace) -> Iterable[bytes]:
    """Return the new run's id, in the form that ``list`` prints."""
    from kassette_cli.output.json_lines import run_line

    return [run_line(new_run_id)]


def view(new_run_id: str, arguments: Namespace) -> Iterable[RenderableType]:
    """Show the new run, and how to start it."""
    source, made = on_one_line(arguments.run), new_run_id
    yield pieces.Text.assemble("forked ", (source, "bold"), " into ", (made, "bold"))
    yield pieces.to_paste(f"await start(storage, {made!r})")
