"""Recording and replaying steps: D8 (identity), D3 on the machine, replay mismatches."""

from __future__ import annotations

from typing import Any

import pytest

from kassette import (
    Append,
    Appended,
    BranchPath,
    EnterParallel,
    InternalError,
    LeaveParallel,
    Record,
    Replay,
    ReplayMismatchError,
    Return,
    RunStep,
    State,
    StepEntry,
    StepFailed,
    StepSucceeded,
    StorageError,
    UsageError,
)

from .driving import STAMP, journal, opened, snapshot, start, step


def test_a_step_is_returned_only_once_its_entry_is_durable() -> None:
    """A result would be used before it is safe, and be lost by a crash."""
    session = opened()
    assert session.tell(Record("llm")) == [RunStep("llm", "llm")]
    entry = StepEntry(
        session=1,
        timestamp=STAMP,
        step_id="llm",
        name="llm",
        result_json=b'{"text":"hi"}',
        extra_json=b'{"startedAt":"%b"}' % STAMP.encode(),
    )
    assert session.tell(StepSucceeded("llm", {"text": "hi"})) == [Append(entry)]
    assert session.tell(Appended(entry, 1)) == [Return(entry, {"text": "hi"})]


@pytest.mark.parametrize("result", [None, 0, False, "", [], {}, "x", 1.5, {"a": [None]}])
def test_a_recorded_result_is_replayed_and_not_run_again(result: object) -> None:
    """A falsy result would be taken for none, and a paid-for call repeated."""
    first = opened()
    assert first.step("llm", result) == result
    second = opened(first.stored)
    assert second.step("llm", "another") == result
    assert (second.ran, second.replayed) == ([], ["llm"])


def test_replay_gives_the_entry_as_recorded() -> None:
    """``on_replay`` would see something else than the journal holds."""
    stored = journal(start(), step("llm", [1]))
    assert opened(stored).tell(Record("llm")) == [Replay(stored[1])]  # type: ignore[arg-type]


def test_live_equals_replay() -> None:
    """A tuple would come back as a tuple now and as a list after a crash."""
    session = opened()
    live = session.step("llm", (1, {"a": (2,)}))
    assert live == [1, {"a": [2]}]
    assert opened(session.stored).step("llm") == live


def test_results_are_never_shared_objects() -> None:
    """A workflow that changes a result would change the next replay of it."""
    stored = journal(start(), step("llm", {"a": []}))
    session = opened(stored)
    (replay,) = session.do(Record("llm"))
    assert isinstance(replay, Replay)
    replay.entry.result["a"].append(1)
    assert replay.entry.result == {"a": []}


def test_d8_occurrences_are_numbered_from_the_second_call_on() -> None:
    """A loop's iterations would replay each other's results."""
    session = opened()
    for result in ("one", "two", "three"):
        session.step("llm", result)
    assert session.ran == ["llm", "llm#2", "llm#3"]
    again = opened(session.stored)
    assert [again.step("llm") for _ in range(3)] == ["one", "two", "three"]
    assert again.step("llm", "four") == "four"
    assert again.ran == ["llm#4"]


def test_d8_the_full_name_is_branch_path_and_name() -> None:
    """Steps of different branches would share an id."""
    session = opened()
    session.step("search", 1, ("x",))
    session.step("search", 2, ("y",))
    session.step("search", 3, ("x", "z"))
    session.step("search", 4)
    session.step("search", 5, ("x",))
    assert session.ran == ["x:search", "y:search", "x:z:search", "search", "x:search#2"]
    names = [entry.name for entry in session.stored if isinstance(entry, StepEntry)]
    assert names == ["x:search", "y:search", "x:z:search", "search", "x:search"]


def test_what_runs_beside_a_branch_never_shifts_its_counter() -> None:
    """Parallel branches would be paired wrongly on replay, silently."""
    session = opened()
    order = ["x", "y", "x", "y", "y", "x"]
    for number, key in enumerate(order):
        session.step("llm", f"{key}{number}", (key,))
    again = opened(session.stored)
    for key in "yx":
        got = [again.step("llm", path=(key,)) for _ in range(3)]
        assert got == [f"{key}{n}" for n, each in enumerate(order) if each == key]
    assert again.ran == []


