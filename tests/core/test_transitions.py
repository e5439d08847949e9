"""The whole table: every (state, command) pair is in it and handled, or refused without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product

import pytest

from kassette import (
    ENDED,
    TRANSITIONS,
    Append,
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    EnterFunction,
    EnterParallel,
    Entry,
    Fail,
    FencedError,
    KassetteError,
    LeaveFunction,
    LeaveParallel,
    Loaded,
    LoadFailed,
    Record,
    Resume,
    Start,
    State,
    StepFailed,
    StepSucceeded,
    StorageError,
    SuspendError,
    WaitForEvent,
)

from .driving import (
    Session,
    cancel,
    complete,
    journal,
    later,
    opened,
    resume,
    snapshot,
    start,
    step,
    suspend,
)

SOON = "2026-01-31T12:00:10.000Z"
OWN = start(2, writer="me")


def _begun(stored: list[Entry], command: Start | Resume, seconds: float = 0) -> Session:
    session = Session(list(stored), now=later(seconds))
    session.tell(command)
    return session


def _reloading() -> Session:
    session = _begun(journal(start()), Start(writer="me"))
    session.tell(Appended(OWN, 2))
    return session


def _reloading_past_a_deadline() -> Session:
    session = _begun(journal(start()), Start(writer="me"), 60)
    session.tell(Appended(OWN, 2))
    return session


def _reloading_to_deliver() -> Session:
    session = _begun(journal(start(), suspend("ok")), Resume("ok", 1, writer="me"))
    session.tell(Appended(OWN, 3))
    return session


def _delivering() -> Session:
    session = _begun(journal(start(), suspend("ok")), Resume("ok", 1, writer="me"))
    session.tell(Appended(OWN, 2))
    return session


def _cancelling() -> Session:
    session = _begun(journal(start(), suspend("ok", timeout=SOON)), Start(writer="me"), 60)
    session.tell(Appended(OWN, 2))
    return session


def _running() -> Session:
    session = opened()
    session.begin("llm")
    return session


def _delivered() -> Session:
    return opened(journal(start(), suspend("ok"), start(2), resume("ok", 1)))


def _suspending(*, running: bool = False, appending: bool = False, block: bool = False) -> Session:
    session = opened()
    if block:
        session.do(EnterParallel(("x", "y")))
    if running or appending:
        session.begin("llm", ("y",) if block else ())
    if appending:
        session.tell(StepSucceeded("llm", 1))
    session.tell(WaitForEvent("ok", path=("x",) if block else ()))
    return session


def _in_function(*, running: bool = False, suspended: bool = False) -> Session:
    session = opened()
    session.do(EnterFunction())
    if running:
        session.begin("llm")
    if suspended:
        session.tell(WaitForEvent("ok", caller="told"))
    return session


def _closing(*, appending: bool = False) -> Session:
    session = opened()
    if appending:
        session.begin("llm")
        session.tell(StepSucceeded("llm", 1))
    session.tell(Complete())
    return session


def _suspended() -> Session:
    session = opened()
    with suppress(SuspendError):
        session.wait("ok")
    return session


def _closed() -> Session:
    session = _running()
    session.do(Close())
    return session


def _lost(failure: BaseException) -> Session:
    session = _running()
    session.do(AppendFailed(step("x"), failure))
    return session


WAYS: dict[State, list[Callable[[], Session]]] = {
    State.NEW: [lambda: Session([]), lambda: Session(journal(start(), suspend("ok")))],
    State.OPENING: [
        lambda: _begun([], Start(writer="me")),
        lambda: _begun(journal(start()), Start(writer="me")),
        lambda: _begun(journal(start(), suspend("ok")), Resume("ok", 1, writer="me")),
        lambda: _begun(journal(start(), suspend("ok", timeout=SOON)), Start(writer="me"), 60),
    ],
    State.RELOADING: [_reloading, _reloading_past_a_deadline, _reloading_to_deliver],
    State.DELIVERING: [_delivering],
    State.CANCELLING: [_cancelling],
    State.ACTIVE: [opened, _running, _delivered, _in_function],
    State.SUSPENDING: [
        lambda: _suspending(running=True),
        lambda: _suspending(appending=True),
        lambda: _suspending(block=True),
        lambda: _suspending(block=True, running=True),
        lambda: _in_function(suspended=True),
        lambda: _in_function(suspended=True, running=True),
    ],
    State.CLOSING: [_closing, lambda: _closing(appending=True)],
    State.SUSPENDED: [_suspended],
    State.CLOSED: [_closed],
    State.LOST: [lambda: _lost(StorageError("io")), lambda: _lost(FencedError(1, 2))],
}

ROLLED_BACK = StorageError("full", rolled_back=True)
COMMANDS: list[Command] = [
    Start(writer="me"),
    Start({"a": float("nan")}),
    Resume("ok", 1, writer="me"),
    Resume("other", 1),
    Appended(OWN, 2),
    Appended(OWN, 0),
    Appended(step("llm", 1), 1),
    Appended(complete(), 2),
    Appended(resume("ok", 1), 3),
    Appended(cancel(2), 3),
    Appended(suspend("ok"), 1),
    AppendFailed(OWN, StorageError("io")),
    AppendFailed(step("llm", 1), ROLLED_BACK),
    AppendFailed(step("llm", 1), StorageError("io")),
    AppendFailed(complete(), ROLLED_BACK),
    AppendFailed(suspend("ok"), FencedError(1, 2)),
    Loaded(journal(start(), OWN)),
    Loaded(journal(start(), step("x"), OWN)),
    Loaded(journal(start(), suspend("ok"), OWN)),
    Loaded(journal(start(), suspend("ok", timeout=SOON), OWN)),
    Loaded(journal(start(), suspend("ok", timeout="2027-01-01T00:00:00.000Z"), OWN)),
    Loaded(journal(start(), complete(), OWN)),
    Loaded(journal(start(), OWN, start(3))),
    LoadFailed(StorageError("gone")),
    Record("llm"),
    Record("llm", ("x",)),
    Record("other", ("y",)),
    Record("a#b"),
    StepSucceeded("llm", 1),
    StepSucceeded("y:llm", 1),
    StepSucceeded("llm", {1, 2}),
    StepSucceeded("unknown", 1),
    StepFailed("llm"),
    StepFailed("y:llm"),
    WaitForEvent("ok"),
    WaitForEvent("new", path=("y",)),
    WaitForEvent("new", -1),
    WaitForEvent("third", caller="another"),
    WaitForEvent("", caller="another"),
    Record("third", caller="another"),
    Record("third", caller="told"),
    EnterParallel(("third",), caller="another"),
    EnterFunction(),
    LeaveFunction(),
    WaitForEvent(""),
    EnterParallel(("x", "z"), ("y",)),
    EnterParallel(("a:b",)),
    LeaveParallel(("x", "y")),
    LeaveParallel(("x", "y"), abandoned=True),
    Complete(),
    Fail("boom"),
    Close(),
]


def _told(state: State) -> list[Command]:
    """Give the commands; a driver reports entries that it was given to append, and no others."""
    asked = {
        State.OPENING: "start",
        State.DELIVERING: "resume",
        State.CANCELLING: "cancel",
        State.SUSPENDED: "suspend",
    }
    return [
        command
        for command in COMMANDS
        if not isinstance(command, Appended)
        or asked.get(state, command.entry.type) == command.entry.type
    ]


def _outcomes() -> Iterator[tuple[State, Command, bool, State]]:
    """Drive every machine with every command: (state, command, handled, state then)."""
    for state, ways in WAYS.items():
        for way, command in product(ways, _told(state)):
            session = way()
            machine = session.machine
            assert machine.state is state
            before = snapshot(machine)
            try:
                session.tell(command)
            except KassetteError as error:
                refusal: KassetteError | None = error
            else:
                refusal = None
            if refusal is not None:
                assert refusal.run_id == "run-1"
                assert snapshot(machine) == before, f"{command} was refused and left a trace"
            yield state, command, refusal is None, machine.state


def test_every_pair_is_in_the_table_or_refused_without_a_trace() -> None:
    """A command out of place would be half-performed, or lead where the table does not say."""
    for state, command, handled, then in _outcomes():
        row = TRANSITIONS[state]
        if handled:
            assert type(command) in row, f"{command} was handled in {state}"
            assert then in row[type(command)], f"{command} led from {state} to {then}"


def test_every_cell_of_the_table_is_reached() -> None:
    """The table would promise transitions that cannot happen; the diagram drawn from it would lie."""
    promised = {
        (state, command, then)
        for state, row in TRANSITIONS.items()
        for command, states in row.items()
        for then in states
    }
    reached = {
        (state, type(command), then) for state, command, handled, then in _outcomes() if handled
    }
    assert reached == promised


def test_every_command_has_been_tried_in_every_state() -> None:
    """This property would hold for want of trying."""
    assert set(WAYS) == set(State) == set(TRANSITIONS)
    used = {type(command) for command in COMMANDS}
    assert used == {command for row in TRANSITIONS.values() for command in row}


def test_terminal_rows_lead_nowhere_but_from_suspended_to_lost() -> None:
    """A session that has ended would come back to life."""
    assert {State.SUSPENDED, State.CLOSED, State.LOST} == ENDED
    ways_out = {
        (state, then)
        for state in ENDED
        for states in TRANSITIONS[state].values()
        for then in states
        if then is not state
    }
    assert ways_out == {(State.SUSPENDED, State.LOST)}


def test_ended_agrees_with_the_table() -> None:
    """A driver would ask a session that has ended to do more, or leave one open."""
    for state, ways in WAYS.items():
        for way in ways:
            assert way().machine.ended is (state in ENDED)


def test_a_session_can_be_closed_in_every_state() -> None:
    """`async with` would raise at its end, or leave a session open."""
    assert [state for state, row in TRANSITIONS.items() if Close not in row] == []


def test_reports_that_come_late_have_a_place() -> None:
    """What was under way when a session ended would end in an error nobody can act on."""
    late = {StepFailed, Appended, AppendFailed, LeaveParallel}
    assert late < set(TRANSITIONS[State.CLOSING])
    assert late < set(TRANSITIONS[State.CLOSED])
    assert late < set(TRANSITIONS[State.LOST])
    assert {Loaded, LoadFailed} < set(TRANSITIONS[State.CLOSED])
    assert {Appended, AppendFailed} < set(TRANSITIONS[State.SUSPENDED])


def test_states_are_called_what_they_are() -> None:
    """A report of a bug, or a drawing of the table, would name another state."""
    assert [state.value for state in State] == [state.name.lower() for state in State]


def test_the_table_cannot_be_changed() -> None:
    """One import could change the rules for everybody."""
    with pytest.raises(TypeError):
        TRANSITIONS[State.NEW] = {}  # type: ignore[index]


def test_a_handler_that_leaves_the_table_is_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in a handler would corrupt a session instead of being reported."""
    from kassette import InternalError, machine

    session = opened()
    handlers = {**machine.Machine._HANDLERS, Record: machine.Machine._end}
    monkeypatch.setattr(machine.Machine, "_HANDLERS", handlers)
    before = snapshot(session.machine)
    with pytest.raises(InternalError, match="must not lead from 'active' to 'closing'"):
        session.tell(Record("llm"))
    assert snapshot(session.machine) == before


def test_entries_stand_before_the_effects_they_justify() -> None:
    """Somebody would be told of something that is not durable."""
    for state, ways in WAYS.items():
        for way, command in product(ways, _told(state)):
            session = way()
            with suppress(KassetteError):
                effects = session.tell(command)
                kinds = [isinstance(effect, Append) for effect in effects]
                assert kinds == sorted(kinds, reverse=True), (state, command, effects)
