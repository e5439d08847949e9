"""Two longer journals, of a run and of its fork, as the tests of what is told from them need."""

from __future__ import annotations

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


def placed(entries: list[Entry]) -> list[Entry]:
    """Give the entries as a storage gives them."""
    return [entry.at(offset) for offset, entry in enumerate(entries)]


def text_of(entries: list[Entry]) -> str:
    """Give the journal as a file holds it."""
    return b"".join(map(encode_entry, entries, range(len(entries)))).decode()
