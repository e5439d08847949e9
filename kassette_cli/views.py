"""Fork points, timelines and differences as people read them; values in, rich renderables out.

The rules are those of ``pretty``.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.bar import Bar  # noqa: TID253 - imported on a terminal only
from rich.console import Group, RenderableType  # noqa: TID253
from rich.table import Table  # noqa: TID253
from rich.text import Text  # noqa: TID253

from kassette import Entry, ResumeEntry, StepEntry
from kassette_cli.difference import Comparison, Difference
from kassette_cli.escaping import on_one_line, visible
from kassette_cli.forkpoints import ForkPoint
from kassette_cli.pretty import moment, preview, to_paste
from kassette_cli.timeline import EventSpan, Gap, SessionSpan, Span, StepSpan
from kassette_cli.units import duration


def steps(points: Sequence[ForkPoint], run_id: str, url: str) -> RenderableType:
    """Show every fork point, with the command that forks there below it."""
    if not points:
        return Text("the journal is empty, so there is nothing to fork", style="dim")
    shown: list[RenderableType] = []
    for point in points:
        name = "the end" if point.step is None else on_one_line(point.step.step_id)
        said = f"replays {point.kept}, does {point.again} anew"
        if point.events:
            said += f", waits again for {', '.join(map(on_one_line, point.events))}"
        row = Table.grid(padding=(0, 2))
        row.add_column(style="dim", justify="right", min_width=4)
        row.add_column(overflow="fold")
        row.add_row(str(point.offset), Text.assemble((name, "bold"), f"  {said}"))
        shown += [row, to_paste(f"      {point.command(run_id, url)}")]
    return Group(*shown)


def timeline(spans: Sequence[Span]) -> RenderableType:
    """Show sessions, steps, events and gaps, each with a bar as long as it took."""
    if not spans:
        return Text("the journal is empty, so nothing has happened", style="dim")
    timed = [each for each in spans if isinstance(each, StepSpan)]
    longest = max((each.seconds or 0 for each in timed), default=0) or 1
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", justify="right", min_width=4)
    table.add_column(overflow="fold", ratio=4)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, ratio=1)
    for span in spans:
        table.add_row(*_span_row(span, longest))
    return table


def difference(found: Comparison, a: str, b: str) -> RenderableType:
    """Show where two runs part, and every difference."""
    a, b = on_one_line(a), on_one_line(b)
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", style="bold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for each in found.differences:
        table.add_row(_name(each), Text("a"), _side(each.a))
        table.add_row("", Text("b"), _side(each.b))
    heading = Text.assemble("a is ", (a, "bold"), ", b is ", (b, "bold"))
    return Group(heading, Text(_verdict(found)), table)


def _span_row(span: Span, longest: float) -> tuple[RenderableType, ...]:
    match span:
        case SessionSpan():
            return str(span.offset), Text(_session(span), "bold blue"), duration(span.seconds), ""
        case StepSpan():
            bar = "" if span.seconds is None else Bar(longest, 0, span.seconds, color="green")
            return (
                str(span.offset),
                Text(f"  {on_one_line(span.step_id)}"),
                duration(span.seconds),
                bar,
            )
        case EventSpan():
            name = f"  {on_one_line(span.event_name)} came"
            return str(span.offset), Text(name, "yellow"), duration(span.seconds), ""
        case Gap(after=None):
            return "", Text("nobody had it open", "red"), duration(span.seconds), ""
        case Gap():
            return "", Text("suspended", "yellow"), duration(span.seconds), ""


def _session(span: SessionSpan) -> str:
    if span.copied:
        return f"session {span.session}, copied by a fork: {_count(span.steps)}"
    replays = f", {_count(span.replays)} on record" if span.replays else ""
    ending = {"suspend": ", suspended", None: ", no end"}.get(span.ending, f", {span.ending}")
    return f"session {span.session}, {moment(span.begin).plain}{replays}{ending}"


def _count(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def _name(each: Difference) -> Text:
    match each.a or each.b:
        case StepEntry(step_id=step_id):
            return Text(on_one_line(step_id))
        case ResumeEntry(event_name=event_name):
            return Text(f"event {on_one_line(event_name)}")
        case _:
            return Text("the end")


def _side(entry: Entry | None) -> RenderableType:
    match entry:
        case None:
            return Text("has none", style="dim")
        case StepEntry():
            return Group(_at(entry), preview(entry.result_json))
        case ResumeEntry():
            return Group(_at(entry), preview(entry.value_json))
        case _:
            message = getattr(entry, "message", "")
            return Text(visible(f"{entry.type} {message}".rstrip()))


def _at(entry: Entry) -> Text:
    return Text(f"offset {entry.offset}", style="dim")


def _verdict(found: Comparison) -> str:
    alike = f"alike in {found.same} of their results and events"
    if not found.differences:
        return f"{alike}, and nothing differs"
    parts: list[str] = []
    for kind, words in (
        ("result", "the first other result is"),
        ("structure", "the first that only one has is"),
    ):
        first = found.first(kind)
        if first is not None:
            parts.append(f"{words} {_name(first).plain}")
    if found.first("end") is not None:
        parts.append("they ended differently")
    return f"{alike}; {'; '.join(parts)}"
