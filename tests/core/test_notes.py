"""What entries note: bounded when written, and believed only as far as it is what it should be."""

from __future__ import annotations

import json

import pytest

from kassette import Complete, Entry, FailedAttempt, Record, Resume, Start, StartEntry, StepEntry
from kassette.evidence.found import found, read_left
from kassette.evidence.open_waits import open_waits
from kassette.notes import (
    MOST_IDS,
    MOST_TEXT,
    Found,
    Running,
    start_notes_of,
    step_notes,
    step_notes_of,
    text_of,
)

from .driving import STAMP, Session, journal, opened, resume, start, step, suspend


class Broken(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_is_described_whatever_its_text_does() -> None:
    """A step that succeeds after a strange error would fail for its description."""
    assert FailedAttempt.of(Broken(), 1.23456) == FailedAttempt("Broken", "", 1.235)
    long = FailedAttempt.of(ValueError("x" * 300), 0)
    assert (len(long.message), long.message[-1]) == (MOST_TEXT, "…")
    assert json.loads(
        step_notes(STAMP, attempts=2, errors=[FailedAttempt.of(OSError("\ud800"), 0)])
    )


def noted(**notes: object) -> StepEntry:
    """Return a step with notes of any kind."""
    return step("a").replace(extra_json=json.dumps(notes).encode())


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        ("startedAt", 7),
        ("attempts", "3"),
        ("attempts", True),
        ("errors", {"name": "x"}),
        ("errors", ["x", None]),
        ("running", "a"),
        ("running", [1, None]),
        ("failed", None),
        ("lane", ["x"]),
    ],
)
def test_a_note_of_a_step_that_is_none_is_unknown(key: str, odd: object) -> None:
    """A journal from elsewhere would break every command that explains a run."""
    assert step_notes_of(noted(**{key: odd})) == step_notes_of(step("a"))


def test_errors_of_a_note_are_read_as_far_as_they_go() -> None:
    """One odd member would hide the others."""
    notes = step_notes_of(noted(errors=[{"name": "E", "seconds": "long"}, 7, {"seconds": 2}]))
    assert notes.errors == (FailedAttempt("E", "", 0.0), FailedAttempt("", "", 2.0))


@pytest.mark.parametrize(
    "odd",
    [
        {"host": 1, "pid": "7", "lib": None, "code": [], "opened": 2, "delivers": [], "found": []},
        {"found": {"running": 7, "session": "1", "pid": 1.5, "host": None, "torn": 1}},
    ],
)
def test_a_note_of_a_start_that_is_none_is_unknown(odd: dict[str, object]) -> None:
    """A journal from elsewhere would break every command that explains a run."""
    notes = start_notes_of(start().replace(extra_json=json.dumps(odd).encode()))
    assert notes.found in (None, Found())
    assert notes._replace(found=None) == start_notes_of(start())


def test_what_was_found_is_read_as_it_was_written() -> None:
    """The one record of a crash would lose what it says."""
    left = Found(3, 7, "worker-a", (Running("pay", STAMP, 2, "OSError: no"), Running("b")), '{"ty')
    entry = start().replace(extra_json=json.dumps({"found": left.to_json()}).encode())
    assert start_notes_of(entry).found == left
    odd = {"found": {"running": [7, {"stepId": 1}, {"stepId": "a", "attempt": "x"}]}}
    entry = start().replace(extra_json=json.dumps(odd).encode())
    assert start_notes_of(entry).found == Found(running=(Running("a"),))


def test_a_text_note_is_read() -> None:
    """Who gave an answer would be known to nobody."""
    entry = resume("ok").replace(extra_json=b'{"by":"dana"}')
    assert (text_of(entry, "by"), text_of(resume("ok"), "by")) == ("dana", None)


def test_lists_of_ids_are_bounded() -> None:
    """A program with ten thousand steps at once would write ten thousand ids with each."""
    ids = [f"s{n}" for n in range(3 * MOST_IDS)]
    notes = json.loads(step_notes(STAMP, running=ids, failed=ids))
    assert notes["running"] == ids[:MOST_IDS]
    assert notes["failed"] == ids[-MOST_IDS:]


