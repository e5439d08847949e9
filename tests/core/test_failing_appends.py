"""Appends that fail, of every kind in every state, and reports that come after the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kassette import (
    Append,
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    EnterParallel,
    Fail,
    FencedError,
    KassetteError,
    LeaveParallel,
    Record,
    Release,
    Return,
    SessionClosedError,
    State,
    StepFailed,
    StepSucceeded,
    StorageError,
    SuspendError,
    WaitForEvent,
    WriteContentionError,
)

from .driving import Session, complete, opened, snapshot, step, types

WORKFLOW: list[Command] = [
    Record("llm"),
    WaitForEvent("ok"),
    EnterParallel(("x",)),
    Complete(),
    Fail("boom"),
    StepSucceeded("llm", 1),
]


FAILURES: list[BaseException] = [
    StorageError("io error"),
    FencedError(1, 2),
    WriteContentionError("busy"),
    KeyboardInterrupt(),
    OSError(28, "no space"),
]
ROLLED_BACK = StorageError("disk full", rolled_back=True)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_an_append_of_unknown_outcome_loses_the_session(failure: BaseException) -> None:
    """The session would go on although nobody knows what the journal holds."""
    session = opened()
    session.begin("llm")
    (append,) = session.tell(StepSucceeded("llm", 1))
    assert isinstance(append, Append)
    assert session.tell(AppendFailed(append.entry, failure)) == [Release()]
    assert session.state() is State.LOST
    assert session.machine.lost_to is failure
    assert session.machine.ended


def test_an_append_that_was_rolled_back_fails_its_own_step_only() -> None:
    """A full disk would end a session whose journal is known to be whole."""
    session = opened()
    session.fails = [ROLLED_BACK]
    with pytest.raises(StorageError):
        session.step("llm", 1)
    assert (session.machine.state, session.machine.lost_to) == (State.ACTIVE, None)
    assert session.step("llm", 2) == 2
    assert session.released == 0


@pytest.mark.parametrize(
    "command", [*WORKFLOW, LeaveParallel(("x",))], ids=lambda c: type(c).__name__
)
def test_a_lost_session_says_so_to_every_call(command: Command) -> None:
    """A workflow would go on in a session that cannot journal anything."""
    session = opened()
    failure = StorageError("io error")
    session.do(AppendFailed(step("x"), failure))
    before = snapshot(session.machine)
    if isinstance(command, LeaveParallel):
        assert session.do(command) == []
        return
    with pytest.raises(
        SessionClosedError, match=r"lost \(io error\); start the run again"
    ) as caught:
        session.do(command)
    assert caught.value.__cause__ is failure
    assert snapshot(session.machine) == before


def test_a_fenced_session_says_who_fenced_it_to_every_call() -> None:
    """A second call would hide that a newer session goes on."""
    session = opened()
    session.do(AppendFailed(step("x"), FencedError(1, 4)))
    for command in WORKFLOW:
        with pytest.raises(FencedError) as caught:
            session.do(command)
        assert (caught.value.rejected_session, caught.value.active_session) == (1, 4)
        assert caught.value.run_id == "run-1"


@pytest.mark.parametrize("ending", [Complete(), Fail("boom")])
def test_a_terminal_entry_that_was_rolled_back_may_be_tried_again(ending: Command) -> None:
    """A full disk at the very end would leave the run without one."""
    session = opened()
    session.fails = [ROLLED_BACK]
    with pytest.raises(StorageError):
        session.do(ending)
    assert session.state() is State.ACTIVE
    session.do(ending)
    assert (session.machine.state, session.released) == (State.CLOSED, 1)


@pytest.mark.parametrize("ending", [Complete(), Fail("boom")])
def test_a_terminal_entry_of_unknown_outcome_loses_the_session(ending: Command) -> None:
    """A second terminal entry would be written behind one that had landed."""
    session = opened()
    session.fails = [StorageError("io error")]
    with pytest.raises(StorageError):
        session.do(ending)
    assert (session.machine.state, session.released) == (State.LOST, 1)


def test_a_step_rolled_back_while_closing_leaves_the_end_under_way() -> None:
    """The workflow could go on while its terminal entry is being written."""
    session = opened()
    session.begin("llm")
    (append,) = session.tell(StepSucceeded("llm", 1))
    assert isinstance(append, Append)
    session.tell(Complete())
    assert session.tell(AppendFailed(append.entry, ROLLED_BACK)) == []
    assert session.state() is State.CLOSING
    assert session.tell(AppendFailed(complete(), StorageError("io"))) == [Release()]


def _suspending() -> Session:
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    return session


def test_a_step_rolled_back_while_suspending_fails_its_own_branch_only() -> None:
    """A full disk in one branch would lose the suspension of another."""
    session = _suspending()
    session.fails = [ROLLED_BACK]
    with pytest.raises(StorageError):
        session.step("llm", 1, ("y",))
    assert session.state() is State.SUSPENDING
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
    assert types(session.stored) == ["start", "suspend"]


def test_the_last_step_rolled_back_while_suspending_lets_the_suspension_through() -> None:
    """The suspension would never be written, and the session never end."""
    session = opened()
    step_id = session.begin("llm")
    session.tell(WaitForEvent("ok"))
    session.fails = [ROLLED_BACK]
    with pytest.raises(StorageError):
        session.succeed(step_id, 1)
    assert session.state() is State.SUSPENDED
    assert types(session.stored) == ["start", "suspend"]


def test_a_step_of_unknown_outcome_while_suspending_loses_the_session() -> None:
    """A suspension would be written behind an entry that may or may not be there."""
    session = _suspending()
    session.fails = [StorageError("io")]
    with pytest.raises(StorageError):
        session.step("llm", 1, ("y",))
    assert (session.machine.state, session.released) == (State.LOST, 1)
    assert types(session.stored) == ["start"]


@pytest.mark.parametrize("failure", [ROLLED_BACK, StorageError("io"), FencedError(1, 2)])
@pytest.mark.parametrize("landed", [0, 1])
def test_a_suspend_entry_that_fails_loses_the_session(failure: KassetteError, landed: int) -> None:
    """The workflow would stop as if it were suspended, while the journal does not say so."""
    session = _suspending()
    with pytest.raises(SuspendError):
        session.wait("b", ("y",))
    effects = session.tell(LeaveParallel(("x", "y")))
    assert session.state() is State.SUSPENDED
    appends = [each.entry for each in effects if isinstance(each, Append)]
    for number, entry in enumerate(appends[:landed]):
        assert session.tell(Appended(entry, 1 + number)) == []
    assert session.tell(AppendFailed(appends[landed], failure)) == [Release()]
    assert (session.machine.state, session.machine.lost_to) == (State.LOST, failure)


# --- late reports -------------------------------------------------------------------------------------

LATE: list[Callable[[], Command]] = [
    lambda: StepFailed("llm"),
    lambda: Appended(complete(), 1),
    lambda: AppendFailed(step("llm"), StorageError("late")),
    lambda: AppendFailed(step("llm"), FencedError(1, 2)),
    lambda: LeaveParallel(("x", "y")),
    lambda: LeaveParallel(("x", "y"), abandoned=True),
    Close,
]


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("how", ["closed", "lost"])
def test_late_reports_after_the_end_are_taken_and_cause_nothing(
    how: str, late: Callable[[], Command]
) -> None:
    """Cleaning up after a closed session would raise over the error that closed it."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    session.begin("llm", ("y",))
    first = StorageError("first")
    session.do(Close() if how == "closed" else AppendFailed(step("other"), first))
    state = session.machine.state
    assert session.do(late()) == []
    assert session.machine.state is state
    assert session.machine.lost_to is (first if how == "lost" else None)
    assert session.released == 1


@pytest.mark.parametrize("how", ["closed", "lost"])
def test_a_late_durable_step_is_still_returned(how: str) -> None:
    """A caller would not get a result that is in the journal."""
    session = opened()
    session.begin("llm")
    (append,) = session.tell(StepSucceeded("llm", 1))
    assert isinstance(append, Append)
    entry: Any = append.entry
    session.do(Close() if how == "closed" else AppendFailed(step("x"), StorageError("io")))
    assert session.do(Appended(entry, 1)) == [Return(entry, 1)]
