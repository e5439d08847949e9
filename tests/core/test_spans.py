"""How long steps took, told by what they note, and of older journals by what can be known."""

from __future__ import annotations

from kassette import Entry, FailedAttempt, StepEntry
from kassette.evidence.spans import StepSpan, timeline
from kassette.notes import step_notes

from .driving import journal, start

T = "2026-01-31T12:{}.000Z"


def step(step_id: str, began: str | None, ended: str, *, attempts: int = 1) -> StepEntry:
    """Return a step; the times are minutes and seconds."""
    errors = [FailedAttempt("OSError", "busy", 1.0)] * (attempts - 1)
    return StepEntry(
        session=1,
        timestamp=T.format(ended),
        step_id=step_id,
        name=step_id,
        result_json=b"1",
        extra_json=b"{}"
        if began is None
        else step_notes(T.format(began), attempts=attempts, errors=errors),
    )


def steps(*entries: Entry) -> list[StepSpan]:
    """Return the steps of a journal's timeline."""
    return [each for each in timeline(journal(*entries)) if isinstance(each, StepSpan)]


def test_steps_that_overlap_take_what_they_took() -> None:
    """A parallel step of 400 s would be shown as the 10 s since its sibling ended."""
    quick, slow = steps(start(), step("quick", "00:00", "06:30"), step("slow", "00:00", "06:40"))
    assert (quick.seconds, slow.seconds) == (390.0, 400.0)
    assert (slow.begin, slow.measured) == (T.format("00:00"), True)


def test_a_step_without_the_note_is_counted_from_the_entry_before() -> None:
    """Journals of the original and of older releases would have no times."""
    first, second = steps(start(), step("a", None, "00:10"), step("b", None, "00:15"))
    assert [(each.seconds, each.measured, each.attempts) for each in (first, second)] == [
        (10.0, False, None),
        (5.0, False, None),
    ]


def test_a_note_that_is_no_instant_is_as_good_as_none() -> None:
    """A hostile or damaged note would hide how long a step took at most."""
    odd = step("b", None, "00:15").replace(extra_json=b'{"startedAt":"yesterday"}')
    _, second = steps(start(), step("a", None, "00:10"), odd)
    assert (second.seconds, second.measured) == (5.0, False)


def test_attempts_are_told() -> None:
    """A step that was refused five times would look slow."""
    (only,) = steps(start(), step("a", "00:00", "30:00", attempts=6))
    assert (only.attempts, only.seconds) == (6, 1800.0)
    assert only.to_json()["attempts"] == 6
