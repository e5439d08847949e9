"""Where two runs diverge; entries in, differences out.

Rules:
- Steps and events are matched by their ids, as in replay, not by their position: differences of
  offsets, sessions and timestamps between forks mean nothing.
- A *result* differs if both runs have the step (or event) with different values; the *structure*
  differs if only one has it; the *end* differs if they ended differently, or only one has ended.
- If an id is repeated, its first entry counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias, final

from kassette.entries import Entry, ErrorEntry, ResumeEntry, StepEntry, TerminalEntry, is_terminal
from kassette.immutable import Immutable
from kassette.values import decode_value, json_equal

Kept: TypeAlias = StepEntry | ResumeEntry
"""The entries that replay uses."""


@final
class Difference(Immutable, kw_only=True):
    """One difference; ``a`` or ``b`` is None if that run has no such entry.

    ``kind`` is ``result``, ``structure`` or ``end``.
    """

    kind: str
    a: Kept | TerminalEntry | None
    b: Kept | TerminalEntry | None

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        found: dict[str, Any] = {"difference": self.kind}
        match self.a or self.b:
            case StepEntry(step_id=step_id):
                found["stepId"] = step_id
            case ResumeEntry(event_name=event_name):
                found["eventName"] = event_name
            case _:
                pass
        return {**found, "a": _side(self.a), "b": _side(self.b)}


@final
class Comparison(Immutable, kw_only=True):
    """The comparison of two runs.

    ``same`` counts the equal results and events; ``differences`` are in the order of the runs.
    """

    same: int
    differences: list[Difference]

    def first(self, kind: str) -> Difference | None:
        """Return the first difference of that kind, or None."""
        return next((each for each in self.differences if each.kind == kind), None)

    def to_json(self) -> dict[str, Any]:
        """Return the summary: how much is equal, and the offsets at which the runs diverge."""
        return {
            "same": self.same,
            "result": _parting(self.first("result")),
            "structure": _parting(self.first("structure")),
            "end": _parting(self.first("end")),
        }


def compare(a: Iterable[Entry], b: Iterable[Entry]) -> Comparison:
    """Compare two journals."""
    mine, my_end = _kept(a)
    others, other_end = _kept(b)
    same = 0
    differences: list[Difference] = []
    for key, entry in mine.items():
        other = others.get(key)
        if other is None:
            differences.append(Difference(kind="structure", a=entry, b=None))
        elif json_equal(decode_value(_value_of(entry)), decode_value(_value_of(other))):
            same += 1
        else:
            differences.append(Difference(kind="result", a=entry, b=other))
    only_b = [entry for key, entry in others.items() if key not in mine]
    differences.extend(Difference(kind="structure", a=None, b=entry) for entry in only_b)
    if _ending(my_end) != _ending(other_end):
        differences.append(Difference(kind="end", a=my_end, b=other_end))
    return Comparison(same=same, differences=differences)


def _kept(
    entries: Iterable[Entry],
) -> tuple[dict[tuple[str, str], Kept], TerminalEntry | None]:
    kept: dict[tuple[str, str], Kept] = {}
    end: TerminalEntry | None = None
    for entry in entries:
        if isinstance(entry, StepEntry):
            kept.setdefault((entry.type, entry.step_id), entry)
        elif isinstance(entry, ResumeEntry):
            kept.setdefault((entry.type, entry.event_name), entry)
        elif is_terminal(entry):
            end = entry
    return kept, end


def _value_of(entry: Kept) -> bytes:
    return entry.result_json if isinstance(entry, StepEntry) else entry.value_json


def _ending(end: TerminalEntry | None) -> tuple[object, ...]:
    if isinstance(end, ErrorEntry):
        return end.type, end.name, end.message
    return (None if end is None else end.type,)


def _side(entry: Kept | TerminalEntry | None) -> dict[str, Any] | None:
    match entry:
        case None:
            return None
        case StepEntry():
            return {"offset": entry.offset, "result": entry.result}
        case ResumeEntry():
            return {"offset": entry.offset, "value": entry.value}
        case ErrorEntry():
            return {"offset": entry.offset, "type": entry.type, "message": entry.message}
        case _:
            return {"offset": entry.offset, "type": entry.type}


def _parting(difference: Difference | None) -> dict[str, int | None] | None:
    if difference is None:
        return None
    return {
        "a": None if difference.a is None else difference.a.offset,
        "b": None if difference.b is None else difference.b.offset,
    }
