"""``kassette status``: what a run is doing, why, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, assert_never

import kassette
from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line, visible
from kassette_cli.output.pasting import command_line
from kassette_cli.parser import add_run

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType
    from rich.text import Text

    from kassette import Entry, RunStatus, SuspendEntry
    from kassette_io.storages.protocol import Storage

PLACE = 20
SUMMARY = "show what a run is doing, from its journal alone"
DESCRIPTION = "On a terminal, also show why, what it waits for, until when, and what to do next."
PROGRESS = "reading the journal"


class Holder(NamedTuple):
    """The session that has, or had, the run open according to its lock file.

    The TypeScript kassette writes only a pid: ``host`` and ``since`` are then None.
    """

    pid: int
    host: str | None = None
    since: str | None = None


class RunReport(NamedTuple):
    """A run's journal; ``holder`` is None unless a lock file names a process."""

    run_id: str
    entries: list[Entry]
    holder: Holder | None = None


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run."""
    add_run(parser)


async def find(storage: Storage, arguments: Namespace) -> RunStatus:
    """Return the run's status from its journal. Raise UsageError for an unknown run."""
    from kassette_cli.storage import read_run

    return kassette.run_status(await read_run(storage, arguments.run))


async def find_to_view(storage: Storage, arguments: Namespace) -> RunReport:
    """Return the run's journal and the process that its lock file names."""
    from kassette_cli.storage import read_run

    run_id: str = arguments.run
    entries = await read_run(storage, run_id)
    return RunReport(run_id, entries, await _holder(storage, run_id))


def lines(found: RunStatus, _: Namespace) -> Iterable[bytes]:
    """Return the status in the JSON form of the TypeScript kassette."""
    from kassette_cli.output.json_lines import json_line

    return [json_line(found.to_json())]


def view(report: RunReport, arguments: Namespace) -> Iterable[RenderableType]:
    """Show what a run is doing, why, and what to do next, with the commands to paste."""
    return shown(report, arguments.storage, now=datetime.now(UTC))


def shown(report: RunReport, url: str, *, now: datetime) -> Iterable[RenderableType]:
    """Show a run as ``view`` does, for the storage at ``url`` and the instant ``now``."""
    found = kassette.run_status(report.entries)
    facts = pieces.Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, fact in _facts(report, now):
        facts.add_row(label, fact)
    style = pieces.STATUS_STYLES[found.status]
    run = (on_one_line(report.run_id), "bold")
    title = pieces.Text.assemble(run, " is ", (found.status, style))
    advice, *commands = _next(found, report, url)
    facts.add_row("next", pieces.Text(on_one_line(advice)))
    yield pieces.Panel(facts, title=title, title_align="left", border_style=style)
    yield from map(pieces.to_paste, commands)


