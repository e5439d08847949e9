"""The console and its progress displays; loaded on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from threading import Lock, Timer
from typing import Protocol, Self, final

from rich.console import Console, RenderableType  # noqa: TID253 - imported on a terminal only
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: TID253
from rich.status import Status  # noqa: TID253

MOMENT = 0.3
"""Seconds that an operation may take before its progress is shown."""


class Display(Protocol):
    """A live display of rich."""

    def start(self) -> None:
        """Show the display."""
        ...

    def stop(self) -> None:
        """Remove the display."""
        ...


def make_console() -> Console:
    """Return the console on standard output; it escapes what the encoding cannot represent."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return Console(file=sys.stdout, markup=False, emoji=False, highlight=False)


def reading(what: str, console: Console) -> AfterAMoment:
    """Show ``what`` while the block runs, once that has taken longer than ``MOMENT``."""
    return AfterAMoment(Status(what, console=console))


@contextmanager
def counting(what: str, console: Console) -> Generator[Callable[[int, int], None]]:
    """Show the progress of ``what``; yield a function that takes the number done and the total."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None)
    with AfterAMoment(bar):
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show(console: Console, shown: Generator[RenderableType, None, None]) -> None:
    """Print each item; close the generator, and with it any progress display, at the end."""
    with closing(shown):
        for each in shown:
            console.print(each, crop=False)


@final
class AfterAMoment:
    """Shows ``display`` while the block runs, once that has taken longer than ``MOMENT``."""

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
