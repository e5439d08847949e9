"""What to do next with a run: exactly one call or command, and the ways to continue after it.

Rules:
- Whoever follows the advice literally does no harm. Where a step may have taken effect without a
  record, the command only reads, and the text says where to look first; ``start``, which runs that
  step again, comes under a condition.
- A call is one of the workflow's own, because the low-level ``resume`` delivers the event and runs
  nothing. Names in capitals are for the caller to fill in.
- A fork is cut behind the last recorded step or event. It repeats no recorded step, and leaves out
  the waits, so that a deadline that has passed no longer counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from keyword import iskeyword
from typing import Any, Final, NamedTuple, final

from kassette.entries import Entry, ResumeEntry, StartEntry, StepEntry
from kassette.evidence.open_waits import OpenWait
from kassette.immutable import Immutable

NEW_RUN: Final = "NEW_RUN_ID"
"""Stands for the run id that ``fork`` prints."""


class Way(NamedTuple):
    """A call that is right under a condition."""

    condition: str
    call: str

    def to_json(self) -> dict[str, str]:
        """Return the form that programs read."""
        return {"if": self.condition, "call": self.call}


@final
class Advice(Immutable, kw_only=True):
    """What to do next: a Python ``call``, or a ``command`` as the words after ``kassette``.

    ``say`` explains it, and ``then`` has the calls that may follow. The run id is the second word
    of ``command``.
    """

    say: str
    call: str | None = None
    command: tuple[str, ...] | None = None
    then: tuple[Way, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "say": self.say,
            "call": self.call,
            "command": None if self.command is None else list(self.command),
            "then": [each.to_json() for each in self.then],
        }


@final
class Calls(Immutable):
    """The calls of the workflow with this name (as ``StartEntry.workflow`` has it) for a run."""

    run_id: str
    workflow: str | None

    def start(self) -> str:
        """Return the call that recovers the run."""
        return f"await {self._function()}.start(run_id={self.run_id!r})"

    def start_new(self) -> str:
        """Return the call that starts a run of which nothing is recorded."""
        return f"await {self._function()}.start(INPUT, run_id={self.run_id!r})"

    def start_fork(self) -> str:
        """Return the call that continues a fork."""
        return f"await {self._function()}.start(run_id={NEW_RUN})"

    def resume(self, event: str, *, given: bool = False) -> str:
        """Return the call that delivers an event; with ``given``, at an instant in the past."""
        more = ", given_at=INSTANT" if given else ""
        return f"await {self._function()}.resume({self.run_id!r}, {event!r}, VALUE{more})"

    def _function(self) -> str:
        name = (self.workflow or "").rpartition(":")[2].rpartition(".")[2]
        return (
            name if name.isidentifier() and name.isascii() and not iskeyword(name) else "WORKFLOW"
        )


def after_failure(calls: Calls, entries: Sequence[Entry], step_id: str | None) -> Advice:
    """Return what to do after a run failed; ``step_id`` is the step that raised, if one did."""
    cut = fork_cut(entries)
    kept = len({each.step_id for each in entries[:cut] if isinstance(each, StepEntry)})
    again = "what follows them" if step_id is None else repr(step_id)
    harmless = "" if step_id is None else f", repeating {step_id!r} is harmless"
    return Advice(
        say="remove the cause, then fork at the failure: the fork replays the recorded steps "
        f"({kept}), and its start runs {again} again",
        command=("fork", calls.run_id, "--from-offset", str(cut)),
        then=(
            Way(
                f"the cause is removed{harmless}, with the run id that fork prints",
                calls.start_fork(),
            ),
        ),
    )


def after_cancellation(calls: Calls, entries: Sequence[Entry]) -> Advice:
    """Return what to do after a run was cancelled."""
    return Advice(
        say="nothing has to be done; to continue anyway, fork from before the last wait: the fork "
        "waits again, with a deadline of its own",
        command=("fork", calls.run_id, "--from-offset", str(fork_cut(entries))),
        then=(
            Way("the run should continue, with the run id that fork prints", calls.start_fork()),
        ),
    )


def after_deadline(calls: Calls, entries: Sequence[Entry], late: OpenWait) -> Advice:
    """Return what to do after the deadline of a wait has passed and nothing has ended the run."""
    return Advice(
        say="do not call start or resume, which cancel the run now; "
        "a fork from before the wait waits again, with a deadline of its own",
        command=("fork", calls.run_id, "--from-offset", str(fork_cut(entries))),
        then=(
            Way(
                "the answer was given before the deadline (no fork is needed)",
                calls.resume(late.event, given=True),
            ),
            Way("it was not, with the run id that fork prints", calls.start_fork()),
        ),
    )


def while_waiting(calls: Calls, wait: OpenWait) -> Advice:
    """Return what to do with a run that waits for an event."""
    until = "" if wait.deadline is None else f" before {wait.deadline}"
    return Advice(say=f"deliver {wait.event!r}{until}", call=calls.resume(wait.event))


def while_running(calls: Calls, entries: Sequence[Entry], holder: str) -> Advice:
    """Return what to do while a process has the run open."""
    return Advice(
        say="wait: start and resume are refused while it is open. "
        f"If a step takes too long, stop {holder} and run debug again",
        command=("dump", calls.run_id, "--offset", str(len(entries)), "--follow"),
    )


def after_leaving(calls: Calls, in_flight: Sequence[str] | None) -> Advice:
    """Return what to do with a run that no process has; ``in_flight`` None is unknown."""
    if in_flight is not None and not in_flight:
        return Advice(
            say="recover the run: no step was running, so no step runs twice", call=calls.start()
        )
    return look_first(calls, in_flight, "")


def look_first(calls: Calls, in_flight: Sequence[str] | None, first: str) -> Advice:
    """Return where to look before anything runs; ``first`` is what has to be ruled out before."""
    steps = ", ".join(map(repr, in_flight or ()))
    which = f"{steps} took effect" if steps else "the step after the last recorded one took effect"
    return Advice(
        say=f"{first}look whether {which}: ask the system that it calls, with its idempotency key. "
        "Input and results of the run are in its journal",
        command=("dump", calls.run_id),
        then=(
            Way("it did not happen, or repeating it is harmless", calls.start()),
            Way(
                "it happened: change the step so that it returns what exists, and after that",
                calls.start(),
            ),
        ),
    )


def fork_cut(entries: Sequence[Entry]) -> int:
    """Return the offset of the first entry behind the last step and event that starts no session.

    It is the number of entries if there is none.
    """
    cut = len(entries)
    for at in range(len(entries) - 1, -1, -1):
        if isinstance(entries[at], (StepEntry, ResumeEntry)):
            break
        if not isinstance(entries[at], StartEntry):
            cut = at
    return cut
