"""What became of a run, why it stopped, and what to do next; entries and a lock's state in.

Rules for the verdict, the first that applies:
- ``done``, ``failed``, ``cancelled``: the journal has an end.
- ``running``: a process holds the lock.
- ``late``: the run is suspended, and the deadline of an open wait has passed: the next ``start`` or
  ``resume`` cancels it. ``waits``: it is suspended, and none has.
- ``unsettled``: the journal has no end, and whether a process has the run open cannot be known
  (object storage, or a lock file from another host).
- ``left-in-step``: nobody holds the lock, and a step was running when the process ended, so it may
  have taken effect. ``left``: no step was running, or that is unknown (``in_flight`` is None).

What an entry does not note is unknown, and None. Steps in flight come from the lock file, which is
newer than the journal, else from the last step's note; ``advice`` has the rules of ``next``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import nlargest
from typing import Any, Final, NamedTuple, assert_never, final

from kassette.entries import (
    SUSPEND_TIMEOUT_EXPIRED,
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    is_terminal,
)
from kassette.evidence import advice
from kassette.evidence.advice import Advice, Calls
from kassette.evidence.deliveries import Delivery, deliveries
from kassette.evidence.open_waits import OpenWait, describe_waits
from kassette.evidence.sessions import Session, describe_sessions
from kassette.evidence.spans import StepSpan, timeline
from kassette.immutable import Immutable
from kassette.notes import (
    FailedAttempt,
    Running,
    ids_of,
    notes_of,
    start_notes_of,
    step_notes_of,
    text_of,
)
from kassette.status import SuspendedRun, run_status

VERDICTS: Final = (
    "done",
    "waits",
    "running",
    "left",
    "left-in-step",
    "unsettled",
    "late",
    "failed",
    "cancelled",
)
"""All verdicts."""
LARGEST: Final = 3
"""How many of the largest results and of the longest steps a diagnosis names."""

_MOST_NAMES: Final = 5
"""How many events a sentence names; the rest is in a list of its own."""


@final
class Lock(Immutable, kw_only=True):
    """A run's lock file: whether a process holds it (None if that is unknown), and its content.

    ``running`` is None unless the file says which steps run.
    """

    held: bool | None
    pid: int | None = None
    host: str | None = None
    since: str | None = None
    session: int | None = None
    running: tuple[Running, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        running = self.running
        return {
            "held": self.held,
            "pid": self.pid,
            "host": self.host,
            "since": self.since,
            "session": self.session,
            "running": None if running is None else [each.to_json() for each in running],
        }


class Retried(NamedTuple):
    """A step that took several attempts; ``failed`` says that the last one failed as well."""

    step_id: str
    attempts: int
    errors: tuple[FailedAttempt, ...]
    seconds: float | None
    failed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "stepId": self.step_id,
            "attempts": self.attempts,
            "errors": [each.to_json() for each in self.errors],
            "seconds": self.seconds,
            "failed": self.failed,
        }


class Size(NamedTuple):
    """How large a journal is: its entries, and the bytes of its largest step results."""

    entries: int
    results: int
    largest: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "entries": self.entries,
            "resultBytes": self.results,
            "largest": [{"stepId": step_id, "bytes": size} for step_id, size in self.largest],
        }


@final
class Diagnosis(Immutable, kw_only=True):
    """What became of a run: the verdict, what happened last, why it stopped, and what to do next.

    ``in_flight`` are the steps that run, or ran when the process ended: None if that is unknown.
    ``passed_over`` are recorded steps that the last session did not ask for: perhaps a step was
    renamed and has run twice.
    """

    run_id: str
    verdict: str
    what: str
    why: str
    next: Advice
    workflow: str | None
    lock: Lock | None
    in_flight: tuple[Running, ...] | None
    waits: tuple[OpenWait, ...]
    deliveries: tuple[Delivery, ...]
    sessions: tuple[Session, ...]
    retried: tuple[Retried, ...]
    longest: tuple[StepSpan, ...]
    passed_over: tuple[str, ...]
    source: ForkSource | None
    end: CompleteEntry | ErrorEntry | CancelEntry | None
    size: Size

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read; ``result`` is there only if it is recorded."""
        end, source, in_flight = self.end, self.source, self.in_flight
        error = end if isinstance(end, ErrorEntry) else None
        said = {
            "runId": self.run_id,
            "verdict": self.verdict,
            "what": self.what,
            "why": self.why,
            "next": self.next.to_json(),
            "workflow": self.workflow,
            "waits": [each.to_json() for each in self.waits],
            "deliveries": [each.to_json() for each in self.deliveries],
            "inFlight": None if in_flight is None else [each.to_json() for each in in_flight],
            "lock": None if self.lock is None else self.lock.to_json(),
            "sessions": [each.to_json() for each in self.sessions],
            "attempts": [each.to_json() for each in self.retried],
            "longest": [_longest(each) for each in self.longest],
            "passedOver": list(self.passed_over),
            "source": None
            if source is None
            else {"runId": source.run_id, "fromOffset": source.from_offset},
            "error": None
            if error is None
            else {
                "name": error.name,
                "message": error.message,
                "stepId": text_of(error, "stepId"),
                "branch": text_of(error, "branch"),
            },
            "size": self.size.to_json(),
        }
        if isinstance(end, CompleteEntry) and end.result_json is not None:
            said["result"] = end.result
        return said


