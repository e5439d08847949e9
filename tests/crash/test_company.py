"""Steps that are paid for, in company, by real processes that are killed at every entry.

What one life of a run may pay for, checked after each of them:
- nothing that an earlier life has recorded;
- every attempt of a step once at most, and all that it takes to record it in the life that does;
- a life that nobody kills: nothing but what it has recorded when it ends, other than a step that a
  failing sibling has cancelled.
So only a life that is killed pays for what another one has to pay for again: what it had in flight.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kassette import decode_journal

from .company import ATTEMPTS, RUN_ID, live
from .journals import Journal
from .processes import Processes

Death = tuple[str, int]
"""The moment, and the number of the entry or of the payment at which a life ends."""

CASES = [
    ("repeats", "asyncio"),
    ("repeats", "trio"),
    ("five tools, gathered", "asyncio"),
    ("five tools, grouped", "asyncio"),
    ("five tools, grouped", "trio"),
    ("framework", "asyncio"),
    ("framework", "trio"),
]
WAITS = {
    "repeats": {"once more"},
    "five tools, gathered": {"room", "car"},
    "five tools, grouped": {"room", "car"},
    "framework": {"approval"},
}
CANCELLED = {"insure"}
"""Steps that a failing sibling cancels: each life that takes them pays, and none records them."""


class Lives:
    """A run in ``directory``, one process after the other, ``life`` of them so far."""

    def __init__(
        self, processes: Processes, flow: str, backend: str, directory: Path, life: int = 0
    ) -> None:
        self.directory = directory
        self.life = life
        self.result: Any = None
        self.lost: Counter[str] = Counter()
        """In how many lives each step was paid for without being recorded."""
        self._processes = processes
        self._flow = flow
        self._backend = backend
        self.journal, self.paid = self._read()

    def _read(self) -> tuple[Journal, list[str]]:
        payments = self.directory / "payments"
        paid = payments.read_text().splitlines() if payments.exists() else []
        return Journal.read(self.directory / f"{RUN_ID}.jsonl"), paid

    def live(self, death: Death | None = None) -> str:
        """Have the run live once more, to ``death`` or as far as it goes; return how it ended."""
        self.life += 1
        child = self._processes.start(
            live,
            backend=self._backend,
            directory=str(self.directory),
            flow=self._flow,
            life=self.life,
            death=death,
        )
        messages = child.channel.rest()
        killed = child.wait() == -signal.SIGKILL
        child.channel.close()
        assert killed or child.wait() == 0, f"life {self.life} ended with {child.wait()}"
        assert all(kind != "warned" for kind, _ in messages), messages
        ending = "killed" if killed else str(messages[-1][0])
        if ending == "success":
            self.result = messages[-1][1]
        self._check(ending)
        return ending

    def to_the_end(self) -> None:
        """Live until the run is over; nobody kills."""
        while (ending := self.live()) not in {"success", "over"}:
            assert ending == "suspended"

    def waits(self) -> set[str]:
        return {each["waitingFor"] for each in self.journal.entries if each["type"] == "suspend"}

    def _check(self, ending: str) -> None:
        before, known, paid = self.journal, self.journal.steps(), self.paid
        now, self.paid = self._read()
        self.journal = now
        assert now.whole.startswith(before.whole), "a committed entry was lost or changed"
        now.check_order()
        assert len(decode_journal(now.whole).entries) == len(now.entries)
        assert self.paid[: len(paid)] == paid

        attempts = attempts_of(self.paid[len(paid) :], self.life)
        recorded = now.steps().keys() - known.keys()
        assert not attempts.keys() & known.keys(), "a recorded step was paid for again"
        assert not recorded & CANCELLED
        needed = ATTEMPTS if self._flow == "repeats" else 1
        for step, count in attempts.items():
            assert count == needed if step in recorded else count <= needed
        assert recorded <= attempts.keys(), "a step is recorded that was not paid for"
        lost = attempts.keys() - recorded - CANCELLED
        self.lost.update(lost)
        if ending != "killed":
            assert not lost, f"{lost} paid for and not recorded, though nobody died"
            assert not now.torn
        if ending in {"success", "suspended"}:
            assert not (self.directory / f"{RUN_ID}.lock").exists()
        if ending == "suspended":
            assert self.waits() == WAITS[self._flow], "a wait is not written"

    def check_end(self, model: Lives) -> None:
        """Fail unless the run has ended as ``model`` did, and paid again for what was lost only."""
        assert self.journal.entries[-1]["type"] == "complete"
        assert self.journal.steps() == model.journal.steps()
        assert self.waits() == model.waits()
        assert self.result in (None, model.result)
        pairs = {(each.split(" ", 1)[0], step_of(each)) for each in self.paid}
        lives = Counter(step for _, step in pairs if step not in CANCELLED)
        assert lives == Counter(model.journal.steps().keys()) + self.lost


def step_of(payment: str) -> str:
    return payment.split(" ", 1)[1].rsplit(" ", 1)[0]


def attempts_of(payments: list[str], life: int) -> dict[str, int]:
    """Return how many attempts of each step ``life`` has paid for, each of them once."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for each in payments:
        assert each.split(" ", 1)[0] == str(life)
        numbers[step_of(each)].append(int(each.rsplit(" ", 1)[1]))
    for step, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), f"an attempt of {step} was paid for twice"
    return {step: len(found) for step, found in numbers.items()}


