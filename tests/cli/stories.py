"""Two longer journals, of a run and of its fork, as the tests of what is told from them need."""

from __future__ import annotations

from typing import Any

from kassette import (
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    encode_entry,
)
from kassette.evidence.diagnosis import Lock
from kassette.notes import FailedAttempt, Running, step_notes, write_notes

LONG_ANSWER = "Dear Ada, your parcel was lost twice. " * 80


def at(time: str) -> str:
    """Give an instant of the day that the stories are set on."""
    return f"2026-01-31T{time}Z"


def step(session: int, time: str, step_id: str, result: object) -> StepEntry:
    """Give a step entry."""
    return StepEntry.of(
        session=session,
        timestamp=at(time),
        step_id=step_id,
        name=step_id.partition("#")[0],
        result=result,
    )


REFUND: list[Entry] = [
    StartEntry(session=1, timestamp=at("12:00:00.000"), metadata_json=b'{"order":7}', version="v1"),
    step(1, "12:00:02.300", "llm", {"tool": "lookup", "order": 7}),
    step(1, "12:00:02.350", "tool:lookup", {"state": "lost", "price": 250}),
    StartEntry(session=2, timestamp=at("12:05:00.000"), version="v1"),
    step(2, "12:05:04.000", "llm#2", LONG_ANSWER),
    SuspendEntry(
        session=2,
        timestamp=at("12:05:04.010"),
        reason="Waiting for event: approval",
        waiting_for="approval",
        timeout="2026-02-03T12:05:04.009Z",
    ),
    StartEntry(session=3, timestamp=at("13:05:04.000"), version="v1"),
    ResumeEntry.of(
        session=3, timestamp=at("13:05:04.010"), event_name="approval", value={"ok": True}
    ),
    step(3, "13:05:04.500", "tool:refund", None),
    ErrorEntry(
        session=3,
        timestamp=at("13:05:05.000"),
        message="the mail server said no",
        name="SMTPError",
        stack='Traceback (most recent call last):\n  File "support.py", line 40, in send\n'
        "SMTPError: the mail server said no\n",
    ),
]
"""A run that crashed, waited for a person and failed."""

REFUND_AGAIN: list[Entry] = [
    StartEntry(session=1, timestamp=at("14:00:00.000"), metadata_json=b'{"order":7}'),
    step(1, "12:00:02.300", "llm", {"tool": "lookup", "order": 7}),
    step(1, "12:00:02.350", "tool:lookup", {"state": "lost", "price": 250}),
    StartEntry(
        session=2,
        timestamp=at("14:00:00.000"),
        source=ForkSource(run_id="refund", from_offset=4),
    ),
    step(2, "14:00:03.000", "llm#2", "Sorry."),
    step(2, "14:00:03.100", "tool:voucher", {"code": "A1"}),
    CompleteEntry(session=2, timestamp=at("14:00:03.200")),
]
"""A fork of it that went another way."""


def noted(**notes: object) -> bytes:
    """Give the notes of an entry."""
    return write_notes(notes)


def _opened(session: int, time: str, code: str, **notes: object) -> StartEntry:
    process = {"host": "worker-a", "pid": 4711, "lib": "kassette-py/0.1.0", "code": code}
    return StartEntry(
        session=session,
        timestamp=at(time),
        workflow="support:refund",
        extra_json=noted(**process, **notes),
    )


def _asked(event: str, branch: str, **fields: Any) -> SuspendEntry:
    return SuspendEntry(
        session=1,
        timestamp=at("12:00:06.000"),
        reason=f"Waiting for event: {event}",
        waiting_for=event,
        extra_json=noted(branch=branch),
        **fields,
    )


APPROVALS: list[Entry] = [
    _opened(1, "12:00:00.000", "py3.11-aaaa"),
    step(1, "12:00:06.000", "draft", LONG_ANSWER).replace(
        extra_json=step_notes(
            at("12:00:00.000"),
            attempts=5,
            errors=[FailedAttempt("APIError", "529 overloaded", 0.4)] * 2,
        )
    ),
    _asked("approval:77", "legal", timeout="2026-02-03T12:00:00.000Z", more=True),
    _asked("approval:78", "audit", more=True),
    _asked("approval:79", "cost").replace(reason="Refund 250 EUR?"),
    _opened(2, "15:00:00.000", "py3.11-bbbb", opened="resume"),
    ResumeEntry.of(
        session=2,
        timestamp=at("15:00:00.010"),
        event_name="approval:78",
        value=True,
        notes=noted(by="dana"),
    ),
    SuspendEntry(
        session=2,
        timestamp=at("15:00:00.020"),
        reason="Waiting for event: approval:79",
        waiting_for="approval:79",
        extra_json=noted(passedOver=["old"]),
    ),
]
"""A run that three people have to approve; one of them has."""

EXPLAINED: dict[str, tuple[Lock, list[Entry]]] = {
    "approvals": (Lock(held=False), APPROVALS),
    "killed": (
        Lock(
            held=False,
            pid=4711,
            host="worker-a",
            since=at("12:00:00.000"),
            session=1,
            running=(Running("bank:pay", at("12:00:06.000"), 1, "TimeoutError: no answer"),),
        ),
        APPROVALS[:2],
    ),
    "late": (
        Lock(held=False),
        [
            each.replace(timeout=at("13:00:00.000")) if isinstance(each, SuspendEntry) else each
            for each in APPROVALS
        ],
    ),
    "refund": (Lock(held=False), REFUND),
}
"""Runs to explain, each with its lock."""


def placed(entries: list[Entry]) -> list[Entry]:
    """Give the entries as a storage gives them."""
    return [entry.at(offset) for offset, entry in enumerate(entries)]


def text_of(entries: list[Entry]) -> str:
    """Give the journal as a file holds it."""
    return b"".join(map(encode_entry, entries, range(len(entries)))).decode()
