"""D4: a session is opened optimistically, and what was written in between is read again."""

from __future__ import annotations

import pytest

from kassette import (
    Append,
    Appended,
    Close,
    Entry,
    EventPendingError,
    FencedError,
    InternalError,
    KassetteError,
    Loaded,
    LoadFailed,
    MetadataMismatchError,
    Opened,
    Raise,
    Record,
    Release,
    Reload,
    Resume,
    RunCancelledError,
    SessionClosedError,
    Start,
    State,
    StorageError,
    TerminalRunError,
    UsageError,
    VersionMismatchError,
)

from .driving import (
    NOW,
    Session,
    complete,
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

SOON = "2026-01-31T12:00:10.000Z"


def _late(
    stored: list[Entry], *written: Entry, command: Start | Resume | None = None, seconds: float = 0
) -> Session:
    """Read ``stored``, let somebody write, append the own ``start``: the machine asks to reload."""
    session = Session(list(stored), now=later(seconds))
    (append,) = session.tell(command or Start(writer="me"))
    assert isinstance(append, Append)
    session.stored[:] = journal(*stored, *written, append.entry)
    offset = len(session.stored) - 1
    assert session.tell(Appended(append.entry, offset)) == [Reload()]
    assert session.state() is State.RELOADING
    return session


def test_d4_an_equal_offset_needs_no_second_read() -> None:
    """Opening would read twice for nothing."""
    session = opened(journal(start(), step("llm", 1)))
    assert Reload() not in session.performed


def test_an_old_sessions_late_write_is_replayed_not_done_again() -> None:
    """The race of D4: a paid-for step would be done a second time."""
    stored = journal(start(writer="old"))
    old = Session([])
    old.do(Start(writer="old"))
    new = Session(stored)
    old.stored = stored
    old.step("llm", "paid for")
    new.do(Start(writer="new"))
    assert Reload() in new.performed
    assert new.step("llm", "again") == "paid for"
    assert new.ran == []
    with pytest.raises(FencedError) as caught:
        old.step("next")
    assert (caught.value.rejected_session, caught.value.active_session) == (1, 2)
    assert old.machine.state is State.LOST


def test_d4_metadata_and_version_of_the_true_first_start_win() -> None:
    """Two starters of a new run: the later one would go on with an input nobody recorded."""
    session = Session([])
    (append,) = session.tell(Start("mine", None, "me"))
    assert isinstance(append, Append)
    session.stored[:] = journal(start(0, metadata="theirs"), append.entry)
    with pytest.raises(MetadataMismatchError) as caught:
        session.perform(session.tell(Appended(append.entry, 1)))
    assert (caught.value.stored_metadata, caught.value.provided_metadata) == ("theirs", "mine")
    assert (session.machine.state, session.released) == (State.CLOSED, 1)


def test_d4_the_metadata_found_by_the_reload_is_the_runs() -> None:
    """A starter without an input would not see the one that the run began with."""
    session = _late([], start(0, metadata={"a": 1}))
    session.do(Loaded(session.stored))
    assert session.machine.metadata == {"a": 1}


def test_d4_the_own_metadata_stays_when_it_is_the_first() -> None:
    """The input of a run would be forgotten by the very session that wrote it."""
    session = Session([])
    (append,) = session.tell(Start("mine", None, "me"))
    assert isinstance(append, Append)
    own = append.entry
    session.tell(Appended(own, 1))  # a storage that counts from 1
    assert session.tell(Loaded([own.at(0)])) == [Opened(1)]
    assert session.machine.metadata == "mine"


def test_d4_a_newer_session_found_by_the_reload_fences() -> None:
    """Two sessions would be live at once."""
    session = _late(journal(start()), step("llm"))
    session.stored.append(start(3).at(3))
    with pytest.raises(FencedError) as caught:
        session.do(Loaded(session.stored))
    assert (caught.value.rejected_session, caught.value.active_session) == (2, 3)
    assert (session.machine.state, session.released) == (State.LOST, 1)
    with pytest.raises(FencedError) as again:
        session.do(Record("llm"))
    assert again.value.active_session == 3


def test_d4_an_own_start_that_is_gone_fences() -> None:
    """A session would go on although its ``start`` is not in the journal."""
    session = _late(journal(start()), step("llm"))
    with pytest.raises(FencedError):
        session.do(Loaded(session.stored[:-1]))
    assert session.state() is State.LOST


@pytest.mark.parametrize("theirs", ["other", None])
def test_d4_of_two_starters_with_equal_numbers_the_later_start_loses(theirs: str | None) -> None:
    """With a storage that fences by number alone, both would be live: neither is the newer one."""
    session = _late(journal(start()), start(2, writer=theirs))
    with pytest.raises(FencedError) as caught:
        session.do(Loaded(session.stored))
    assert (caught.value.rejected_session, caught.value.active_session) == (2, 2)
    assert session.state() is State.LOST


def test_d4_of_two_starters_with_equal_numbers_the_earlier_start_wins() -> None:
    """Both starters would stop, and nobody go on."""
    session = _late(journal(start()), step("llm", 1))
    session.stored.append(start(2, writer="other").at(3))
    session.do(Loaded(session.stored))
    assert session.state() is State.ACTIVE
    assert session.step("llm") == 1


def test_d4_only_what_stands_before_the_own_start_is_replayed() -> None:
    """What a stale writer slipped in behind our ``start`` would be taken for frozen."""
    session = _late(journal(start()), step("a", 1))
    session.stored.append(step("b", "stale").at(3))
    session.do(Loaded(session.stored))
    assert session.step("a") == 1
    assert session.step("b", "ours") == "ours"


@pytest.mark.parametrize(
    ("written", "command", "kind"),
    [
        (complete(), Start(writer="me"), TerminalRunError),
        (start(1, version="v1"), Start(version="v2", writer="me"), VersionMismatchError),
        (suspend("ok"), Start(writer="me"), EventPendingError),
        (step("llm"), Resume("ok", 1, writer="me"), None),
    ],
)
def test_d4_the_reload_takes_every_step_of_the_order_again(
    written: Entry, command: Start | Resume, kind: type[KassetteError] | None
) -> None:
    """A run that ended, changed version or suspended meanwhile would be run all the same."""
    before = journal(start(), suspend("ok")) if isinstance(command, Resume) else journal(start())
    session = _late(before, written, command=command)
    if kind is None:
        session.do(Loaded(session.stored))
        assert session.state() is State.ACTIVE
        return
    effects = session.tell(Loaded(session.stored))
    match effects:
        case [Release(), Raise(error=error)]:
            assert type(error) is kind
            assert error.run_id == "run-1"
        case _:
            raise AssertionError(effects)
    assert session.state() is State.CLOSED
    with pytest.raises(SessionClosedError):
        session.do(Record("llm"))


def test_d4_resume_of_an_event_that_a_forked_read_never_showed_refuses() -> None:
    """A journal that was replaced under the reader would be given an event without a place."""
    session = _late(
        journal(start(), suspend("ok")), step("x"), command=Resume("ok", 1, writer="me")
    )
    with pytest.raises(UsageError, match="is not waiting for an event"):
        session.do(Loaded([start().at(0), session.stored[-1]]))
    assert session.state() is State.CLOSED
    assert session.released == 1


def test_d4_a_deadline_found_by_the_reload_cancels() -> None:
    """A suspension that expired before it was read would be left pending."""
    session = _late(journal(start()), suspend("ok", timeout=SOON), seconds=60)
    with pytest.raises(RunCancelledError):
        session.do(Loaded(session.stored))
    assert types(session.stored) == ["start", "suspend", "start", "cancel"]
    assert (session.machine.state, session.released) == (State.CLOSED, 1)


def test_d4_a_deadline_that_the_reload_shows_as_met_does_not_cancel() -> None:
    """Journal authority: a run would be cancelled although its event had arrived in time."""
    before = journal(start(), suspend("ok", timeout=SOON))
    session = _late(before, start(2, writer="x"), resume("ok", "in time"), seconds=60)
    session.machine = Session(journal(*before, start(2, writer="x")), now=later(60)).machine
    (append,) = session.tell(Start(writer="me"))
    assert isinstance(append, Append)
    session.stored[-1] = append.entry.at(4)
    session.do(Appended(append.entry, 4))
    assert session.state() is State.ACTIVE
    assert session.wait("ok") == "in time"


def test_of_two_racing_resumes_the_journaled_value_wins() -> None:
    """The second delivery would overwrite the first, or write the event twice."""
    stored = journal(start(), suspend("ok"))
    loser = Session(stored)
    winner = Session(stored)
    loser.machine = Session(journal(*stored, start(2, writer="w2"))).machine  # read a little later
    winner.do(Resume("ok", "first", writer="w2"))
    loser.do(Resume("ok", "second", writer="w3"))
    assert Reload() in loser.performed
    assert types(stored) == ["start", "suspend", "start", "resume", "start"]
    assert loser.wait("ok") == "first"


def test_d4_two_resumes_with_equal_numbers_one_is_fenced_by_storage() -> None:
    """Both deliveries would be journaled."""
    stored = journal(start(), suspend("ok"))
    one, other = Session(stored), Session(stored)
    one.do(Resume("ok", 1, writer="a"))
    with pytest.raises(FencedError):
        other.do(Resume("ok", 2, writer="b"))
    assert types(stored).count("resume") == 1
    assert (other.machine.state, other.released) == (State.LOST, 0)


def test_d4_a_journal_that_cannot_be_read_again_loses_the_session() -> None:
    """The workflow would run on a state that nobody checked."""
    session = _late(journal(start()), step("llm"))
    failure = StorageError("gone")
    assert session.tell(LoadFailed(failure)) == [Release()]
    assert (session.machine.state, session.machine.lost_to) == (State.LOST, failure)


@pytest.mark.parametrize("report", [Loaded(journal(start())), LoadFailed(StorageError("gone"))])
def test_a_late_read_after_close_is_a_late_report_and_changes_nothing(
    report: Loaded | LoadFailed,
) -> None:
    """A session closed while it read again would answer the read with "please report a bug"."""
    session = _late(journal(start()), step("llm"))
    assert session.do(Close()) == [Release()]
    before = snapshot(session.machine)
    assert session.do(report) == []
    assert snapshot(session.machine) == before


def test_a_read_that_nobody_asked_for_is_a_bug_of_the_driver() -> None:
    """A driver that reports what was not asked would go unnoticed."""
    session = opened()
    for report in (Loaded([]), LoadFailed(StorageError("gone"))):
        with pytest.raises(InternalError):
            session.do(report)
    assert session.state() is State.ACTIVE


def test_d4_recovery_by_resume_replays_before_it_goes_on() -> None:
    """An event delivered to a fresh process would find none of the recorded steps."""
    stored = journal(start(), step("llm", 1), suspend("ok"))
    session = resumed(stored, "ok", 2)
    assert (session.step("llm"), session.wait("ok"), session.step("next", 3)) == (1, 2, 3)
    assert session.ran == ["next"]
    assert session.machine.handle(Close(), now=NOW) == [Release()]


def test_d4_a_start_that_lands_before_what_was_read_loses_the_session() -> None:
    """A journal that was deleted while it was opened would quietly be begun anew."""
    session = Session(journal(start(), step("llm", 1)))
    (append,) = session.tell(Start(writer="me"))
    assert isinstance(append, Append)
    effects = session.tell(Appended(append.entry, 0))
    assert isinstance(effects[1], Raise)
    assert effects[0] == Release()
    assert isinstance(effects[1].error, StorageError)
    assert effects[1].error.run_id == "run-1"
    assert (session.machine.state, session.machine.lost_to) == (State.LOST, effects[1].error)
