"""Reports that nothing asked for, and calls from below a suspended branch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kassette import (
    Appended,
    AppendFailed,
    Command,
    Complete,
    EnterParallel,
    FencedError,
    InternalError,
    Loaded,
    LoadFailed,
    Machine,
    Record,
    Reload,
    Start,
    StepFailed,
    StepSucceeded,
    SuspendedError,
    SuspendError,
)
from kassette.effects import Opened, Raise, Release

from .driving import NOW, RUN, Session, journal, opened, start, step

REPORTS: list[Command] = [
    Appended(start(), 0),
    AppendFailed(start(), OSError()),
    Loaded([]),
    LoadFailed(OSError()),
    StepSucceeded("a", 1),
    StepFailed("a"),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_to_a_machine_that_asked_for_nothing_is_our_fault(report: Command) -> None:
    """A driver's mistake would be told to the workflow's author as theirs."""
    with pytest.raises(InternalError, match="is not allowed in state 'new'"):
        Machine(RUN, []).handle(report, now=NOW)


def _suspending() -> Session:
    session = opened()
    session.do(EnterParallel(("x",)))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    return session


def _suspended() -> Session:
    session = opened()
    with pytest.raises(SuspendError):
        session.wait("ok")
    return session


def _closing() -> Session:
    session = opened()
    session.tell(Complete())
    return session


@pytest.mark.parametrize("reach", [_suspending, _suspended, _closing])
@pytest.mark.parametrize(
    "report", [Loaded([]), LoadFailed(OSError())], ids=["Loaded", "LoadFailed"]
)
def test_a_journal_that_was_not_asked_for_is_our_fault(
    reach: Callable[[], Session], report: Command
) -> None:
    """As above: the author would look for an ``except`` that swallowed a suspension."""
    with pytest.raises(InternalError, match="is not allowed in state"):
        reach().tell(report)


def test_d7_a_branch_does_nothing_once_what_is_around_it_has_suspended() -> None:
    """A workflow that swallowed the suspension would pay for steps that nobody waits for."""
    session = opened()
    session.do(EnterParallel(("x",)))
    with pytest.raises(SuspendError):
        session.wait("ok")
    for path in (("x",), ("x", "y")):
        with pytest.raises(SuspendedError):
            session.tell(Record("late", path))
    assert session.ran == []


def _reloading(entries: int = 1) -> Machine:
    machine = Machine(RUN, journal(start()))
    machine.handle(Start(writer="mine"), now=NOW)
    assert machine.handle(Appended(start(2), 1 + entries), now=NOW) == [Reload()]
    return machine


def test_d4_a_journal_that_vanished_while_it_was_opened_fences_the_session() -> None:
    """The error would name a session that nobody ever opened."""
    released, raised = _reloading().handle(Loaded([]), now=NOW)
    assert released == Release()
    assert isinstance(raised, Raise)
    assert isinstance(raised.error, FencedError)
    assert (raised.error.rejected_session, raised.error.active_session) == (2, 0)


def test_d4_a_stray_entry_with_the_number_of_the_own_session_is_no_start() -> None:
    """A storage without the tail check may hold one; the run could never be opened again."""
    entries = journal(start(), step("stray", session=2), start(2, writer="mine"))
    assert _reloading().handle(Loaded(entries), now=NOW) == [Opened(2)]
