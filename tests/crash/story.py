"""One run over the lives of many processes, and what must hold between any two; no test is here."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from .journals import Journal
from .processes import Child

STEPS = 43
"""How many steps the run of ``lives`` has."""

ENDS = {"success", "over"}
"""What the last life of a run says in the end."""


@dataclass
class Story:
    """A run of ``lives``: ``start`` begins its next life, ``read`` gives its journal.

    ``effects`` is the file that its steps write to.
    """

    start: Callable[[int], Child]
    read: Callable[[], Journal]
    effects: Path
    lives: int = 0
    kills: int = 0
    torn: int = 0
    kills_with: Counter[str] = field(default_factory=Counter)
    journal: Journal = field(default_factory=lambda: Journal.of(b""))
    done: list[str] = field(default_factory=list)

    def begin(self) -> Child:
        self.lives += 1
        return self.start(self.lives)

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

    def undisturbed(self) -> Any:
        """Live to the end and give the result; nobody kills."""
        while True:
            child = self.begin()
            messages = child.channel.rest()
            assert messages[-1][0] in {"success", "suspended"}
            self.end(child, messages)
            if messages[-1][0] == "success":
                return messages[-1][1]

    def _check(self, returned: list[str]) -> None:
        before, settled = self.journal, self.journal.steps()
        now = self.read()
        self.torn += bool(now.torn)
        assert now.whole.startswith(before.whole), "a committed entry was lost or changed"
        now.check_order()
        steps = now.steps()
        assert set(returned) <= set(steps), "a step that had returned is not recorded"

        done = self.effects.read_text().splitlines() if self.effects.exists() else []
        assert done[: len(self.done)] == self.done
        for line in done[len(self.done) :]:
            assert line.split()[1] not in settled, "a recorded step was done again"
        assert len(set(done)) == len(done), "one process did a step twice"
        times = Counter(line.split()[1] for line in done)
        assert set(steps) <= set(times), "a step is recorded that was never done"
        for step, count in times.items():
            assert count <= (step in steps) + self.kills_with[step], f"{step} was done {count}×"
        self.journal, self.done = now, done


Strike = Callable[[Child, Story, list[Any]], None]
"""Kills a process, or spares it; puts what it said into the list. EOFError: it ended before."""


class Trial:
    """Runs whose processes are killed until they are through, against one that nobody disturbs.

    ``endings`` are the ways in which a life may end by itself before the run is over.
    """

    def __init__(
        self,
        story: Callable[[str], Story],
        random: Random,
        endings: frozenset[str] = frozenset({"suspended"}),
    ) -> None:
        undisturbed = story("undisturbed")
        self._story = story
        self._endings = endings | ENDS
        self.random = random
        self.result = undisturbed.undisturbed()
        self.model = undisturbed.journal
        assert len(self.model.steps()) == STEPS

    def after_messages(
        self, child: Child, story: Story, messages: list[Any], longest_pause: float
    ) -> None:
        """Kill after a random number of messages and a random pause."""
        missing = len(self.model.entries) - len(story.journal.entries)
        for _ in range(self.random.randrange(max(2 * missing, 6))):
            messages.append(child.channel.receive())
        due = perf_counter() + self.random.random() * longest_pause
        while perf_counter() < due:
            pass
        child.kill()

    def survive(self, kills: int, strike: Strike) -> str:
        """Kill so often, in as many runs as that takes; tell what happened."""
        killed = torn = runs = told = 0
        while killed < kills or not told:
            story, ending = self._story(f"run-{runs}"), None
            messages: list[Any] = []
            while ending not in ENDS:
                child, messages = story.begin(), []
                with suppress(EOFError):
                    strike(child, story, messages)
                ending = story.end(child, messages)
                assert ending is None or ending in self._endings
            if ending == "success":
                told += 1
                assert messages[-1][1] == self.result
            assert story.journal.entries[-1]["type"] == "complete"
            assert story.journal.steps() == self.model.steps()
            killed, torn, runs = killed + story.kills, torn + story.torn, runs + 1
        return f"{killed} kills in {runs} runs, {torn} torn lines, {told} results told"
