"""What a declared type costs: a step with one, over the same step without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypedDict

from benchmarks import inline, loops
from benchmarks.harness import Bench, Contestant, Perform, Sample, Stopwatch
from benchmarks.report import Table


class Message(TypedDict):
    """One message of a conversation."""

    role: str
    content: list[dict[str, str]]


@dataclass
class Hit:
    """What a search has found."""

    title: str
    score: float
    at: datetime


MESSAGES: list[Message] = [
    {"role": "user", "content": [{"type": "text", "text": "x" * 80}]} for _ in range(16)
]
HITS = [Hit(f"hit {n}", n / 7, datetime(2026, 1, 1, n, tzinfo=UTC)) for n in range(16)]


def body() -> dict[str, Any]:
    """Give JSON of 2 KB."""
    return inline.BODIES[0]


def kinds() -> dict[str, tuple[Any, Any]]:
    """Give declared types with values of about 2 KB; models are made where they are measured."""
    from pydantic import BaseModel

    class Answer(BaseModel):
        """A model of somebody's own."""

        title: str
        score: float
        at: datetime

    fields = [{"title": each.title, "score": each.score, "at": each.at} for each in HITS]
    return {
        "no type": (None, body()),
        "dict[str, Any]": (dict[str, Any], body()),
        "16 messages": (None, MESSAGES),
        "16 messages, a TypedDict": (list[Message], MESSAGES),
        "16 dataclasses": (list[Hit], HITS),
        "16 models": (list[Answer], [Answer.model_validate(each) for each in fields]),
    }


def measure(bench: Bench) -> Iterator[Table]:
    """Compare steps in memory, where nothing but the step itself costs anything."""
    steps = bench.size(20, 5)
    for title, names in (
        ("JSON of 2 KB", ("no type", "dict[str, Any]")),
        ("a value of 2 KB", ("16 messages", *list(kinds())[3:])),
    ):
        contestants = [Contestant(each, record, {"name": each, "steps": steps}) for each in names]
        yield Table(
            f"one step that gives {title}, in memory, {steps} in a row",
            "µs",
            1e6,
            contestants,
            bench.compete(contestants, rounds=25),
        )


def record(directory: Path, *, name: str, steps: int) -> Perform:
    """Record steps of one declared type."""
    from kassette_io import MemoryStorage, start

    declared, value = kinds()[name]
    run_ids = map("run-{}".format, count())
    give: Callable[[], Any] = lambda: value  # noqa: E731 - a function without an annotation

    async def perform() -> Sample:
        async with await start(MemoryStorage(), next(run_ids)) as run:
            with Stopwatch() as watch:
                for _ in range(steps):
                    await run.record("llm", give, result_type=declared)
        return watch.per(steps)

    return lambda: loops.run("asyncio", perform)
