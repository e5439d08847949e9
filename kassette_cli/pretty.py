"""Values as people read them: values in, rich renderables out; nothing is read or printed here.

Rules:
- The width is the console's: nothing is measured, cut or padded by hand.
- A run id and a step id are never shortened, so that they can be copied.
- Text from journals goes through ``visible`` or ``on_one_line`` and is never parsed as markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any, assert_never

from rich.console import Group, RenderableType  # noqa: TID253 - imported on a terminal only
from rich.highlighter import JSONHighlighter  # noqa: TID253
from rich.panel import Panel  # noqa: TID253
from rich.rule import Rule  # noqa: TID253
from rich.table import Table  # noqa: TID253
from rich.text import Text  # noqa: TID253

import kassette
from kassette import (
    CancelEntry,
    Cancelled,
    Completed,
    CompleteEntry,
    Entry,
    ErrorEntry,
    FailedRun,
    JournalCorruptionError,
    ResumeEntry,
    RunStatus,
    StartEntry,
    StepEntry,
    StorageError,
    SuspendedRun,
    SuspendEntry,
    Unsettled,
    is_terminal,
    run_status,
)
from kassette.timestamps import parse_timestamp
from kassette_cli.escaping import on_one_line, visible
from kassette_cli.evidence import RunReport, RunSummary, open_waits

_STATUS_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "suspended": "yellow",
    "unsettled": "cyan",
    "unreadable": "bold red",
}
_ENTRY_STYLES = {
    "start": "blue",
    "step": "green",
    "suspend": "yellow",
    "resume": "yellow",
    "complete": "bold green",
    "error": "bold red",
    "cancel": "magenta",
}
_highlight = JSONHighlighter()


def runs(summaries: Sequence[RunSummary], url: str) -> RenderableType:
    """Show runs as a table, with what is wrong with the unreadable ones below it."""
    if not summaries:
        return Text(f"no runs in {on_one_line(url)}", style="dim")
    table = Table(header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("status")
    table.add_column("steps", justify="right")
    table.add_column("started (UTC)")
    table.add_column("waiting for", overflow="fold")
    problems: list[RenderableType] = []
    for each in summaries:
        status = each.status
        word = "unreadable"
        waiting_for = ""
        if isinstance(status, (JournalCorruptionError, StorageError)):
            problems.append(Text(on_one_line(str(status)), style="red"))
        else:
            word = status.status
            waiting_for = status.waiting_for if isinstance(status, SuspendedRun) else ""
        table.add_row(
            Text(on_one_line(each.run_id)),
            Text(word, style=_STATUS_STYLES[word]),
            "" if each.steps is None else str(each.steps),
            moment(each.started),
            Text(on_one_line(waiting_for)),
        )
    return Group(table, *problems)


def status(report: RunReport, url: str, *, now: datetime) -> RenderableType:
    """Show what a run is doing, why, and what to do next, as a panel."""
    found = run_status(report.entries)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, fact in _facts(report, url, now):
        facts.add_row(label, fact)
    style = _STATUS_STYLES[found.status]
    title = Text.assemble((on_one_line(report.run_id), "bold"), " is ", (found.status, style))
    return Panel(facts, title=title, title_align="left", border_style=style)


def journal(entries: Iterable[Entry]) -> Iterator[RenderableType]:
    """Show entries one after the other, a rule where another session begins."""
    session: int | None = None
    for entry in entries:
        if entry.session != session:
            session = entry.session
            yield Rule(Text(f"session {session}", style="bold"), align="left", style="blue")
        row = Table.grid(padding=(0, 2))
        row.add_column(style="dim", justify="right", min_width=4)
        row.add_column(style=_ENTRY_STYLES[entry.type], min_width=8)
        row.add_column(overflow="fold")
        row.add_row(str(entry.offset), entry.type, Group(*_body(entry)))
        yield row


def forked(source: str, new_run_id: str) -> RenderableType:
    """Say which run a fork has made, and what to do with it."""
    return Group(
        Text.assemble("forked ", (on_one_line(source), "bold"), " into ", (new_run_id, "bold")),
        Text(f"start it: await start(storage, {new_run_id!r})", style="dim"),
    )


def moment(timestamp: str | None) -> Text:
    """Show a journal's timestamp in UTC, to the second; as it stands if it is none."""
    if timestamp is None:
        return Text("")
    try:
        instant = parse_timestamp(timestamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return Text(on_one_line(timestamp))
    return Text(f"{instant:%Y-%m-%d %H:%M:%S}")


def value(decoded: Any) -> Text:
    """Show a JSON value, indented and coloured."""
    return _highlight(Text(visible(json.dumps(decoded, indent=2, ensure_ascii=False))))


def _facts(report: RunReport, url: str, now: datetime) -> Iterator[tuple[str, RenderableType]]:
    """Give label and fact, row by row: why, when, what was done last, what to do next."""
    entries = report.entries
    found = run_status(entries)
    for why in _why(found, entries, now):
        yield "why", why
    if isinstance(found, FailedRun) and found.stack is not None:
        yield "stack", Text(visible(found.stack.rstrip()), style="dim")
    if entries:
        yield "started", moment(entries[0].timestamp)
        yield "last entry", moment(entries[-1].timestamp)
    last_step = next((each for each in reversed(entries) if isinstance(each, StepEntry)), None)
    if last_step is not None:
        yield "last step", Text(f"{on_one_line(last_step.step_id)} at offset {last_step.offset}")
        if isinstance(found, Completed):
            yield "result", value(last_step.result)
    advice, command = _next(found, report, f"kassette --storage {quote(url)}")
    yield "next", Text(on_one_line(advice))
    yield "", Text(on_one_line(command), style="bold")


def _why(found: RunStatus, entries: list[Entry], now: datetime) -> list[Text]:
    match found:
        case Completed():
            return [Text("the workflow returned")]
        case FailedRun(name=name, message=message):
            return [Text(visible(f"{name}: {message}" if name else message), style="red")]
        case Cancelled(reason=kassette.SUSPEND_TIMEOUT_EXPIRED):
            return [Text("a deadline passed before the event came that the run waited for")]
        case Cancelled(reason=reason):
            return [Text(visible(reason or "the journal gives no reason"))]
        case SuspendedRun():
            return [_wait(each, now) for each in open_waits(entries)]
        case Unsettled():
            return [Text("the journal does not end: it is running, or it crashed or was left")]
        case _:
            assert_never(found)


def _wait(wait: SuspendEntry, now: datetime) -> Text:
    shown = Text.assemble(
        "waits for ", (on_one_line(wait.waiting_for), "bold"), f" ({on_one_line(wait.reason)})"
    )
    if wait.timeout is not None:
        shown.append(" until ").append_text(moment(wait.timeout)).append(" UTC")
        if parse_timestamp(wait.timeout) <= now:
            shown.append(", which has passed: the next start or resume cancels the run", "red")
    return shown


def _next(found: RunStatus, report: RunReport, kassette_command: str) -> tuple[str, str]:
    """Give what to do next, and the words to do it with."""
    run_id = report.run_id
    match found:
        case Completed():
            return (
                "nothing; this shows how it got there",
                f"{kassette_command} dump {quote(run_id)}",
            )
        case FailedRun() | Cancelled():
            end = next(each for each in reversed(report.entries) if is_terminal(each))
            return (
                "a fork keeps every step and tries the rest again",
                f"{kassette_command} fork {quote(run_id)} --from-offset {end.offset}",
            )
        case SuspendedRun(waiting_for=event):
            return "deliver the event", f"await resume(storage, {run_id!r}, {event!r}, value)"
        case Unsettled():
            holder = report.holder
            who = (
                "no lock file says that it is open; go on where it was"
                if holder is None
                else f"its lock file names process {holder.pid} on {holder.host}, since "
                f"{holder.since}; if that is gone, go on where the run was"
            )
            return who, f"await start(storage, {run_id!r})"
        case _:
            assert_never(found)


def _body(entry: Entry) -> Iterator[RenderableType]:
    label, instant = on_one_line(_label(entry)), moment(entry.timestamp)
    instant.stylize("dim")
    yield Text("  ").join(filter(None, (Text(label), instant)))
    match entry:
        case StartEntry() if entry.metadata_json is not None:
            yield value(entry.metadata)
        case StepEntry():
            yield value(entry.result)
        case ResumeEntry():
            yield value(entry.value)
        case ErrorEntry(stack=str(stack)):
            yield Text(visible(stack.rstrip()), style="dim")
        case _:
            pass
    if entry.extra:
        yield value(entry.extra)


def _label(entry: Entry) -> str:
    match entry:
        case StartEntry(source=source, version=version):
            origin = (
                f"of a fork of {source.run_id} at offset {source.from_offset}" if source else ""
            )
            return " ".join(filter(None, (f"version {version}" if version else "", origin)))
        case StepEntry():
            return entry.step_id
        case SuspendEntry():
            until = f", until {moment(entry.timeout).plain} UTC" if entry.timeout else ""
            return f"{entry.waiting_for} ({entry.reason}){until}"
        case ResumeEntry():
            return entry.event_name
        case ErrorEntry():
            return f"{entry.name}: {entry.message}" if entry.name else entry.message
        case CancelEntry():
            return entry.reason or ""
        case CompleteEntry():
            return ""
        case _:
            assert_never(entry)
