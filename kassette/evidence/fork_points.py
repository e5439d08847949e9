"""Where a run can be forked; entries in, fork points out.

Rules:
- A fork is as safe as a crash at that point: everything before it is replayed, and everything after
  it runs again, including side effects. So every step is a fork point, and so is the end.
- If an id is repeated, its first entry counts, as for ``fork --from-step``.
- An event that arrived after the fork point has to be delivered to the fork again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from kassette.entries import Entry, ResumeEntry, StepEntry, is_terminal
from kassette.immutable import Immutable


@final
class ForkPoint(Immutable, kw_only=True):
    """A fork point before the entry at ``offset``; ``step`` is the step there, None at the end.

    A fork there replays ``kept`` steps and re-runs ``again``; ``events`` have to be delivered
    again.
    """

    offset: int
    step: StepEntry | None
    kept: int
    again: int
    events: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "offset": self.offset,
            "stepId": None if self.step is None else self.step.step_id,
            "kept": self.kept,
            "again": self.again,
            "events": list(self.events),
        }


def fork_points(entries: Sequence[Entry]) -> list[ForkPoint]:
    """Return every fork point of a journal, in order; none for an empty journal."""
    if not entries:
        return []
    first: dict[str, StepEntry] = {}
    for entry in entries:
        if isinstance(entry, StepEntry):
            first.setdefault(entry.step_id, entry)
    cuts: list[tuple[int, StepEntry | None]] = [(step.offset or 0, step) for step in first.values()]
    end = next((at for at, entry in enumerate(entries) if is_terminal(entry)), len(entries))
    cuts.append((end, None))
    came = [
        (each.event_name, at) for at, each in enumerate(entries) if isinstance(each, ResumeEntry)
    ]
    return [
        ForkPoint(
            offset=offset,
            step=step,
            kept=kept,
            again=len(first) - kept,
            events=tuple(dict.fromkeys(name for name, at in came if at >= offset)),
        )
        for kept, (offset, step) in enumerate(cuts)
    ]
