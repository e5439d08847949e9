"""``kassette timeline``: how long each session, step and wait took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line
from kassette_cli.output.units import duration
from kassette_cli.parser import add_run

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType

    from kassette.evidence.spans import SessionSpan, Span, StepSpan
    from kassette_io.storages.protocol import Storage

PLACE = 40
SUMMARY = "show how long each session, step and wait took"
DESCRIPTION = (
    "A step's time is counted from its first call. Journals of older releases do not record\n"
    "that; there it is counted from the entry before it, which is an upper bound for steps\n"
    "that ran concurrently."
)
PROGRESS = "reading the journal"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run."""
    add_run(parser)


async def find(storage: Storage, arguments: Namespace) -> Sequence[Span]:
    """Return the spans of the run's journal."""
    from kassette.evidence.spans import timeline
    from kassette_cli.storage import read_run

    return list(timeline(await read_run(storage, arguments.run)))


def lines(spans: Sequence[Span], _: Namespace) -> Iterable[bytes]:
    """Return a line for each span."""
    from kassette_cli.output.json_lines import json_line

    return (json_line(span.to_json()) for span in spans)


def view(spans: Sequence[Span], _: Namespace) -> Iterable[RenderableType]:
    """Show sessions, steps, events and gaps, each with a bar as long as it took."""
    from kassette.evidence.spans import SessionSpan, StepSpan

    if not spans:
        yield pieces.Text("the journal is empty, so nothing has happened", style="dim")
        return
    timed = [each for each in spans if isinstance(each, StepSpan)]
    longest = max((each.seconds or 0 for each in timed), default=0) or 1
    table = pieces.Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", justify="right", min_width=4)
    table.add_column(overflow="fold", ratio=4)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, ratio=1)
    session: SessionSpan | None = None
    for span in spans:
        session = span if isinstance(span, SessionSpan) else session
        table.add_row(*_row(span, session, longest))
    yield table


def _row(span: Span, session: SessionSpan | None, longest: float) -> tuple[RenderableType, ...]:
    from kassette.evidence.spans import EventSpan, Gap, SessionSpan, StepSpan

    took = duration(span.seconds)
    match span:
        case SessionSpan():
            return str(span.offset), pieces.Text(_session(span), "bold blue"), took, ""
        case StepSpan():
            name = pieces.Text(f"  {on_one_line(span.step_id)}")
            if span.attempts is not None:
                name.append(f", {pieces.counted(span.attempts, 'attempt')}", "yellow")
            return str(span.offset), name, took, _bar(span, session, longest)
        case EventSpan():
            came = f"  {on_one_line(span.event_name)} received"
            return str(span.offset), pieces.Text(came, "yellow"), took, ""
        case Gap(after=None):
            return "", pieces.Text("no session", "red"), took, ""
        case Gap():
            return "", pieces.Text("suspended", "yellow"), took, ""


def _bar(span: StepSpan, session: SessionSpan | None, longest: float) -> RenderableType:
    """Return a bar that lies in its session as the step did, or only as long as it took."""
    from kassette.timestamps import seconds_between

    if span.seconds is None:
        return ""
    since = None if session is None else seconds_between(session.begin, span.begin)
    if not span.measured or session is None or not session.seconds or since is None:
        return pieces.Bar(longest, 0, span.seconds, color="green")
    return pieces.Bar(session.seconds, since, since + span.seconds, color="green")


def _session(span: SessionSpan) -> str:
    if span.copied:
        return f"session {span.session}, copied by a fork: {pieces.counted(span.steps, 'step')}"
    replays = f", {pieces.counted(span.replays, 'step')} to replay" if span.replays else ""
    ending = {"suspend": ", suspended", None: ", no end"}.get(span.ending, f", {span.ending}")
    return f"session {span.session}, {pieces.moment(span.begin).plain}{replays}{ending}"
