"""A workflow whose process is killed at random moments, again and again, until it is through."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import pytest

from .journals import Journal
from .lives import RUN_ID, live
from .processes import Child, Processes

KILLS = int(os.environ.get("KASSETTE_KILLS", "240"))
"""How often in all; the two event loops share them."""

STEPS = 43
LONGEST_PAUSE = 0.002
END = {"success", "over"}


@dataclass
class Story:
    """One run over all of its lives, and what must hold between any two of them."""

    directory: Path
    lives: int = 0
    kills: int = 0
    torn: int = 0
    kills_with: Counter[str] = field(default_factory=Counter)
    journal: Journal = field(default_factory=lambda: Journal(b"", b"", []))
    effects: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.directory / "journals" / f"{RUN_ID}.jsonl"

    def begin(self, processes: Processes, backend: str) -> Child:
        self.lives += 1
        return processes.start(
            live,
            backend=backend,
            directory=str(self.directory / "journals"),
            number=self.lives,
            effects=str(self.directory / "effects"),
        )

    def end(self, child: Child, messages: list[Any]) -> str | None:
        """Wait for the end of a life and check what it left behind; tell how it ended by itself."""
        messages += child.channel.rest()
        killed = child.wait() == -signal.SIGKILL
        assert killed or child.wait() == 0, f"a life ended with {child.wait()}"
        self.kills += killed
        done = [step for kind, step in messages if kind == "done"]
        in_flight = {step for kind, step in messages if kind == "begin"} - set(done)
        self.kills_with.update(in_flight)
        self._check(done)
        return None if killed else str(messages[-1][0])

    def _check(self, done: list[str]) -> None:
        before, settled = self.journal, self.journal.steps()
        now = Journal.read(self.path)
        self.torn += bool(now.torn)
        assert now.whole.startswith(before.whole), "a committed entry was lost or changed"
        now.check_order()
        steps = now.steps()
        assert set(done) <= set(steps), "a step that had returned is not recorded"

        path = self.directory / "effects"
        effects = path.read_text().splitlines() if path.exists() else []
        assert effects[: len(self.effects)] == self.effects
        for line in effects[len(self.effects) :]:
            assert line.split()[1] not in settled, "a recorded step was done again"
        assert len(set(effects)) == len(effects), "one process did a step twice"
        times = Counter(line.split()[1] for line in effects)
        assert set(steps) <= set(times), "a step is recorded that was never done"
        for step, count in times.items():
            assert count <= (step in steps) + self.kills_with[step], f"{step} was done {count}×"
        self.journal, self.effects = now, effects


def undisturbed(processes: Processes, directory: Path, backend: str) -> tuple[Any, Journal]:
    """Give the result and the journal of a run that nobody kills."""
    directory.mkdir()
    story = Story(directory)
    while True:
        child = story.begin(processes, backend)
        messages = child.channel.rest()
        assert messages[-1][0] in {"success", "suspended"}
        story.end(child, messages)
        if messages[-1][0] == "success":
            return messages[-1][1], story.journal


@dataclass
class Killer:
    """Picks the moment: after so many messages and a pause, or at a size of the journal."""

    random: Random
    model: Journal

    def strike(self, child: Child, story: Story) -> list[Any]:
        """Kill the process, unless it is spared or ends before; give what it had said."""
        messages: list[Any] = []
        with suppress(EOFError):
            match self.random.choices(["messages", "size", "spare"], [5, 4, 1])[0]:
                case "messages":
                    self._after_messages(child, story, messages)
                case "size":
                    self._at_size(child, story, messages)
        return messages

    def _after_messages(self, child: Child, story: Story, messages: list[Any]) -> None:
        missing = len(self.model.entries) - len(story.journal.entries)
        for _ in range(self.random.randrange(max(2 * missing, 6))):
            messages.append(child.channel.receive())
        due = perf_counter() + self.random.random() * LONGEST_PAUSE
        while perf_counter() < due:
            pass
        child.kill()

    def _at_size(self, child: Child, story: Story, messages: list[Any]) -> None:
        size = len(story.journal.whole)
        size += self.random.randrange(max(len(self.model.whole) - size, 200))
        while not story.path.exists() or story.path.stat().st_size <= size:
            if not child.channel.silent():
                messages.append(child.channel.receive())
        child.kill()


@pytest.mark.timeout(max(120, KILLS))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_survives_every_kill(processes: Processes, tmp_path: Path, backend: str) -> None:
    """Broken, a crash would lose work, do paid-for work again, or end in another result.

    After every death, by SIGKILL at a random moment: no committed entry is lost or changed, offsets
    are contiguous, session numbers grow, each step is recorded once, a step's effect happened at
    most once more than it was recorded for every kill that hit it, and never once it was recorded.
    In the end the result, where the process lived to tell it, is the one of an undisturbed run.
    """
    result, model = undisturbed(processes, tmp_path / "undisturbed", backend)
    assert len(model.steps()) == STEPS
    killer = Killer(Random(f"kassette {backend}"), model)
    kills = torn = runs = told = 0
    while kills < KILLS / 2 or not told:
        directory = tmp_path / f"run-{runs}"
        directory.mkdir()
        story, ending = Story(directory), None
        messages: list[Any] = []
        while ending not in END:
            child = story.begin(processes, backend)
            messages = killer.strike(child, story)
            ending = story.end(child, messages)
            assert ending in {None, "suspended", *END}
        if ending == "success":
            told += 1
            assert messages[-1][1] == result
        assert story.journal.entries[-1]["type"] == "complete"
        assert story.journal.steps() == model.steps()
        kills, torn, runs = kills + story.kills, torn + story.torn, runs + 1
    print(f"{backend}: {kills} kills in {runs} runs, {torn} torn lines, {told} results told")
