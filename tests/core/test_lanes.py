"""Where workflow and journal part: noticed when it is so, and never when tasks merely race."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from random import Random
from typing import Any

import pytest

from kassette import (
    Complete,
    Diverged,
    EnterParallel,
    Entry,
    LeaveParallel,
    Machine,
    Record,
    Replay,
    ReplayMismatchError,
    RunStep,
    StepEntry,
    StepFailed,
    StepSucceeded,
    SuspendError,
    UsageError,
)
from kassette.notes import step_notes_of

from .driving import NOW, Session, opened

Program = list[Any]


def ask(
    session: Session, name: str, caller: str = "main", *, path: tuple[str, ...] = ()
) -> tuple[list[Diverged], str | None]:
    """Ask for a step; return what was reported, and the id if it has to run."""
    effects = session.do(Record(name, path, caller, aside=caller != "main"))
    reports = [each for each in effects if isinstance(each, Diverged)]
    match effects[-1]:
        case RunStep(step_id=step_id):
            return reports, step_id
        case Replay():
            return reports, None
        case other:
            raise AssertionError(other)


def recorded(*names: str) -> list[Entry]:
    """Return the journal of a session that took these steps and crashed."""
    session = opened()
    for name in names:
        session.step(name)
    return session.stored


def test_a_renamed_step_is_reported_when_it_runs() -> None:
    """What was paid for under the old name would be paid again, and nobody would hear of it."""
    again = opened(recorded("look", "pay"))
    assert ask(again, "look") == ([], None)
    assert ask(again, "pay_now") == ([Diverged("pay_now", ("pay",))], "pay_now")


def test_a_removed_step_is_reported_at_the_next_one_that_runs() -> None:
    """The code would go on from a result that it no longer asks for."""
    again = opened(recorded("look", "check"))
    assert ask(again, "look") == ([], None)
    assert ask(again, "pay") == ([Diverged("pay", ("check",))], "pay")


def test_reordered_steps_are_reported_on_replay() -> None:
    """Results would be used in another order than they were made in."""
    again = opened(recorded("a", "b", "c"))
    assert ask(again, "b") == ([], None)
    assert ask(again, "a") == ([Diverged("a", ())], None)
    assert ask(again, "c") == ([], None)


@pytest.mark.parametrize("asked", [("pay_now",), ("pay", "look")])
def test_a_strict_session_refuses_where_they_part(asked: tuple[str, ...]) -> None:
    """``on_divergence="raise"`` would pay first and complain afterwards."""
    again = opened(recorded("look", "pay"), strict=True)
    for name in asked[:-1]:
        ask(again, name)
    with pytest.raises(ReplayMismatchError) as refused:
        ask(again, asked[-1])
    assert refused.value.step_id == asked[-1]
    assert bool(refused.value.passed_over) == (asked == ("pay_now",))
    assert not isinstance(refused.value, UsageError)


def test_a_refusal_names_the_first_recorded_step() -> None:
    """Whoever compares the names would look at the wrong step."""
    again = opened(recorded("look", "check", "pay"), strict=True)
    ask(again, "look")
    with pytest.raises(ReplayMismatchError) as refused:
        ask(again, "send")
    assert refused.value.expected_name == "check"
    assert refused.value.passed_over == ("check", "pay")
    in_order = opened(recorded("a", "b"), strict=True)
    ask(in_order, "b")
    with pytest.raises(ReplayMismatchError) as refused:
        ask(in_order, "a")
    assert (refused.value.expected_name, refused.value.passed_over) == ("a", ())


def test_waits_note_their_branch_and_the_last_what_was_passed_over() -> None:
    """Of two open approvals nobody could tell which belongs where; a removed step left no trace."""
    again = opened(recorded("a", "b"))
    ask(again, "a")
    again.do(EnterParallel(("x", "y")))
    for key in "x", "y":
        with pytest.raises(SuspendError):
            again.wait(f"ok:{key}", (key, "z"))
    with pytest.raises(SuspendError):
        again.do(LeaveParallel(("x", "y")))
    assert [each.extra for each in again.stored[-2:]] == [
        {"branch": "x:z"},
        {"branch": "y:z", "passedOver": ["b"]},
    ]


def test_a_session_that_was_taken_up_may_be_strict() -> None:
    """A fork would run what its workflow refuses to run anywhere else."""
    stored = recorded("look", "pay")
    lenient = Machine.opened("run-1", stored)
    assert lenient.handle(Record("send"), now=NOW)[-1] == RunStep("send", "send")
    strict = Machine.opened("run-1", stored, strict=True)
    with pytest.raises(ReplayMismatchError):
        strict.handle(Record("send"), now=NOW)


def test_what_was_never_asked_for_stands_in_the_last_entry() -> None:
    """A step that is removed at the end of a workflow would leave no trace at all."""
    again = opened(recorded("a", "b", "c"))
    ask(again, "a")
    again.do(Complete())
    assert again.stored[-1].extra == {"passedOver": ["b", "c"]}


def test_a_lane_is_noted_where_it_is_not_the_workflows_own() -> None:
    """A later session could not tell what one task did from what another did beside it."""
    session = opened()
    for name, caller, path in (
        ("a", "main", ()),
        ("b", "t1", ()),
        ("c", "t2", ()),
        ("d", "main", ("x", "y")),
        ("e", "t3", ("x", "y")),
    ):
        _, step_id = ask(session, name, caller, path=path)
        session.succeed(str(step_id))
    steps = [each for each in session.stored if isinstance(each, StepEntry)]
    assert [step_notes_of(each).lane for each in steps] == ["", "#1", "#2", "x:y", "x:y#1"]
    again = opened(session.stored)
    assert ask(again, "c", "first") == ([], None)
    for name, caller in ("f", "first"), ("g", "other"):
        _, step_id = ask(again, name, caller)
        again.succeed(str(step_id))
    assert [step_notes_of(each).lane for each in again.stored[-2:]] == ["#2", "#3"]


def test_a_task_that_was_seen_on_record_is_held_to_its_own_lane() -> None:
    """A step renamed inside of a task beside the workflow would never be noticed."""
    session = opened()
    for name in "a", "b":
        _, step_id = ask(session, name, "t1")
        session.succeed(str(step_id))
    again = opened(session.stored)
    assert ask(again, "unknown", "t9") == ([], "unknown")
    assert ask(again, "a", "t5") == ([], None)
    assert ask(again, "b2", "t5") == ([Diverged("b2", ("b",))], "b2")


def test_journals_without_notes_report_nothing() -> None:
    """Every run of an older release, or of the original, would be reported."""
    stored: list[Entry] = [
        each.replace(extra_json=b"{}") if isinstance(each, StepEntry) else each
        for each in recorded("look", "pay")
    ]
    again = opened(stored, strict=True)
    assert ask(again, "pay") == ([], None)
    assert ask(again, "look") == ([], None)
    assert ask(again, "other") == ([], "other")


# --- programs that race but do not part ------------------------------------------------------


def program(random: Random, depth: int = 0, name: str = "s") -> Program:
    """Return what a task does: steps, steps that fail and are caught, pairs of open attempts,
    tasks beside it and parallel branches.
    """
    acts: Program = []
    for number in range(random.randint(1, 4)):
        own = f"{name}{number}"
        kind = random.choice(["step", "step", "fails", "pair", "tasks", "branches"])
        if depth >= 2 and kind in ("tasks", "branches"):
            kind = "step"
        if kind in ("tasks", "branches"):
            inner = [
                program(random, depth + 1, f"{own}{key}") for key in "xyz"[: random.randint(1, 3)]
            ]
            acts.append((kind, own, inner))
        else:
            acts.append((kind, own, None))
    return acts


class Playing:
    """Plays a program on a session in one of the orders that its tasks allow."""

    def __init__(self, session: Session, random: Random, turns: int) -> None:
        self.session = session
        self.random = random
        self.turns = turns
        self.reports: list[Diverged] = []
        self.tasks = 0

    def play(self, acts: Program) -> bool:
        """Return whether the program has ended, and was not cut off by a crash."""
        running: list[Generator[Any]] = [self.task(acts, "main", (), True)]
        parents: dict[int, tuple[Generator[Any], int]] = {}
        waiting: dict[int, tuple[Generator[Any], int]] = {}
        while running:
            if self.turns == 0:
                return False
            self.turns -= 1
            task = self.random.choice(running)
            try:
                children = next(task)
            except StopIteration:
                running.remove(task)
                if id(task) in parents:
                    parent, _ = parents.pop(id(task))
                    waiter, left = waiting[id(parent)]
                    waiting[id(parent)] = waiter, left - 1
                    if left == 1:
                        del waiting[id(parent)]
                        running.append(waiter)
                continue
            if children:
                running.remove(task)
                waiting[id(task)] = task, len(children)
                for child in children:
                    parents[id(child)] = task, 0
                running.extend(children)
        return True

    def task(
        self, acts: Program, caller: str, path: tuple[str, ...], main: bool
    ) -> Generator[list[Generator[Any]] | None]:
        for kind, name, inner in acts:
            if kind == "tasks":
                yield [self.task(each, self.another(), path, False) for each in inner]
            elif kind == "branches":
                yield [
                    self.task(each, f"branch-{name}-{at}", (*path, f"{name}-{at}"), True)
                    for at, each in enumerate(inner)
                ]
            elif kind == "pair":
                first = self.ask(f"{name}-1", caller, path, main)
                yield None
                second = self.ask(f"{name}-2", caller, path, main)
                yield None
                for step_id in (second, first):
                    if step_id is not None:
                        self.session.succeed(step_id)
                        yield None
            else:
                step_id = self.ask(name, caller, path, main)
                yield None
                if step_id is not None and kind == "fails" and self.random.random() < 0.7:
                    self.session.do(StepFailed(step_id))
                elif step_id is not None:
                    self.session.succeed(step_id)
                yield None

    def another(self) -> str:
        self.tasks += 1
        return f"task-{self.session.machine.session}-{self.tasks}"

    def ask(self, name: str, caller: str, path: tuple[str, ...], main: bool) -> str | None:
        effects = self.session.do(Record(name, path, caller, aside=not main))
        self.reports += [each for each in effects if isinstance(each, Diverged)]
        last = effects[-1]
        return last.step_id if isinstance(last, RunStep) else None


def lives(seed: int) -> Iterator[tuple[Session, Playing, bool]]:
    """Play one program in sessions that crash at random, until one ends."""
    random = Random(seed)
    acts = program(random)
    stored: list[Entry] = []
    for _ in range(30):
        session = opened(stored)
        playing = Playing(session, random, random.randint(0, 120))
        ended = playing.play(acts)
        yield session, playing, ended
        if ended:
            return


@pytest.mark.parametrize("hundred", range(10))
def test_tasks_that_race_are_never_reported(hundred: int) -> None:
    """Warnings would cry wolf, and a strict workflow would refuse to recover."""
    sessions = ends = 0
    for seed in range(hundred * 100, hundred * 100 + 100):
        for _, playing, ended in lives(seed):
            assert playing.reports == [], f"seed {seed}"
            sessions += 1
            ends += ended
    assert ends >= 90
    assert sessions > 1.5 * ends, "hardly any session had anything to replay"


def test_the_races_have_something_to_find() -> None:
    """The test above would pass on programs in which nothing can be told."""
    found = 0
    for seed in range(200):
        *_, (session, _, ended) = lives(seed)
        if not ended:
            continue
        acts = program(Random(seed))
        kind, name, _inner = acts[0]
        if kind != "step":
            continue
        acts[0] = (kind, f"{name}-renamed", None)
        again = opened([each for each in session.stored if each.type != "complete"])
        playing = Playing(again, Random(1), 1000)
        playing.play(acts)
        assert playing.reports, f"seed {seed}"
        found += 1
    assert found > 20


def test_interchangeable_calls_are_of_no_lane() -> None:
    """Requests of one content, answered in any order, would be reported as reordered."""
    session = opened()
    ids = [
        session.do(Record("ask", (), "main", interchangeable=True))[-1].step_id  # type: ignore[union-attr]
        for _ in range(3)
    ]
    for step_id in reversed(ids):
        session.perform(session.tell(StepSucceeded(step_id, 1)))
    again = opened(session.stored)
    for _ in range(3):
        effects = again.do(Record("ask", (), "main", interchangeable=True))
        assert isinstance(effects[0], Replay)
    assert ask(again, "next") == ([], "next")
    assert again.machine._steps.not_asked_for == []
