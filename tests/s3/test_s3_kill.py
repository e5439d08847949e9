"""A workflow in a bucket whose machine dies at random moments, until another has it through.

Each life is a process of its own, which shares nothing with the others but the bucket.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.crash.journals import Journal
from tests.crash.lives import RUN_ID
from tests.crash.processes import Child, Processes, fork_server
from tests.crash.story import Story, Trial

from .lives import live_on_s3
from .proxy import AFTER_LATE, CLOSED_BEFORE, LATE, LOST, PASS, Fault, Proxy, Request
from .servers import S3Server
from .support import raw_journal

KILLS = int(os.environ.get("KASSETTE_KILLS", "48"))
"""How often at least, in all; the two event loops share them, and the last run is seen through."""

LONGEST_PAUSE = 0.03
FATES = {"lost": CLOSED_BEFORE, "landed": LOST, "late": LATE}
"""What becomes of a put that its sender did not survive: it is lost, it lands, or it lands much
later, when other lives have been at work."""


@pytest.fixture
def processes(aws_environment: None) -> Iterator[Processes]:
    """Start processes that have the credentials of the test; whatever is left is killed."""
    with fork_server() as server:
        started = Processes(server)
        try:
            yield started
        finally:
            started.end()


class Ambush:
    """Kills a process when it has sent ``after`` more requests, and picks the fate of the last.

    Without a process it only lets the puts of the dead land: now and then, and more often when the
    second request arrives, between a new life's look at the journal and its ``start``.
    """

    def __init__(self, seed: float, child: Child | None = None, after: int = 0) -> None:
        self._random = Random(seed)
        self._child = child
        self._after = after
        self._seen = 0
        self.fate = "outlived"

    def __call__(self, request: Request) -> Fault:
        self._seen += 1
        if self._child is None or self._seen != self._after:
            chance = 0.4 if self._seen == 2 else 0.08
            return AFTER_LATE if self._random.random() < chance else PASS
        self._child.kill()
        self.fate = self._random.choice(list(FATES)) if request.method == "PUT" else "lost"
        return FATES[self.fate]


@pytest.mark.timeout(max(120, 2 * KILLS))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_survives_the_death_of_every_machine(
    processes: Processes,
    proxy: Proxy,
    bucket: str,
    atomic_server: S3Server,
    tmp_path: Path,
    backend: str,
) -> None:
    """Broken, a run that moves to another machine would lose paid-for work, or pay for it again.

    After every death, by SIGKILL at a random moment or in the middle of a request: no committed
    entry is lost or changed, offsets are contiguous, session numbers grow, each step is recorded
    once, a step's effect happened at most once more than it was recorded for every kill that hit
    it, and never once it was recorded. In the end the result is the one of an undisturbed run. All
    of that also where a dead machine's last put lands while its successor is at work, or after it;
    a ``start`` that lands while the run is being opened fences who opens it.
    """

    def story(name: str) -> Story:
        effects = tmp_path / name

        def start(number: int) -> Child:
            return processes.start(
                live_on_s3,
                backend=backend,
                endpoint=proxy.url,
                bucket=bucket,
                prefix=name,
                number=number,
                effects=str(effects),
            )

        def read() -> Journal:
            journal = Journal.of(raw_journal(atomic_server, bucket, RUN_ID, prefix=name))
            assert not journal.torn, "an object is replaced as a whole"
            return journal

        return Story(start, read, effects)

    trial = Trial(story, Random(f"kassette {backend}"), frozenset({"suspended", "fenced"}))
    fates = Counter[str]()

    def strike(child: Child, story: Story, messages: list[Any]) -> None:
        missing = len(trial.model.entries) - len(story.journal.entries)
        proxy.choose = Ambush(trial.random.random())
        match trial.random.choices(["messages", "request", "spare"], [4, 5, 1])[0]:
            case "messages":
                trial.after_messages(child, story, messages, LONGEST_PAUSE)
            case "request":
                after = trial.random.randint(1, max(missing // 2, 4))
                proxy.choose = ambush = Ambush(trial.random.random(), child, after)
                messages += child.channel.rest()
                fates[ambush.fate] += 1
        if trial.random.random() < 0.4:
            messages += child.channel.rest()
            proxy.land_late_ones()

    print(f"{backend}: {trial.survive(KILLS // 2, strike)}; {dict(fates)}")
