"""The table of runs, row by row; nothing is read or printed here.

Rules:
- Rows are laid out by hand: rich's own table has to see the last row before it shows the first, and
  takes longer for a row than it takes to read a run.
- Three layouts, the first that fits: with dates, with ages instead, and each run on lines of its
  own. A run id is never shortened.
- Text from journals goes through ``on_one_line``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import final

from rich.cells import chop_cells  # noqa: TID253 - imported on a terminal only
from rich.console import Console, ConsoleOptions, RenderableType  # noqa: TID253
from rich.segment import Segment  # noqa: TID253
from rich.style import Style  # noqa: TID253
from rich.text import Text  # noqa: TID253

from kassette_cli.escaping import on_one_line
from kassette_cli.pretty import STATUS_STYLES, moment
from kassette_cli.summaries import RunSummary
from kassette_cli.units import age, instant

_OURS = "2026-01-31T12:00:00.000Z"
_STATUS, _STEPS, _SESSIONS = 10, 6, 8
_DATES = (len(_OURS[:19]),) * 2
_AGES = (len("started"), len("last entry"))
_WAITING = len("waiting for")
_SPACE = "  "
_WITHOUT_TIMES = _STATUS + _STEPS + _SESSIONS + _WAITING + 6 * len(_SPACE)
_BOLD, _DIM = Style(bold=True), Style(dim=True)
_STYLES = {word: Style.parse(style) for word, style in STATUS_STYLES.items()}
_PADDED = {word: Segment(f"{word:{_STATUS}}", style) for word, style in _STYLES.items()}


@final
class Listing:
    """A table of runs that are shown as they come."""

    def __init__(self, run_ids: Sequence[str], console: Console, *, now: datetime) -> None:
        self._run = max(map(len, run_ids), default=0)
        self._console = console
        self._width = width = console.width
        self._now = now
        self._ages = self._run + _WITHOUT_TIMES + sum(_DATES) > width
        self._stacked = self._run + _WITHOUT_TIMES + sum(_AGES) > width
        self._started, self._last = _AGES if self._ages else _DATES
        self._counted: Counter[str] = Counter()
        self._problems: list[str] = []

    def header(self) -> RenderableType:
        """Give the headings; none where each run stands on lines of its own."""
        if self._stacked:
            return _Segments([])
        started = "started" if self._ages else "started (UTC)"
        line = _SPACE.join(
            (
                f"{'run':{self._run}}",
                f"{'status':{_STATUS}}",
                f"{'steps':>{_STEPS}}",
                f"{'sessions':>{_SESSIONS}}",
                f"{started:{self._started}}",
                f"{'last entry':{self._last}}",
                "waiting for",
            )
        )
        return _Segments([Segment(line, _BOLD), Segment.line()])

    def rows(self, summaries: Iterable[RunSummary]) -> RenderableType:
        """Give the rows of some runs."""
        segments: list[Segment] = []
        row = self._stack if self._stacked else self._row
        for each in summaries:
            word = each.word
            self._counted[word] += 1
            if isinstance(each.status, Exception):
                self._problems.append(str(each.status))
            segments.extend(row(each, word))
        return _Segments(segments)

    def footer(self) -> Iterator[RenderableType]:
        """Say what is wrong with the unreadable runs, and how many there are of each state."""
        for problem in self._problems:
            yield Text(on_one_line(problem), style="red")
        total = self._counted.total()
        counts = ", ".join(f"{count} {word}" for word, count in self._counted.most_common())
        yield Text(f"{total} {'run' if total == 1 else 'runs'}: {counts}", style="dim")

    def _row(self, summary: RunSummary, word: str) -> Sequence[Segment]:
        run_id = summary.run_id
        if not run_id.isprintable():
            run_id = on_one_line(run_id)
        steps, sessions, started, last = self._facts(summary)
        run = f"{run_id:{self._run}}{_SPACE}"
        facts = (
            f"{_SPACE}{steps:>{_STEPS}}{_SPACE}{sessions:>{_SESSIONS}}{_SPACE}"
            f"{started:{self._started}}{_SPACE}{last:{self._last}}"
        )
        waiting_for = summary.waiting_for
        if not waiting_for:
            return Segment(run), _PADDED[word], Segment(facts.rstrip() + "\n")
        taken = len(run) + _STATUS + len(facts) + len(_SPACE)
        first, *others = chop_cells(on_one_line(waiting_for), self._width - taken)
        segments = [Segment(run), _PADDED[word], Segment(f"{facts}{_SPACE}{first}\n")]
        segments.extend(Segment(f"{'':{taken}}{each}\n") for each in others)
        return segments

    def _stack(self, summary: RunSummary, word: str) -> Sequence[Segment]:
        run_id = chop_cells(on_one_line(summary.run_id), self._width)
        segments = [Segment(f"{line}\n", _BOLD) for line in run_id]
        steps, sessions, started, last = self._facts(summary)
        facts = [word]
        if steps and sessions:
            facts += [_count(steps, "step"), _count(sessions, "session")]
        if started and last:
            facts += [f"began {started} ago", f"last entry {last} ago"]
        head, *more = self._fold(", ".join(facts))
        segments += [Segment(_SPACE), Segment(head[: len(word)], _STYLES[word])]
        segments.append(Segment(head[len(word) :] + "\n"))
        if summary.waiting_for:
            more += self._fold(f"waiting for {on_one_line(summary.waiting_for)}")
        segments.extend(Segment(f"{_SPACE}{line}\n") for line in more)
        return segments

    def _fold(self, text: str) -> list[str]:
        """Fold between words, and within those that are too long."""
        width = max(self._width - len(_SPACE), 2)
        folded = Text(text).wrap(self._console, width)
        return [line.plain.rstrip() for line in folded]

    def _facts(self, summary: RunSummary) -> tuple[str, str, str, str]:
        steps = "" if summary.steps is None else str(summary.steps)
        sessions = "" if summary.sessions is None else str(summary.sessions)
        if not summary.exact:
            steps = f"≤{steps}"
        return steps, sessions, self._when(summary.started), self._when(summary.last_entry)

    def _when(self, timestamp: str | None) -> str:
        if timestamp is None:
            return ""
        if not (self._ages or self._stacked):
            return _date(timestamp)
        known = instant(timestamp)
        return "?" if known is None else age(max((self._now - known).total_seconds(), 0))


@final
class _Segments:
    """Text that is laid out already."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        return self._segments


def _count(number: str, noun: str) -> str:
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"


def _date(timestamp: str) -> str:
    """Show an instant as ``moment`` does, without asking the calendar where the form is ours."""
    if len(timestamp) == len(_OURS) and timestamp[10] == "T" and timestamp[-1] == "Z":
        day, time = timestamp[:10], timestamp[11:19]
        if day.isprintable() and time.isprintable():
            return f"{day} {time}"
    return moment(timestamp).plain[: _DATES[0]]