def test_d8_counters_go_on_when_a_block_is_entered_again() -> None:
    """The second round of a loop around a parallel block would replay the first."""
    session = opened()
    for result in (1, 2):
        session.do(EnterParallel(("x",)))
        session.step("llm", result, ("x",))
        session.do(LeaveParallel(("x",)))
    assert session.ran == ["x:llm", "x:llm#2"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((("x",), "tool:search"), (("x", "tool"), "search")),
        (((), "x:search"), (("x",), "search")),
        (((), "a:b:c"), (("a", "b"), "c")),
    ],
)
@pytest.mark.parametrize("replaying", [False, True])
def test_same_full_name_from_two_branches_is_refused(
    one: tuple[BranchPath, str], other: tuple[BranchPath, str], replaying: bool
) -> None:
    """Two branches would take each other's results, silently, in an order left to chance."""
    for (first_path, first), (second_path, second) in ((one, other), (other, one)):
        full = ":".join((*first_path, first))
        session = opened(journal(start(), step(full, 1)) if replaying else None)
        session.step(first, 1, first_path)
        before = snapshot(session.machine)
        with pytest.raises(UsageError, match="the same full name in two branches") as caught:
            session.do(Record(second, second_path))
        assert repr(full) in str(caught.value)
        assert snapshot(session.machine) == before
        session.step(first, 2, first_path)
        assert session.ran[-1] == f"{full}#2"


@pytest.mark.parametrize("path", [(), ("x",)])
@pytest.mark.parametrize("name", ["", "a#b", "#", "\ud800", None, 3, b"llm", ["llm"]])
def test_d8_bad_step_names_are_refused_and_change_nothing(name: Any, path: BranchPath) -> None:
    """A ``#`` would forge an occurrence number; others could not be written."""
    session = opened()
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="a step name"):
        session.do(Record(name, path))
    assert snapshot(session.machine) == before
    session.step("llm", 1)
    assert session.ran == ["llm"]


def test_any_other_step_name_is_allowed() -> None:
    """Names with spaces, colons, newlines or emoji would be refused without need."""
    session = opened()
    for name in ("a b", "tool:x", "ü", "🙂", "a\nb", '"'):
        assert session.step(name, name) == name


def test_replay_mismatch_shows_recorded_and_asked_for() -> None:
    """A step recorded under another name would be handed over as this one's result."""
    session = opened(journal(start(), step("llm#2", 1, name="other"), step("llm", 0)))
    session.step("llm")
    before = snapshot(session.machine)
    for _ in range(2):
        with pytest.raises(ReplayMismatchError) as caught:
            session.do(Record("llm"))
        error = caught.value
        assert (error.step_id, error.expected_name, error.actual_name) == ("llm#2", "other", "llm")
        assert "recorded as 'other'" in str(error)
        assert "requested as 'llm'" in str(error)
        assert snapshot(session.machine) == before


def test_of_two_entries_with_one_step_id_the_first_is_settled() -> None:
    """Journal authority: a duplicate would change a result that was already used."""
    assert opened(journal(start(), step("llm", 1), step("llm", 2))).step("llm") == 1


def test_a_renamed_step_runs_live_and_the_old_entry_stays_unused() -> None:
    """Renaming one changed step would break the whole run (003, "Rename a step")."""
    stored = journal(start(), step("analyze", 1), step("reply", 2))
    session = opened(stored)
    assert session.step("analyze-v2", 3) == 3
    assert session.step("reply", 4) == 2
    assert session.ran == ["analyze-v2"]


@pytest.mark.parametrize("bad", [float("nan"), {1: 2}, {1, 2}, 2**64, "\ud800", object()])
def test_d3_an_unwritable_result_is_refused_and_the_step_may_be_reported_failed(
    bad: object,
) -> None:
    """A result that cannot come back would be journaled, or the session be stuck for good."""
    session = opened()
    session.begin("llm")
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="the result of step 'llm'"):
        session.do(StepSucceeded("llm", {"deep": [bad]}))
    assert snapshot(session.machine) == before
    assert session.do(StepFailed("llm")) == []
    assert len(session.stored) == 1
    assert session.step("next", 1) == 1


def test_d3_the_refusal_names_step_and_path() -> None:
    """The author would have to search a big result for the one bad value."""
    session = opened()
    session.begin("llm")
    with pytest.raises(UsageError) as caught:
        session.succeed("llm", {"rows": [1, {"score": float("inf")}]})
    assert "the result of step 'llm'['rows'][1]['score'] is inf" in str(caught.value)
    assert caught.value.run_id == "run-1"


def test_a_failed_step_records_nothing_and_gives_its_number_back() -> None:
    """A step repeated by hand would be paid for again in the next session."""
    session = opened()
    for _ in range(3):
        session.do(StepFailed(session.begin("llm")))
    assert len(session.stored) == 1
    assert session.step("llm", "retry") == "retry"
    session.do(StepFailed(session.begin("llm")))
    assert session.step("llm", "second") == "second"
    assert session.ran == ["llm", "llm#2"]
    again = opened(session.stored)
    assert [again.step("llm"), again.step("llm")] == ["retry", "second"]
    assert again.ran == []


def test_a_result_that_was_not_written_gives_its_number_back() -> None:
    """A full disk would shift the numbers of everything after it."""
    session = opened()
    step_id = session.begin("llm")
    session.fails.append(StorageError("full", rolled_back=True))
    with pytest.raises(StorageError):
        session.succeed(step_id, 1)
    assert session.step("llm", 2) == 2
    assert session.ran == ["llm"]


