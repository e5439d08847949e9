"""What may be done with any bytes that somebody calls a journal; asserts that it ends well."""

from __future__ import annotations

from typing import Any

from kassette import (
    Complete,
    Entry,
    InternalError,
    JournalCorruptionError,
    KassetteError,
    Resume,
    Start,
    StepEntry,
    SuspendEntry,
    UsageError,
    decode_journal,
    encode_entry,
    get_metadata,
    plan_fork,
    run_status,
)
from kassette.replay import Recorded

from .driving import NOW, RUN, Session

BODIES = ("metadata", "result", "value", "extra")


def written(stored: list[Entry]) -> bytes:
    """Give the bytes of a journal."""
    return b"".join(map(encode_entry, stored, range(len(stored))))


def read(data: bytes) -> list[Entry] | None:
    """Give what a journal holds, None where it is damaged; let every other error pass."""
    try:
        found = decode_journal(data)
    except JournalCorruptionError as damage:
        assert 1 <= damage.line <= data.count(b"\n")
        assert len(str(damage)) < 1000
        return None
    assert found.whole == data.rfind(b"\n") + 1
    assert len(found.entries) == data.count(b"\n")
    return found.entries


def use(stored: list[Entry]) -> None:
    """Do all that may be done with a journal that could be read."""
    for entry in stored:
        for name in BODIES:
            getattr(entry, name, None)
        assert (hash(entry), repr(entry)) == (hash(entry.replace()), repr(entry.replace()))
    assert read(written(stored)) == stored
    run_status(stored).to_json()
    get_metadata(stored)
    for cut in range(len(stored) + 1):
        fork_at(stored, from_offset=cut)
    for step_id in {entry.step_id for entry in stored if isinstance(entry, StepEntry)}:
        fork_at(stored, from_step_id=step_id)
    open_by(stored, Start(writer="w"))
    open_by(stored, Start(writer="w", metadata={"ticket": 7}, version="v2"))
    for event in {"ok"} | {e.waiting_for for e in stored if isinstance(e, SuspendEntry)}:
        open_by(stored, Resume(event, True, writer="w"))


def fork_at(stored: list[Entry], **cut: Any) -> None:
    """Fork, and go on with the fork; UsageError where the cut has no place."""
    try:
        planned = plan_fork(RUN, stored, now=NOW, **cut)
    except KassetteError as refused:
        assert isinstance(refused, UsageError)
        return
    assert read(written(planned)) == planned
    open_by(planned, Start(writer="w"))


def open_by(stored: list[Entry], command: Start | Resume) -> None:
    """Open a session, replay what is recorded, finish: kassette's own errors and a sound journal."""
    session = Session(list(stored))
    try:
        session.do(command)
        recorded = Recorded(stored)
        for name in [each.name for each in recorded.steps.values()]:
            session.step(name, "live")
        for event in recorded.resumes:
            session.wait(event)
        session.do(Complete())
    except KassetteError as refused:
        assert not isinstance(refused, InternalError)
    assert session.stored[: len(stored)] == stored
    assert read(written(session.stored)) == session.stored
