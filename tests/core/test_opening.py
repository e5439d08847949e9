"""Opening a session: every step of the validation order, their precedence, metadata and versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kassette import (
    Append,
    Appended,
    Entry,
    EventPendingError,
    KassetteError,
    Machine,
    MetadataMismatchError,
    Opened,
    Resume,
    RunCancelledError,
    Start,
    StartEntry,
    State,
    SuspendedRun,
    SuspendError,
    TerminalRunError,
    UsageError,
    VersionMismatchError,
    decode_line,
    encode_entry,
    run_status,
)

from .driving import (
    STAMP,
    Session,
    cancel,
    complete,
    error,
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
Opener = Callable[..., Session]


def _by_start(stored: list[Entry], **fields: Any) -> Session:
    return opened(stored, **fields)


def _by_resume(stored: list[Entry], **fields: Any) -> Session:
    return resumed(stored, "ok", True, **fields)


both = pytest.mark.parametrize("opener", [_by_start, _by_resume])


# --- a new run -------------------------------------------------------------------------------


def test_opening_a_new_run_writes_one_start_and_opens_once_it_is_durable() -> None:
    """The workflow would run before its ``start`` is in the journal."""
    session = Session([])
    effects = session.tell(Start({"ticket": 7}, "v1", "token"))
    entry = StartEntry(
        session=1,
        timestamp=STAMP,
        version="v1",
        writer="token",
        metadata_json=b'{"ticket":7}',
        extra_json=b'{"opened":"start"}',
    )
    assert effects == [Append(entry)]
    assert session.state() is State.OPENING
    assert session.tell(Appended(entry, 0)) == [Opened(1)]
    assert session.state() is State.ACTIVE
    assert session.machine.metadata == {"ticket": 7}


def test_opening_writes_version_and_metadata_only_where_given() -> None:
    """A run without a version would be checked against one that nobody gave."""
    session = opened()
    (entry,) = session.stored
    assert isinstance(entry, StartEntry)
    assert (entry.version, entry.metadata_json, entry.source) == (None, None, None)
    assert session.machine.metadata is None


@pytest.mark.parametrize("metadata", [None, 0, False, "", [], {}])
def test_opening_stores_falsy_metadata_as_a_value(metadata: object) -> None:
    """An input of 0 or None would be taken for no input."""
    session = opened(metadata=metadata)
    assert session.machine.metadata == metadata
    again = opened(session.stored, metadata=metadata)
    assert again.machine.metadata == metadata
    with pytest.raises(MetadataMismatchError):
        opened(session.stored, metadata="another")


def test_opening_unwritable_metadata_refuses_and_writes_nothing() -> None:
    """A run would begin with an input that its recovery cannot read."""
    session = Session([])
    with pytest.raises(UsageError, match="the metadata"):
        session.do(Start(float("nan")))
    assert session.stored == []
    assert session.state() is State.NEW


@pytest.mark.parametrize("version", ["", 3, "\ud800"])
def test_opening_refuses_a_version_that_cannot_be_journaled(version: Any) -> None:
    """A bad version would be found out by the encoder, half-way through an append."""
    for command in (Start(version=version), Resume("ok", 1, version=version)):
        session = Session(journal(start(), suspend("ok")))
        before = snapshot(session.machine)
        with pytest.raises(UsageError, match="a version"):
            session.do(command)
        assert snapshot(session.machine) == before


# --- step by step ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("ending", "state"), [(complete(), "complete"), (error(), "error"), (cancel(), "cancel")]
)
def test_opening_step_1_a_terminal_run_refuses(opener: Opener, ending: Entry, state: str) -> None:
    """A run that is over would be run again."""
    stored = journal(start(), step("llm"), ending)
    with pytest.raises(TerminalRunError) as caught:
        opener(stored)
    assert caught.value.terminal_state == state
    assert len(stored) == 3


def test_opening_step_1_the_first_terminal_entry_decides_wherever_it_stands() -> None:
    """A stale writer behind the end would bring a finished run back to life, or end it otherwise."""
    for behind in (start(2), step("late"), error()):
        stored = journal(start(), complete(), behind)
        with pytest.raises(TerminalRunError) as caught:
            opened(stored)
        assert caught.value.terminal_state == "complete"
        assert len(stored) == 3


@both
def test_opening_step_2_version_mismatch_refuses(opener: Opener) -> None:
    """Code of another shape would replay a journal that it cannot match."""
    stored = journal(start(version="v1"), suspend("ok"))
    with pytest.raises(VersionMismatchError) as caught:
        opener(stored, version="v2")
    assert (caught.value.stored_version, caught.value.current_version) == ("v1", "v2")
    assert len(stored) == 2


def test_opening_step_2_the_first_start_with_a_version_decides() -> None:
    """A later session's version would be compared, or a versionless first start would match all."""
    stored = journal(start(), start(2, version="v1"), start(3, version="v2"))
    with pytest.raises(VersionMismatchError) as caught:
        opened(stored, version="v2")
    assert caught.value.stored_version == "v1"
    assert opened(stored, version="v1").machine.state is State.ACTIVE