def test_failed_steps_are_noted_up_to_a_bound() -> None:
    """A loop that fails a million times would hold a million ids."""
    session = opened()
    for number in range(2 * MOST_IDS):
        step_id = session.begin(f"s{number}")
        session.machine._steps.fail(step_id)
    session.step("done")
    (entry,) = [each for each in session.stored if isinstance(each, StepEntry)]
    assert len(step_notes_of(entry).failed) == MOST_IDS


@pytest.mark.parametrize("size", [2**20 - 2, 2**20 - 1])
def test_a_result_is_written_up_to_a_mebibyte(size: int) -> None:
    """A run's last entry would be as large as its author liked, or lose a result that fits."""
    session = opened()
    session.do(Complete("x" * size))
    assert (session.stored[-1].extra, session.stored[-1].result == "x" * size) == (  # type: ignore[union-attr]
        {},
        size == 2**20 - 2,
    )


def test_an_ignored_value_that_json_does_not_hold_is_noted_too() -> None:
    """A second answer would be refused, or leave no trace, for what it holds."""
    stored = journal(start(), suspend("ok"), start(2), resume("ok", 1))
    session = Session(stored)
    session.do(Resume("ok", object(), writer="w"))
    delivers = start_notes_of(stored[4]).delivers
    assert delivers is not None
    assert delivers["event"] == "ok"
    assert len(delivers["ignored"]) == 16


# --- what is found of a session that never ended ----------------------------------------------


def left_by(*entries: Entry, lock: bytes | None = None, torn: bytes = b"") -> Found | None:
    """Return what a session finds on these entries."""
    return found(journal(*entries), read_left(lock, torn))


def test_a_session_that_ended_in_order_leaves_nothing_but_a_torn_line() -> None:
    """Every resumed run would look like one that had crashed."""
    assert left_by(start(), suspend("ok")) is None
    assert left_by(start(), suspend("ok"), torn=b'{"ty') == Found(torn='{"ty')
    assert left_by() is None
    assert left_by(torn=b"\xff") == Found(torn="\\xff")
    assert left_by(start(), suspend("ok", more=True)) == Found(1)


def test_the_lock_file_says_what_was_running_and_the_journal_what_is_over() -> None:
    """A step that was recorded in its last moment would be called left."""
    lock = json.dumps({"session": 1, "running": [{"stepId": "a"}, {"stepId": "b"}]}).encode()
    assert left_by(start(), step("a"), lock=lock) == Found(1, running=(Running("b"),))


@pytest.mark.parametrize(
    "lock", [b"", b"4711\n", b"[1]", b'{"session":"1"}', b'{"session":2}', None]
)
def test_without_a_lock_file_of_that_session_the_last_step_says_what_ran_beside_it(
    lock: bytes | None,
) -> None:
    """On object storage nothing would be known, or an older session's lock would be believed."""
    beside = step("a").replace(extra_json=step_notes(STAMP, running=["b", "c"]))
    opened_by = start().replace(extra_json=b'{"host":"h","pid":7}')
    assert left_by(opened_by, beside, step("c"), lock=lock) == Found(1, 7, "h")
    assert left_by(opened_by, step("c"), beside, lock=lock) == Found(
        1, 7, "h", running=(Running("b"),)
    )


def test_what_an_older_session_was_running_is_not_believed() -> None:
    """A step that a session in between has given up would be called left."""
    beside = step("a").replace(extra_json=step_notes(STAMP, running=["b"]))
    assert left_by(start(), beside, start(2)) == Found(2)
    assert left_by(step("a"), step("b", session=3)) == Found(3)


def test_a_torn_line_is_kept_in_part() -> None:
    """Half of a 40 MB result would be written into every later start."""
    kept = left_by(start(), torn=b"x" * 10_000)
    assert kept is not None
    assert kept.torn == "x" * 4096


def test_a_wait_that_was_answered_is_not_open() -> None:
    """An approval that was given would be asked for again."""
    waits = open_waits(
        journal(start(), suspend("a", more=True), suspend("b"), start(2), resume("a"))
    )
    assert [each.waiting_for for each in waits] == ["b"]


def test_starts_of_commands_without_notes_say_how_they_were_opened() -> None:
    """A driver of somebody else's could not be told from an old journal."""
    session = Session([])
    session.do(Start())
    (entry,) = session.stored
    assert isinstance(entry, StartEntry)
    assert start_notes_of(entry).opened == "start"
    session.do(Record("a"))
