"""The verbs on a terminal, and the progress of long ones; how values look is ``pretty``'s."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain
from threading import Lock, Timer
from typing import TYPE_CHECKING, Protocol, Self, final

from rich.console import Console, RenderableType  # noqa: TID253 - imported on a terminal only
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: TID253
from rich.status import Status  # noqa: TID253
from rich.text import Text  # noqa: TID253

from kassette_cli import evidence, piped, pretty, streams, verbs
from kassette_cli.escaping import on_one_line

if TYPE_CHECKING:
    from argparse import Namespace

    from kassette import Entry
    from kassette_cli.summaries import RunSummary
    from kassette_cli.verbs import OpenStorage

MOMENT = 0.3
"""Seconds that something may take before its progress is shown."""
_BATCH = 0.1
"""Seconds between two looks at the table that fills."""
_AT_ONCE = (1, 20)
"""How many rows are shown without waiting for that: the first, and the first screen."""
_LOOKS = 20
"""How many runs are read between two looks at the progress bar."""


class Display(Protocol):
    """What rich shows until it is stopped."""

    def start(self) -> None:
        """Show it."""
        ...

    def stop(self) -> None:
        """Take it away."""
        ...


def make_console() -> Console:
    """Give the console on standard output. What it cannot write is written as an escape."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return Console(file=sys.stdout, markup=False, emoji=False, highlight=False)


def answer(
    arguments: Namespace, storage: OpenStorage, console: Console
) -> Generator[RenderableType, None, None]:
    """Do what the arguments ask, and give what is to be shown."""
    url: str = arguments.storage
    match arguments.verb:
        case "list":
            yield from _list(arguments, storage, console)
        case "status":
            with AfterAMoment(Status("reading the journal", console=console)):
                report = verbs.perform(storage, evidence.report_run, arguments.run)
            yield pretty.status(report, url, now=datetime.now(UTC))
        case "dump":
            entries = _entries(arguments, storage, console)
            yield from pretty.journal(entries, full=arguments.full)
        case "check":
            verbs.perform(storage, verbs.check_storage)
            yield "ok: both conditions are enforced, and a read sees the last write"
        case "fork":
            forked = verbs.perform(
                storage,
                verbs.fork_run,
                arguments.run,
                from_offset=arguments.from_offset,
                from_step=arguments.from_step,
                new_run_id=arguments.new_run_id,
            )
            yield pretty.forked(arguments.run, forked)
        case _:
            yield _analysis(arguments, storage, console)


def show(console: Console, shown: Generator[RenderableType, None, None]) -> None:
    """Print, one after the other; whatever ends it ends what is shown meanwhile as well."""
    with closing(shown):
        for each in shown:
            console.print(each, crop=False)


@final
class AfterAMoment:
    """Shows ``display`` while the block runs, but only once that has taken longer than a moment."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._lock = Lock()
        self._ended = False
        self._shown = False

    def __enter__(self) -> Self:
        self._timer = Timer(MOMENT, self._show)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._shown:
                self._display.stop()

    def _show(self) -> None:
        with self._lock:
            if not self._ended:
                self._shown = True
                self._display.start()


def _list(arguments: Namespace, storage: OpenStorage, console: Console) -> Iterator[RenderableType]:
    from kassette_cli.listing import Listing

    wanted = piped.wanted_runs(arguments)
    limit: int | None = arguments.limit
    bar = Progress(
        TextColumn("reading runs"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=None)
    with AfterAMoment(bar):
        run_ids = verbs.perform(storage, verbs.list_runs, limit if wanted is None else None)
        listing = Listing(run_ids, console, now=datetime.now(UTC))
        found = piped.summaries(storage, run_ids)
        shown = 0
        batch: list[RunSummary] = []
        last = time.monotonic()
        for read, summary in enumerate(found):
            if read % _LOOKS == 0:
                bar.update(task, completed=read, total=len(run_ids))
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
        what = "no runs" if wanted is None else "no such runs"
        yield Text(f"{what} in {on_one_line(arguments.storage)}", style="dim")
        return
    if shown == len(batch):
        yield listing.header()
    yield listing.rows(batch)
    yield from listing.footer()


def _entries(arguments: Namespace, storage: OpenStorage, console: Console) -> Iterable[Entry]:
    def read_slowly(storage: OpenStorage, run_id: str) -> list[Entry]:
        with AfterAMoment(Status("reading the journal", console=console)):
            return verbs.perform(storage, verbs.read_run, run_id)

    run_id, offset = arguments.run, arguments.offset
    if arguments.follow:
        return chain.from_iterable(streams.follow_run(storage, run_id, offset, time.sleep))
    return streams.stream_run(storage, run_id, offset, read_slowly)


def _analysis(arguments: Namespace, storage: OpenStorage, console: Console) -> RenderableType:
    from kassette_cli import difference, forkpoints, timeline, views

    run_id: str = arguments.run
    with AfterAMoment(Status("reading the journal", console=console)):
        if arguments.verb == "diff":
            a, b = verbs.perform(storage, verbs.read_two, run_id, arguments.other)
            return views.difference(difference.compare(a, b), run_id, arguments.other)
        entries = verbs.perform(storage, verbs.read_run, run_id)
    if arguments.verb == "steps":
        return views.steps(forkpoints.fork_points(entries), run_id, arguments.storage)
    return views.timeline(list(timeline.timeline(entries)))