async def _holder(storage: Storage, run_id: str) -> Holder | None:
    from kassette_io.storages.local import LocalStorage

    if not isinstance(storage, LocalStorage):
        return None  # nothing is locked in an object store
    import aiofiles
    import orjson

    from kassette_io.storages.run_lock import pid_of_another

    try:
        async with aiofiles.open(f"{storage.directory}/{run_id}.lock", "rb") as file:
            text = await file.read()
        another = pid_of_another(text)
        if another is not None:
            return Holder(another)
        signed = orjson.loads(text)
        return Holder(pid=int(signed["pid"]), host=str(signed["host"]), since=str(signed["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(report: RunReport, now: datetime) -> Iterator[tuple[str, RenderableType]]:
    """Yield a label and a fact per row: why, when, what was done last."""
    entries = report.entries
    found = kassette.run_status(entries)
    for why in _why(found, entries, now):
        yield "why", why
    if isinstance(found, kassette.FailedRun) and found.stack is not None:
        yield "stack", pieces.Text(visible(found.stack.rstrip()), style="dim")
    if entries:
        yield "started", pieces.moment(entries[0].timestamp)
        yield "last entry", pieces.moment(entries[-1].timestamp)
        yield "so far", pieces.Text(_so_far(entries))
    last_step = next(
        (each for each in reversed(entries) if isinstance(each, kassette.StepEntry)), None
    )
    if last_step is not None:
        yield (
            "last step",
            pieces.Text(f"{on_one_line(last_step.step_id)} at offset {last_step.offset}"),
        )
        if isinstance(found, kassette.Completed):
            yield "result", pieces.preview(last_step.result_json)


def _so_far(entries: list[Entry]) -> str:
    steps = sum(isinstance(each, kassette.StepEntry) for each in entries)
    starts = sum(isinstance(each, kassette.StartEntry) for each in entries)
    return f"{pieces.counted(steps, 'step')} in {pieces.counted(starts, 'session')}"


def _why(found: RunStatus, entries: list[Entry], now: datetime) -> list[Text]:
    from kassette.evidence.open_waits import open_waits

    match found:
        case kassette.Completed():
            return [pieces.Text("the workflow returned")]
        case kassette.FailedRun(name=name, message=message):
            return [pieces.Text(visible(f"{name}: {message}" if name else message), style="red")]
        case kassette.Cancelled(reason=kassette.SUSPEND_TIMEOUT_EXPIRED):
            return [pieces.Text("the deadline passed before the event arrived")]
        case kassette.Cancelled(reason=reason):
            return [pieces.Text(visible(reason or "the journal records no reason"))]
        case kassette.SuspendedRun():
            return [_wait(each, now) for each in open_waits(entries)]
        case kassette.Unsettled():
            why = [pieces.Text("running, crashed or abandoned: the journal has no end")]
            return why + _sleep(entries[-1] if entries else None, now)
        case _:
            assert_never(found)


def _sleep(last: Entry | None, now: datetime) -> list[Text]:
    """Return until when a run sleeps, if its last entry is a delay that has not elapsed."""
    if not isinstance(last, kassette.StepEntry) or last.name.split(":")[-2:-1] != ["delay"]:
        return []
    from kassette.timestamps import instant

    wake = last.result
    until = instant(wake) if isinstance(wake, str) else None
    if until is None or until <= now:
        return []
    return [
        pieces.Text("sleeping until ")
        .append_text(pieces.moment(wake))
        .append(" UTC, if it is running")
    ]


def _wait(wait: SuspendEntry, now: datetime) -> Text:
    from kassette.timestamps import has_passed, instant

    shown = pieces.Text.assemble(
        "waiting for ",
        (on_one_line(wait.waiting_for), "bold"),
        f" ({on_one_line(wait.reason)})",
    )
    if wait.timeout is not None:
        if instant(wait.timeout) is None and not has_passed(wait.timeout, now):
            return (
                shown.append(" until ")
                .append(on_one_line(wait.timeout))
                .append(", which never passes: not a datetime in the years 1 to 9999")
            )
        shown.append(" until ").append_text(pieces.moment(wait.timeout)).append(" UTC")
        if has_passed(wait.timeout, now):
            shown.append(", which has passed: the next start or resume cancels the run", "red")
    return shown


def _next(found: RunStatus, report: RunReport, url: str) -> Sequence[str]:
    """Return advice, followed by the code and commands to paste."""
    run_id = report.run_id
    look = [command_line(url, "timeline", run_id)] if report.entries else []
    match found:
        case kassette.Completed():
            advice = "nothing to do; these commands show what happened"
            return advice, command_line(url, "dump", run_id), *look
        case kassette.FailedRun() | kassette.Cancelled():
            end = next(each for each in reversed(report.entries) if kassette.is_terminal(each))
            return (
                "fork the run: the fork replays every recorded step and runs the rest; "
                "to fork earlier, see steps",
                command_line(url, "fork", run_id, "--from-offset", str(end.offset)),
                command_line(url, "steps", run_id),
            )
        case kassette.SuspendedRun(waiting_for=event):
            return (
                "deliver the event from Python, or look at what happened",
                f"await resume(storage, {run_id!r}, {event!r}, value)",
                *look,
            )
        case kassette.Unsettled():
            return _who(report.holder, url), f"await start(storage, {run_id!r})", *look
        case _:
            assert_never(found)


def _who(holder: Holder | None, url: str) -> str:
    """Return which process may have the run open, and what to do if it is gone."""
    if holder is None and not url.startswith("file:"):
        return "if no process is running it, recover the run from Python; that takes it over"
    if holder is None:
        return "no lock file names a process; recover the run from Python"
    whose = (
        " (of the TypeScript kassette)"
        if holder.since is None
        else f" on {holder.host}, since {holder.since}"
    )
    return (
        f"its lock file names process {holder.pid}{whose}; if that process is gone, recover the "
        "run from Python"
    )
