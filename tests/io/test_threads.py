"""The pool of writer threads by itself, without files and event loops."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from kassette_io.loops.threads import MAX_THREADS, Job, Mailbox, Threads
from tests.io.stories import PATIENCE


class Loop:
    """Wakes nobody: it sets the event that a job carries as its task."""

    def deliver(self, waker: Any, jobs: Sequence[Job]) -> None:
        """Set the events."""
        for job in jobs:
            job.task.set()

    wake = deliver


def job(request: object = None) -> Job:
    """Make a job whose task is an event."""
    made = Job(request, Loop(), 1)  # type: ignore[arg-type]
    made.task = threading.Event()
    return made


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def _served(serve: Callable[[list[Job]], None]) -> Mailbox:
    return Mailbox(serve)


@pytest.mark.usefixtures("hasty_threads")
def test_an_idle_thread_may_take_what_a_busy_one_queued() -> None:
    """The busy thread would wait for it under the lock, and every append after it for ever."""
    writers = Threads("kassette-writer")
    for _ in range(2000):
        gate, inside = threading.Event(), threading.Event()

        def hold(jobs: list[Job], gate: Any = gate, inside: Any = inside) -> None:
            if jobs[0].request == "slow":
                inside.set()
                gate.wait(PATIENCE)

        slow, other = _served(hold), _served(lambda jobs: None)
        first, second, beside = job("slow"), job(), job()
        writers.post(slow, first)
        assert inside.wait(PATIENCE)
        writers.post(other, beside)
        assert beside.task.wait(PATIENCE)
        writers.post(slow, second)
        gate.set()
        assert first.task.wait(PATIENCE)
        assert second.task.wait(PATIENCE)


def test_jobs_that_wait_in_a_mailbox_are_served_together_in_order() -> None:
    """Each waiting append would cost an fsync of its own, or overtake another (D6)."""
    writers = Threads("kassette-writer")
    gate, inside = threading.Event(), threading.Event()
    batches: list[list[object]] = []

    def serve(jobs: list[Job]) -> None:
        batches.append([each.request for each in jobs])
        inside.set()
        gate.wait(PATIENCE)

    mailbox = _served(serve)
    jobs = [job(number) for number in range(6)]
    writers.post(mailbox, jobs[0])
    assert inside.wait(PATIENCE)
    for each in jobs[1:]:
        writers.post(mailbox, each)
    gate.set()
    assert all(each.task.wait(PATIENCE) for each in jobs)
    assert batches == [[0], [1, 2, 3, 4, 5]]


def test_no_more_threads_are_made_than_allowed_and_every_mailbox_is_served() -> None:
    """A thousand runs would mean a thousand threads, or some run would never be written."""
    writers = Threads("kassette-writer")
    gate, all_there = threading.Event(), threading.Event()
    names: set[int] = set()

    def serve(jobs: list[Job]) -> None:
        names.add(threading.get_ident())
        if len(names) == MAX_THREADS:
            all_there.set()
        gate.wait(PATIENCE)

    jobs = [job() for _ in range(5 * MAX_THREADS)]
    for each in jobs:
        writers.post(_served(serve), each)
    assert all_there.wait(PATIENCE)
    gate.set()
    assert all(each.task.wait(PATIENCE) for each in jobs)
    assert len(names) == MAX_THREADS


def test_idle_threads_go_and_new_ones_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process would keep the threads of one busy moment for ever, or have none afterwards."""
    monkeypatch.setattr("kassette_io.loops.threads.IDLE_SECONDS", 0.0)
    writers = Threads("kassette-writer")
    for _ in range(200):
        each = job()
        writers.post(_served(lambda jobs: None), each)
        assert each.task.wait(PATIENCE)
    last = job()
    writers.post(_served(lambda jobs: None), last)
    assert last.task.wait(PATIENCE)


def test_a_job_wakes_who_waits_for_it_and_nobody_else() -> None:
    """A put to an object store would be done, and its caller wait for ever."""
    awaited, beside = job(), job()
    awaited.notify()
    assert awaited.task.is_set()
    assert not beside.task.is_set()
    beside.notify_here()
    assert beside.task.is_set()
    Job("for nobody").notify()
    Job("for nobody").notify_here()


def test_a_job_gives_what_came_of_it() -> None:
    """An append that failed would be taken for one that is durable."""
    done = Job("it")
    done.result = 7
    assert done.outcome() == 7
    done.error = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        done.outcome()
