"""The stories in ``diagnoses/``: journals and what is said of them, compared line by line."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kassette import Resume, Start, SuspendedRun, decode_journal, run_status
from kassette.evidence.diagnosis import VERDICTS, diagnose
from kassette.evidence.pending import pending
from kassette.forking import plan_fork
from kassette.opening import must_cancel
from kassette.replay import Recorded

from .diagnosing import diagnoses, run, stories

REWRITE = os.environ.get("KASSETTE_REWRITE_TRANSCRIPTS") == "1"
LATE = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("story", list(stories()), ids=lambda path: str(path.stem))
def test_a_diagnosis_says_what_the_story_says(story: Path) -> None:
    """People on call would be told something else; KASSETTE_REWRITE_TRANSCRIPTS=1 writes it down."""
    told = run(story.read_text("utf-8"))
    if REWRITE:
        story.write_text(told, "utf-8")
    assert told == story.read_text("utf-8")


def test_the_stories_have_every_verdict() -> None:
    """A verdict would be given that nobody has ever looked at."""
    said = {found.verdict for path in stories() for _, found in diagnoses(path.read_text("utf-8"))}
    assert said == set(VERDICTS)


@pytest.mark.parametrize("story", list(stories()), ids=lambda path: str(path.stem))
def test_the_advice_does_no_harm_if_it_is_followed(story: Path) -> None:
    """Somebody who pastes it would cancel the run, repeat a payment, or be refused."""
    for entries, found in diagnoses(story.read_text("utf-8")):
        advice = found.next
        assert (advice.call is None) != (advice.command is None)
        assert "await resume(" not in str(advice.to_json())
        if advice.command is not None:
            verb, run_id, *options = advice.command
            assert run_id == found.run_id
            assert verb in ("dump", "fork")
            if verb == "fork":
                forked = plan_fork(run_id, entries, from_offset=int(options[1]), now=LATE)
                kept = Recorded(forked)
                recorded = Recorded(entries)
                assert kept.steps.keys() == recorded.steps.keys()
                assert kept.resumes.keys() == recorded.resumes.keys()
                assert not must_cancel(Start(), kept, "new", LATE)
        elif ".start(" in (advice.call or ""):
            assert found.in_flight == ()
            assert not must_cancel(Start(), Recorded(entries), found.run_id, LATE)
        else:
            event = next(each.event for each in found.waits)
            assert not any(each.late for each in found.waits)
            before = datetime(2026, 2, 2, tzinfo=UTC)
            resume = Resume(event, None, None, None)
            assert not must_cancel(resume, Recorded(entries), found.run_id, before)


@pytest.mark.parametrize("story", list(stories()), ids=lambda path: str(path.stem))
def test_the_answer_to_a_wait_does_no_harm_if_it_is_followed(story: Path) -> None:
    """An approvals page would cancel a run, or run a step twice that a process died in."""
    before = datetime(2026, 2, 2, tzinfo=UTC)
    for entries, found in diagnoses(story.read_text("utf-8")):
        for now in (before, LATE):
            asked = list(pending(found.run_id, entries, now))
            assert [each.wait.event for each in asked] == [each.event for each in found.waits]
            for each in asked:
                if each.answer.call is not None:
                    assert isinstance(run_status(entries), SuspendedRun)
                    resume = Resume(each.wait.event, None, None, None)
                    assert not must_cancel(resume, Recorded(entries), found.run_id, now)
                else:
                    assert each.answer.command is not None
                    assert each.answer.command[0] in ("fork", "debug")


def test_one_passed_deadline_counts_for_every_wait_of_its_run() -> None:
    """The answer to another wait of the run would cancel it."""
    text = "".join(
        f'{{"type":"suspend","session":1,"timestamp":"2026-01-31T12:00:00.000Z","reason":"why?",'
        f'"waitingFor":"{event}"{deadline}}}\n'
        for event, deadline in (("a", ',"timeout":"2026-02-01T00:00:00Z"'), ("b", ""))
    )
    entries = decode_journal(text.encode()).entries
    first, second = pending("r", entries, LATE)
    assert (first.wait.late, second.wait.late) == (True, False)
    assert first.answer.command == second.answer.command == ("fork", "r", "--from-offset", "0")
    assert second.to_json()["call"] is None
    assert second.wait.question == "why?"
    assert second.wait.replace(reason="Waiting for event: b").question == ""


def test_a_journal_without_notes_says_unknown() -> None:
    """An old journal would be told as if it had been looked at."""
    line = '{"type":"start","session":1,"timestamp":"2026-01-31T12:00:00.000Z"}\n'
    found = diagnose("r", decode_journal(line.encode()).entries, now=LATE).to_json()
    assert found["inFlight"] is None
    (session,) = found["sessions"]
    assert [session[key] for key in ("host", "pid", "lib", "code", "opened")] == [None] * 5
    assert found["lock"] is None
    assert "result" not in found


def test_every_fact_of_the_largest_results_is_bounded() -> None:
    """A run of many large results would have a diagnosis as long as its journal."""
    lines = [
        {"type": "step", "session": 1, "timestamp": "t", "stepId": f"s{n}", "name": f"s{n}"}
        | {"result": "x" * n}
        for n in range(10)
    ]
    text = "".join(json.dumps(each) + "\n" for each in lines)
    found = diagnose("r", decode_journal(text.encode()).entries, now=LATE)
    assert [step for step, _ in found.size.largest] == ["s9", "s8", "s7"]
    assert found.size.results == sum(range(10)) + 20
    assert len(found.longest) <= 3


def test_a_sentence_does_not_name_a_thousand_events() -> None:
    """A run that asks many people would fill the screen with one line."""
    text = "".join(
        '{"type":"suspend","session":1,"timestamp":"2026-01-31T12:00:00.000Z","reason":"",'
        f'"waitingFor":"e{n}"}}\n'
        for n in range(1000)
    )
    found = diagnose("r", decode_journal(text.encode()).entries, now=LATE)
    assert found.why == "it needs 'e0', 'e1', 'e2', 'e3', 'e4' and 995 more"
    assert len(found.waits) == 1000
