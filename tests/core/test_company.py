"""Suspending beside tasks that are no branches: who is told what, and when the waits are written."""

from __future__ import annotations

from typing import Any

import pytest

from kassette import (
    Append,
    Appended,
    Complete,
    EnterFunction,
    EnterParallel,
    Fail,
    LeaveFunction,
    LeaveParallel,
    Raise,
    Record,
    Release,
    Return,
    RunStep,
    State,
    StepFailed,
    StepSucceeded,
    SuspendedError,
    SuspendEntry,
    SuspendError,
    UsageError,
    WaitForEvent,
)

from .driving import (
    Session,
    journal,
    later,
    opened,
    resume,
    resumed,
    snapshot,
    start,
    suspend,
    types,
)


def in_function(*fields: Any) -> Session:
    """Open a session whose workflow's function has begun."""
    session = opened(*fields)
    session.do(EnterFunction())
    return session


def told(session: Session, command: Any) -> str:
    """Return the event that the answer's SuspendError names."""
    (effect,) = session.tell(command)
    assert isinstance(effect, Raise)
    assert isinstance(effect.error, SuspendError)
    assert effect.error.run_id == "run-1"
    return effect.error.event_name


def test_the_waits_are_written_once_the_function_has_ended() -> None:
    """A sibling that is about to wait for an event of its own would come too late."""
    session = in_function()
    assert told(session, WaitForEvent("a", caller="task a")) == "a"
    assert (session.state(), types(session.stored)) == (State.SUSPENDING, ["start"])
    assert told(session, WaitForEvent("b", caller="task b")) == "b"
    effects = session.do(LeaveFunction())
    assert [type(each) for each in effects] == [Append, Append, Release]
    written = [each for each in session.stored if isinstance(each, SuspendEntry)]
    assert [(each.waiting_for, each.more) for each in written] == [("a", True), ("b", False)]
    assert (session.state(), session.machine.waiting_for) == (State.SUSPENDED, "b")