def diagnose(
    run_id: str, entries: Sequence[Entry], *, now: datetime, lock: Lock | None = None
) -> Diagnosis:
    """Return what became of the run with these entries, as it stands at the instant ``now``.

    Pass the whole journal, and the state of the run's lock where there are locks.
    """
    waits = describe_waits(entries, now)
    end = next((each for each in entries if is_terminal(each)), None)
    in_flight = None if end is not None else _in_flight(entries, lock)
    verdict = _verdict(entries, end, waits, lock, in_flight)
    spans = list(timeline(entries))
    steps = [each for each in spans if isinstance(each, StepSpan)]
    starts = [each for each in entries if isinstance(each, StartEntry)]
    workflow = next((each.workflow for each in starts if each.workflow is not None), None)
    sessions = tuple(describe_sessions(spans, entries))
    holder = _holder(lock, sessions)
    return Diagnosis(
        run_id=run_id,
        verdict=verdict,
        what=_what(entries, end),
        why=_why(verdict, end, waits, holder, in_flight),
        next=_next(verdict, Calls(run_id, workflow), entries, waits, holder, in_flight, lock),
        workflow=workflow,
        lock=lock,
        in_flight=in_flight,
        waits=() if end is not None else waits,
        deliveries=tuple(deliveries(entries)),
        sessions=sessions,
        retried=tuple(_retried(entries, steps)),
        longest=tuple(nlargest(LARGEST, steps, key=lambda each: each.seconds or 0)),
        passed_over=_passed_over(entries),
        source=next((each.source for each in starts if each.source is not None), None),
        end=end,
        size=_size(entries),
    )


def _verdict(
    entries: Sequence[Entry],
    end: Entry | None,
    waits: Sequence[OpenWait],
    lock: Lock | None,
    in_flight: Sequence[Running] | None,
) -> str:
    if end is not None:
        return {"complete": "done", "error": "failed", "cancel": "cancelled"}[end.type]
    if lock is not None and lock.held:
        return "running"
    if isinstance(run_status(entries), SuspendedRun):
        return "late" if any(each.late for each in waits) else "waits"
    if lock is None or lock.held is None:
        return "unsettled"
    return "left-in-step" if in_flight else "left"


