"""Waiting for events, deadlines, and D7: suspending in company."""

from __future__ import annotations

from typing import Any

import pytest

from kassette import (
    Append,
    Appended,
    AppendFailed,
    BranchPath,
    Close,
    Complete,
    Deliver,
    EnterParallel,
    Fail,
    LeaveParallel,
    Raise,
    Record,
    Release,
    RunCancelledError,
    Start,
    State,
    StepFailed,
    StepSucceeded,
    StorageError,
    SuspendedError,
    SuspendEntry,
    SuspendError,
    UsageError,
    WaitForEvent,
    run_status,
)

from .driving import (
    STAMP,
    Session,
    journal,
    later,
    opened,
    resume,
    resumed,
    snapshot,
    start,
    step,
    suspend,
    types,
)


def test_a_wait_writes_its_suspend_entry_before_it_raises() -> None:
    """A process would stop on a suspension that is not in the journal."""
    session = opened()
    effects = session.tell(WaitForEvent("ok", 90, "needs a human"))
    match effects:
        case [Append(entry=entry), Release(), Raise(error=SuspendError(event_name="ok") as error)]:
            assert error.run_id == "run-1"
            assert entry == SuspendEntry(
                session=1,
                timestamp=STAMP,
                reason="needs a human",
                waiting_for="ok",
                timeout="2026-01-31T12:01:30.000Z",
            )
        case _:
            raise AssertionError(effects)
    assert session.state() is State.SUSPENDED
    assert session.machine.waiting_for == "ok"


def test_a_wait_without_options_has_no_deadline_and_says_what_it_waits_for() -> None:
    """A run would expire by itself; the journal would not tell people why it stands still."""
    session = opened()
    with pytest.raises(SuspendError):
        session.wait("ok")
    entry = session.stored[-1]
    assert isinstance(entry, SuspendEntry)
    assert (entry.timeout, entry.reason) == (None, "Waiting for event: ok")
    assert session.released == 1


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"a": 1}])
def test_an_arrived_event_is_delivered_and_nothing_is_written(value: object) -> None:
    """A falsy payload would suspend the run again."""
    stored = journal(start(), suspend("ok"), start(2), resume("ok", value))
    session = opened(stored)
    assert session.do(WaitForEvent("ok")) == [Deliver(stored[3])]  # type: ignore[arg-type]
    assert (len(stored), session.machine.state) == (5, State.ACTIVE)


@pytest.mark.parametrize("delivered", [True, False])
def test_an_event_name_is_used_once(delivered: bool) -> None:
    """Two waits would take the same payload; the refusal must not suspend anything."""
    stored = journal(start(), suspend("ok"), start(2), resume("ok", 1))
    session = opened(stored if delivered else None)
    if delivered:
        session.wait("ok")
    else:
        session.do(EnterParallel(("x", "y")))
        with pytest.raises(SuspendError):
            session.wait("ok", ("x",))
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="two waits have the event name"):
        session.wait("ok", ("y",))
    assert snapshot(session.machine) == before


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "3"},
        {"timeout": 1e12},
        {"reason": ""},
        {"reason": 3},
        {"reason": "\ud800"},
        {"event_name": ""},
        {"event_name": None},
        {"event_name": "\ud800"},
    ],
)
def test_bad_waits_are_refused_and_change_nothing(options: dict[str, Any]) -> None:
    """A wait that cannot be journaled would leave the event used up or the session suspended."""
    session = opened()
    before = snapshot(session.machine)
    with pytest.raises(UsageError):
        session.do(WaitForEvent(**{"event_name": "ok", **options}))
    assert snapshot(session.machine) == before
    with pytest.raises(SuspendError):
        session.wait("ok", timeout=0)


def test_a_timeout_of_zero_expires_at_once() -> None:
    """A deadline of now would be no deadline."""
    session = opened()
    with pytest.raises(SuspendError):
        session.wait("ok", timeout=0)
    assert session.stored[-1].timeout == STAMP  # type: ignore[union-attr]


def test_a_wait_reached_again_keeps_its_first_deadline_in_a_new_entry() -> None:
    """Every crash or delivery would push the deadline out; or the status would not read suspended."""
    stored = opened().stored
    first = Session(stored)
    first.do(Start(writer="again"))
    first.do(EnterParallel(("x", "y")))
    for event, key, timeout in (("a", "x", 60.0), ("b", "y", None)):
        with pytest.raises(SuspendError):
            first.wait(event, (key,), timeout=timeout)
    with pytest.raises(SuspendError):
        first.do(LeaveParallel(("x", "y")))
    deadline = "2026-01-31T12:01:00.000Z"
    second = resumed(stored, "b", 1, now=later(30))
    with pytest.raises(SuspendError):
        second.wait("a", timeout=60)
    assert stored[-1] == suspend("a", session=3, timeout=deadline).at(len(stored) - 1).replace(
        timestamp="2026-01-31T12:00:30.000Z"
    )


