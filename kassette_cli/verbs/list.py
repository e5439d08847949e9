"""``kassette list``: every run, or the selected ones, with a summary of each on a terminal.

Rules:
- Only the head and tail of a local journal are read (``kassette.evidence.summary``), without an
  event loop; journals in an object store are read several at a time.
- Rows are laid out by hand: rich's own table needs the last row before it shows the first, and
  takes longer to lay out a row than it takes to read a run.
- There are three layouts, and the first that fits is used: with dates, with ages instead, and
  with several lines per run. A run id is never shortened.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, final

import kassette
from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line
from kassette_cli.output.units import age, parse_age
from kassette_cli.parser import count

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from kassette.evidence.summary import RunSummary, Wanted
    from kassette_cli.storage import OpenStorage

PLACE = 10
SUMMARY = "list the id of every run"
DESCRIPTION = (
    "On a terminal, print a table. --status and --older-than select runs; for local journals\n"
    "both read only the end of each file. Use --ids to feed other commands, for example to\n"
    "delete old runs:\n\n"
    "  kassette list --status completed --older-than 30d --ids |\n"
    "    xargs -I{} rm -- .kassette/{}.jsonl\n\n"
    "A run without entries has no age, so --older-than omits it."
)
STATUSES = ("completed", "failed", "cancelled", "suspended", "unsettled", "unreadable")
"""The words for a run's state: the five states, and a journal that cannot be read."""
OFFERED = {"--status": STATUSES}

_BATCH = 0.1
"""Seconds between two updates of the table."""
_AT_ONCE = (1, 20)
"""The row counts shown without waiting for an update: the first row, and the first screen."""
_LOOKS = 20
"""How many runs are read between two updates of the progress bar."""

