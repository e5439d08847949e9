"""The verbs on a terminal, and the progress of long ones; how values look is ``pretty``'s."""

from __future__ import annotations

import sys
from asyncio import get_running_loop
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self, final

from rich.console import Console, RenderableType  # noqa: TID253 - imported on a terminal only
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: TID253
from rich.status import Status  # noqa: TID253

from kassette_cli import evidence, pretty, verbs

if TYPE_CHECKING:
    from argparse import Namespace

    from kassette import Entry
    from kassette_cli.verbs import OpenStorage

MOMENT = 0.3
"""Seconds that something may take before its progress is shown."""


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
) -> Iterable[RenderableType]:
    """Do what the arguments ask, and give what is to be shown."""
    url: str = arguments.storage
    match arguments.verb:
        case "list":
            summaries = verbs.perform(storage, _summarise_runs, arguments.limit, console)
            return [pretty.runs(summaries, url)]
        case "status":
            report = verbs.perform(storage, _report_run, arguments.run, console)
            return [pretty.status(report, url, now=datetime.now(UTC))]
        case "dump":
            entries = verbs.perform(storage, _read_run, arguments.run, console)
            return pretty.journal(entries[arguments.offset :])
        case "check":
            verbs.perform(storage, verbs.check_storage)
            return ["ok: both conditions are enforced, and a read sees the last write"]
        case _:
            forked = verbs.perform(
                storage,
                verbs.fork_run,
                arguments.run,
                from_offset=arguments.from_offset,
                from_step=arguments.from_step,
                new_run_id=arguments.new_run_id,
            )
            return [pretty.forked(arguments.run, forked)]


def show(console: Console, shown: Iterable[RenderableType]) -> None:
    """Print, one after the other."""
    for each in shown:
        console.print(each)


@final
class AfterAMoment:
    """Shows ``display`` while the block runs, but only once that has taken longer than a moment."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._shown = False

    def __enter__(self) -> Self:
        self._timer = get_running_loop().call_later(MOMENT, self._show)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._shown:
            self._display.stop()

    def _show(self) -> None:
        self._shown = True
        self._display.start()


async def _summarise_runs(
    storage: OpenStorage, limit: int | None, console: Console
) -> list[evidence.RunSummary]:
    bar = Progress(
        TextColumn("reading runs"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=None)
    with AfterAMoment(bar):
        return await evidence.summarise_runs(
            storage, limit, lambda done, total: bar.update(task, completed=done, total=total)
        )


async def _report_run(storage: OpenStorage, run_id: str, console: Console) -> evidence.RunReport:
    with AfterAMoment(Status("reading the journal", console=console)):
        return await evidence.report_run(storage, run_id)


async def _read_run(storage: OpenStorage, run_id: str, console: Console) -> list[Entry]:
    with AfterAMoment(Status("reading the journal", console=console)):
        return await verbs.read_run(storage, run_id)
