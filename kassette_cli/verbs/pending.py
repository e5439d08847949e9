"""``kassette pending``: every open wait of every run, and the call that answers it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line
from kassette_cli.output.pasting import command_line
from kassette_cli.output.units import age

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType

    from kassette.evidence.pending import Pending
    from kassette_cli.storage import Unreadable
    from kassette_io.storages.protocol import Storage

Found: TypeAlias = "Pending | tuple[str, Unreadable]"
"""A wait, or a run whose journal cannot be read, with the error."""

PLACE = 16
SUMMARY = "list every open wait of every run, with the call that answers it"
DESCRIPTION = (
    "In a pipe, one line per wait: for an approvals page, or to find out whom to ask. A journal\n"
    "that cannot be read has a line with runId and error. If a deadline of a run has passed,\n"
    "the answer is a fork, because every resume would cancel the run."
)
PROGRESS = "reading the journals"


def add_arguments(_: ArgumentParser) -> None:
    """Add nothing: the storage is all it takes."""


async def find(storage: Storage, _: Namespace) -> Sequence[Found]:
    """Return the open waits of all runs, those of each run in the order of the journal."""
    from kassette.evidence.pending import pending
    from kassette_cli.storage import TOGETHER, list_runs, read_runs

    run_ids = await list_runs(storage)
    now = datetime.now(UTC)
    found: list[Found] = []
    for at in range(0, len(run_ids), TOGETHER):
        some = run_ids[at : at + TOGETHER]
        for run_id, entries in zip(some, await read_runs(storage, some), strict=True):
            if isinstance(entries, Exception):
                found.append((run_id, entries))
            else:
                found.extend(pending(run_id, entries, now))
    return found


def lines(found: Sequence[Found], arguments: Namespace) -> Iterable[bytes]:
    """Return a line for each wait, and for each journal that cannot be read."""
    from kassette_cli.output.json_lines import json_line

    for each in found:
        if isinstance(each, tuple):
            yield json_line({"runId": each[0], "error": str(each[1])})
        else:
            said = each.to_json()
            said["command"] = _command(each, arguments.storage)
            yield json_line(said)


def view(found: Sequence[Found], arguments: Namespace) -> Iterable[RenderableType]:
    """Show each wait, with what answers it below it."""
    return shown(found, arguments.storage, now=datetime.now(UTC))


def shown(found: Sequence[Found], url: str, *, now: datetime) -> Iterator[RenderableType]:
    """Show the waits as ``view`` does, for the storage at ``url`` and the instant ``now``."""
    waits = 0
    for each in found:
        if isinstance(each, tuple):
            yield pieces.Text(on_one_line(str(each[1])), style="red")
            continue
        waits += 1
        row = pieces.Text(on_one_line(each.wait.event), style="bold yellow")
        row.append(f"  {on_one_line(each.run_id)}", "not bold default")
        yield row
        yield pieces.Text(f"  {on_one_line(_about(each, now))}")
        yield pieces.to_paste(f"  {each.answer.call or _command(each, url)}")
    yield pieces.Text(pieces.counted(waits, "open wait"), style="dim")


def _command(found: Pending, url: str) -> str | None:
    if found.answer.command is None:
        return None
    verb, run_id, *options = found.answer.command
    return command_line(url, verb, run_id, *options)


def _about(found: Pending, now: datetime) -> str:
    """Return the reason, the branch, the age and the deadline of a wait."""
    from kassette.timestamps import instant

    wait = found.wait
    since = instant(wait.since)
    facts = [wait.question] if wait.question else []
    if wait.branch is not None:
        facts.append(f"branch {wait.branch}")
    if since is not None and since <= now:
        facts.append(f"for {age((now - since).total_seconds())}")
    if wait.deadline is not None:
        passed = ", which has passed" if wait.late else ""
        facts.append(f"until {pieces.moment(wait.deadline).plain}{passed}")
    return ", ".join(facts)
