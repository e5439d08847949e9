"""Results of 2 KB in the shapes that agents record, and journals full of them."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import orjson

PROSE = (
    "the customer says that invoice was charged twice after an upgrade and asks whether refund "
    "can be issued before Friday because their card shows pending amount we checked logs found "
    "two identical requests within one second second one came from a retry of checkout service"
)
WORDS = PROSE.split()
TIMESTAMP = "2026-01-31T12:00:00.000Z"
SHAPES = ("chat", "records", "mixed")


def payload(shape: str, number: int) -> dict[str, Any]:
    """Give the result ``number`` of a shape; the same number gives the same result."""
    random = Random(number)
    match shape:
        case "chat":
            return {
                "role": "assistant",
                "model": "stand-in-1",
                "content": [
                    {"type": "thinking", "text": text(random, 930)},
                    {"type": "text", "text": text(random, 850)},
                ],
                "usage": {"input_tokens": random.randrange(9000), "output_tokens": 412},
                "stop_reason": "end_turn",
            }
        case "records":
            return {"rows": rows(random, 20), "more": False}
        case "mixed":
            return {
                "answer": text(random, 1000),
                "rows": rows(random, 10),
                "usage": {"input_tokens": random.randrange(9000), "output_tokens": 412},
            }
        case _:
            raise ValueError(shape)


def text(random: Random, length: int) -> str:
    """Give prose with line ends and quotes, one text in four has a character beyond Latin-1."""
    words = random.choices(WORDS, k=length // 5)
    for place in range(9, len(words), 23):
        words[place] += random.choice((".\n\n", ",", ":\n- ", ' "so"'))
    if random.randrange(4) == 0:
        words[3] += " \N{EM DASH}"
    return " ".join(words)[:length]


def rows(random: Random, count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": random.randrange(10**6),
            "owner": {"team": random.choice(WORDS), "level": random.randrange(5)},
            "score": round(random.random(), 3),
            "tags": [random.choice(WORDS), "open"],
            "ok": True,
        }
        for _ in range(count)
    ]


def step_line(offset: int, step_id: str, name: str, result: object) -> bytes:
    """Encode one step as the journal has it."""
    return orjson.dumps(
        {
            "type": "step",
            "session": 1,
            "offset": offset,
            "timestamp": TIMESTAMP,
            "stepId": step_id,
            "name": name,
            "result": result,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def step_name(number: int) -> str:
    """Give the name of a recorded step: an agent that calls a model and a tool by turns."""
    return "tool:search" if number % 2 else "llm"


def write_journal(path: Path, steps: int, shape: str = "mixed") -> int:
    """Write a journal of one session with ``steps`` steps, unfinished; give its size in bytes.

    It is on the disk then: what is still to be written would slow down the fsyncs of others.
    """
    bodies = [payload(shape, number) for number in range(256)]
    counts = {step_name(0): 0, step_name(1): 0}
    with path.open("wb") as file:
        start = {"type": "start", "session": 1, "offset": 0, "timestamp": TIMESTAMP}
        file.write(orjson.dumps(start, option=orjson.OPT_APPEND_NEWLINE))
        for number in range(steps):
            name = step_name(number)
            counts[name] += 1
            step_id = name if counts[name] == 1 else f"{name}#{counts[name]}"
            file.write(step_line(number + 1, step_id, name, bodies[number % len(bodies)]))
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size
