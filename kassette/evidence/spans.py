"""How long each session, step and wait took, from a journal's timestamps; entries in, spans out.

Rules:
- A step notes when it was first called, and its span is the time from then to its entry, including
  retries, also if steps run concurrently.
- A step without that note (of the TypeScript kassette, or of older releases) is counted from the
  entry before it in its session: exact for sequential steps, an upper bound for concurrent ones.
- Entries copied by a fork have the source's timestamps: the durations of steps that note their
  start are known there, those of sessions are not.
- ``replays`` is the number of steps that were already recorded when a session began.
- A session without an ending crashed or was closed, or it is the newest and may still be running.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias, final

from kassette.entries import (
    Entry,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    is_terminal,
)
from kassette.immutable import Immutable
from kassette.notes import notes_of, number_in, text_in
from kassette.timestamps import instant, seconds_between


@final
class SessionSpan(Immutable, kw_only=True):
    """A session: ``ending`` is the type of the entry that ended it, or None."""

    session: int
    offset: int
    begin: str
    end: str
    seconds: float | None
    steps: int
    replays: int
    ending: str | None
    copied: bool

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "type": "session",
            "session": self.session,
            "offset": self.offset,
            "from": self.begin,
            "to": self.end,
            "seconds": self.seconds,
            "steps": self.steps,
            "replays": self.replays,
            "end": self.ending,
            "copied": self.copied,
        }


@final
class StepSpan(Immutable, kw_only=True):
    """A step that ran live, from ``begin`` to its entry.

    ``measured`` is whether the step recorded when it began. ``attempts`` is None if they were not
    recorded, as for a step with a single attempt.
    """

    session: int
    offset: int
    step_id: str
    begin: str | None
    end: str
    seconds: float | None
    measured: bool
    attempts: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "type": "step",
            "session": self.session,
            "offset": self.offset,
            "stepId": self.step_id,
            "from": self.begin,
            "to": self.end,
            "seconds": self.seconds,
            "measured": self.measured,
            "attempts": self.attempts,
        }


@final
class EventSpan(Immutable, kw_only=True):
    """An event that arrived, from the first wait for it; ``begin`` is None without a wait."""

    session: int
    offset: int
    event_name: str
    begin: str | None
    end: str
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "type": "event",
            "session": self.session,
            "offset": self.offset,
            "eventName": self.event_name,
            "from": self.begin,
            "to": self.end,
            "seconds": self.seconds,
        }


@final
class Gap(Immutable, kw_only=True):
    """The time between two sessions: ``after`` is how the first ended, None if it did not."""

    begin: str
    end: str
    seconds: float | None
    after: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read."""
        return {
            "type": "gap",
            "from": self.begin,
            "to": self.end,
            "seconds": self.seconds,
            "after": self.after,
        }


Span: TypeAlias = SessionSpan | StepSpan | EventSpan | Gap
"""Anything that takes time in a run."""


def timeline(entries: Iterable[Entry]) -> Iterator[Span]:
    """Yield a run's spans in order: each session before its steps and events, with the gaps."""
    sessions = [list(group) for _, group in groupby(entries, key=lambda entry: entry.session)]
    recorded: set[str] = set()
    waits: dict[str, str] = {}
    before: SessionSpan | None = None
    for number, group in enumerate(sessions):
        session = _session(group, len(recorded), copied=number == 0 and _is_fork(sessions))
        if before is not None and not before.copied:
            yield Gap(
                begin=before.end,
                end=session.begin,
                seconds=seconds_between(before.end, session.begin),
                after=before.ending,
            )
        yield session
        yield from _within(group, session, waits)
        recorded.update(entry.step_id for entry in group if isinstance(entry, StepEntry))
        before = session


def _session(group: Sequence[Entry], replays: int, *, copied: bool) -> SessionSpan:
    first, last = group[0], group[-1]
    return SessionSpan(
        session=first.session,
        offset=first.offset or 0,
        begin=first.timestamp,
        end=last.timestamp,
        seconds=None if copied else seconds_between(first.timestamp, last.timestamp),
        steps=sum(isinstance(entry, StepEntry) for entry in group),
        replays=replays,
        ending=last.type if is_terminal(last) or _is_suspended(last) else None,
        copied=copied,
    )


def _within(
    group: Sequence[Entry], session: SessionSpan, waits: dict[str, str]
) -> Iterator[StepSpan | EventSpan]:
    since: str | None = None
    for entry in group:
        begin = None if session.copied else since
        if isinstance(entry, StepEntry):
            notes = notes_of(entry)
            started, attempts = text_in(notes, "startedAt"), number_in(notes, "attempts")
            measured = instant(started) is not None
            if measured:
                begin = started
            yield StepSpan.of_fields(
                entry.session,
                entry.offset or 0,
                entry.step_id,
                begin,
                entry.timestamp,
                seconds_between(begin, entry.timestamp),
                measured,
                attempts,
            )
        elif isinstance(entry, ResumeEntry):
            begin = waits.get(entry.event_name)
            yield EventSpan(
                session=entry.session,
                offset=entry.offset or 0,
                event_name=entry.event_name,
                begin=begin,
                end=entry.timestamp,
                seconds=seconds_between(begin, entry.timestamp),
            )
        elif isinstance(entry, SuspendEntry):
            waits.setdefault(entry.waiting_for, entry.timestamp)
        since = entry.timestamp


def _is_suspended(last: Entry) -> bool:
    return isinstance(last, SuspendEntry) and not last.more


def _is_fork(sessions: Sequence[Sequence[Entry]]) -> bool:
    if len(sessions) == 1:
        return False
    second = sessions[1][0]
    return isinstance(second, StartEntry) and second.source is not None
