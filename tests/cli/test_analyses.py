"""The JSON of the verbs beyond the reference, byte for byte, as a program sees it in a pipe."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from shlex import split
from typing import Any

import pytest

from kassette import (
    CancelEntry,
    CompleteEntry,
    ErrorEntry,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    decode_journal,
)
from kassette.evidence.difference import Difference, compare
from kassette.evidence.fork_points import fork_points
from kassette.evidence.spans import EventSpan, SessionSpan, timeline

from .journals import JOURNALS
from .processes import COMMAND, Outcome, run, run_on_terminal
from .stories import LONG_ANSWER, REFUND, REFUND_AGAIN, at, placed, text_of

ALL = sorted(JOURNALS)
STAMP = "2026-01-31T12:00:00.000Z"


@pytest.fixture
def stories(store: Path, url: str) -> str:
    """Give a storage that holds ``refund`` and ``refund-again`` as well."""
    (store / "refund.jsonl").write_text(text_of(REFUND), encoding="utf-8")
    (store / "refund-again.jsonl").write_text(text_of(REFUND_AGAIN), encoding="utf-8")
    return url


def ids(outcome: Outcome) -> list[str]:
    assert (outcome.code, outcome.err) == (0, b"")
    return [json.loads(line)["runId"] for line in outcome.out.splitlines()]


STATES = {
    "completed": ["completed", "unknown-fields"],
    "failed": ["failed", "surrogates"],
    "cancelled": ["cancelled"],
    "suspended": ["suspended", "suspended-then-start"],
    "unsettled": ["never-written", "resumed", "torn"],
    "unreadable": ["damaged"],
}


@pytest.mark.parametrize("state", STATES)
def test_list_gives_the_runs_of_a_state(url: str, state: str) -> None:
    """A clean-up would be given runs that may still go on, or an operator none that failed."""
    assert ids(run("--storage", url, "list", "--status", state)) == STATES[state]


def test_every_run_is_of_one_state() -> None:
    """A run could be in no list, whatever is asked for."""
    assert sorted(chain.from_iterable(STATES.values())) == ALL


def test_list_takes_several_states_and_a_limit(url: str) -> None:
    """`--status failed,cancelled` would mean one of them only; or `--limit` count all runs."""
    found = ids(run("--storage", url, "list", "--status", "failed,cancelled"))
    assert found == ["cancelled", "failed", "surrogates"]
    limited = run("--storage", url, "list", "--status", "failed,cancelled", "--limit", "2")
    assert ids(limited) == ["cancelled", "failed"]
    assert ids(run("--storage", url, "list", "--status", "failed", "--limit", "0")) == []


def test_list_knows_how_old_a_run_is(store: Path, url: str) -> None:
    """A retention job would delete what was written yesterday, or never anything."""
    age = datetime.now(UTC) - timedelta(days=10)
    line = '{{"type":"start","session":1,"offset":0,"timestamp":"{0}"}}\n'
    (store / "ten.jsonl").write_text(line.format(age.isoformat()), encoding="utf-8")
    (store / "odd.jsonl").write_text(line.format("yesterday"), encoding="utf-8")
    assert "ten" in ids(run("--storage", url, "list", "--older-than", "9d"))
    assert "ten" not in ids(run("--storage", url, "list", "--older-than", "11d"))
    assert "ten" in ids(run("--storage", url, "list", "--older-than", "230h"))
    everything = ids(run("--storage", url, "list", "--older-than", "0s"))
    # without entries, without a readable journal and without an instant there is no age
    assert everything == sorted({*ALL, "ten"} - {"damaged", "never-written"})
    assert ids(run("--storage", url, "list", "--older-than", "999999999w")) == []


def test_a_run_is_as_old_as_its_last_entry(store: Path, url: str) -> None:
    """A retention job would delete a run that is a month old and was gone on with this morning."""
    old, new = (datetime.now(UTC) - timedelta(days=days) for days in (30, 1))
    for name, first, last in (("alive", old, new), ("odd-clock", new, old)):
        start = f'{{"type":"start","session":1,"offset":0,"timestamp":"{first.isoformat()}"}}'
        end = f'{{"type":"complete","session":1,"offset":1,"timestamp":"{last.isoformat()}"}}'
        (store / f"{name}.jsonl").write_text(f"{start}\n{end}\n", encoding="utf-8")
    listed = ids(run("--storage", url, "list", "--older-than", "20d"))
    assert {*listed} & {"alive", "odd-clock"} == {"odd-clock"}


def test_retention_is_one_pipe(store: Path, url: str) -> None:
    """The pipe that the manual page shows would delete nothing, or too much."""
    pipe = (
        '"$@" list --status completed,failed,cancelled --older-than 0s --ids '
        f"| xargs -I{{}} rm -- '{store}/{{}}.jsonl'"
    )
    shell = ("sh", "-c", pipe, "sh", *COMMAND)
    assert run("--storage", url, command=shell) == Outcome(0, b"", b"")
    left = {path.stem for path in store.glob("*.jsonl") if not path.name.startswith(".")}
    terminal = {*STATES["completed"], *STATES["failed"], *STATES["cancelled"]}
    assert left == {*ALL} - terminal


def test_ids_are_bare_and_alike_everywhere(url: str) -> None:
    """xargs would be given JSON, or a table when somebody tries the pipe at a terminal."""
    bare = "".join(f"{run_id}\n" for run_id in ALL).encode()
    assert run("--storage", url, "list", "--ids") == Outcome(0, bare, b"")
    shown = run_on_terminal("--storage", url, "list", "--ids")
    assert shown.out == bare.replace(b"\n", b"\r\n")


def test_timeline_tells_sessions_steps_events_and_gaps(stories: str) -> None:
    """Whoever asks what took an hour would be told of a step, and not of the person."""
    outcome = run("--storage", stories, "timeline", "refund")
    assert outcome == Outcome(0, TIMELINE.encode(), b"")


TIMELINE = """\
{"type":"session","session":1,"offset":0,"from":"2026-01-31T12:00:00.000Z","to":"2026-01-31T12:00:02.350Z","seconds":2.35,"steps":2,"replays":0,"end":null,"copied":false}
{"type":"step","session":1,"offset":1,"stepId":"llm","from":"2026-01-31T12:00:00.000Z","to":"2026-01-31T12:00:02.300Z","seconds":2.3,"measured":false,"attempts":null}
{"type":"step","session":1,"offset":2,"stepId":"tool:lookup","from":"2026-01-31T12:00:02.300Z","to":"2026-01-31T12:00:02.350Z","seconds":0.05,"measured":false,"attempts":null}
{"type":"gap","from":"2026-01-31T12:00:02.350Z","to":"2026-01-31T12:05:00.000Z","seconds":297.65,"after":null}
{"type":"session","session":2,"offset":3,"from":"2026-01-31T12:05:00.000Z","to":"2026-01-31T12:05:04.010Z","seconds":4.01,"steps":1,"replays":2,"end":"suspend","copied":false}
{"type":"step","session":2,"offset":4,"stepId":"llm#2","from":"2026-01-31T12:05:00.000Z","to":"2026-01-31T12:05:04.000Z","seconds":4.0,"measured":false,"attempts":null}
{"type":"gap","from":"2026-01-31T12:05:04.010Z","to":"2026-01-31T13:05:04.000Z","seconds":3599.99,"after":"suspend"}
{"type":"session","session":3,"offset":6,"from":"2026-01-31T13:05:04.000Z","to":"2026-01-31T13:05:05.000Z","seconds":1.0,"steps":1,"replays":3,"end":"error","copied":false}
{"type":"event","session":3,"offset":7,"eventName":"approval","from":"2026-01-31T12:05:04.010Z","to":"2026-01-31T13:05:04.010Z","seconds":3600.0}
{"type":"step","session":3,"offset":8,"stepId":"tool:refund","from":"2026-01-31T13:05:04.010Z","to":"2026-01-31T13:05:04.500Z","seconds":0.49,"measured":false,"attempts":null}
"""


def test_timeline_of_a_fork_does_not_time_what_was_copied() -> None:
    """Steps of the source would seem to have taken place before the fork, or minus two hours."""
    spans: list[dict[str, Any]] = [span.to_json() for span in timeline(placed(REFUND_AGAIN))]
    assert [(span["type"], span["seconds"]) for span in spans] == [
        ("session", None),
        ("step", None),
        ("step", None),
        ("session", 3.2),
        ("step", 3.0),
        ("step", 0.1),
    ]
    assert [span["copied"] for span in spans if span["type"] == "session"] == [True, False]
    assert spans[3]["replays"] == 2


def test_timeline_of_one_session_is_timed() -> None:
    """The run that needed no second session, which most are, would be shown as a copy without times."""
    session, *steps = timeline(decode_journal(JOURNALS["completed"].encode()).entries)
    assert isinstance(session, SessionSpan)
    assert (session.copied, session.seconds) == (False, 2.0)
    assert [step.seconds for step in steps] == [1.5, 0.0]


@pytest.mark.parametrize(("more", "ending"), [(False, "suspend"), (True, None)])
def test_timeline_of_a_crash_between_two_waits_does_not_say_suspended(
    more: bool, ending: str | None
) -> None:
    """Nobody would look for the crash of a run that seems to wait."""
    wait = SuspendEntry(session=1, timestamp=STAMP, reason="", waiting_for="a", more=more)
    (span,) = timeline(placed([REFUND[0], wait]))
    assert isinstance(span, SessionSpan)
    assert span.ending == ending


def test_timeline_of_clocks_that_disagree_has_no_seconds() -> None:
    """Two machines with different clocks would make a step of minus five seconds."""
    early = [REFUND[0], REFUND[1].replace(timestamp="2026-01-31T11:00:00.000Z")]
    assert [span.to_json()["seconds"] for span in timeline(placed(early))] == [None, None]
    odd = [REFUND[0], REFUND[1].replace(timestamp="noon")]
    assert [span.to_json()["seconds"] for span in timeline(placed(odd))] == [None, None]
    assert list(timeline([])) == []


def fork_line(at: int, step: str | None, kept: int, again: int, *events: str) -> dict[str, Any]:
    return {"offset": at, "stepId": step, "kept": kept, "again": again, "events": list(events)}


def test_steps_are_the_fork_points_with_their_commands(store: Path, stories: str) -> None:
    """An agent that looks for a place to fork would have to count lines."""
    outcome = run("--storage", stories, "steps", "refund")
    assert (outcome.code, outcome.err) == (0, b"")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    commands = [line.pop("command") for line in lines]
    assert lines == [
        fork_line(1, "llm", 0, 4, "approval"),
        fork_line(2, "tool:lookup", 1, 3, "approval"),
        fork_line(4, "llm#2", 2, 2, "approval"),
        fork_line(8, "tool:refund", 3, 1),
        fork_line(9, None, 4, 0),
    ]
    assert commands[2] == f"kassette --storage file:{store} fork refund --from-offset 4"


def test_every_fork_point_keeps_what_it_says(stories: str) -> None:
    """The command to paste would keep other steps than the line promises."""
    lines = run("--storage", stories, "steps", "refund").out.splitlines()
    for line in map(json.loads, lines):
        made = run(*split(line["command"])[1:])
        new_run_id = json.loads(made.out)["runId"]
        entries = map(json.loads, run("--storage", stories, "dump", new_run_id).out.splitlines())
        kept = [entry for entry in entries if entry["type"] in ("step", "resume")]
        assert sum(entry["type"] == "step" for entry in kept) == line["kept"]
        assert ("approval" in line["events"]) == all(e["type"] != "resume" for e in kept)


def test_steps_of_an_empty_journal_are_none(url: str) -> None:
    """A run that was never written would be offered for forking, which refuses it."""
    assert run("--storage", url, "steps", "never-written") == Outcome(0, b"", b"")
    assert run("--storage", url, "timeline", "never-written") == Outcome(0, b"", b"")


def test_diff_tells_where_two_runs_part(stories: str) -> None:
    """Two forks would have to be compared by hand, offsets and timestamps in the way."""
    outcome = run("--storage", stories, "diff", "refund", "refund-again")
    assert outcome == Outcome(0, DIFF.encode(), b"")


DIFF = f"""\
{{"difference":"result","stepId":"llm#2","a":{{"offset":4,"result":"{LONG_ANSWER}"}},"b":{{"offset":4,"result":"Sorry."}}}}
{{"difference":"structure","eventName":"approval","a":{{"offset":7,"value":{{"ok":true}}}},"b":null}}
{{"difference":"structure","stepId":"tool:refund","a":{{"offset":8,"result":null}},"b":null}}
{{"difference":"structure","stepId":"tool:voucher","a":null,"b":{{"offset":5,"result":{{"code":"A1"}}}}}}
{{"difference":"end","a":{{"offset":9,"type":"error","message":"the mail server said no"}},"b":{{"offset":6,"type":"complete"}}}}
{{"same":2,"result":{{"a":4,"b":4}},"structure":{{"a":7,"b":null}},"end":{{"a":9,"b":6}}}}
"""


def test_a_run_does_not_differ_from_itself(stories: str) -> None:
    """Whoever compares would be shown differences of time and place, which mean nothing."""
    assert run("--storage", stories, "diff", "refund", "refund").out == (
        b'{"same":5,"result":null,"structure":null,"end":null}\n'
    )
    run("--storage", stories, "fork", "refund", "--from-offset", "9", "--new-run-id", "f")
    assert run("--storage", stories, "diff", "refund", "f").out.splitlines()[-1] == (
        b'{"same":5,"result":null,"structure":null,"end":{"a":9,"b":null}}'
    )


def test_results_with_lone_surrogates_can_be_compared(url: str) -> None:
    """A journal of JavaScript would crash the comparison."""
    outcome = run("--storage", url, "diff", "surrogates", "completed")
    assert outcome.code == 0
    assert b'"result":"cut \\ud83d"' in outcome.out


@pytest.mark.parametrize("verb", [("timeline", "refund"), ("steps", "refund")])
def test_json_on_a_terminal_is_the_same(stories: str, verb: tuple[str, ...]) -> None:
    """`--json` would be ignored by the newer verbs."""
    shown = run_on_terminal("--json", "--storage", stories, *verb, columns=20)
    assert shown.out == run("--storage", stories, *verb).out.replace(b"\n", b"\r\n")


def test_only_fork_writes(store: Path, stories: str) -> None:
    """Looking at a run would change it, or leave a lock behind."""
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    for call in (
        ("list", "--status", "failed"),
        ("timeline", "refund"),
        ("steps", "refund"),
        ("diff", "refund", "refund-again"),
        ("dump", "refund", "--follow"),
    ):
        for perform in (run, run_on_terminal):
            assert perform("--storage", stories, *call).code == 0
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    assert sorted(os.listdir(store)) == sorted(before)


def ended(**how: Any) -> ErrorEntry:
    """Give the end of a run that failed in the way told."""
    return ErrorEntry(session=1, timestamp=STAMP, **how)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"message": "no", "name": "OSError", "stack": "elsewhere"}, False),
        ({"message": "yes", "name": "OSError"}, True),
        ({"message": "no", "name": "ValueError"}, True),
        ({"message": "no"}, True),
    ],
)
def test_two_failures_differ_by_name_and_message(other: dict[str, str], differs: bool) -> None:
    """Two runs that failed for different reasons would be told to be alike; or one and the same not."""
    one, another = ended(message="no", name="OSError", stack="here"), ended(**other)
    found = compare([REFUND[0], one], [REFUND[0], another])
    assert found.differences == ([Difference(kind="end", a=one, b=another)] if differs else [])


def test_a_step_and_an_event_of_one_name_are_two_things() -> None:
    """A run with a step `approval` would be compared with another one's answer of that name."""
    step = StepEntry.of(session=1, timestamp=STAMP, step_id="a", name="a", result=1)
    event = ResumeEntry.of(session=1, timestamp=STAMP, event_name="a", value=1)
    other = ResumeEntry.of(session=1, timestamp=STAMP, event_name="b", value=2)
    assert compare([step, event, other], [other, event, step]).same == 3
    kinds = [(each.kind, each.a, each.b) for each in compare([step], [event, other]).differences]
    assert kinds == [
        ("structure", step, None),
        ("structure", None, event),
        ("structure", None, other),
    ]


