"""Who looks on: what an observer is told of a session, moment by moment; it decides nothing.

Rules:
- Without an observer a moment costs one look at None.
- An observer is told after the fact: of a step once its entry is durable, of a suspension once the
  waits are. What it is told of the journal is therefore true whenever it asks.
- What an observer raises goes no further. It is logged, and that observer is not told of such a
  moment again in that session: one that is broken would fill the log.
- Observers are called in the task that does the work, and are not awaited: they are quick, and hand
  on what takes time.
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
    """Which session something happened in; ``session`` is its number."""

    run_id: str
    session: int


class Observer:
    """Is told what happens in sessions. Override what you want to hear of; the rest does nothing.

    Pass it to a workflow, or to ``start``, ``resume`` and ``fork``. One observer may serve any
    number of runs at once. "Writing an integration" in the docs says when each
    moment is.
    """

    def opened(self, session: SessionInfo) -> None:
        """Hear that a session is open: its ``start`` is in the journal."""

    def refused(self, run_id: str, error: BaseException) -> None:
        """Hear that a session could not be opened, and why."""

    def step_started(self, session: SessionInfo, step_id: str) -> None:
        """Hear that a step's function is about to be called."""

    def attempt_failed(
        self,
        session: SessionInfo,
        step_id: str,
        attempt: int,
        error: Exception,
        delay: float | None,
    ) -> None:
        """Hear that an attempt failed; the next is in ``delay`` seconds, None if there is none.

        Attempts are counted from 1. Only steps with a ``Retry`` have more than the step itself.
        """

    def step_succeeded(self, session: SessionInfo, entry: StepEntry) -> None:
        """Hear that a step's result is in the journal."""

    def step_failed(self, session: SessionInfo, step_id: str, error: BaseException) -> None:
        """Hear that a step has ended without a result: by its error, or by a cancellation."""

    def diverged(self, session: SessionInfo, step_id: str, passed_over: Sequence[str]) -> None:
        """Hear that workflow and journal part at a step: something was renamed, removed or moved.

        ``passed_over`` are recorded steps that should have been asked for before; without any, the
        step was recorded before one that was asked for earlier.
        """

    def step_replayed(self, session: SessionInfo, entry: StepEntry) -> None:
        """Hear that a step was answered from the journal."""

    def waiting(self, session: SessionInfo, event_name: str) -> None:
        """Hear that an event was asked for that has not come."""

    def event_delivered(self, session: SessionInfo, entry: ResumeEntry) -> None:
        """Hear that an event was asked for, and had come."""

    def suspended(self, session: SessionInfo, waits: Sequence[SuspendEntry]) -> None:
        """Hear that the session is over as the run waits; ``waits`` are what it has written."""

    def closed(
        self, session: SessionInfo, end: Entry | None, lost_to: BaseException | None
    ) -> None:
        """Hear that the session is over.

        ``end`` is the entry that ended the run, None if the run goes on in a later session.
        ``lost_to`` is what took the session away (a fence, a failed disk), if anything did.
        """


def checked(observers: object) -> tuple[Observer, ...]:
    """Return what was passed as ``observers``. Raises UsageError unless they are some."""
    if observers == ():
        return ()
    shown = brief(observers)
    if isinstance(observers, (list, tuple)):
        found = cast("Sequence[object]", observers)
        if all(isinstance(each, Observer) for each in found):
            return cast("tuple[Observer, ...]", tuple(found))
    raise UsageError(
        f"observers is a list of Observers, not {shown}; derive yours from kassette_io.Observer"
    )


def tell_refused(observers: Sequence[Observer], run_id: str, error: BaseException) -> None:
    """Tell that a session of a run could not be opened."""
    for observer in observers:
        _call(observer, "refused", run_id, run_id, error)


def _call(observer: Observer, moment: str, run_id: str, *said: object) -> bool:
    """Tell of a moment; return whether the observer has raised, which is logged."""
    try:
        getattr(observer, moment)(*said)
    except (Exception, SuspendError):
        from logging import getLogger

        getLogger("kassette").exception(
            "%s of %r raised in run %r; the run goes on without telling it of that again",
            moment,
            observer,
            run_id,
        )
        return True
    return False


@final
class Watch:
    """Tells the observers of one session, and keeps what they raise from everybody else."""

    __slots__ = ("_broken", "_end", "_machine", "_observers", "_waits", "session")

    def __init__(self, observers: Sequence[Observer], machine: Machine) -> None:
        self._observers = observers
        self._machine = machine
        self._broken: set[tuple[int, str]] = set()
        self._end: Entry | None = None
        self._waits: list[SuspendEntry] = []
        self.session = SessionInfo(machine.run_id, machine.session)

    def tell(self, moment: str, *said: object) -> None:
        """Tell every observer of ``moment`` in this session, unless it has raised at such a one."""
        for observer in self._observers:
            known = (id(observer), moment)
            if known not in self._broken and _call(
                observer, moment, self.session.run_id, self.session, *said
            ):
                self._broken.add(known)

    def appended(self, entry: Entry) -> None:
        """Take note of an entry that is durable; tell of it if it is a step's."""
        if isinstance(entry, StepEntry):
            self.tell("step_succeeded", entry)
        elif isinstance(entry, SuspendEntry):
            self._waits.append(entry)
        else:
            self._end = entry

    def released(self) -> None:
        """Tell how the session has ended."""
        machine = self._machine
        if machine.state is State.SUSPENDED:
            self.tell("suspended", tuple(self._waits))
            return
        over = self._end is not None and self._end.type in ("complete", "error", "cancel")
        self.tell("closed", self._end if over else None, machine.lost_to)