def test_opening_step_2_no_version_on_either_side_is_no_mismatch() -> None:
    """A caller without a version could not recover a run that has one, or the other way round."""
    assert opened(journal(start(version="v1"))).machine.state is State.ACTIVE
    assert opened(journal(start()), version="v1").machine.state is State.ACTIVE


@both
@pytest.mark.parametrize("seconds", [10, 11])
def test_opening_step_3_a_passed_deadline_cancels(opener: Opener, seconds: float) -> None:
    """A run would wait for ever, or go on after its deadline. The deadline itself has passed."""
    stored = journal(start(), suspend("ok", timeout=SOON))
    session = Session(stored, now=later(seconds))
    command = Start() if opener is _by_start else Resume("ok", True)
    with pytest.raises(RunCancelledError) as caught:
        session.do(command)
    assert caught.value.reason == "suspend_timeout_expired"
    assert types(stored) == ["start", "suspend", "start", "cancel"]
    assert stored[3] == cancel(2).at(3).replace(timestamp=stored[3].timestamp)
    assert session.state() is State.CLOSED
    assert session.released == 1


@both
def test_opening_step_3_a_deadline_to_come_does_not_cancel(opener: Opener) -> None:
    """A run would be cancelled a millisecond early."""
    stored = journal(start(), suspend("ok", timeout=SOON))
    session = Session(stored, now=later(9.999))
    if opener is _by_start:
        with pytest.raises(EventPendingError):
            session.do(Start())
        assert len(stored) == 2
    else:
        session.do(Resume("ok", True))
        assert types(stored)[2:] == ["start", "resume"]


def test_opening_step_3_first_deadline_is_kept() -> None:
    """A wait reached again in a later session would push its deadline out for ever (D7)."""
    stored = journal(
        start(),
        suspend("ok", timeout=SOON),
        suspend("other"),
        start(2),
        resume("other", 1),
        suspend("ok", session=2, timeout="2027-01-01T00:00:00.000Z"),
    )
    with pytest.raises(RunCancelledError):
        opened(stored, now=later(10))


def test_opening_step_3_any_open_event_may_expire() -> None:
    """Of several open events only the last one's deadline would count."""
    stored = journal(start(), suspend("a", timeout=SOON), suspend("b"))
    with pytest.raises(RunCancelledError):
        opened(stored, now=later(10))


@pytest.mark.parametrize("crashed", ["between two waits", "between two answers"])
def test_opening_step_3_an_answer_that_is_late_cancels(crashed: str) -> None:
    """An approval would be taken after its deadline, since the run happens to have crashed."""
    stored = journal(start(), suspend("a", timeout=SOON, more=True))
    if crashed == "between two answers":
        stored = journal(*stored, suspend("b"), start(2), resume("b", 1, session=2))
    late = list(stored)
    with pytest.raises(RunCancelledError):
        Session(late, now=later(10)).do(Resume("a", True))
    assert types(late)[-2:] == ["start", "cancel"]
    in_time = list(stored)
    Session(in_time, now=later(9.999)).do(Resume("a", True))
    assert types(in_time)[-2:] == ["start", "resume"]
    again = [*in_time]
    Session(again, now=later(10)).do(Resume("a", True))
    assert types(again)[-1] == "start"
    assert opened(list(stored), now=later(10)).machine.state is State.ACTIVE


def test_opening_step_3_a_delivered_event_cannot_expire() -> None:
    """Journal authority: a recorded payload would expire."""
    stored = journal(start(), suspend("a", timeout=SOON), start(2), resume("a", 1))
    session = opened(stored, now=later(100))
    assert session.wait("a") == 1
    stored = journal(*stored, suspend("b", session=3))
    with pytest.raises(EventPendingError):
        opened(stored, now=later(100))


def test_opening_step_3_reads_offsets_and_other_precisions() -> None:
    """A deadline written by another implementation would be misread."""
    for deadline in ("2026-01-31T13:00:10+01:00", "2026-01-31T12:00:10Z", "2026-01-31T12:00:10"):
        stored = journal(start(), suspend("ok", timeout=deadline))
        with pytest.raises(EventPendingError):
            opened(list(stored), now=later(9))
        with pytest.raises(RunCancelledError):
            opened(list(stored), now=later(10))