_OURS = "2026-01-31T12:00:00.000Z"
_STATUS, _STEPS, _SESSIONS = 10, 6, 8
_DATES = (len(_OURS[:19]),) * 2
_AGES = (len("started"), len("last entry"))
_WAITING = len("waiting for")
_SPACE = "  "
_WITHOUT_TIMES = _STATUS + _STEPS + _SESSIONS + _WAITING + 6 * len(_SPACE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that select runs."""
    parser.add_argument("--limit", type=count, metavar="N", help="list at most N runs")
    parser.add_argument(
        "--status",
        type=_statuses,
        metavar="S[,S…]",
        help=f"only runs in one of these states: {', '.join(STATUSES)}",
    )
    parser.add_argument(
        "--older-than",
        type=_age,
        metavar="AGE",
        help="only runs whose last entry is older: 45s, 30m, 12h, 30d or 2w",
    )
    parser.add_argument(
        "--ids", action="store_true", help="print bare run ids, one per line, for xargs"
    )


def prints_lines(arguments: argparse.Namespace) -> bool:
    """Return whether to print bare ids instead of a table."""
    ids: bool = arguments.ids
    return ids


def stream_lines(storage: OpenStorage, arguments: argparse.Namespace, _: int) -> Iterable[bytes]:
    """Return a line for each run."""
    from kassette_cli.output.json_lines import run_line

    return map(_bare if arguments.ids else run_line, _run_ids(storage, arguments))


def stream_view(
    storage: OpenStorage, arguments: argparse.Namespace, console: Console
) -> Iterator[RenderableType]:
    """Show a table that grows while the journals are read."""
    from kassette_cli.output.terminal import counting
    from kassette_cli.storage import list_runs, perform

    wanted = wanted_runs(arguments)
    limit: int | None = arguments.limit
    with counting("reading runs", console) as count_to:
        run_ids = perform(storage, list_runs, limit if wanted is None else None)
        listing = Listing(run_ids, console, now=datetime.now(UTC))
        shown = 0
        batch: list[RunSummary] = []
        last = time.monotonic()
        for read, summary in enumerate(summaries(storage, run_ids)):
            if read % _LOOKS == 0:
                count_to(read, len(run_ids))
            if shown == limit:
                break
            if wanted is None or summary in wanted:
                shown += 1
                batch.append(summary)
            if batch and (shown in _AT_ONCE or time.monotonic() - last > _BATCH):
                if shown == len(batch):
                    yield listing.header()
                yield listing.rows(batch)
                batch = []
                last = time.monotonic()
    if not shown:
        what = "no runs" if wanted is None else "no matching runs"
        yield pieces.Text(f"{what} in {on_one_line(arguments.storage)}", style="dim")
        return
    if shown == len(batch):
        yield listing.header()
    yield listing.rows(batch)
    yield from listing.footer()


def wanted_runs(arguments: argparse.Namespace) -> Wanted | None:
    """Return the selection; None if every run is wanted."""
    if arguments.status is None and arguments.older_than is None:
        return None
    from kassette.evidence.summary import Wanted

    before = None
    if arguments.older_than is not None:
        try:
            before = datetime.now(UTC) - timedelta(seconds=arguments.older_than)
        except OverflowError:
            before = datetime.min.replace(tzinfo=UTC)
    statuses = None if arguments.status is None else frozenset(arguments.status)
    return Wanted(statuses=statuses, before=before)


def summaries(storage: OpenStorage, run_ids: list[str]) -> Iterator[RunSummary]:
    """Yield the summary of each run, in order, as soon as it has been read."""
    from kassette.evidence.summary import RunSummary, summarise
    from kassette_cli.storage import TOGETHER, open_loop, read_runs
    from kassette_io.storages.local import LocalStorage

    if isinstance(storage, LocalStorage):
        directory = storage.directory
        for run_id in run_ids:
            yield summarise_file(directory, run_id)
        return
    with open_loop(storage) as call:
        for at in range(0, len(run_ids), TOGETHER):
            some = run_ids[at : at + TOGETHER]
            for run_id, found in zip(some, call(read_runs, some), strict=True):
                if isinstance(found, Exception):
                    yield RunSummary(run_id=run_id, status=found)
                else:
                    yield summarise(run_id, found)


def summarise_file(directory: str, run_id: str) -> RunSummary:
    """Return the summary of ``{run_id}.jsonl``; an unreadable file gives an error as status."""
    from kassette.errors import with_run_id
    from kassette.evidence.summary import RunSummary

    try:
        return _summarise_file(f"{directory}/{run_id}.jsonl", run_id)
    except OSError as error:
        failure = kassette.StorageError(
            f"cannot read {run_id}.jsonl: {error.strerror}", run_id=run_id
        )
        return RunSummary(run_id=run_id, status=failure)
    except kassette.JournalCorruptionError as error:
        return RunSummary(run_id=run_id, status=with_run_id(error, run_id))


def _summarise_file(path: str, run_id: str) -> RunSummary:
    from kassette.evidence.summary import BLOCK, summarise, summarise_ends

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.read(fd, BLOCK)
        summary = summarise_ends(
            run_id, head, head if len(head) < BLOCK else _last_block(fd, BLOCK)
        )
        if summary is not None:
            return summary
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return summarise(run_id, kassette.decode_journal(head + file.readall()).entries)
    finally:
        os.close(fd)


def _last_block(fd: int, length: int) -> bytes:
    return os.pread(fd, length, max(os.fstat(fd).st_size - length, 0))


def _run_ids(storage: OpenStorage, arguments: argparse.Namespace) -> Iterable[str]:
    from kassette_cli.storage import list_runs, perform

    wanted = wanted_runs(arguments)
    if wanted is None:
        return perform(storage, list_runs, arguments.limit)
    run_ids = perform(storage, list_runs)
    found = (each.run_id for each in summaries(storage, run_ids) if each in wanted)
    return islice(found, arguments.limit)


def _bare(run_id: str) -> bytes:
    return os.fsencode(run_id) + b"\n"


def _statuses(text: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in STATUSES:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(STATUSES)}")
    return words


def _age(text: str) -> int:
    try:
        return parse_age(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an age; write 45s, 30m, 12h, 30d or 2w"
        ) from None


@final
class Listing:
    """A table of runs that is printed while it grows."""

    def __init__(self, run_ids: Sequence[str], console: Console, *, now: datetime) -> None:
        self._run = max(map(len, run_ids), default=0)
        self._console = console
        self._width = width = console.width
        self._now = now
        self._ages = self._run + _WITHOUT_TIMES + sum(_DATES) > width
        self._stacked = self._run + _WITHOUT_TIMES + sum(_AGES) > width
        self._started, self._last = _AGES if self._ages else _DATES
        self._bold = pieces.Style(bold=True)
        styles = pieces.STATUS_STYLES.items()
        self._styles = {word: pieces.Style.parse(style) for word, style in styles}
        self._padded = {
            word: pieces.Segment(f"{word:{_STATUS}}", style) for word, style in self._styles.items()
        }
        self._counted: Counter[str] = Counter()
        self._problems: list[str] = []

    def header(self) -> RenderableType:
        """Return the headings; none in the layout with several lines per run."""
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
        return _Segments([pieces.Segment(line, self._bold), pieces.Segment.line()])

    def rows(self, summaries: Iterable[RunSummary]) -> RenderableType:
        """Return the rows of some runs."""
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
        """Show the errors of unreadable runs, and the number of runs in each state."""
        for problem in self._problems:
            yield pieces.Text(on_one_line(problem), style="red")
        total = self._counted.total()
        counts = ", ".join(f"{count} {word}" for word, count in self._counted.most_common())
        yield pieces.Text(f"{total} {'run' if total == 1 else 'runs'}: {counts}", style="dim")

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
            return pieces.Segment(run), self._padded[word], pieces.Segment(facts.rstrip() + "\n")
        taken = len(run) + _STATUS + len(facts) + len(_SPACE)
        first, *others = pieces.chop_cells(on_one_line(waiting_for), self._width - taken)
        segments = [
            pieces.Segment(run),
            self._padded[word],
            pieces.Segment(f"{facts}{_SPACE}{first}\n"),
        ]
        segments.extend(pieces.Segment(f"{'':{taken}}{each}\n") for each in others)
        return segments

    def _stack(self, summary: RunSummary, word: str) -> Sequence[Segment]:
        run_id = pieces.chop_cells(on_one_line(summary.run_id), self._width)
        segments = [pieces.Segment(f"{line}\n", self._bold) for line in run_id]
        steps, sessions, started, last = self._facts(summary)
        facts = [word]
        if steps and sessions:
            facts += [pieces.counted(steps, "step"), pieces.counted(sessions, "session")]
        if started and last:
            facts += [f"started {started} ago", f"last entry {last} ago"]
        head, *more = self._fold(", ".join(facts))
        segments += [pieces.Segment(_SPACE), pieces.Segment(head[: len(word)], self._styles[word])]
        segments.append(pieces.Segment(head[len(word) :] + "\n"))
        if summary.waiting_for:
            more += self._fold(f"waiting for {on_one_line(summary.waiting_for)}")
        segments.extend(pieces.Segment(f"{_SPACE}{line}\n") for line in more)
        return segments

    def _fold(self, text: str) -> list[str]:
        """Wrap between words, and within words that are too long."""
        width = max(self._width - len(_SPACE), 2)
        folded = pieces.Text(text).wrap(self._console, width)
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
        from kassette.timestamps import instant

        known = instant(timestamp)
        return "?" if known is None else age(max((self._now - known).total_seconds(), 0))


@final
class _Segments:
    """Text that is already laid out."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        return self._segments


def _date(timestamp: str) -> str:
    """Show an instant as ``moment`` does, without parsing it if it is in our own format."""
    if len(timestamp) == len(_OURS) and timestamp[10] == "T" and timestamp[-1] == "Z":
        day, time = timestamp[:10], timestamp[11:19]
        if day.isprintable() and time.isprintable():
            return f"{day} {time}"
    return pieces.moment(timestamp).plain[: _DATES[0]]