@dataclass
class Model:
    """An undisturbed run, and copies of the directory with which each of its lives began."""

    end: Lives
    beginnings: list[Path]

    @classmethod
    def of(cls, run: Lives, copies: Path) -> Model:
        beginnings: list[Path] = []
        ending = ""
        while ending != "success":
            beginnings.append(copies / f"beginning-{run.life}")
            shutil.copytree(run.directory, beginnings[-1])
            ending = run.live()
        run.check_end(run)
        return cls(run, beginnings)

    def deaths(self) -> Iterator[tuple[Death, int]]:
        """Yield every death of a life, and how many lives there are before that one."""
        counts = [self._counts(each) for each in self.beginnings]
        for number in range(len(self.end.journal.entries)):
            life = sum(entries <= number for entries, _ in counts) - 1
            yield ("before", number), life
            yield ("after", number), life
        for number in range(1, len(self.end.paid) + 1):
            yield ("paid", number), sum(paid < number for _, paid in counts) - 1

    def lengths(self) -> set[int]:
        """Return the lengths that a journal can have: the waits of a life are one write."""
        kinds = [each["type"] for each in self.end.journal.entries]
        inside = {n for n in range(1, len(kinds)) if kinds[n - 1 : n + 1] == ["suspend"] * 2}
        return {*range(len(kinds) + 1)} - inside

    @staticmethod
    def _counts(directory: Path) -> tuple[int, int]:
        files = [directory / f"{RUN_ID}.jsonl", directory / "payments"]
        entries, paid = (each.read_bytes().count(b"\n") if each.exists() else 0 for each in files)
        return entries, paid


@pytest.fixture
def begin(processes: Processes, tmp_path: Path) -> Callable[[str, str, str], Lives]:
    """Return what makes a new run of a workflow under a backend, in a directory of this name."""

    def make(flow: str, backend: str, name: str) -> Lives:
        (tmp_path / name).mkdir()
        return Lives(processes, flow, backend, tmp_path / name)

    return make


@pytest.mark.parametrize(("flow", "backend"), CASES)
def test_a_death_at_every_entry_and_every_payment(
    processes: Processes,
    begin: Callable[[str, str, str], Lives],
    tmp_path: Path,
    flow: str,
    backend: str,
) -> None:
    """Broken, an agent that repeats calls, or runs tools side by side, pays twice after a crash.

    In each run one process dies by SIGKILL: before or after the write of an entry, or with a
    payment just made, for every entry and every payment that an undisturbed run has.
    """
    model = Model.of(begin(flow, backend, "undisturbed"), tmp_path)
    lengths: set[int] = set()
    lives = deaths = 0
    for death, before in model.deaths():
        directory = tmp_path / "{}-{}".format(*death)
        shutil.copytree(model.beginnings[before], directory)
        run = Lives(processes, flow, backend, directory, before)
        while (ending := run.live(death)) == "suspended":
            pass  # a life that wrote this entry together with the one before it
        assert ending == "killed"
        lengths.add(len(run.journal.entries))
        run.to_the_end()
        run.check_end(model.end)
        lives, deaths = lives + run.life - before, deaths + 1
    assert lengths == model.lengths()
    print(f"{flow}, {backend}: {deaths} deaths in {lives} processes")


@pytest.mark.parametrize(("flow", "backend"), CASES)
def test_a_run_that_dies_at_every_one_of_its_entries(
    begin: Callable[[str, str, str], Lives], tmp_path: Path, flow: str, backend: str
) -> None:
    """Broken, what one crash does not spoil is spoilt by the next one of the same run.

    Every life dies at the first entry that is not its ``start``: one before that is written, the
    next one after.
    """
    model = Model.of(begin(flow, backend, "undisturbed"), tmp_path)
    run = begin(flow, backend, "run")
    ending, moments = "", ["before", "after"]
    while ending not in {"success", "over"}:
        ending = run.live((moments[run.life % 2], len(run.journal.entries) + 1))
    run.check_end(model.end)
    assert set(model.end.journal.steps()) == set(run.lost), "some step was never in flight"
    print(f"{flow}, {backend}: {run.life} lives")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_death_at_every_attempt_of_a_step_repeated_by_hand(
    begin: Callable[[str, str, str], Lives], backend: str
) -> None:
    """Broken, attempts that failed are taken for steps of their own by the next process.

    One run dies after the first attempt, then after the second, after the third, before the entry
    of the step is written, and after it is. What each life pays for is known exactly.
    """
    run = begin("repeats", backend, "run")
    deaths = [("paid", 1), ("paid", 3), ("paid", 6), ("before", 4), ("after", 5)]
    for death in deaths:
        assert run.live(death) == "killed"
    run.to_the_end()
    paid = [line.split(" ", 1)[1] for line in run.paid]
    charges = [f"charge {number}" for number in (1, 1, 2, *(1, 2, 3) * 3)]
    assert paid == [*charges, "charge#2 1", "charge#2 2", "charge#2 3"]
    assert list(run.journal.steps()) == ["charge", "charge#2"]
    assert run.result == ["charge was paid", {"answer to": "once more"}, "charge#2 was paid"]