def test_runs_that_ended_in_other_ways_differ() -> None:
    """A run that was cancelled would be told to be as good as one that is complete."""
    complete = CompleteEntry(session=1, timestamp=STAMP)
    cancel = CancelEntry(session=1, timestamp=STAMP)
    for a, b in ((complete, cancel), (cancel, ended(message="no")), (complete, None)):
        found = compare([a], [] if b is None else [b])
        assert found.differences == [Difference(kind="end", a=a, b=b)]
    assert compare([cancel], [cancel]).differences == []


def test_an_event_counts_from_the_first_wait_for_it() -> None:
    """A person who took a day would be said to have taken the seconds since the last crash."""
    wait = SuspendEntry(session=1, timestamp=at("12:00:00.000"), reason="", waiting_for="a")
    again = SuspendEntry(session=2, timestamp=at("13:00:00.000"), reason="", waiting_for="a")
    come = ResumeEntry.of(session=3, timestamp=at("13:00:05.000"), event_name="a", value=1)
    starts = [StartEntry(session=n, timestamp=STAMP) for n in (1, 2, 3)]
    spans = list(timeline(placed([starts[0], wait, starts[1], again, starts[2], come])))
    (event,) = (span for span in spans if isinstance(span, EventSpan))
    assert (event.begin, event.seconds) == (at("12:00:00.000"), 3605.0)