@pytest.mark.parametrize(
    "deadline",
    ["+275760-09-13T00:00:00.000Z", "2026-032", "2026-02-01T24:00:00Z", "2026-W06", "soon", ""],
)
def test_r9_a_deadline_in_a_form_of_its_own_does_not_damage_the_journal(deadline: str) -> None:
    """A run whose deadline another program wrote could not even be looked at, or be cancelled for
    a deadline that nobody can read.
    """
    line = encode_entry(suspend("ok", timeout=deadline), 1)
    stored = [*journal(start()), decode_line(line[:-1], 1)]
    assert encode_entry(stored[1], 1) == line
    assert run_status(stored) == SuspendedRun(waiting_for="ok", timeout=deadline)
    with pytest.raises(EventPendingError):
        opened(list(stored))
    again = resumed(list(stored), "ok", 1)
    assert again.wait("ok") == 1
    assert again.machine.state is State.ACTIVE


def test_r9_a_wait_reached_again_keeps_a_deadline_that_nobody_can_read() -> None:
    """The text that says what was meant would be lost with the next crash."""
    stored = journal(start(), suspend("a", timeout="soon"), suspend("b"), start(2), resume("b", 1))
    session = opened(stored)
    with pytest.raises(SuspendError):
        session.wait("a", timeout=5)
    assert stored[-1].timeout == "soon"  # type: ignore[union-attr]


def test_opening_step_4_start_on_a_suspended_run_refuses() -> None:
    """``start`` would run into the wait again and write the same suspension for ever."""
    stored = journal(start(), step("llm"), suspend("a"), suspend("b"), start(2))
    with pytest.raises(EventPendingError) as caught:
        opened(stored)
    assert caught.value.waiting_for == "b"
    assert len(stored) == 5


@pytest.mark.parametrize(
    ("stored", "provided", "equal"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        (1, 1.0, True),
        ((1, 2), [1, 2], True),
        (True, 1, False),
        ({"a": [True]}, {"a": [1]}, False),
        (None, {}, False),
        ([1], [1, 2], False),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_opening_step_4_metadata_is_compared_as_json(
    stored: object, provided: object, equal: bool
) -> None:
    """Recovery would be refused for the same input, or accepted for another."""
    entries = opened(metadata=stored).stored
    if equal:
        assert opened(entries, metadata=provided).machine.state is State.ACTIVE
    else:
        with pytest.raises(MetadataMismatchError) as caught:
            opened(entries, metadata=provided)
        assert caught.value.stored_metadata == Session(entries).machine.metadata
        assert caught.value.provided_metadata == provided
        assert len(entries) == 1


def test_opening_step_4_metadata_where_the_journal_has_none_refuses() -> None:
    """A run begun without an input would be recovered with one that its steps never saw."""
    with pytest.raises(MetadataMismatchError) as caught:
        opened(journal(start()), metadata=None)
    assert caught.value.stored_metadata is None


def test_opening_step_4_metadata_left_out_takes_the_journaled_one() -> None:
    """Recovery without the input would lose it; and it would be written a second time."""
    stored = journal(start(metadata={"a": 1}), start(2, metadata="not the first"))
    session = opened(stored)
    assert session.machine.metadata == {"a": 1}
    assert isinstance(stored[-1], StartEntry)
    assert stored[-1].metadata_json is None


def test_metadata_cannot_be_changed_through_what_is_handed_out() -> None:
    """Two sessions or two readers would share one object."""
    session = opened(metadata={"a": []})
    session.machine.metadata["a"].append(1)
    assert session.machine.metadata == {"a": []}


def test_opening_step_4_resume_of_an_unknown_run_refuses() -> None:
    """A mistyped run id would begin a new run."""
    session = Session([])
    with pytest.raises(UsageError, match="no run 'run-1'"):
        session.do(Resume("ok", 1))
    assert session.stored == []


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (journal(start(), step("llm")), "is not waiting for an event"),
        (journal(start(), suspend("a"), suspend("b")), "is waiting for 'a', 'b'"),
        (
            journal(start(), suspend("a"), start(2), resume("a", 1), suspend("b")),
            "is waiting for 'b'",
        ),
    ],
)
def test_opening_step_4_resume_of_an_event_without_a_place_refuses(
    stored: list[Entry], said: str
) -> None:
    """An event would be journaled that nobody waits for."""
    before = len(stored)
    with pytest.raises(UsageError, match=said):
        resumed(stored, "ok", 1)
    assert len(stored) == before


