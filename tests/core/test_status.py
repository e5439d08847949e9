"""What a run is doing: the rules of the operations guide in their order, and the reference's JSON."""

from __future__ import annotations

import pytest

from kassette import (
    CancelEntry,
    Cancelled,
    Completed,
    Entry,
    ErrorEntry,
    FailedRun,
    RunStatus,
    SuspendedRun,
    Unsettled,
    get_metadata,
    is_terminal,
    run_status,
)

from .driving import STAMP, cancel, complete, error, journal, resume, start, step, suspend

DEADLINE = "2026-02-01T00:00:00.000Z"
LATER = "2026-03-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([], Unsettled()),
        ([start()], Unsettled()),
        ([start(), start(2)], Unsettled()),
        ([start(), step("llm")], Unsettled()),
        ([start(), step("llm"), start(2)], Unsettled()),
        ([start(), step("llm"), complete()], Completed()),
        ([start(), error("boom")], FailedRun(message="boom", name="ValueError")),
        ([start(), cancel()], Cancelled(reason="suspend_timeout_expired")),
        ([start(), suspend("a")], SuspendedRun(waiting_for="a")),
        (
            [start(), suspend("a", timeout=DEADLINE)],
            SuspendedRun(waiting_for="a", timeout=DEADLINE),
        ),
        ([start(), suspend("a"), suspend("b")], SuspendedRun(waiting_for="b")),
        ([start(), suspend("a", more=True), suspend("b")], SuspendedRun(waiting_for="b")),
        (
            [start(), suspend("a", timeout=DEADLINE), start(2), suspend("a", timeout=LATER)],
            SuspendedRun(waiting_for="a", timeout=DEADLINE),
        ),
        ([start(), suspend("a"), suspend("a", timeout=LATER)], SuspendedRun(waiting_for="a")),
        (
            [start(), suspend("b", timeout=DEADLINE, more=True), suspend("a", timeout=LATER)],
            SuspendedRun(waiting_for="a", timeout=LATER),
        ),
        ([start(), suspend("a", more=True)], Unsettled()),
        ([start(), suspend("a", more=True), start(2)], Unsettled()),
        ([start(), suspend("a"), start(2)], SuspendedRun(waiting_for="a")),
        ([start(), suspend("a"), start(2), start(3)], SuspendedRun(waiting_for="a")),
        ([start(), suspend("a"), start(2), resume("a")], Unsettled()),
        ([start(), suspend("a"), start(2), resume("a"), start(3)], Unsettled()),
        ([start(), suspend("a"), start(2), step("llm", session=2)], Unsettled()),
    ],
)
def test_run_status(entries: list[Entry], status: RunStatus) -> None:
    """People and dispatchers would be told something else than what the run is doing."""
    assert run_status(journal(*entries)) == status


@pytest.mark.parametrize(
    ("status", "json"),
    [
        (Completed(), {"status": "completed"}),
        (
            FailedRun(message="boom", name="E", stack="at"),
            {"status": "failed", "message": "boom", "name": "E", "stack": "at"},
        ),
        (FailedRun(message=""), {"status": "failed", "message": ""}),
        (Cancelled(reason="why"), {"status": "cancelled", "reason": "why"}),
        (Cancelled(), {"status": "cancelled"}),
        (
            SuspendedRun(waiting_for="a", timeout=DEADLINE),
            {"status": "suspended", "waitingFor": "a", "timeout": DEADLINE},
        ),
        (SuspendedRun(waiting_for="a"), {"status": "suspended", "waitingFor": "a"}),
        (Unsettled(), {"status": "unsettled"}),
    ],
)
def test_the_json_form_is_the_references(status: RunStatus, json: dict[str, str]) -> None:
    """Scripts written for the reference's ``kassette status`` would break."""
    assert status.to_json() == json
    assert list(status.to_json()) == list(json)
    assert status.status == json["status"]


def test_a_failure_keeps_its_stack_and_a_cancel_its_missing_reason() -> None:
    """The reader of a status would have to go to the journal for the rest."""
    failed = ErrorEntry(session=1, timestamp=STAMP, message="boom", stack="at line 1")
    assert run_status([failed]) == FailedRun(message="boom", stack="at line 1")
    assert run_status([CancelEntry(session=1, timestamp=STAMP)]) == Cancelled()


def test_get_metadata_is_the_first_starts() -> None:
    """A workflow would be given another input than the run began with."""
    assert get_metadata([]) is None
    assert get_metadata(journal(start(), start(2, metadata=1))) is None
    assert get_metadata(journal(start(metadata={"a": 1}), start(2, metadata=2))) == {"a": 1}
    assert get_metadata([step("llm"), start(metadata=0)]) == 0


def test_is_terminal() -> None:
    """A run would be continued past its end, or count as over before it."""
    assert all(is_terminal(entry) for entry in (complete(), error(), cancel()))
    others: list[Entry] = [start(), step("llm"), suspend("a"), resume("a")]
    assert not any(is_terminal(entry) for entry in others)
