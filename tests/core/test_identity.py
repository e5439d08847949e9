"""Whose run it is, and when an answer was given: what opening a session asks of both."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from kassette import (
    Resume,
    RunCancelledError,
    Start,
    StartEntry,
    State,
    UsageError,
    decode_line,
    encode_entry,
    plan_fork,
)

from .driving import NOW, Session, journal, later, opened, start, suspend


@pytest.mark.parametrize(
    ("recorded", "asking"),
    [
        ("app:billing", "app:billing"),
        ("app:billing", "__main__:billing"),
        ("app:make.<locals>.billing", "billing"),
        ("billing", "other.module:Desk.billing"),
        (None, "app:billing"),
        ("app:billing", None),
    ],
)
def test_a_workflow_takes_up_its_own_run(recorded: str | None, asking: str | None) -> None:
    """A workflow that is moved, named, or older than names would lose its runs."""
    later_on = None if recorded is None else "app:later"
    stored = journal(start(workflow=recorded), start(2, workflow=later_on))
    session = opened(stored, workflow=asking)
    assert session.state() is State.ACTIVE
    entry = stored[-1]
    assert isinstance(entry, StartEntry)
    assert entry.workflow == asking
    assert [decode_line(encode_entry(each, at), at) for at, each in enumerate(stored)] == stored


@pytest.mark.parametrize("command", [Start(workflow="shipping"), Resume("ok", 1, workflow="a:b")])
def test_another_workflow_is_refused_and_told_the_name(command: Any) -> None:
    """Two workflows with one run id would take each other's results."""
    session = Session(journal(start(workflow="app:billing"), suspend("ok")))
    with pytest.raises(
        UsageError, match=r"started by workflow 'app:billing'.*name='billing'"
    ) as caught:
        session.tell(command)
    assert caught.value.run_id == "run-1"


@pytest.mark.parametrize("name", ["", 7, "\ud800"])
def test_a_workflows_name_is_text_that_can_be_written(name: Any) -> None:
    """A name would break the line that it is written in."""
    with pytest.raises(UsageError, match="a workflow's name"):
        Session([]).tell(Start(workflow=name))


def test_a_workflow_that_is_no_text_is_somebody_elses_field() -> None:
    """A journal with a field of that name would count as damaged, or lose it."""
    line = b'{"type":"start","session":1,"offset":0,"timestamp":"t","workflow":{"id":1}}\n'
    entry = decode_line(line, 0)
    assert isinstance(entry, StartEntry)
    assert (entry.workflow, entry.extra) == (None, {"workflow": {"id": 1}})
    assert encode_entry(entry, 0) == line


def test_a_fork_says_whose_it_is() -> None:
    """Another workflow could take up the fork."""
    forked = plan_fork("run-1", journal(start()), from_offset=0, workflow="app:new", now=NOW)
    assert [getattr(each, "workflow", None) for each in forked] == ["app:new", "app:new"]


def _answered(given_at: datetime | None) -> Session:
    stored = journal(start(), suspend("ok", timeout="2026-01-31T12:01:00.000Z"))
    session = Session(stored, now=later(61))
    session.do(Resume("ok", 1, given_at=given_at))
    return session


def test_an_answer_that_was_given_in_time_is_taken_late() -> None:
    """A run that was busy with another answer would be cancelled for it."""
    assert _answered(later(59)).state() is State.ACTIVE


@pytest.mark.parametrize("given_at", [None, later(60), later(61) + timedelta(days=1)])
def test_an_answer_that_came_too_late_stays_late(given_at: datetime | None) -> None:
    """A clock that is ahead would let an answer through."""
    with pytest.raises(RunCancelledError):
        _answered(given_at)


def test_an_answer_cannot_be_given_at_a_naive_instant() -> None:
    """It would be taken for local time."""
    with pytest.raises(UsageError, match="naive"):
        _answered(datetime(2026, 1, 31, 12, 0))  # noqa: DTZ001


@pytest.mark.parametrize("given_at", ["2026-01-31T12:00:00Z", 5, True])
def test_an_answer_is_given_at_an_instant(given_at: Any) -> None:
    """What a queue hands on as text would end in a traceback, or be compared as text."""
    with pytest.raises(UsageError, match="given_at must be an aware datetime, not"):
        _answered(given_at)