def test_d7_a_first_wait_without_deadline_keeps_having_none() -> None:
    """A redeployed timeout would cancel a run whose wait was promised for ever."""
    stored = journal(start(), suspend("a"), suspend("b"), start(2), resume("b", 1))
    session = opened(stored)
    with pytest.raises(SuspendError):
        session.wait("a", timeout=5)
    assert stored[-1].timeout is None  # type: ignore[union-attr]


# --- after the suspension --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        Record("llm"),
        Record("llm", ("x",)),
        WaitForEvent("other"),
        EnterParallel(("x",)),
        Complete(),
        Fail("boom"),
        StepFailed("llm"),
        LeaveParallel(("x",)),
    ],
)
def test_after_a_suspension_every_call_says_that_it_was_swallowed(command: Any) -> None:
    """A swallowed SuspendError would let the workflow go on past the wait (SuspendedError)."""
    session = opened()
    with pytest.raises(SuspendError):
        session.wait("ok")
    before = snapshot(session.machine)
    with pytest.raises(SuspendedError, match=r"waiting for 'ok'.*raise it again") as caught:
        session.do(command)
    assert snapshot(session.machine) == before
    assert caught.value.run_id == "run-1"


# --- in company --------------------------------------------------------------------------------------


def test_suspend_entries_wait_for_running_siblings_and_come_last() -> None:
    """Paid-for work would be thrown away, or the status read unsettled behind a suspension."""
    session = opened()
    session.do(EnterParallel(("x", "y", "z")))
    step_y, step_z = session.begin("llm", ("y",)), session.begin("llm", ("z",))
    assert [type(each) for each in session.tell(WaitForEvent("ok", path=("x",)))] == [Raise]
    assert session.state() is State.SUSPENDING
    assert session.machine.waiting_for == "ok"
    assert session.succeed(step_y, "Y") == "Y"
    assert session.step("more", "M", ("y",)) == "M"
    session.do(StepFailed(step_z))
    assert session.state() is State.SUSPENDING
    match session.tell(LeaveParallel(("x", "y", "z"))):
        case [Append(), Release(), Raise(error=SuspendError(event_name="ok"))] as effects:
            with pytest.raises(SuspendError):
                session.perform(effects)
        case other:
            raise AssertionError(other)
    assert types(session.stored) == ["start", "step", "step", "suspend"]
    assert run_status(session.stored).status == "suspended"
    again = resumed(session.stored, "ok", 1)
    assert again.step("llm", path=("y",)) == "Y"


def test_d7_a_step_outside_any_block_holds_the_suspension_back() -> None:
    """In a task group of the workflow's own, a running step's result would be lost."""
    session = opened()
    step_id = session.begin("llm")
    assert [type(each) for each in session.tell(WaitForEvent("ok"))] == [Raise]
    assert session.succeed(step_id, 1) == 1
    assert session.state() is State.SUSPENDED
    assert types(session.stored) == ["start", "step", "suspend"]
    assert session.released == 1


def test_d7_a_failed_step_outside_any_block_lets_the_suspension_through() -> None:
    """The suspension would never be written when the last step beside it fails."""
    session = opened()
    step_id = session.begin("llm")
    session.tell(WaitForEvent("ok"))
    session.do(StepFailed(step_id))
    assert types(session.stored) == ["start", "suspend"]


def test_d7_an_append_under_way_holds_the_suspension_back() -> None:
    """The suspend entry would overtake a step entry that is still being written."""
    session = opened()
    session.begin("llm")
    (append,) = session.tell(StepSucceeded("llm", 1))
    assert isinstance(append, Append)
    assert [type(each) for each in session.tell(WaitForEvent("ok"))] == [Raise]
    session.stored.append(append.entry.at(1))
    session.do(Appended(append.entry, 1))
    assert types(session.stored) == ["start", "step", "suspend"]


@pytest.mark.parametrize("ends", ["finished", "failed", "suspended"])
def test_d7_the_block_raises_the_suspension_however_the_sibling_ends(ends: str) -> None:
    """The first error would win over the suspension, and the run fail instead of waiting."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("a", ("x",))
    if ends == "finished":
        session.step("llm", 1, ("y",))
    elif ends == "failed":
        session.do(StepFailed(session.begin("llm", ("y",))))
    else:
        with pytest.raises(SuspendError):
            session.wait("b", ("y",))
    with pytest.raises(SuspendError) as caught:
        session.do(LeaveParallel(("x", "y")))
    assert caught.value.event_name == ("b" if ends == "suspended" else "a")
    assert session.state() is State.SUSPENDED
    status = run_status(session.stored).to_json()
    assert status["waitingFor"] == session.machine.waiting_for == caught.value.event_name


def test_d7_several_waits_are_written_in_their_order() -> None:
    """An event that a branch waits for would be missing from the journal."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    for event, key in (("b", "y"), ("a", "x")):
        with pytest.raises(SuspendError):
            session.wait(event, (key,))
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
    waits = [each for each in session.stored if isinstance(each, SuspendEntry)]
    assert [(each.waiting_for, each.more) for each in waits] == [("b", True), ("a", False)]
    assert session.released == 1


