"""Appends to an object store as tests speak of them: entries, bodies, and what a writer answers."""

from __future__ import annotations

from collections.abc import Sequence

from kassette import (
    CompleteEntry,
    Entry,
    KassetteError,
    StartEntry,
    StepEntry,
    encode_entry,
)
from kassette.object_append import (
    AppendCommand,
    AppendEffect,
    AppendEntries,
    ObjectWriter,
    PutObject,
    PutRefused,
    PutUnclear,
    Settled,
)

STAMP = "2026-01-31T12:00:00.000Z"
LOST = TimeoutError("no answer")
UNSETTLED: list[AppendCommand] = [PutRefused(), PutUnclear(LOST)]


def start(session: int, writer: str = "me") -> StartEntry:
    return StartEntry(session=session, timestamp=STAMP, writer=writer)


def step(session: int, name: str) -> StepEntry:
    return StepEntry.of(session=session, timestamp=STAMP, step_id=name, name=name, result=name)


def complete(session: int) -> CompleteEntry:
    return CompleteEntry(session=session, timestamp=STAMP)


def body(*entries: Entry) -> bytes:
    return b"".join(map(encode_entry, entries, range(len(entries))))


def knowing(*entries: Entry, etag: str | None = "e1") -> ObjectWriter:
    writer = ObjectWriter("run-1")
    writer.know(body(*entries), etag)
    return writer


def handle(writer: ObjectWriter, command: AppendCommand, now: float = 0.0) -> AppendEffect:
    return writer.handle(command, now=now)


def append(*entries: Entry, create: bool = False, patience: float = 30.0) -> AppendEntries:
    return AppendEntries(entries, create, patience)


def asked_to_put(effect: AppendEffect) -> PutObject:
    assert isinstance(effect, PutObject)
    return effect


def offsets(effect: AppendEffect) -> Sequence[int | KassetteError]:
    assert isinstance(effect, Settled)
    return effect.outcomes


def refusal(effect: AppendEffect) -> KassetteError:
    assert isinstance(effect, Settled)
    (error,) = set(effect.outcomes)
    assert isinstance(error, KassetteError)
    assert error.run_id == "run-1"
    return error
