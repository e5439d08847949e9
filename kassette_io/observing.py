"""Observers: callbacks for what happens in a session; they cannot influence it.

Rules:
- Without an observer a callback costs one comparison with None.
- An observer is called after the fact: for a step when its entry is durable, for a suspension when
  the waits are. So the journal always confirms what it was told.
- An exception from an observer is logged and not raised. That callback is not called again in that
  session, because a broken one would fill the log.
- Observers are called in the task that does the work and are not awaited: they must be quick, and
  hand slow work to somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast, final

from kassette import (
    Entry,
    Machine,
    ResumeEntry,
    State,
    StepEntry,
    SuspendEntry,
    SuspendError,
    UsageError,
)
from kassette.brief import brief


class SessionInfo(NamedTuple):
    """The session in which something happened: the run's id, and the session's number from 1."""

    run_id: str
    session: int


class Observer:
    """Callbacks for what happens in sessions. Override those you need; the others do nothing.

    Pass an observer to a workflow, or to ``start``, ``resume`` and ``fork``. One observer may serve
    any number of concurrent runs. The methods are called synchronously in the task that does the
    work, so they must not block. What they raise is logged and changes nothing. "Writing an
    integration" in the documentation says when each is called.
    """

    def opened(self, session: SessionInfo) -> None:
        """Handle an opened session: its ``start`` entry is in the journal."""

    def refused(self, run_id: str, error: BaseException) -> None:
        """Handle a session that could not be opened because of ``error``."""

    def step_started(self, session: SessionInfo, step_id: str) -> None:
        """Handle a step whose function is about to be called."""

    def attempt_failed(
        self,
        session: SessionInfo,
        step_id: str,
        attempt: int,
        error: Exception,
        delay: float | None,
    ) -> None:
        """Handle a failed attempt; the next is in ``delay`` seconds, or None if there is none.

        ``attempt`` counts from 1. Only a step with a ``Retry`` has more than one attempt.
        """

    def step_succeeded(self, session: SessionInfo, entry: StepEntry) -> None:
        """Handle a step whose result has been written to the journal."""

    def step_failed(self, session: SessionInfo, step_id: str, error: BaseException) -> None:
        """Handle a step that ended without a result: by its error, or by a cancellation."""

    def diverged(self, session: SessionInfo, step_id: str, passed_over: Sequence[str]) -> None:
        """Handle a divergence of workflow and journal at a step that was renamed, removed or moved.

        ``passed_over`` are recorded steps that should have been asked for before; without any, the
        step was recorded before one that was asked for earlier.
        """

    def step_replayed(self, session: SessionInfo, entry: StepEntry) -> None:
        """Handle a step whose result was replayed from the journal."""

    def waiting(self, session: SessionInfo, event_name: str) -> None:
        """Handle a wait for an event that has not arrived."""

    def event_delivered(self, session: SessionInfo, entry: ResumeEntry) -> None:
        """Handle a wait for an event that has arrived."""

    def suspended(self, session: SessionInfo, waits: Sequence[SuspendEntry]) -> None:
        """Handle a session that ended because the run waits; ``waits`` are the entries written."""

    def closed(
        self, session: SessionInfo, end: Entry | None, lost_to: BaseException | None
    ) -> None:
        """Handle the end of a session.

        ``end`` is the entry that ended the run, None if the run continues in a later session.
        ``lost_to`` is the error that made the session unusable (a fence, a failed disk), or None.
        """


def checked(observers: object) -> tuple[Observer, ...]:
    """Return ``observers`` as a tuple. Raise UsageError unless all of them are Observers."""
    if observers == ():
        return ()
    shown = brief(observers)
    if isinstance(observers, (list, tuple)):
        found = cast("Sequence[object]", observers)
        if all(isinstance(each, Observer) for each in found):
            return cast("tuple[Observer, ...]", tuple(found))
    raise UsageError(
        f"observers must be a list of Observers, not {shown}; subclass kassette_io.Observer"
    )


def tell_refused(observers: Sequence[Observer], run_id: str, error: BaseException) -> None:
    """Call ``refused`` of every observer."""
    for observer in observers:
        _call(observer, "refused", run_id, run_id, error)


def _call(observer: Observer, moment: str, run_id: str, *said: object) -> bool:
    """Call one method of an observer; log what it raises, and return whether it raised."""
    try:
        getattr(observer, moment)(*said)
    except (Exception, SuspendError):
        from logging import getLogger

        getLogger("kassette").exception(
            "%s of %r raised in run %r; it is not called again in this session",
            moment,
            observer,
            run_id,
        )
        return True
    return False


@final
class Watch:
    """Calls the observers of one session, and contains what they raise."""

    __slots__ = ("_broken", "_end", "_machine", "_observers", "_waits", "session")

    def __init__(self, observers: Sequence[Observer], machine: Machine) -> None:
        self._observers = observers
        self._machine = machine
        self._broken: set[tuple[int, str]] = set()
        self._end: Entry | None = None
        self._waits: list[SuspendEntry] = []
        self.session = SessionInfo(machine.run_id, machine.session)

    def tell(self, moment: str, *said: object) -> None:
        """Call the method ``moment`` of every observer whose method has not raised before."""
        for observer in self._observers:
            known = (id(observer), moment)
            if known not in self._broken and _call(
                observer, moment, self.session.run_id, self.session, *said
            ):
                self._broken.add(known)

    def appended(self, entry: Entry) -> None:
        """Record an entry that is durable; notify the observers if it is a step's."""
        if isinstance(entry, StepEntry):
            self.tell("step_succeeded", entry)
        elif isinstance(entry, SuspendEntry):
            self._waits.append(entry)
        else:
            self._end = entry

    def released(self) -> None:
        """Notify the observers of how the session ended."""
        machine = self._machine
        if machine.state is State.SUSPENDED:
            self.tell("suspended", tuple(self._waits))
            return
        over = self._end is not None and self._end.type in ("complete", "error", "cancel")
        self.tell("closed", self._end if over else None, machine.lost_to)
