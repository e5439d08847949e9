"""Opening after a crash or a failed append at each point on the way in, and taking up a fork."""

from __future__ import annotations

import pytest

from kassette import (
    Append,
    Appended,
    AppendFailed,
    Entry,
    EventPendingError,
    Machine,
    Release,
    Resume,
    RunCancelledError,
    Start,
    State,
    StorageError,
    TerminalRunError,
    UsageError,
    plan_fork,
)

from .driving import (
    NOW,
    RUN,
    Session,
    complete,
    journal,
    later,
    opened,
    resume,
    resumed,
    start,
    step,
    suspend,
    types,
)

SOON = "2026-01-31T12:00:10.000Z"


def test_resume_after_a_crash_behind_its_start_delivers() -> None:
    """A crash between ``start`` and ``resume`` would lose the event: the run is still suspended."""
    stored = journal(start(), step("llm", 1), suspend("ok"))
    session = Session(stored)
    (append,) = session.tell(Resume("ok", "yes", writer="w2"))
    assert isinstance(append, Append)
    stored.append(append.entry.at(3))  # and here the process dies
    with pytest.raises(EventPendingError):
        opened(stored)
    again = resumed(stored, "ok", "yes")
    assert types(stored)[3:] == ["start", "start", "resume"]
    assert [entry.session for entry in stored] == [1, 1, 1, 2, 3, 3]
    assert again.wait("ok") == "yes"


def test_resume_after_a_crash_behind_its_resume_replays() -> None:
    """A crash after the payload landed would deliver it twice, or refuse to go on."""
    stored = journal(start(), suspend("ok"))
    resumed(stored, "ok", "yes")
    assert opened(list(stored)).wait("ok") == "yes"
    again = resumed(stored, "ok", "no")
    assert types(stored) == ["start", "suspend", "start", "resume", "start"]
    assert again.wait("ok") == "yes"


def test_cancel_after_a_crash_behind_its_start_cancels() -> None:
    """A crash between ``start`` and ``cancel`` would leave the deadline forgotten."""
    stored = journal(start(), suspend("ok", timeout=SOON), start(2))
    with pytest.raises(RunCancelledError):
        opened(stored, now=later(60))
    assert types(stored)[3:] == ["start", "cancel"]
    with pytest.raises(TerminalRunError):
        opened(stored, now=later(60))


@pytest.mark.parametrize("rolled_back", [True, False])
@pytest.mark.parametrize(
    ("stored", "command", "seconds", "fails", "releases"),
    [
        ([], Start(), 0, 0, 0),
        (journal(start(), suspend("ok")), Resume("ok", 1), 0, 1, 1),
        (journal(start(), suspend("ok", timeout=SOON)), Start(), 60, 1, 1),
    ],
    ids=["start", "resume", "cancel"],
)
def test_an_append_that_fails_while_opening_loses_the_session(
    stored: list[Entry],
    command: Start | Resume,
    seconds: float,
    fails: int,
    releases: int,
    rolled_back: bool,
) -> None:
    """A session would open on an entry that is not durable, or release what it never held."""
    session = Session(list(stored), now=later(seconds))
    (append,) = session.tell(command)
    assert isinstance(append, Append)
    entry = append.entry
    for _ in range(fails):
        (following,) = session.tell(Appended(entry, len(stored)))
        assert isinstance(following, Append)
        entry = following.entry
    failure = StorageError("disk full", rolled_back=rolled_back)
    assert session.tell(AppendFailed(entry, failure)) == [Release()] * releases
    assert session.state() is State.LOST
    assert session.machine.lost_to is failure


def test_a_fork_opens_and_replays_what_was_copied() -> None:
    """A fork would start over, or lose its input."""
    source = journal(start(metadata="in"), step("a", 1), suspend("ok"), start(2), resume("ok", 2))
    stored = plan_fork("src", source, from_offset=5, now=NOW, version="v9")
    machine = Machine.opened("fork", stored)
    assert (machine.state, machine.session, machine.metadata) == (State.ACTIVE, 2, "in")
    session = opened(list(stored))
    assert session.step("a") == 1
    assert session.wait("ok") == 2
    assert session.ran == []


def test_opened_refuses_what_cannot_be_taken_up() -> None:
    """A finished, empty or suspended journal would be continued behind the rules' back."""
    with pytest.raises(TerminalRunError) as over:
        Machine.opened(RUN, journal(start(), complete()))
    with pytest.raises(UsageError, match="empty journal") as empty:
        Machine.opened(RUN, [])
    with pytest.raises(EventPendingError) as pending:
        Machine.opened(RUN, journal(start(), suspend("ok")))
    assert {each.value.run_id for each in (over, empty, pending)} == {RUN}
    assert pending.value.waiting_for == "ok"
