"""What a fork's journal holds, and which cuts there are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kassette import (
    Entry,
    ForkSource,
    StartEntry,
    StepEntry,
    UsageError,
    decode_journal,
    encode_entry,
    plan_fork,
)

from .driving import (
    NOW,
    STAMP,
    complete,
    journal,
    later,
    resume,
    resumed,
    start,
    step,
    suspend,
    types,
)

SOURCE = journal(
    start(metadata={"in": 1}, version="v1", writer="w1"),
    step("a", 1),
    suspend("ok", timeout=STAMP),
    start(2, writer="w2"),
    resume("ok", "yes"),
    step("a#2", 2, session=2),
    step("b", 3, session=2),
    complete(2),
)


def _fork(source: list[Entry] = SOURCE, **options: Any) -> list[Entry]:
    return plan_fork("src", source, now=later(60), **options)


def test_a_fork_begins_with_a_start_holds_steps_and_events_and_ends_with_its_session() -> None:
    """A fork would carry waits, deadlines or an end along, or lose paid-for work."""
    forked = _fork(from_offset=6, version="v2", writer="w")
    later_stamp = "2026-01-31T12:01:00.000Z"
    assert forked == [
        StartEntry(
            session=1,
            timestamp=later_stamp,
            offset=0,
            version="v2",
            writer="w",
            metadata_json=b'{"in":1}',
        ),
        step("a", 1).at(1),
        resume("ok", "yes", session=1).at(2),
        step("a#2", 2).at(3),
        StartEntry(
            session=2,
            timestamp=later_stamp,
            offset=4,
            version="v2",
            writer="w",
            source=ForkSource(run_id="src", from_offset=6),
            extra_json=b'{"opened":"fork"}',
        ),
    ]


@pytest.mark.parametrize("cut", range(9))
def test_entries_below_the_cut_are_copied_and_the_cut_is_not(cut: int) -> None:
    """The step at the cut would be replayed instead of done again."""
    forked = _fork(from_offset=cut)
    copied = [entry for entry in SOURCE[:cut] if entry.type in ("step", "resume")]
    assert [(e.type, e.timestamp) for e in forked[1:-1]] == [(e.type, STAMP) for e in copied]
    assert [entry.offset for entry in forked] == list(range(len(copied) + 2))
    assert forked[-1].source == ForkSource(run_id="src", from_offset=cut)  # type: ignore[union-attr]


def test_from_step_id_is_the_offset_of_its_first_entry() -> None:
    """Forking "from llm#3" would do another step again."""
    assert _fork(from_step_id="a#2") == _fork(from_offset=5)
    twice = journal(start(), step("a", 1), step("a", 2))
    assert types(_fork(twice, from_step_id="a")) == ["start", "start"]


def test_a_source_without_metadata_or_version_forks_without() -> None:
    """A fork would be checked against a version that nobody gave, or get null as its input."""
    forked = _fork(journal(start(version="v1"), start(2, metadata="not the first")), from_offset=2)
    for entry in forked:
        assert isinstance(entry, StartEntry)
        assert (entry.version, entry.metadata_json, entry.writer) == (None, None, None)


def test_unknown_fields_survive() -> None:
    """A fork would lose what another implementation wrote (D11)."""
    line = (
        b'{"type":"step","session":4,"offset":1,"timestamp":"2026-01-31T12:00:00.000Z",'
        b'"tokens":{"in":1},"stepId":"llm","name":"llm","result":{"s":"hi"},"cost":0.5}\n'
    )
    copied = _fork(decode_journal(encode_entry(start(), 0) + line).entries, from_offset=2)[1]
    assert isinstance(copied, StepEntry)
    assert copied.extra == {"tokens": {"in": 1}, "cost": 0.5}
    written = orjson.loads(encode_entry(copied, 1))
    assert written == {**orjson.loads(line), "session": 1}


def test_a_result_is_copied_as_it_is_spelled() -> None:
    """A fork would turn numbers and texts of another implementation into others."""
    line = (
        b'{"type":"step","session":4,"offset":1,"timestamp":"2026-01-31T12:00:00.000Z",'
        b'"stepId":"llm","name":"llm","result":{"n":1.0,"b":1e3, "s":"\\u00fc"}}\n'
    )
    copied = _fork(decode_journal(encode_entry(start(), 0) + line).entries, from_offset=2)[1]
    assert encode_entry(copied, 1) == line.replace(b'"session":4', b'"session":1')


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one"),
        ({"from_offset": 1, "from_step_id": "a"}, "exactly one"),
        ({"from_offset": -1}, "0 to 8"),
        ({"from_offset": 9}, "0 to 8"),
        ({"from_offset": True}, "0 to 8"),
        ({"from_offset": "3"}, "0 to 8"),
        ({"from_offset": 3.0}, "0 to 8"),
        ({"from_step_id": "nope"}, "no step 'nope'"),
        ({"from_step_id": ""}, "no step ''"),
    ],
)
def test_a_bad_cut_is_refused(options: dict[str, Any], said: str) -> None:
    """A mistyped cut would make a fork of something else, or raise what is no kassette error."""
    with pytest.raises(UsageError, match=said) as caught:
        _fork(**options)
    assert caught.value.run_id == "src"


def test_an_unknown_source_is_refused() -> None:
    """A mistyped source would give an empty run."""
    for options in ({"from_offset": 0}, {"from_step_id": "a"}, {}):
        with pytest.raises(UsageError, match="no run 'src' to fork"):
            _fork([], **options)


def test_a_fork_can_be_forked_resumed_and_written_back() -> None:
    """A fork would be a journal of a lesser kind."""
    forked = _fork(from_offset=6)
    again = plan_fork("fork", forked, from_step_id="a#2", now=NOW)
    data = b"".join(encode_entry(entry, n) for n, entry in enumerate(again))
    assert decode_journal(data).entries == again
    session = resumed(again, "ok", "ignored")
    assert (session.step("a"), session.wait("ok"), session.step("a", "live")) == (1, "yes", "live")
