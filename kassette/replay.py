"""An index of a journal for replay: what is recorded, awaited and ended; built once, then read.

Rules:
- The first ``step`` entry of an id and the first ``resume`` entry of an event win: a recorded
  result is final.
- The version and the workflow are the first that any ``start`` entry names; the metadata is that of
  the first start.
- An event is open if a ``suspend`` names it and no ``resume`` does. Its deadline is that of its
  first ``suspend``, if that had one; ``timestamps`` decides when it has passed.
- ``status`` decides whether the run is suspended, and on what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, final

from kassette.entries import (
    Entry,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    TerminalEntry,
    is_terminal,
)
from kassette.status import SuspendedRun, run_status
from kassette.timestamps import has_passed

_MAX_DIGITS: Final = 19


@final
class Recorded:
    """The index of one journal."""

    __slots__ = (
        "_last_numbers",
        "count",
        "deadlines",
        "metadata_json",
        "resumes",
        "session",
        "steps",
        "suspended_on",
        "terminal",
        "version",
        "workflow",
    )

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.count = len(entries)
        self._last_numbers: dict[str, int] | None = None
        self.steps: dict[str, StepEntry] = {}
        self.resumes: dict[str, ResumeEntry] = {}
        self.deadlines: dict[str, str | None] = {}
        self.terminal: TerminalEntry | None = None
        self.version: str | None = None
        self.workflow: str | None = None
        self.metadata_json: bytes | None = None
        self.session = 0
        metadata_settled = False
        for entry in entries:
            self.session = max(self.session, entry.session)
            if isinstance(entry, StepEntry):
                self.steps.setdefault(entry.step_id, entry)
            elif isinstance(entry, ResumeEntry):
                self.resumes.setdefault(entry.event_name, entry)
            elif isinstance(entry, SuspendEntry):
                self.deadlines.setdefault(entry.waiting_for, entry.timeout)
            elif isinstance(entry, StartEntry):
                if self.version is None:
                    self.version = entry.version
                if self.workflow is None:
                    self.workflow = entry.workflow
                if not metadata_settled:
                    self.metadata_json, metadata_settled = entry.metadata_json, True
            elif self.terminal is None and is_terminal(entry):
                self.terminal = entry
        status = run_status(entries)
        self.suspended_on = status.waiting_for if isinstance(status, SuspendedRun) else None

    def last_number(self, name: str) -> int:
        """Return the highest recorded number of a step with this full name; 0 if there is none."""
        if self._last_numbers is None:
            self._last_numbers = _last_numbers(self.steps.values())
        return self._last_numbers.get(name, 0)

    def open_events(self) -> list[str]:
        """Return the events that the run waits for, in the order of their first wait."""
        return [event for event in self.deadlines if event not in self.resumes]

    def expired(self, now: datetime) -> bool:
        """Return whether the run is suspended and the deadline of an open event has passed."""
        if self.suspended_on is None:
            return False
        return any(self.is_late(event, now) for event in self.deadlines)

    def is_late(self, event: str, now: datetime) -> bool:
        """Return whether ``event`` is open, suspended or not, and its deadline has passed."""
        deadline = None if event in self.resumes else self.deadlines.get(event)
        return deadline is not None and has_passed(deadline, now)


def _last_numbers(steps: Iterable[StepEntry]) -> dict[str, int]:
    last: dict[str, int] = {}
    for entry in steps:
        digits = entry.step_id[len(entry.name) :].removeprefix("#")
        number = int(digits) if digits.isdecimal() and len(digits) < _MAX_DIGITS else 1
        last[entry.name] = max(last.get(entry.name, 0), number)
    return last
