"""What an entry records beyond what replay needs: who wrote it, when it began, what ran meanwhile.

Notes are for people and for ``kassette.evidence``; docs/journal-format.md lists each with its
writer and its reader.

Rules:
- A note is an optional member of its entry, stored in ``extra_json`` like any member that this
  version does not know. A journal without notes replays the same: only ``lanes`` reads them, which
  reports where workflow and journal diverge and changes no result.
- A malformed note is ignored: what is not noted is unknown.
- Notes are bounded in number and length, whatever a program passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import orjson

from kassette.entries import Entry
from kassette.values import rewrite_value, writable_text

NO_NOTES: Final = b"{}"
MOST_IDS: Final = 50
"""The largest number of step ids in a note."""
MOST_ERRORS: Final = 3
"""How many failed attempts of a step are recorded: the last ones."""
MOST_TEXT: Final = 200
"""How many characters of an error's message are recorded."""

_BEGUN_ONLY: Final = len('{"startedAt":"2026-01-31T12:00:00.000Z"}')


class FailedAttempt(NamedTuple):
    """A failed attempt of a step: the error's type and message, and how long it took."""

    name: str
    message: str
    seconds: float

    @classmethod
    def of(cls, error: BaseException, seconds: float) -> FailedAttempt:
        """Return the description of ``error``, even if its ``__str__`` raises."""
        try:
            message = str(error)
        except Exception:
            message = ""
        return cls(type(error).__name__, shortened(message), round(seconds, 3))

    def to_json(self) -> dict[str, Any]:
        """Return the form in the journal."""
        return {"name": self.name, "message": self.message, "seconds": self.seconds}


class Running(NamedTuple):
    """A step that was running: since when (ISO 8601), in which attempt, after which error.

    None means unknown or, for ``last_error``, that there was none.
    """

    step_id: str
    started_at: str | None = None
    attempt: int | None = None
    last_error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form in the journal."""
        return _without_none(
            stepId=self.step_id,
            startedAt=self.started_at,
            attempt=self.attempt,
            lastError=self.last_error,
        )

    @classmethod
    def read(cls, said: object) -> Running | None:
        """Return the running step that ``said`` describes, or None if it is malformed."""
        if not isinstance(said, dict):
            return None
        members = cast("dict[str, object]", said)
        step_id = text_in(members, "stepId")
        if step_id is None:
            return None
        return cls(
            step_id,
            text_in(members, "startedAt"),
            number_in(members, "attempt"),
            text_in(members, "lastError"),
        )


class Found(NamedTuple):
    """What a session found of one that never ended: its process, its steps, and a torn line."""

    session: int | None = None
    pid: int | None = None
    host: str | None = None
    running: tuple[Running, ...] = ()
    torn: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form in the journal."""
        running = [each.to_json() for each in self.running]
        return _without_none(
            session=self.session,
            pid=self.pid,
            host=self.host,
            running=running or None,
            torn=self.torn,
        )


class StepNotes(NamedTuple):
    """When a step was first called, its attempts, concurrent steps, and earlier failed steps."""

    started_at: str | None
    attempts: int | None
    errors: tuple[FailedAttempt, ...]
    running: tuple[str, ...]
    failed: tuple[str, ...]
    lane: str


class StartNotes(NamedTuple):
    """Which process and code wrote a session, how it was opened, and what it found."""

    host: str | None
    pid: int | None
    lib: str | None
    code: str | None
    opened: str | None
    found: Found | None
    delivers: Mapping[str, Any] | None


def write_notes(notes: Mapping[str, Any]) -> bytes:
    """Return ``extra_json`` for notes, without those that are None or empty."""
    kept = {key: value for key, value in notes.items() if value is not None and value != []}
    return rewrite_value(kept) if kept else NO_NOTES


