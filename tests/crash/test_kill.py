"""A workflow whose process is killed at random moments, again and again, until it is through."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from .journals import Journal
from .lives import RUN_ID, live
from .processes import Child, Processes
from .story import Story, Trial

KILLS = int(os.environ.get("KASSETTE_KILLS", "240"))
"""How often in all; the two event loops share them."""

LONGEST_PAUSE = 0.002


@pytest.mark.timeout(max(120, KILLS))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_survives_every_kill(processes: Processes, tmp_path: Path, backend: str) -> None:
    """Broken, a crash would lose work, do paid-for work again, or end in another result.

    After every death, by SIGKILL at a random moment: no committed entry is lost or changed, offsets
    are contiguous, session numbers grow, each step is recorded once, a step's effect happened at
    most once more than it was recorded for every kill that hit it, and never once it was recorded.
    In the end the result, where the process lived to tell it, is the one of an undisturbed run.
    """
    journal = tmp_path / "nowhere"

    def story(name: str) -> Story:
        nonlocal journal
        directory = tmp_path / name
        directory.mkdir()
        journal = directory / "journals" / f"{RUN_ID}.jsonl"
        effects = directory / "effects"

        def start(number: int) -> Child:
            return processes.start(
                live,
                backend=backend,
                directory=str(directory / "journals"),
                number=number,
                effects=str(effects),
            )

        return Story(start, partial(Journal.read, journal), effects)

    trial = Trial(story, Random(f"kassette {backend}"))

    def strike(child: Child, story: Story, messages: list[Any]) -> None:
        match trial.random.choices(["messages", "size", "spare"], [5, 4, 1])[0]:
            case "messages":
                trial.after_messages(child, story, messages, LONGEST_PAUSE)
            case "size":
                size = len(story.journal.whole)
                size += trial.random.randrange(max(len(trial.model.whole) - size, 200))
                while not journal.exists() or journal.stat().st_size <= size:
                    if not child.channel.silent():
                        messages.append(child.channel.receive())
                child.kill()

    print(f"{backend}: {trial.survive(KILLS // 2, strike)}")