def _in_flight(entries: Sequence[Entry], lock: Lock | None) -> tuple[Running, ...] | None:
    """Return the steps that run, or ran when a session ended; None if that is unknown.

    A suspending session writes its waits when no step runs. A step that an earlier session left
    counts until it is recorded.
    """
    is_open = lock is not None and lock.held
    if not entries or (isinstance(entries[-1], SuspendEntry) and not is_open):
        return ()
    if isinstance(run_status(entries), SuspendedRun) and not is_open:
        return ()
    recorded = {each.step_id for each in entries if isinstance(each, StepEntry)}
    newest = _of_newest(entries, lock)
    running = {} if is_open else {each.step_id: each for each in _left_before(entries)}
    running.update({each.step_id: each for each in newest or ()})
    left = tuple(each for step_id, each in running.items() if step_id not in recorded)
    if left or (newest is not None and (is_open or not _repeats_unknown(entries))):
        return left
    return None


def _of_newest(entries: Sequence[Entry], lock: Lock | None) -> Sequence[Running] | None:
    """Return what is known of the newest session: of its lock file, else of its last step."""
    session = entries[-1].session
    if lock is not None and lock.running is not None and lock.session == session:
        return lock.running
    for entry in reversed(entries):
        if entry.session != session:
            break
        if isinstance(entry, StepEntry):
            return tuple(map(Running, step_notes_of(entry).running)) or None
    return None


def _left_before(entries: Sequence[Entry]) -> Iterator[Running]:
    """Yield the running steps that each session found of the one before."""
    for entry in entries:
        if isinstance(entry, StartEntry):
            found = start_notes_of(entry).found
            yield from () if found is None else found.running


def _repeats_unknown(entries: Sequence[Entry]) -> bool:
    """Return whether the newest session has recorded no step, and the one before never ended.

    The step that the one before was in is then still to be repeated.
    """
    session = entries[-1].session
    for entry in reversed(entries):
        if entry.session == session:
            if isinstance(entry, StepEntry):
                return False
        else:
            return not isinstance(entry, SuspendEntry) or entry.more
    return False


def _what(entries: Sequence[Entry], end: Entry | None) -> str:
    """Return what happened last."""
    if not entries:
        return "nothing is recorded"
    last = entries[-1] if end is None else end
    match last:
        case StartEntry(session=session):
            done = f"session {session} began and has recorded nothing"
        case StepEntry(step_id=step_id):
            done = f"recorded the result of step {step_id!r}"
        case ResumeEntry(event_name=event):
            done = f"recorded event {event!r}"
        case SuspendEntry(waiting_for=event, more=True):
            done = f"recorded the wait for {event!r}, and ended before it recorded all of its waits"
        case SuspendEntry(waiting_for=event):
            done = f"suspended, waiting for {event!r}"
        case CompleteEntry():
            done = "the workflow returned"
        case ErrorEntry():
            failed = text_of(last, "stepId")
            attempts = notes_of(last).get("attempts")
            times = f" in attempt {attempts}" if type(attempts) is int and attempts > 1 else ""
            done = "the workflow raised" if failed is None else f"step {failed!r} raised{times}"
        case CancelEntry():
            done = "the run was cancelled"
        case _:
            assert_never(last)
    return f"{done}, at {last.timestamp}"


def _why(
    verdict: str,
    end: Entry | None,
    waits: Sequence[OpenWait],
    holder: str,
    in_flight: Sequence[Running] | None,
) -> str:
    """Return why the run stands where it stands."""
    match end:
        case CompleteEntry():
            return "it has done all it had to do"
        case ErrorEntry(name=name, message=message):
            return f"{name}: {message}" if name else message
        case CancelEntry(reason=reason) if reason == SUSPEND_TIMEOUT_EXPIRED:
            late = [each for each in waits if each.late] or waits
            events = _listed([repr(each.event) for each in late])
            return f"the deadline passed before {events or 'the event'} arrived"
        case CancelEntry(reason=reason):
            return reason or "the journal records no reason"
        case _:
            pass
    steps = _steps(in_flight)
    match verdict:
        case "running":
            return f"{holder} has it open, {steps or 'and which step is running is unknown'}"
        case "waits":
            return f"it needs {_listed([repr(each.event) for each in waits])}"
        case "late":
            passed = [f"{each.event!r} ({each.deadline})" for each in waits if each.late]
            return f"the deadline has passed of {_listed(passed)}"
        case "unsettled":
            return f"running, crashed or abandoned, which cannot be told from here; {holder} had it"
        case _:
            return f"{holder} has ended, {steps or 'and which step was running is unknown'}"


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _steps(in_flight: Sequence[Running] | None) -> str:
    if in_flight is None:
        return ""
    if not in_flight:
        return "in no step"
    return "in " + ", ".join(map(_step, in_flight))


