"""What a schedule leaves behind for the invariants: what was told to whom, and when; no judgement.

Everything here is seen from outside of the library: what storage acknowledged, which functions ran,
what callers were given. Times are positions in one sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kassette import Entry

ONLY_READ, UNKNOWN_SESSION = 0, -1
"""What stands for the session of a call that opened none, or one whose number it was not told."""


class Ack(NamedTuple):
    """Storage said that ``entry`` is durable at ``offset``."""

    time: int
    run_id: str
    offset: int
    entry: Entry
    line: bytes
    owner: str


class Live(NamedTuple):
    """The function of a step ran in ``session``."""

    time: int
    run_id: str
    session: int
    step_id: str


class Told(NamedTuple):
    """The workflow was given ``value`` for a step (or, with ``event``, for an event)."""

    time: int
    run_id: str
    session: int
    step_id: str
    value: Any
    event: bool


class Outcome(NamedTuple):
    """A call of the workflow came to an end, as ``kind`` says; ``detail`` is its event or so."""

    time: int
    run_id: str
    session: int
    kind: str
    detail: str


class Forked(NamedTuple):
    """A fork was created from what its maker had read."""

    time: int
    run_id: str
    source: str
    cut: int


class Refused(NamedTuple):
    """Storage said that ``entry`` was certainly not written."""

    run_id: str
    entry: Entry


class History:
    """Everything that was seen of one schedule, and the journals as they were at its end.

    ``exclusive`` says that storage promised to let only one session of a run work at a time;
    ``unsynced`` has the lines of each run that a disk was asked to keep, and refused for good.
    """

    __slots__ = (
        "acks",
        "exclusive",
        "forks",
        "journals",
        "lives",
        "outcomes",
        "refused",
        "time",
        "told",
        "unsynced",
    )

    def __init__(self, *, exclusive: bool) -> None:
        self.exclusive = exclusive
        self.time = 0
        self.acks: list[Ack] = []
        self.lives: list[Live] = []
        self.told: list[Told] = []
        self.outcomes: list[Outcome] = []
        self.forks: list[Forked] = []
        self.refused: list[Refused] = []
        self.unsynced: dict[str, set[bytes]] = {}
        self.journals: dict[str, bytes] = {}

    def tick(self) -> int:
        """Give the next position in the sequence."""
        self.time += 1
        return self.time