def step_notes(
    started_at: str,
    *,
    attempts: int = 1,
    errors: Sequence[FailedAttempt] = (),
    running: Sequence[str] = (),
    failed: Sequence[str] = (),
    lane: str = "",
) -> bytes:
    """Return ``extra_json`` of a step."""
    if attempts == 1 and not (running or failed or lane):
        return b'{"startedAt":"%b"}' % started_at.encode()
    notes: dict[str, Any] = {"startedAt": started_at}
    if attempts > 1:
        notes["attempts"] = attempts
        notes["errors"] = [each.to_json() for each in errors[-MOST_ERRORS:]]
    if running:
        notes["running"] = running[:MOST_IDS]
    if failed:
        notes["failed"] = failed[-MOST_IDS:]
    if lane:
        notes["lane"] = lane
    return orjson.dumps(notes)


def is_begun_only(extra_json: bytes) -> bool:
    """Return whether a step's notes, as ``step_notes`` writes them, have only its start time."""
    return len(extra_json) == _BEGUN_ONLY and extra_json.startswith(b'{"startedAt":"')


def step_notes_of(entry: Entry) -> StepNotes:
    """Return the notes of a ``step`` entry."""
    notes = notes_of(entry)
    errors = notes.get("errors")
    return StepNotes(
        text_in(notes, "startedAt"),
        number_in(notes, "attempts"),
        _errors(cast("list[object]", errors)) if isinstance(errors, list) else (),
        ids_of(notes, "running"),
        ids_of(notes, "failed"),
        text_in(notes, "lane") or "",
    )


def start_notes_of(entry: Entry) -> StartNotes:
    """Return the notes of a ``start`` entry."""
    notes = notes_of(entry)
    delivers = notes.get("delivers")
    return StartNotes(
        text_in(notes, "host"),
        number_in(notes, "pid"),
        text_in(notes, "lib"),
        text_in(notes, "code"),
        text_in(notes, "opened"),
        _found(notes.get("found")),
        cast("dict[str, Any]", delivers) if isinstance(delivers, dict) else None,
    )


def notes_of(entry: Entry) -> Mapping[str, Any]:
    """Return all members of an entry that replay does not need."""
    return {} if entry.extra_json == NO_NOTES else entry.extra


def text_of(entry: Entry, key: str) -> str | None:
    """Return a note that is text."""
    return text_in(notes_of(entry), key)


def ids_of(notes: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Return a note that lists step ids."""
    listed = notes.get(key)
    if not isinstance(listed, list):
        return ()
    return tuple(each for each in cast("list[object]", listed) if isinstance(each, str))


def running_of(listed: object) -> tuple[Running, ...]:
    """Return the running steps that a list in a note or a lock file describes."""
    if not isinstance(listed, list):
        return ()
    found = map(Running.read, cast("list[object]", listed))
    return tuple(each for each in found if each is not None)


def shortened(text: str) -> str:
    """Return text that is valid for a note: encodable, and shortened to ``MOST_TEXT``."""
    if len(text) > MOST_TEXT:
        text = text[: MOST_TEXT - 1] + "…"
    return writable_text(text)


def _found(said: object) -> Found | None:
    if not isinstance(said, dict):
        return None
    members = cast("dict[str, object]", said)
    return Found(
        number_in(members, "session"),
        number_in(members, "pid"),
        text_in(members, "host"),
        running_of(members.get("running")),
        text_in(members, "torn"),
    )


def _errors(listed: list[object]) -> tuple[FailedAttempt, ...]:
    return tuple(_attempts(listed))


def _attempts(listed: list[object]) -> Iterable[FailedAttempt]:
    for each in listed:
        if isinstance(each, dict):
            members = cast("dict[str, object]", each)
            seconds = members.get("seconds")
            yield FailedAttempt(
                text_in(members, "name") or "",
                text_in(members, "message") or "",
                float(seconds) if isinstance(seconds, (int, float)) else 0.0,
            )


def text_in(members: Mapping[str, object], key: str) -> str | None:
    """Return a note that is text, None if it is missing or malformed."""
    value = members.get(key)
    return value if isinstance(value, str) else None


def number_in(members: Mapping[str, object], key: str) -> int | None:
    """Return a note that is a whole number, None if it is missing or malformed."""
    value = members.get(key)
    return value if type(value) is int else None


def _without_none(**members: Any) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}