@pytest.mark.parametrize("event", ["", 5, None, "\udfff"])
def test_opening_refuses_a_bad_event_name(event: Any) -> None:
    """A bad event name would be found out by the encoder."""
    with pytest.raises(UsageError, match="an event name"):
        resumed(journal(start(), suspend("ok")), event, 1)


@pytest.mark.parametrize("event", ["a", "b"])
def test_d7_resume_accepts_any_open_event(event: str) -> None:
    """Of several open events only the last one could be delivered."""
    stored = journal(start(), suspend("a"), suspend("b"))
    session = resumed(stored, event, "x")
    assert types(stored)[3:] == ["start", "resume"]
    assert session.wait(event) == "x"


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}])
def test_opening_step_6_falsy_payloads_are_values(value: object) -> None:
    """An approval of None would read as no approval."""
    stored = journal(start(), suspend("ok"))
    assert resumed(stored, "ok", value).wait("ok") == value
    assert resumed(stored, "ok", "another").wait("ok") == value
    assert types(stored).count("resume") == 1


def test_opening_step_6_an_unwritable_payload_refuses_before_anything_is_written() -> None:
    """A ``start`` would be left behind by an event that never arrives."""
    stored = journal(start(), suspend("ok"))
    with pytest.raises(UsageError, match="the value of event 'ok'"):
        resumed(stored, "ok", {"x": {1, 2}})
    assert len(stored) == 2


def test_opening_step_6_a_journaled_payload_wins_and_is_not_written_twice() -> None:
    """A retried delivery would change a settled value; the new one is not even looked at."""
    stored = journal(start(), suspend("ok"), start(2), resume("ok", "first"))
    session = resumed(stored, "ok", float("nan"))
    assert types(stored)[4:] == ["start"]
    assert session.wait("ok") == "first"


def test_of_two_journaled_payloads_the_first_wins() -> None:
    """Journal authority: a later duplicate would change a settled value."""
    stored = journal(start(), suspend("ok"), start(2), resume("ok", 1), resume("ok", 2))
    assert opened(stored).wait("ok") == 1


# --- earlier wins --------------------------------------------------------------------------------

OBSTACLES: list[tuple[str, type[KassetteError]]] = [
    ("terminal", TerminalRunError),
    ("version", VersionMismatchError),
    ("expired", RunCancelledError),
    ("pending", EventPendingError),
    ("metadata", MetadataMismatchError),
]


@pytest.mark.parametrize("first", range(len(OBSTACLES)), ids=[name for name, _ in OBSTACLES])
def test_opening_order_for_start_earlier_wins(first: int) -> None:
    """A run with several obstacles would be refused for the wrong one, or cancelled wrongly."""
    present = {name for name, _ in OBSTACLES[first:]}
    stored: list[Entry] = [start(version="v1", metadata=1)]
    if "pending" in present:
        stored.append(suspend("ok", timeout=SOON if "expired" in present else None))
    if "terminal" in present:
        stored = [*stored, complete()]
    stored = journal(*stored)
    with pytest.raises(KassetteError) as caught:
        opened(
            stored,
            now=later(60),
            version="v2" if "version" in present else "v1",
            metadata=2,
        )
    assert type(caught.value) is OBSTACLES[first][1]


@pytest.mark.parametrize("first", range(4))
def test_opening_order_for_resume_earlier_wins(first: int) -> None:
    """As for ``start``: an event without a place comes last."""
    expected = [TerminalRunError, VersionMismatchError, RunCancelledError, UsageError][first]
    stored: list[Entry] = [
        start(version="v1"),
        suspend("other", timeout=SOON if first <= 2 else None),
    ]
    if first == 0:
        stored.append(complete())
    with pytest.raises(KassetteError) as caught:
        resumed(journal(*stored), "ok", 1, now=later(60), version="v2" if first <= 1 else "v1")
    assert type(caught.value) is expected


@pytest.mark.parametrize("run_id", ["", ".hidden", "a/b", "a" * 201, None])
def test_d10_a_machine_has_a_run_id_that_storage_can_use(run_id: Any) -> None:
    """A bad run id would reach a file system."""
    with pytest.raises(UsageError, match="is not a valid run id"):
        Machine(run_id, [])


def test_a_machine_keeps_its_own_copy_of_the_journal() -> None:
    """A caller's list that grows would change a session that is under way."""
    stored = journal(start(), step("llm", 1))
    session = opened(stored)
    stored.append(complete(2))
    assert session.step("llm") == 1