def test_d7_a_crash_between_two_waits_loses_neither() -> None:
    """The event of the wait that was not written would have no place, its deadline no effect."""
    deadline = "2026-01-31T12:01:00.000Z"
    half = journal(start(), suspend("b", timeout=deadline, more=True))
    with pytest.raises(UsageError, match="is waiting for"):
        resumed(half, "a", 1)
    session = opened(half)
    session.do(EnterParallel(("x", "y")))
    for event, key in (("b", "y"), ("a", "x")):
        with pytest.raises(SuspendError):
            session.wait(event, (key,), timeout=1.0)
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
    waits = [each for each in session.stored[3:] if isinstance(each, SuspendEntry)]
    assert [each.timeout for each in waits] == ["2026-01-31T12:00:01.000Z"]
    assert session.machine.waiting_for == "a"
    for event in ("a", "b"):
        assert resumed(list(session.stored), event, 1).state() is State.ACTIVE
    late = Session(list(session.stored), now=later(60))
    with pytest.raises(RunCancelledError):
        late.do(Start(writer="late"))


@pytest.mark.parametrize("path", [("x",), ("x", "deeper")])
def test_d7_a_suspended_branch_may_do_nothing_more(path: BranchPath) -> None:
    """A branch that swallowed its suspension would go on past the wait."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    before = snapshot(session.machine)
    for command in (Record("llm", path), WaitForEvent("b", path=path), EnterParallel(("z",), path)):
        with pytest.raises(SuspendedError):
            session.do(command)
    assert snapshot(session.machine) == before
    assert session.step("llm", 1, ("y",)) == 1


def test_d7_a_sibling_may_still_be_delivered_its_event() -> None:
    """A branch whose event has arrived would be held up by one whose event has not."""
    stored = journal(start(), suspend("a"), suspend("b"), start(2), resume("b", "B"))
    session = opened(stored)
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("a", ("x",))
    assert session.wait("b", ("y",)) == "B"
    assert session.step("after", 1, ("y",)) == 1
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
    assert types(stored)[5:] == ["start", "step", "suspend"]


def test_d7_a_nested_block_suspends_its_parent_branch_only() -> None:
    """The outer block's other branches would be stopped, or the inner wait be lost."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    session.do(EnterParallel(("a", "b"), ("x",)))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x", "a"))
    session.step("llm", 1, ("x", "b"))
    effects = session.tell(LeaveParallel(("a", "b"), ("x",)))
    assert [type(each) for each in effects] == [Raise]
    with pytest.raises(SuspendedError):
        session.step("llm", 1, ("x",))
    assert session.step("llm", 2, ("y",)) == 2
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
    assert types(session.stored) == ["start", "step", "step", "suspend"]


def test_d7_an_inner_block_without_a_wait_does_not_raise_its_siblings_one() -> None:
    """A block would be told of a suspension that happened elsewhere."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    session.do(EnterParallel(("x",), ("y",)))
    assert session.do(LeaveParallel(("x",), ("y",))) == []
    assert session.step("llm", 1, ("y",)) == 1


def test_a_block_without_a_suspension_just_ends() -> None:
    """Leaving a block would write or raise something."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    assert session.do(LeaveParallel(("x", "y"))) == []
    assert session.state() is State.ACTIVE
    with pytest.raises(SuspendError):
        session.wait("ok")
    assert session.state() is State.SUSPENDED


@pytest.mark.parametrize("key", ["", "a#b", "a:b", None, 3, "\ud800"])
def test_d8_bad_branch_keys_are_refused_and_change_nothing(key: Any) -> None:
    """Paths would become ambiguous, and steps of two branches one."""
    session = opened()
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="a branch key"):
        session.do(EnterParallel(("ok", key)))
    assert snapshot(session.machine) == before


def test_two_blocks_at_once_need_different_keys() -> None:
    """Two running branches would share one path, and their counters."""
    session = opened()
    session.do(EnterParallel(("x",)))
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="'x' is already running"):
        session.do(EnterParallel(("y", "x")))
    assert snapshot(session.machine) == before
    session.do(EnterParallel(("x",), ("x",)))
    session.do(LeaveParallel(("x",), ("x",)))
    session.do(LeaveParallel(("x",)))
    session.do(EnterParallel(("y", "x")))


# --- abandoned blocks --------------------------------------------------------------------------------


