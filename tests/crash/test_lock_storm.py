"""D14 between processes: many of them want one run, and any of them may be killed at any moment."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from select import select
from time import perf_counter

import pytest

from .contenders import RUN_ID, attempt, contend, hold
from .journals import Journal
from .processes import PATIENCE, Child, Processes

CONTENDERS = 30
SESSIONS = 60
DEATHS = 120
LONGEST_PAUSE = 0.001
BACKENDS = ["asyncio", "trio"]


@dataclass
class Storm:
    """Thirty contenders, what they have said, and the hand that kills them."""

    processes: Processes
    directory: Path
    random: Random
    idle: list[Child] = field(default_factory=list)
    busy: dict[Child, str] = field(default_factory=dict)
    doomed: set[Child] = field(default_factory=set)
    deaths: int = 0
    sessions: list[int] = field(default_factory=list)
    recorded: int = 0

    def recruit(self) -> None:
        child = self.processes.start(
            contend,
            backend=self.random.choice(BACKENDS),
            directory=str(self.directory),
            witness=str(self.directory.parent / "witness"),
        )
        assert "ready" in child.channel.receive()
        self.idle.append(child)

    def order(self, child: Child, end: str) -> None:
        """Have ``child`` try once; if it gets the run, it ends the session in the way of ``end``."""
        self.idle.remove(child)
        self.busy[child] = end
        child.channel.send({"steps": self.random.randrange(3), "end": end})

    def rage(self) -> None:
        """Let everybody try at once, and kill right and left until all have had their turn."""
        self.random.shuffle(self.idle)
        for child in list(self.idle):
            self.order(child, self.random.choice(["close", "die", "wait"]))
        while self.busy:
            speaking = select(self.busy, [], [], PATIENCE)[0]
            assert speaking, "everybody waits for a lock"
            for child in speaking:
                while child in self.busy and not child.channel.silent():
                    self._hear(child)
                if self.random.random() < 0.1:
                    self._kill(*self.random.sample(list(self.busy), min(1, len(self.busy))))
                if self.random.random() < 0.005:
                    self._kill(*self.busy)
        while len(self.idle) < CONTENDERS:
            self.recruit()

    def calm(self) -> None:
        """Let one try alone, after all the deaths before: the run must be free."""
        child = self.random.choice(self.idle)
        before = len(self.sessions)
        self.order(child, "close")
        while self.busy:
            self._hear(child)
        assert len(self.sessions) == before + 1, "nobody holds the run, and nobody can take it"

    def _hear(self, child: Child) -> None:
        try:
            message = child.channel.receive()
        except EOFError:
            assert child.wait() == -9
            self.deaths += 1
            del self.busy[child]
            return
        match message:
            case {"opened": session, "overlap": overlap}:
                assert overlap is None, f"{child.pid} has a live session beside {overlap}"
                self.sessions.append(session)
                if self.busy[child] == "wait":
                    due = perf_counter() + self.random.random() * LONGEST_PAUSE
                    while perf_counter() < due:
                        pass
                    self._kill(child)
            case {"recorded": _}:
                self.recorded += 1
            case {"refused": _} | {"closed": _} if child not in self.doomed:
                del self.busy[child]
                self.idle.append(child)

    def _kill(self, *children: Child) -> None:
        self.doomed.update(children)
        for child in children:
            child.kill()


def test_never_two_live_sessions_and_never_a_lock_that_nobody_can_take(
    processes: Processes, tmp_path: Path
) -> None:
    """Broken, two processes do the same work at once, or a run is locked for ever by a dead one."""
    storm = Storm(processes, tmp_path / "journals", Random("kassette storm"))
    while len(storm.idle) < CONTENDERS:
        storm.recruit()
    while len(storm.sessions) < SESSIONS or storm.deaths < DEATHS:
        storm.rage()
        storm.calm()
    journal = Journal.read(storm.directory / f"{RUN_ID}.jsonl")
    journal.check_order()
    starts = {each["session"] for each in journal.entries if each["type"] == "start"}
    assert len(set(storm.sessions)) == len(storm.sessions), "two sessions had one number"
    assert set(storm.sessions) <= starts
    assert len(journal.steps()) >= storm.recorded
    print(f"{storm.deaths} deaths, {len(storm.sessions)} sessions, {storm.recorded} steps")


def race(processes: Processes, backend: str, directory: Path, source: str | None) -> None:
    """Let two processes open the run at the same instant, and see that one does."""
    barrier = directory.parent / "barrier"
    with barrier.open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        racers = [
            processes.start(
                attempt,
                backend=backend,
                directory=str(directory),
                barrier=str(barrier),
                source=source,
            )
            for _ in range(2)
        ]
        for each in racers:
            assert each.channel.receive() == "waiting"
    outcomes = [each.channel.receive() for each in racers]
    assert sorted(key for each in outcomes for key in each) == ["opened", "refused"], outcomes
    for each in racers:
        each.channel.close()
        assert each.wait() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_reclaimers_at_the_same_instant(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, two processes that find the same dead lock both take the run over."""
    directory = tmp_path / "journals"
    for _ in range(12):
        holder = processes.start(hold, backend=backend, directory=str(directory))
        holder.channel.receive()
        holder.kill()
        assert holder.wait() == -9
        assert (directory / f"{RUN_ID}.lock").exists()
        race(processes, backend, directory, None)
    Journal.read(directory / f"{RUN_ID}.jsonl").check_order()


@pytest.mark.parametrize("backend", BACKENDS)
def test_d12_two_forks_to_one_target_at_the_same_instant(
    processes: Processes, tmp_path: Path, backend: str
) -> None:
    """Broken, two forks are written into one another, or one pulls the file from the other."""
    directory = tmp_path / "journals"
    source = processes.start(hold, backend=backend, directory=str(directory), run_id="source")
    source.channel.receive()
    for _ in range(8):
        race(processes, backend, directory, "source")
        target = Journal.read(directory / f"{RUN_ID}.jsonl")
        target.check_order()
        assert [each["type"] for each in target.entries] == ["start", "start"]
        (directory / f"{RUN_ID}.jsonl").unlink()
    assert {each.name for each in directory.iterdir()} == {"source.jsonl", "source.lock"}
