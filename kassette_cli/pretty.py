"""Values as people read them: values in, rich renderables out; nothing is read or printed here.

Rules:
- The width is the console's: nothing is measured, cut or padded by hand.
- What is to be pasted stands on a line of its own, without a frame, and is never folded.
- A run id and a step id are never shortened, so that they can be copied.
- Text from journals goes through ``visible`` or ``on_one_line`` and is never parsed as markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
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
    ResumeEntry,
    RunStatus,
    StartEntry,
    StepEntry,
    SuspendedRun,
    SuspendEntry,
    Unsettled,
    is_terminal,
    run_status,
)
from kassette.timestamps import has_passed, parse_timestamp
from kassette.values import decode_value
from kassette_cli.escaping import on_one_line, visible
from kassette_cli.evidence import RunReport, open_waits
from kassette_cli.pasting import command_line
from kassette_cli.units import duration, instant, seconds_between, size

STATUS_STYLES = {
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
_PREVIEW = 800
_PREVIEW_LINES = 16
"""How much of a value is shown: characters and lines."""
_highlight = JSONHighlighter()


def status(report: RunReport, url: str, *, now: datetime) -> RenderableType:
    """Show what a run is doing, why, and what to do next, as a panel; below it what to paste."""
    found = run_status(report.entries)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, fact in _facts(report, url, now):
        facts.add_row(label, fact)
    style = STATUS_STYLES[found.status]
    title = Text.assemble((on_one_line(report.run_id), "bold"), " is ", (found.status, style))
    advice, *commands = _next(found, report, url)
    facts.add_row("next", Text(on_one_line(advice)))
    panel = Panel(facts, title=title, title_align="left", border_style=style)
    return Group(panel, *map(to_paste, commands))


def journal(entries: Iterable[Entry], *, full: bool = False) -> Iterator[RenderableType]:
    """Show entries one after the other, a rule where another session begins.

    Results that are long are cut short unless ``full``.
    """
    before: Entry | None = None
    for entry in entries:
        if before is None or entry.session != before.session:
            heading = Text(f"session {entry.session}", style="bold")
            passed = seconds_between(before.timestamp, entry.timestamp) if before else None
            if passed is not None:
                heading.append(f", {duration(passed)} later", "not bold dim")
            yield Rule(heading, align="left", style="blue")
        before = entry
        row = Table.grid(padding=(0, 2))
        row.add_column(style="dim", justify="right", min_width=4)
        row.add_column(style=_ENTRY_STYLES[entry.type], min_width=8)
        row.add_column(overflow="fold")
        row.add_row(str(entry.offset), entry.type, Group(*_body(entry, full=full)))
        yield row


def forked(source: str, new_run_id: str) -> RenderableType:
    """Say which run a fork has made, and what to do with it."""
    return Group(
        Text.assemble("forked ", (on_one_line(source), "bold"), " into ", (new_run_id, "bold")),
        to_paste(f"await start(storage, {new_run_id!r})"),
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


def to_paste(command: str) -> Text:
    """Show a command on one line, however long: a folded one could not be copied."""
    return Text(on_one_line(command), style="bold", no_wrap=True, overflow="ignore")


def value(decoded: Any) -> Text:
    """Show a JSON value, indented and coloured."""
    return _highlight(Text(visible(json.dumps(decoded, indent=2, ensure_ascii=False))))


def preview(value_json: bytes, *, full: bool = False) -> RenderableType:
    """Show a JSON value as ``value`` does, and cut short what would fill the screen."""
    text = json.dumps(decode_value(value_json), indent=2, ensure_ascii=False)
    if full or (len(text) <= _PREVIEW and text.count("\n") < _PREVIEW_LINES):
        return _highlight(Text(visible(text)))
    kept = "\n".join(text[:_PREVIEW].split("\n", _PREVIEW_LINES)[:_PREVIEW_LINES])
    note = Text(f"… cut short, it is {size(len(value_json))}; dump --full shows it", style="dim")
    return Group(_highlight(Text(visible(kept))), note)


def _facts(report: RunReport, url: str, now: datetime) -> Iterator[tuple[str, RenderableType]]:
    """Give label and fact, row by row: why, when, what was done last."""
    entries = report.entries
    found = run_status(entries)
    for why in _why(found, entries, now):
        yield "why", why
    if isinstance(found, FailedRun) and found.stack is not None:
        yield "stack", Text(visible(found.stack.rstrip()), style="dim")
    if entries:
        yield "started", moment(entries[0].timestamp)
        yield "last entry", moment(entries[-1].timestamp)
        yield "so far", Text(_so_far(entries))
    last_step = next((each for each in reversed(entries) if isinstance(each, StepEntry)), None)
    if last_step is not None:
        yield "last step", Text(f"{on_one_line(last_step.step_id)} at offset {last_step.offset}")
        if isinstance(found, Completed):
            yield "result", preview(last_step.result_json)


def _so_far(entries: list[Entry]) -> str:
    steps = sum(isinstance(each, StepEntry) for each in entries)
    starts = sum(isinstance(each, StartEntry) for each in entries)
    return f"{_count(steps, 'step')} in {_count(starts, 'session')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
            why = [Text("the journal does not end: it is running, or it crashed or was left")]
            return why + _sleep(entries[-1] if entries else None, now)
        case _:
            assert_never(found)


def _sleep(last: Entry | None, now: datetime) -> list[Text]:
    """Tell until when a run sleeps whose last entry is a delay that is not over."""
    if not isinstance(last, StepEntry) or last.name.split(":")[-2:-1] != ["delay"]:
        return []
    wake = last.result
    until = instant(wake) if isinstance(wake, str) else None
    if until is None or until <= now:
        return []
    return [Text("sleeps until ").append_text(moment(wake)).append(" UTC, if it is running")]


def _wait(wait: SuspendEntry, now: datetime) -> Text:
    shown = Text.assemble(
        "waits for ", (on_one_line(wait.waiting_for), "bold"), f" ({on_one_line(wait.reason)})"
    )
    if wait.timeout is not None:
        if instant(wait.timeout) is None and not has_passed(wait.timeout, now):
            return (
                shown.append(" until ")
                .append(on_one_line(wait.timeout))
                .append(", which does not pass: no datetime of the years 1 to 9999")
            )
        shown.append(" until ").append_text(moment(wait.timeout)).append(" UTC")
        if has_passed(wait.timeout, now):
            shown.append(", which has passed: the next start or resume cancels the run", "red")
    return shown


def _next(found: RunStatus, report: RunReport, url: str) -> Sequence[str]:
    """Give what to do next, the words to do it with, and the commands that show more."""
    run_id = report.run_id
    look = [command_line(url, "timeline", run_id)] if report.entries else []
    match found:
        case Completed():
            advice = "nothing; these show how it got there"
            return advice, command_line(url, "dump", run_id), *look
        case FailedRun() | Cancelled():
            end = next(each for each in reversed(report.entries) if is_terminal(each))
            return (
                "a fork keeps every step and tries the rest again, or forks earlier: see steps",
                command_line(url, "fork", run_id, "--from-offset", str(end.offset)),
                command_line(url, "steps", run_id),
            )
        case SuspendedRun(waiting_for=event):
            return (
                "deliver the event, in Python; or look at what happened",
                f"await resume(storage, {run_id!r}, {event!r}, value)",
                *look,
            )
        case Unsettled():
            holder = report.holder
            who = (
                "no lock file says that it is open; go on where it was, in Python"
                if holder is None
                else f"its lock file names process {holder.pid} on {holder.host}, since "
                f"{holder.since}; if that is gone, go on where the run was, in Python"
            )
            return who, f"await start(storage, {run_id!r})", *look
        case _:
            assert_never(found)


def _body(entry: Entry, *, full: bool) -> Iterator[RenderableType]:
    label, instant = on_one_line(_label(entry)), moment(entry.timestamp)
    instant.stylize("dim")
    written = _written(entry)
    weight = Text("" if written is None else size(len(written)), style="dim")
    yield Text("  ").join(filter(None, (Text(label), instant, weight)))
    if written is not None:
        yield preview(written, full=full)
    if isinstance(entry, ErrorEntry) and entry.stack is not None:
        yield Text(visible(entry.stack.rstrip()), style="dim")
    if entry.extra:
        yield value(entry.extra)


def _written(entry: Entry) -> bytes | None:
    """Give the value that a caller has put into an entry, as JSON text."""
    match entry:
        case StartEntry():
            return entry.metadata_json
        case StepEntry():
            return entry.result_json
        case ResumeEntry():
            return entry.value_json
        case _:
            return None


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