def test_an_abandoned_block_forgets_its_waits() -> None:
    """A cancelled block (a timeout around it) would leave the run suspended on what nobody awaits."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    session.do(StepFailed(session.begin("llm", ("y",))))
    assert session.do(LeaveParallel(("x", "y"), abandoned=True)) == []
    assert (session.machine.state, session.machine.waiting_for) == (State.ACTIVE, None)
    assert session.step("plan b", 1) == 1
    with pytest.raises(SuspendError):
        session.wait("ok")
    assert types(session.stored) == ["start", "step", "suspend"]


def test_an_abandoned_inner_block_leaves_the_outer_wait() -> None:
    """Cancelling one block would forget what another branch waits for."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("outer", ("x",))
    session.do(EnterParallel(("a",), ("y",)))
    with pytest.raises(SuspendError):
        session.wait("inner", ("y", "a"))
    assert session.do(LeaveParallel(("a",), ("y",), abandoned=True)) == []
    assert session.state() is State.SUSPENDING
    assert session.step("llm", 1, ("y",)) == 1
    with pytest.raises(SuspendedError):
        session.step("llm", 1, ("x",))
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
    waits = [each.waiting_for for each in session.stored if isinstance(each, SuspendEntry)]
    assert waits == ["outer"]


def test_an_abandoned_outer_block_forgets_nested_waits() -> None:
    """A wait deep inside a cancelled block would still be written."""
    session = opened()
    session.do(EnterParallel(("x",)))
    session.do(EnterParallel(("a",), ("x",)))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x", "a"))
    session.tell(LeaveParallel(("a",), ("x",)))
    assert session.do(LeaveParallel(("x",), abandoned=True)) == []
    assert session.state() is State.ACTIVE
    session.do(EnterParallel(("x",)))
    assert session.step("llm", 1, ("x",)) == 1
    assert session.step("llm", 1, ("x", "a")) == 1


def test_a_nested_block_may_be_tried_again_beside_a_wait() -> None:
    """A tool that is tried again after a timeout would be refused, because another one still waits."""
    session = opened()
    session.do(EnterParallel(("y",)))
    with pytest.raises(SuspendError):
        session.wait("other", ("y",))
    session.do(EnterParallel(("x",)))
    session.do(EnterParallel(("a",), ("x",)))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x", "a"))
    session.tell(LeaveParallel(("a",), ("x",)))
    session.do(LeaveParallel(("x",), abandoned=True))
    assert session.state() is State.SUSPENDING
    session.do(EnterParallel(("x",)))
    session.do(EnterParallel(("a",), ("x",)))
    assert session.step("llm", 1, ("x", "a")) == 1


def test_an_abandoned_block_leaves_a_concurrent_blocks_branches_suspended() -> None:
    """With two blocks at once, a suspended branch of the other one could go on past its wait."""
    session = opened()
    session.do(EnterParallel(("a",)))
    session.do(EnterParallel(("b",)))
    with pytest.raises(SuspendError):
        session.wait("one", ("a",))
    with pytest.raises(SuspendError):
        session.wait("two", ("b",))
    session.do(LeaveParallel(("a",), abandoned=True))
    assert session.machine.waiting_for == "two"
    with pytest.raises(SuspendedError):
        session.step("llm", 1, ("b",))


def test_an_abandoned_block_without_waits_just_ends() -> None:
    """Cancelling a block in which nobody waited would change more than the block."""
    session = opened()
    session.do(EnterParallel(("x",)))
    assert session.do(LeaveParallel(("x",), abandoned=True)) == []
    assert session.state() is State.ACTIVE


@pytest.mark.parametrize("path", [("x",), ("x", "deeper")])
def test_an_event_delivered_in_an_abandoned_block_may_be_waited_for_again(path: BranchPath) -> None:
    """A block that timed out could not be tried again if one of its events had arrived."""
    stored = journal(start(), suspend("ok"), suspend("out"), start(2), resume("ok", 1))
    session = opened([*stored, resume("out", 2).at(5)])
    session.wait("out")
    for _ in range(2):
        session.do(EnterParallel(("x",)))
        assert session.wait("ok", path) == 1
        session.do(LeaveParallel(("x",), abandoned=True))
    with pytest.raises(UsageError, match="two waits"):
        session.wait("out")


@pytest.mark.parametrize("ending", ["lost", "closed"])
def test_d7_a_block_with_a_suspended_branch_raises_even_if_the_session_ended(ending: str) -> None:
    """The block would seem to have ended well, with a result missing for the suspended branch."""
    session = opened()
    session.do(EnterParallel(("x", "y")))
    with pytest.raises(SuspendError):
        session.wait("ok", ("x",))
    if ending == "lost":
        session.do(AppendFailed(step("llm"), StorageError("disk gone")))
    else:
        session.do(Close())
    with pytest.raises(SuspendError):
        session.do(LeaveParallel(("x", "y")))