@pytest.mark.parametrize("gap", [1, 2, 11])
def test_a_failed_step_keeps_its_number_where_a_later_one_is_recorded(gap: int) -> None:
    """Journals of earlier releases, which numbered failed calls too, would replay otherwise: the
    recorded call would never be reached, and paid for again."""
    recorded = f"llm#{gap + 1}"
    session = opened(journal(start(), step(recorded, "kept")))
    for number in range(1, gap + 1):
        step_id = session.begin("llm")
        assert step_id == ("llm" if number == 1 else f"llm#{number}")
        session.do(StepFailed(step_id))
    assert session.step("llm") == "kept"
    session.do(StepFailed(session.begin("llm")))
    assert session.begin("llm") == f"llm#{gap + 2}"


def test_a_number_in_an_id_that_is_none_is_no_number() -> None:
    """A journal made by somebody else would keep a failed step from being repeated."""
    stored = journal(
        start(),
        step("odd#x", 1, name="odd"),
        step("other", 1, name="odd"),
        step("odd#" + "9" * 30, 1, name="odd"),
    )
    session = opened(stored)
    first = session.begin("odd")
    session.do(StepFailed(first))
    assert (first, session.begin("odd")) == ("odd", "odd#2")


def test_overlapping_calls_of_one_name_are_refused() -> None:
    """After a crash each of two calls could get the other's result."""
    session = opened()
    session.begin("llm")
    before = snapshot(session.machine)
    with pytest.raises(UsageError, match="called again before its first call had ended"):
        session.begin("llm")
    assert snapshot(session.machine) == before
    session.begin("llm", ("x",))
    session.begin("other")
    session.tell(StepSucceeded("llm", 1))
    with pytest.raises(UsageError, match="called again before"):
        session.begin("llm")


def test_interchangeable_calls_may_overlap() -> None:
    """An adapter whose names say everything could not run two equal requests at once."""
    session = opened()
    first = session.begin("llm")
    again = Record("llm", interchangeable=True)
    assert session.do(again) == [RunStep("llm#2", "llm")]
    assert session.do(again) == [RunStep("llm#3", "llm")]
    session.do(StepFailed(first))
    session.do(StepFailed("llm#3"))
    assert session.do(again) == [RunStep("llm", "llm")]
    assert session.do(again) == [RunStep("llm#3", "llm")]


def test_interchangeable_calls_fill_the_numbers_that_others_gave_back() -> None:
    """Two answers would be paid for, and a third one after every suspension."""
    session = opened()
    again = Record("llm", interchangeable=True)
    failing, paid = session.begin("llm"), session.do(again)
    assert paid == [RunStep("llm#2", "llm")]
    session.do(StepFailed(failing))
    assert session.do(again) == [RunStep("llm", "llm")]
    session.succeed("llm", "second")
    session.succeed("llm#2", "first")
    later = opened(session.stored)
    replays = [later.do(again)[0] for _ in range(2)]
    assert [each.entry.result for each in replays if isinstance(each, Replay)] == [
        "second",
        "first",
    ]


def test_interchangeable_calls_take_the_lowest_number_that_is_free() -> None:
    """A later session, which begins at the first, would do again what it could have replayed."""
    session = opened()
    again = Record("llm", interchangeable=True)
    for _ in range(3):
        session.do(again)
    for step_id in ("llm#2", "llm"):
        session.do(StepFailed(step_id))
    assert session.do(again) == [RunStep("llm", "llm")]
    assert session.do(again) == [RunStep("llm#2", "llm")]
    assert session.do(again) == [RunStep("llm#4", "llm")]


def test_a_step_whose_result_is_on_its_way_may_not_be_reported_again() -> None:
    """A driver that reports a step twice would write it twice."""
    session = opened()
    step_id = session.begin("llm")
    session.tell(StepSucceeded(step_id, 1))
    with pytest.raises(InternalError, match="is not running"):
        session.tell(StepSucceeded(step_id, 2))


def test_a_step_may_be_reported_once() -> None:
    """A driver that reports a step twice would journal it twice."""
    session = opened()
    session.step("llm", 1)
    before = snapshot(session.machine)
    for step_id in ("llm", "never asked for"):
        with pytest.raises(InternalError, match="is not running"):
            session.do(StepSucceeded(step_id, 2))
    assert snapshot(session.machine) == before
    assert session.do(StepFailed("llm")) == []


def test_concurrent_steps_end_in_any_order() -> None:
    """Steps that run at once would be paired by their order."""
    session = opened()
    a, b = session.begin("a"), session.begin("b")
    assert session.succeed(b, "B") == "B"
    assert session.succeed(a, "A") == "A"
    again = opened(session.stored)
    assert (again.step("a"), again.step("b")) == ("A", "B")
    assert again.machine.state is State.ACTIVE