REPEATED = placed(
    [
        StartEntry(session=1, timestamp=STAMP),
        StepEntry.of(session=1, timestamp=STAMP, step_id="s", name="s", result=1),
        ResumeEntry.of(session=1, timestamp=STAMP, event_name="e", value=1),
        StepEntry.of(session=1, timestamp=STAMP, step_id="s", name="s", result=2),
        ResumeEntry.of(session=1, timestamp=STAMP, event_name="e", value=2),
    ]
)
"""What an older implementation may have written: replay takes the first of each."""


def test_of_a_repeated_id_the_first_entry_counts() -> None:
    """Fork points and differences would be told of entries that replay never looks at."""
    points = [(each.offset, each.kept, each.again, each.events) for each in fork_points(REPEATED)]
    assert points == [(1, 0, 1, ("e",)), (5, 1, 0, ())]
    assert compare(REPEATED, REPEATED[:3]).differences == []
    assert compare(REPEATED[:3], REPEATED).same == 2
    later = compare(REPEATED, [REPEATED[0], *REPEATED[3:]])
    assert [(each.a, each.b) for each in later.differences] == [
        (REPEATED[1], REPEATED[3]),
        (REPEATED[2], REPEATED[4]),
    ]


def test_results_are_compared_as_json() -> None:
    """A journal of another implementation would differ in every result, by its spaces."""
    one, other = ('{"a":1,"b":[2.0]}', '{ "b": [2.0], "a": 1 }')
    steps = [
        StepEntry(session=1, timestamp=STAMP, step_id="s", name="s", result_json=each.encode())
        for each in (one, other)
    ]
    assert compare(steps[:1], steps[1:]).differences == []