@pytest.mark.parametrize(
    "command",
    [
        Record("next", caller="sibling"),
        EnterParallel(("x",), caller="sibling"),
        WaitForEvent("arrived", caller="sibling"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_a_sibling_is_told_of_the_suspension_once(command: Any, ended: bool) -> None:
    """A task that never saw the suspension would be blamed for having swallowed it; or one that
    swallowed it would not."""
    session = in_function(journal(start(), suspend("arrived"), start(2), resume("arrived", 1)))
    told(session, WaitForEvent("ok", caller="asks"))
    if ended:
        session.do(LeaveFunction())
    assert told(session, command) == "ok"
    before = snapshot(session.machine)
    for caller in ("sibling", "asks"):
        with pytest.raises(SuspendedError, match="raise it again"):
            session.tell(command.replace(caller=caller))
    assert snapshot(session.machine) == before


def test_a_wait_after_the_waits_were_written_is_told_and_no_more() -> None:
    """A wait would be appended by a session that has given up its lock."""
    session = in_function()
    told(session, WaitForEvent("ok", caller="asks"))
    session.do(LeaveFunction())
    assert told(session, WaitForEvent("late", caller="sibling")) == "late"
    assert types(session.stored) == ["start", "suspend"]
    assert session.machine.was_told("sibling")
    assert not session.machine.was_told("nobody")


@pytest.mark.parametrize("ending", [Complete(), Fail("boom")])
def test_a_suspended_run_cannot_be_ended(ending: Any) -> None:
    """A function that swallowed the suspension would complete a run that somebody is to answer."""
    session = in_function()
    told(session, WaitForEvent("ok"))
    with pytest.raises(SuspendedError):
        session.tell(ending)


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_in_flight_is_settled_before_the_waits(fails: bool) -> None:
    """What a sibling has paid for would be lost, or recorded behind the suspension."""
    session = in_function()
    assert session.do(Record("pay", caller="pays")) == [RunStep("pay", "pay")]
    told(session, WaitForEvent("ok", caller="asks"))
    assert session.do(LeaveFunction()) == []
    assert session.machine.in_flight
    if fails:
        session.do(StepFailed("pay"))
    else:
        (append,) = session.tell(StepSucceeded("pay", "paid"))
        assert isinstance(append, Append)
        assert session.machine.in_flight
        session.stored.append(append.entry.at(1))
        *effects, answer = session.tell(Appended(append.entry, 1))
        assert isinstance(answer, Return)
        session.perform(effects)
    expected = ["start", "suspend"] if fails else ["start", "step", "suspend"]
    assert (types(session.stored), session.released) == (expected, 1)


def test_a_branch_knows_of_its_own_suspension_and_of_those_around_it() -> None:
    """A branch would be held up by its sibling, or work on inside of a task that is suspended."""
    session = in_function()
    session.do(EnterParallel(("x", "y"), caller="tool"))
    told(session, WaitForEvent("in x", path=("x",), caller="x"))
    assert [session.machine.has_suspended(path) for path in ((), ("x",), ("x", "z"), ("y",))] == [
        False,
        True,
        True,
        False,
    ]
    assert session.do(Record("works", ("y",), "y")) == [RunStep("y:works", "y:works")]
    told(session, WaitForEvent("outside", caller="another tool"))
    assert told(session, Record("more", ("y",), "y")) == "outside"
    assert session.machine.has_suspended(("y",))


def test_a_block_suspends_what_is_around_it() -> None:
    """The workflow would go on behind a block whose branch waits."""
    session = in_function()
    session.do(EnterParallel(("x",), caller="workflow"))
    told(session, WaitForEvent("ok", path=("x",), caller="x"))
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x",), caller="workflow"))
    with pytest.raises(SuspendedError):
        session.tell(Record("next", caller="workflow"))
    assert told(session, Record("next", caller="sibling")) == "ok"


def test_an_event_that_another_task_waits_for_is_refused_at_once() -> None:
    """The mistake would show when somebody has answered, and end the run."""
    session = in_function()
    told(session, WaitForEvent("ok", caller="one"))
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="two waits have the event name"):
        session.tell(WaitForEvent("ok", caller="another"))
    assert snapshot(session.machine) == before


def test_many_waits_are_answered_one_by_one_with_one_entry_each() -> None:
    """Every answer to one of many questions would write all the others again."""
    count = 20
    stored: list[Any] = []
    session = in_function(stored)
    for number in range(count):
        told(session, WaitForEvent(f"e{number}", 60, caller=number))
    session.do(LeaveFunction())
    assert types(stored) == ["start", *["suspend"] * count]
    for answered in range(count - 1):
        session = resumed(stored, f"e{answered}", answered, now=later(1))
        session.do(EnterFunction())
        before = len(stored)
        for number in range(count):
            if number <= answered:
                assert session.wait(f"e{number}", caller=number) == number
            else:
                told(session, WaitForEvent(f"e{number}", 60, caller=number))
        session.do(LeaveFunction())
        (entry,) = stored[before:]
        assert (entry.waiting_for, entry.more) == (f"e{count - 1}", False)
        assert entry.timeout == "2026-01-31T12:01:00.000Z"
    session = resumed(stored, f"e{count - 1}", count - 1)
    assert [session.wait(f"e{number}") for number in range(count)] == list(range(count))


def test_a_new_wait_is_written_without_those_that_stand_in_the_journal() -> None:
    """The status would name a wait that a caller was not told of."""
    stored = journal(start(), suspend("old", more=True), suspend("b"), start(2), resume("b", 1))
    session = in_function(stored)
    told(session, WaitForEvent("new", caller="x"))
    told(session, WaitForEvent("old", caller="y"))
    assert session.machine.waiting_for == "new"
    session.do(LeaveFunction())
    assert [each.waiting_for for each in stored[6:]] == ["new"]  # type: ignore[union-attr]


def test_an_abandoned_block_takes_back_the_suspension() -> None:
    """A workflow whose block timed out could not go on."""
    session = in_function()
    session.do(EnterParallel(("x",), caller="workflow"))
    told(session, WaitForEvent("ok", path=("x",), caller="x"))
    session.do(LeaveParallel(("x",), abandoned=True, caller="workflow"))
    assert (session.state(), session.machine.waiting_for) == (State.ACTIVE, None)
    assert session.do(Record("next", caller="workflow")) == [RunStep("next", "next")]
    assert session.do(LeaveFunction()) == []


def test_a_block_that_is_left_in_peace_beside_a_suspension_tells_its_caller() -> None:
    """The tool around it would go on, and ask for what nobody can be asked any more."""
    session = in_function()
    session.do(EnterParallel(("x",), caller="tool"))
    assert told(session, WaitForEvent("inner", path=("x",), caller="branch")) == "inner"
    assert told(session, WaitForEvent("outer", caller="workflow")) == "outer"
    assert told(session, LeaveParallel(("x",), caller="tool")) == "inner"
    session.do(LeaveFunction())
    assert [each.waiting_for for each in session.stored if isinstance(each, SuspendEntry)] == [
        "inner",
        "outer",
    ]


@pytest.mark.parametrize("outside", [False, True])
def test_a_block_that_is_cancelled_keeps_its_waits_only_beside_a_suspension(outside: bool) -> None:
    """An answer would be refused to a run that asks for it, or a branch rest that was tried again."""
    session = in_function()
    session.do(EnterParallel(("x",), caller="tool"))
    assert told(session, WaitForEvent("inner", path=("x",), caller="branch")) == "inner"
    if outside:
        assert told(session, WaitForEvent("outer", caller="workflow")) == "outer"
    session.do(LeaveParallel(("x",), abandoned=True, caller="tool"))
    if outside:
        session.do(LeaveFunction())
        kept = [each.waiting_for for each in session.stored if isinstance(each, SuspendEntry)]
        assert kept == ["inner", "outer"]
        return
    session.do(EnterParallel(("x",), caller="tool"))
    session.do(EnterParallel(("y",), caller="another tool"))
    assert told(session, WaitForEvent("other", path=("y",), caller="y")) == "other"
    assert session.do(Record("step", ("x",), "again")) == [RunStep("x:step", "x:step")]
    session.do(StepFailed("x:step"))
    assert told(session, WaitForEvent("inner", path=("x",), caller="again")) == "inner"