def _step(running: Running) -> str:
    since = "" if running.started_at is None else f" since {running.started_at}"
    attempt = "" if running.attempt is None else f", attempt {running.attempt}"
    error = "" if running.last_error is None else f" after {running.last_error}"
    return f"step {running.step_id!r}{since}{attempt}{error}"


def _next(
    verdict: str,
    calls: Calls,
    entries: Sequence[Entry],
    waits: Sequence[OpenWait],
    holder: str,
    in_flight: Sequence[Running] | None,
    lock: Lock | None,
) -> Advice:
    steps = None if in_flight is None else [each.step_id for each in in_flight]
    match verdict:
        case "done":
            return Advice(
                say="nothing to do; the journal has what it did", command=("dump", calls.run_id)
            )
        case "failed":
            errors = (text_of(each, "stepId") for each in entries if isinstance(each, ErrorEntry))
            return advice.after_failure(calls, entries, next(errors))
        case "cancelled":
            return advice.after_cancellation(calls, entries)
        case "running":
            return advice.while_running(calls, entries, holder)
        case "late":
            return advice.after_deadline(calls, entries, next(each for each in waits if each.late))
        case "waits":
            return advice.while_waiting(calls, waits[0])
        case "left" | "unsettled" if not entries:
            return Advice(say="start it with its input", call=calls.start_new())
        case "unsettled":
            taking = "a start takes the run over" if lock is None else "the lock cannot be seen"
            first = f"make sure that no process has it ({taking}; {holder} had it). Then "
            return advice.look_first(calls, steps, first)
        case _:
            return advice.after_leaving(calls, steps)


def _holder(lock: Lock | None, sessions: Sequence[Session]) -> str:
    """Return the process that has, or had, the run open: of the lock file, else of the journal."""
    pid = None if lock is None else lock.pid
    host = None if lock is None else lock.host
    since = None if lock is None else lock.since
    notes = sessions[-1].notes if sessions else None
    if pid is None and notes is not None:
        pid, host, since = notes.pid, notes.host, sessions[-1].span.begin
    if pid is None:
        return "an unknown process"
    where = "" if host is None else f" on {host}"
    when = "" if since is None else f" (since {since})"
    return f"process {pid}{where}{when}"


def _retried(entries: Sequence[Entry], steps: Sequence[StepSpan]) -> Iterator[Retried]:
    for span in steps:
        if span.attempts is not None:
            errors = step_notes_of(entries[span.offset]).errors
            yield Retried(span.step_id, span.attempts, errors, span.seconds, failed=False)
    for entry in entries:
        if isinstance(entry, ErrorEntry):
            step_id, attempts = text_of(entry, "stepId"), notes_of(entry).get("attempts")
            if step_id is not None and type(attempts) is int and attempts > 1:
                yield Retried(step_id, attempts, (), None, failed=True)


def _passed_over(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the note of the last entry that starts no session."""
    for entry in reversed(entries):
        if not isinstance(entry, StartEntry):
            return ids_of(notes_of(entry), "passedOver")
    return ()


def _size(entries: Sequence[Entry]) -> Size:
    sizes = [
        (each.step_id, len(each.result_json)) for each in entries if isinstance(each, StepEntry)
    ]
    largest = nlargest(LARGEST, sizes, key=lambda each: each[1])
    return Size(len(entries), sum(size for _, size in sizes), tuple(largest))


def _longest(span: StepSpan) -> dict[str, Any]:
    return {"stepId": span.step_id, "seconds": span.seconds, "measured": span.measured}
