"""What the driver tests tell their stories with: a clock, a ledger of work done, journal glances."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from anyio.lowlevel import checkpoint

from kassette_io import Entry, StartEntry, StepEntry, Storage, SuspendEntry

STAMP = "2026-01-31T12:00:00.000Z"
RUN = "run-1"
PATIENCE = 120.0
"""Seconds after which a thread that does not answer hangs, on a machine that is busy."""


class Clock:
    """The wall clock as the drivers read it; it stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Ledger:
    """The world's side of steps: which calls were really made, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def note(self, name: str, result: Any = None) -> Any:
        self.done.append(name)
        return result

    async def work(self, name: str, result: Any = None) -> Any:
        await checkpoint()
        return self.note(name, result)


def opening(session: int = 1, **fields: Any) -> StartEntry:
    """Make a start entry."""
    return StartEntry(session=session, timestamp=STAMP, **fields)


def recording(step_id: str, result: object = None, *, session: int = 1) -> StepEntry:
    """Make a step entry whose name is its id without the number."""
    return StepEntry.of(
        session=session,
        timestamp=STAMP,
        step_id=step_id,
        name=step_id.split("#", maxsplit=1)[0],
        result=result,
    )


def waiting(event: str, *, session: int = 1, timeout: str | None = None) -> SuspendEntry:
    """Make a suspend entry."""
    return SuspendEntry(
        session=session,
        timestamp=STAMP,
        reason=f"Waiting for event: {event}",
        waiting_for=event,
        timeout=timeout,
    )


def types(entries: list[Entry]) -> list[str]:
    """Give the types of entries."""
    return [entry.type for entry in entries]


async def journal_types(storage: Storage, run_id: str = RUN) -> list[str]:
    """Give the types of a run's entries."""
    return types(await storage.read_all(run_id))


async def journal_steps(storage: Storage, run_id: str = RUN) -> dict[str, Any]:
    """Give a run's recorded results by step id, in journal order; no id may be there twice."""
    steps = [each for each in await storage.read_all(run_id) if isinstance(each, StepEntry)]
    results = {step.step_id: step.result for step in steps}
    assert len(results) == len(steps), "a step was recorded twice"
    return results
