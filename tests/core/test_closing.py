"""How a session ends: complete, fail, close; what closed, suspended and lost sessions say; losing it."""

from __future__ import annotations

import contextlib
from datetime import datetime

import pytest

from kassette import (
    Append,
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    CompleteEntry,
    EnterParallel,
    ErrorEntry,
    Fail,
    InternalError,
    LeaveParallel,
    Record,
    Release,
    Resume,
    Return,
    SessionClosedError,
    Start,
    State,
    StepFailed,
    StepSucceeded,
    StorageError,
    SuspendedError,
    SuspendError,
    UsageError,
    WaitForEvent,
)

from .driving import NOW, STAMP, Session, complete, opened, snapshot, start, step, types


def test_complete_ends_run_and_session_once_it_is_durable() -> None:
    """A run would count as done before its end is in the journal."""
    session = opened()
    entry = CompleteEntry(session=1, timestamp=STAMP)
    assert session.tell(Complete()) == [Append(entry)]
    assert session.state() is State.CLOSING
    assert not session.machine.ended
    assert session.tell(Appended(entry, 1)) == [Release()]
    assert session.state() is State.CLOSED
    assert session.machine.ended


def test_fail_writes_name_message_and_stack() -> None:
    """Nobody could tell from the journal why the run failed."""
    session = opened()
    session.do(Fail("boom", "ValueError", "Traceback …"))
    entry = session.stored[-1]
    assert entry == ErrorEntry(
        session=1, timestamp=STAMP, offset=1, message="boom", name="ValueError", stack="Traceback …"
    )
    assert (session.machine.state, session.released) == (State.CLOSED, 1)


def test_fail_with_a_message_alone_and_an_empty_one() -> None:
    """An exception without text could not end its run."""
    session = opened()
    session.do(Fail(""))
    entry = session.stored[-1]
    assert isinstance(entry, ErrorEntry)
    assert (entry.message, entry.name, entry.stack) == ("", None, None)


def test_fail_with_text_that_utf8_cannot_write_keeps_what_it_can() -> None:
    """A failure whose message holds half an emoji could not be journaled at all."""
    session = opened()
    session.do(Fail("cut \ud83d", "Bad\udfffError", "at \ud800"))
    entry = session.stored[-1]
    assert isinstance(entry, ErrorEntry)
    texts = (entry.message, entry.name, entry.stack)
    assert texts == ("cut \\ud83d", "Bad\\udfffError", "at \\ud800")


WORKFLOW: list[Command] = [
    Record("llm"),
    WaitForEvent("ok"),
    EnterParallel(("x",)),
    Complete(),
    Fail("boom"),
    StepSucceeded("llm", 1),
]


