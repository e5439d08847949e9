"""What has to be true of every schedule, one function for each promise; nothing is simulated here.

The journals are judged as JSON lines, without the library's own reader.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from kassette import Entry, StartEntry, StepEntry, decode_journal, run_status
from tests.simulation.history import ONLY_READ, Forked, History, Outcome
from tests.simulation.world import Violation

Line = dict[str, Any]
TERMINAL = {"complete": "completed", "error": "failed", "cancel": "cancelled"}


class Case:
    """A history, and its journals line by line."""

    __slots__ = ("history", "journals", "raw", "results")

    def __init__(self, history: History) -> None:
        self.history = history
        self.raw: dict[str, list[bytes]] = {}
        self.journals: dict[str, list[Line]] = {}
        for run_id, data in history.journals.items():
            lines = data.split(b"\n")[:-1]
            self.raw[run_id] = lines
            try:
                self.journals[run_id] = [orjson.loads(line) for line in lines]
            except ValueError as error:
                raise Violation("committed_entries_stay", f"{run_id} is damaged") from error


def committed_entries_stay(case: Case) -> None:
    """What storage has acknowledged is never lost, changed or reordered."""
    for ack in case.history.acks:
        lines = case.raw.get(ack.run_id, [])
        if ack.offset >= len(lines) or lines[ack.offset] + b"\n" != ack.line:
            raise Violation("committed_entries_stay", f"{ack.line!r} is not in {ack.run_id}")


def what_was_refused_stays_out(case: Case) -> None:
    """What storage has said is certainly not written never turns up."""
    kept = {
        (run_id, line["session"], line.get("writer"), line.get("stepId"), line.get("result"))
        for run_id, lines in case.journals.items()
        for line in lines
        if line["type"] in ("start", "step")
    }
    for run_id, entry in case.history.refused:
        writer = entry.writer if isinstance(entry, StartEntry) else None
        step_id = entry.step_id if isinstance(entry, StepEntry) else None
        result = entry.result if isinstance(entry, StepEntry) else None
        if (writer or step_id) and (run_id, entry.session, writer, step_id, result) in kept:
            raise Violation("what_was_refused_stays_out", f"{run_id}: {entry}")


def offsets_are_contiguous(case: Case) -> None:
    """The entry at line n says offset n."""
    for run_id, lines in case.journals.items():
        offsets = [line["offset"] for line in lines]
        if offsets != list(range(len(lines))):
            raise Violation("offsets_are_contiguous", f"{run_id}: {offsets}")


def sessions_increase(case: Case) -> None:
    """Every ``start`` has a higher session number than the one before; a run begins with one."""
    for run_id, lines in case.journals.items():
        starts = [line["session"] for line in lines if line["type"] == "start"]
        if starts != sorted(set(starts)) or (lines and lines[0]["type"] != "start"):
            raise Violation("sessions_increase", f"{run_id}: {starts}")


def a_newer_start_fences(case: Case) -> None:
    """After a ``start``, only its session writes."""
    for run_id, lines in case.journals.items():
        newest = 0
        for line in lines:
            if line["type"] == "start":
                newest = line["session"]
            elif line["session"] != newest:
                raise Violation("a_newer_start_fences", f"{run_id}: {line} after start {newest}")


def one_owner_of_a_session(case: Case) -> None:
    """No two tasks are told that they have written as the same session."""
    owners: dict[tuple[str, int], str] = {}
    for ack in case.history.acks:
        owner = owners.setdefault((ack.run_id, ack.entry.session), ack.owner)
        if owner != ack.owner:
            raise Violation(
                "one_owner_of_a_session", f"{owner} and {ack.owner}: {ack.entry.session}"
            )


def one_result_per_step(case: Case) -> None:
    """A step id has at most one result, an event at most one payload."""
    for run_id, lines in case.journals.items():
        ids = [line["stepId"] for line in lines if line["type"] == "step"]
        events = [line["eventName"] for line in lines if line["type"] == "resume"]
        if len(set(ids)) != len(ids) or len(set(events)) != len(events):
            raise Violation("one_result_per_step", f"{run_id}: {ids} {events}")


def replay_returns_what_was_recorded(case: Case) -> None:
    """Whatever a workflow was given, live or replayed, is what the journal holds."""
    kept: dict[tuple[str, str, bool], Any] = {}
    for run_id, lines in case.journals.items():
        for line in lines:
            if line["type"] == "step":
                kept[run_id, line["stepId"], False] = line["result"]
            elif line["type"] == "resume":
                kept[run_id, line["eventName"], True] = line["value"]
    for told in case.history.told:
        recorded = kept.get((told.run_id, told.step_id, told.event))
        if recorded != told.value:
            raise Violation(
                "replay_returns_what_was_recorded", f"{told} where the journal has {recorded!r}"
            )


def acknowledged_steps_run_no_more(case: Case) -> None:
    """A step runs live only if no result of it was acknowledged to this or an earlier session."""
    first: dict[tuple[str, str], tuple[int, int]] = {}
    for ack in case.history.acks:
        if isinstance(ack.entry, StepEntry):
            first.setdefault((ack.run_id, ack.entry.step_id), (ack.time, ack.entry.session))
    for live in case.history.lives:
        time, session = first.get((live.run_id, live.step_id), (live.time, live.session))
        if time < live.time and session <= live.session:
            raise Violation("acknowledged_steps_run_no_more", f"{live} after its ack at {time}")


def check_status(run_id: str, types: list[str], entries: list[Entry]) -> str:
    """Give the status that a journal with ``types`` has; the library has to say the same.

    A ``suspend`` entry that others of its suspension are to follow is no type that settles a run.
    """
    last = next((each for each in reversed(types) if each != "start"), "")
    expected = "suspended" if last == "suspend" else TERMINAL.get(last, "unsettled")
    found = run_status(entries).status
    if found != expected:
        raise Violation("status_follows_the_journal", f"{run_id}: {found}, not {expected}")
    return expected


def status_follows_the_journal(case: Case) -> None:
    """A run's status is what its last entry other than a ``start`` says, as callers were told.

    Who only reads may be told of an end that a disk has refused to sync.
    """
    said: dict[str, str] = {}
    for run_id, lines in case.journals.items():
        said[run_id] = check_status(
            run_id,
            ["more" if line.get("more") else line["type"] for line in lines],
            decode_journal(case.history.journals[run_id]).entries,
        )
    for outcome in case.history.outcomes:
        told = said.get(outcome.run_id) == outcome.kind or _only_read(case, outcome)
        if outcome.kind in TERMINAL.values() and not told:
            raise Violation("status_follows_the_journal", f"{outcome}: {said}")
        if outcome.kind == "suspended":
            _suspended_as_told(case, outcome.run_id, outcome.session, outcome.detail)


def _only_read(case: Case, outcome: Outcome) -> bool:
    """Tell whether an end was only read, and the disk has refused to sync it."""
    unsynced = _unsynced(case, outcome.run_id)
    ends = {TERMINAL[line["type"]] for line in unsynced if line["type"] in TERMINAL}
    return outcome.session == ONLY_READ and outcome.kind in ends


def _unsynced(case: Case, run_id: str) -> list[Line]:
    found: list[Line] = []
    for line in case.history.unsynced.get(run_id, set()):
        with suppress(ValueError):
            found.append(orjson.loads(line))
    return found


def _suspended_as_told(case: Case, run_id: str, session: int, event: str) -> None:
    own = [
        line
        for line in case.journals.get(run_id, [])
        if line["session"] == session and line["type"] != "start"
    ]
    told = own[-1] if own else {}
    if told.get("type") != "suspend" or told["waitingFor"] != event or told.get("more"):
        raise Violation("status_follows_the_journal", f"{run_id}: told suspended on {event}: {own}")


def nothing_follows_the_end(case: Case) -> None:
    """A terminal entry is the last one."""
    for run_id, lines in case.journals.items():
        ends = [at for at, line in enumerate(lines) if line["type"] in TERMINAL]
        if ends and ends != [len(lines) - 1]:
            raise Violation("nothing_follows_the_end", f"{run_id}: {ends} of {len(lines)}")


def suspensions_come_last(case: Case) -> None:
    """What a session writes after a ``suspend`` entry is another one, if more are to follow."""
    for run_id, lines in case.journals.items():
        suspended: dict[str, Any] = {"session": 0}
        for line in lines:
            same = line["session"] == suspended["session"]
            if same and (line["type"] != "suspend" or not suspended.get("more")):
                raise Violation("suspensions_come_last", f"{run_id}: {line}")
            if line["type"] == "suspend":
                suspended = line


def one_session_at_a_time(case: Case) -> None:
    """Where storage locks, an older session does nothing once a newer one has started."""
    history = case.history
    if not history.exclusive:
        return
    opened: dict[str, list[tuple[int, int]]] = {}
    for ack in history.acks:
        if ack.entry.type == "start":
            opened.setdefault(ack.run_id, []).append((ack.time, ack.entry.session))
    acts = [(ack.time, ack.run_id, ack.entry.session) for ack in history.acks]
    acts += [(live.time, live.run_id, live.session) for live in history.lives]
    for time, run_id, session in acts:
        for since, newer in opened.get(run_id, []):
            if since < time and newer > session:
                raise Violation(
                    "one_session_at_a_time", f"session {session} acts beside {newer} of {run_id}"
                )


def a_fork_is_its_sources_prefix(case: Case) -> None:
    """A fork begins with the steps and payloads of its source below the cut, and names it.

    At its end may be what its source lost again: a disk refused to sync it, and whoever read before
    the next session was shown it.
    """
    for fork in case.history.forks:
        lines = case.journals[fork.run_id]
        source = case.journals[fork.source][: fork.cut]
        expected = [_bare(line) for line in source if line["type"] in ("step", "resume")]
        copied = [_bare(line) for line in lines[1 : _own_start(lines, fork)]]
        lost = copied[_agreeing(copied, expected) :]
        unsynced = [_bare(line) for line in _unsynced(case, fork.source)]
        if copied != expected and not (lost and all(each in unsynced for each in lost)):
            raise Violation("a_fork_is_its_sources_prefix", f"{fork}: {copied}, not {expected}")


def _agreeing(one: list[Line], other: list[Line]) -> int:
    """Give how many lines the two have in common, from the first on."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def _own_start(lines: list[Line], fork: Forked) -> int:
    """Give the place of the entry with which the fork goes on by itself."""
    origin = {"runId": fork.source, "fromOffset": fork.cut}
    starts = [at for at, line in enumerate(lines) if line.get("source") == origin]
    if not starts or starts[0] == 0 or lines[0]["type"] != "start":
        raise Violation("a_fork_is_its_sources_prefix", f"{fork} does not say so: {lines[:1]}")
    return starts[0]


def _bare(line: Line) -> Line:
    return {key: value for key, value in line.items() if key not in ("offset", "session")}


INVARIANTS: tuple[Callable[[Case], None], ...] = (
    committed_entries_stay,
    what_was_refused_stays_out,
    offsets_are_contiguous,
    sessions_increase,
    a_newer_start_fences,
    one_owner_of_a_session,
    one_result_per_step,
    replay_returns_what_was_recorded,
    acknowledged_steps_run_no_more,
    status_follows_the_journal,
    nothing_follows_the_end,
    suspensions_come_last,
    one_session_at_a_time,
    a_fork_is_its_sources_prefix,
)
"""What is checked at the end of a schedule.

While it goes on, the world checks ``bounded`` (no deadlock, and every session ends in a bounded
number of steps), the storage's observer ``what_is_told_is_durable``, ``only_rivals_fence`` and the
status on every read, the workflows ``paid_work_is_recorded``, ``a_suspended_branch_rests`` and
``an_ended_session_rests``, and whoever calls them ``only_expected_errors``.
"""


def check(history: History) -> None:
    """Raise the first Violation."""
    case = Case(history)
    for invariant in INVARIANTS:
        invariant(case)