@pytest.mark.parametrize("command", WORKFLOW, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize(
    "ending", [Complete(), Fail("x"), Close()], ids=["complete", "fail", "close"]
)
def test_a_closed_session_refuses_the_workflow(ending: Command, command: Command) -> None:
    """Work would go on after the end, and never be journaled."""
    session = opened()
    session.do(ending)
    before = snapshot(session.machine)
    with pytest.raises(SessionClosedError, match=type(command).__name__) as caught:
        session.do(command)
    assert caught.value.run_id == "run-1"
    assert snapshot(session.machine) == before


@pytest.mark.parametrize("command", WORKFLOW, ids=lambda command: type(command).__name__)
def test_a_closing_session_refuses_the_workflow(command: Command) -> None:
    """A step would begin beside the terminal entry, and be journaled behind it."""
    session = opened()
    session.tell(Complete())
    with pytest.raises(SessionClosedError):
        session.do(command)


@pytest.mark.parametrize("ending", [Complete(), Fail("x")])
def test_complete_and_fail_after_a_suspension_say_that_it_was_swallowed(ending: Command) -> None:
    """A run that waits would be ended by a workflow that swallowed the suspension."""
    for session in (_suspending(), _suspended()):
        before = list(session.stored)
        with pytest.raises(SuspendedError):
            session.do(ending)
        assert session.stored == before


def _suspending() -> Session:
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    return session


def _suspended() -> Session:
    session = opened()
    with pytest.raises(SuspendError):
        session.wait("ok")
    return session


def test_a_step_still_running_when_the_run_completes_is_told_so() -> None:
    """A result that will never be journaled would be handed on as if it had been."""
    session = opened()
    step_id = session.begin("llm")
    session.do(Complete())
    with pytest.raises(SessionClosedError):
        session.succeed(step_id, 1)
    assert types(session.stored) == ["start", "complete"]


def test_a_step_entry_that_lands_while_closing_is_returned() -> None:
    """A durable result would be lost to its caller, or taken for the terminal entry."""
    session = opened()
    session.begin("llm")
    (append,) = session.tell(StepSucceeded("llm", 1))
    assert isinstance(append, Append)
    session.tell(Complete())
    assert session.tell(Appended(append.entry, 1)) == [Return(append.entry, 1)]  # type: ignore[arg-type]
    assert session.state() is State.CLOSING


# --- close ---------------------------------------------------------------------------------------


def test_close_appends_nothing_and_the_run_goes_on_by_start() -> None:
    """D2: leaving would be written as a failure."""
    session = opened()
    session.step("llm", 1)
    assert session.do(Close()) == [Release()]
    assert types(session.stored) == ["start", "step"]
    assert opened(session.stored).step("llm") == 1


def test_close_releases_once_however_often_it_is_called() -> None:
    """A second release would free what somebody else holds by then."""
    for ending in (Complete(), Close(), WaitForEvent("ok")):
        session = opened()
        with contextlib.suppress(SuspendError):
            session.do(ending)
        assert session.do(Close()) == []
        assert session.do(Close()) == []
        assert session.released == 1


def test_close_before_opening_releases_nothing() -> None:
    """The number of a session that was never opened may be somebody else's."""
    session = Session([])
    assert session.do(Close()) == []
    assert session.state() is State.CLOSED
    with pytest.raises(SessionClosedError):
        session.do(Record("llm"))


def test_close_while_the_start_is_under_way_releases_only_once_it_landed() -> None:
    """A session whose ``start`` never landed would release another's lock of the same number."""
    for lands in (True, False):
        session = Session([])
        (append,) = session.tell(Start())
        assert isinstance(append, Append)
        assert session.tell(Close()) == []
        assert session.state() is State.CLOSED
        if lands:
            assert session.tell(Appended(append.entry, 0)) == [Release()]
        else:
            assert session.tell(AppendFailed(append.entry, StorageError("no"))) == []


def test_close_while_suspending_writes_no_suspension() -> None:
    """A cancelled workflow would be recorded as waiting."""
    session = opened()
    session.begin("llm")
    session.tell(WaitForEvent("ok"))
    assert session.do(Close()) == [Release()]
    assert session.do(StepFailed("llm")) == []
    assert types(session.stored) == ["start"]


def test_close_while_completing_leaves_the_outcome_to_the_append() -> None:
    """A late report would raise, or release a second time."""
    for late in (
        Appended(complete(), 1),
        AppendFailed(complete(), StorageError("gone")),
        AppendFailed(complete(), StorageError("gone", rolled_back=True)),
    ):
        session = opened()
        session.tell(Complete())
        assert session.do(Close()) == [Release()]
        assert session.do(late) == []
        assert session.state() is State.CLOSED


# --- wrong call order ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        Record("llm"),
        WaitForEvent("ok"),
        EnterParallel(("x",)),
        LeaveParallel(("x",)),
        Complete(),
        Fail("x"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_session_must_be_opened_first(command: Command) -> None:
    """A step would be journaled without a session."""
    session = Session([])
    with pytest.raises(UsageError, match="start or resume the run first"):
        session.do(command)
    assert session.state() is State.NEW


@pytest.mark.parametrize("command", [Start(), Resume("ok", 1)])
@pytest.mark.parametrize("state", ["opening", "active", "suspended", "closed", "lost"])
def test_a_machine_opens_one_session_once(state: str, command: Command) -> None:
    """One machine would write under two session numbers."""
    session = Session([])
    session.tell(Start())
    if state != "opening":
        session = opened()
    if state == "suspended":
        session = _suspended()
    elif state == "closed":
        session.do(Close())
    elif state == "lost":
        session.do(AppendFailed(step("x"), StorageError("gone")))
    with pytest.raises(UsageError, match="opens only one session"):
        session.do(command)


@pytest.mark.parametrize("command", [Record("llm"), StepSucceeded("llm", 1), StepFailed("llm")])
def test_what_cannot_happen_while_opening_is_a_bug_of_the_driver(command: Command) -> None:
    """A driver that mixes up its order would go unnoticed."""
    session = Session([])
    session.tell(Start())
    with pytest.raises(InternalError, match="is not allowed in state 'opening'"):
        session.do(command)


def test_a_report_before_opening_is_a_bug_of_the_driver() -> None:
    """As above; no user can mend it by calling start()."""
    for command in (Appended(start(), 0), StepSucceeded("a", 1), StepFailed("a")):
        with pytest.raises(InternalError):
            Session([]).do(command)


@pytest.mark.parametrize(
    "command",
    [
        Start(),
        Complete(),
        Fail("x"),
        WaitForEvent("ok"),
        WaitForEvent("ok", 5),
        StepSucceeded("llm", 1),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_naive_now_is_refused_and_changes_nothing(command: Command) -> None:
    """A driver without time zones would leave the session in a state that was never journaled."""
    session = Session([]) if isinstance(command, Start) else opened()
    if isinstance(command, StepSucceeded):
        session.begin("llm")
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="time zone"):
        session.machine.handle(command, now=datetime(2026, 1, 31, 12))  # noqa: DTZ001
    assert snapshot(session.machine) == before
    session.machine.handle(command, now=NOW)
