"""Runs stories of diagnoses: text files of a journal, a lock and an instant, and of the answer.

A line is a comment (``# …``), something that is known (``> …``) or, indented, the answer. Known is:

    > DAY TIME TYPE [KEY=VALUE …]     an entry; `start` begins the next session
    > lock held|free|unknown [KEY=VALUE …]   the run's lock file
    > no locks                        the storage has none
    > at DAY TIME                     diagnose the run at that instant; the answer follows
    > new                             another journal begins

A value is JSON, or a bare word that is text. A step's name is that of its id, its result null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kassette import Entry, decode_journal
from kassette.evidence.diagnosis import Diagnosis, Lock, diagnose
from kassette.notes import running_of

_WORD = re.compile(r"[^\s\[\]{}\"]+")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "step": {"result": None},
    "suspend": {"reason": "Waiting for event"},
    "resume": {"value": True},
    "error": {"message": ""},
}


def stories() -> Iterator[Path]:
    """Give the files."""
    yield from sorted((Path(__file__).parent / "diagnoses").glob("*.txt"))


def run(text: str) -> str:
    """Give the story with the answers of now."""
    lines: list[str] = []
    world = _World()
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line.startswith("> "):
            lines += [f"  {each}" for each in world.learn(line[2:])]
    return "\n".join(lines) + "\n"


def diagnoses(text: str) -> Iterator[tuple[list[Entry], Diagnosis]]:
    """Give every diagnosis in a story, with its journal."""
    world = _World()
    for line in text.splitlines():
        if line.startswith("> "):
            world.learn(line[2:])
            if world.last is not None:
                yield world.entries(), world.last
                world.last = None


class _World:
    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._session = 0
        self._lock: Lock | None = Lock(held=False)
        self.last: Diagnosis | None = None

    def entries(self) -> list[Entry]:
        text = "".join(json.dumps(each) + "\n" for each in self._lines)
        return decode_journal(text.encode()).entries

    def learn(self, line: str) -> list[str]:
        match line.split(" ", 2):
            case ["new"]:
                self.__init__()  # type: ignore[misc]
            case ["no", "locks"]:
                self._lock = None
            case ["lock", held, *rest]:
                known = _members(" ".join(rest))
                running = known.pop("running", None)
                states = {"held": True, "free": False, "unknown": None}
                self._lock = Lock(
                    held=states[held],
                    running=None if running is None else running_of(running),
                    **known,
                )
            case ["at", day, time]:
                now = datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=UTC)
                self.last = diagnose("refund-7", self.entries(), now=now, lock=self._lock)
                return list(_told(self.last))
            case [day, time, rest]:
                kind, _, members = rest.partition(" ")
                self._add(f"{day}T{time}.000Z", kind, _members(members))
            case _:
                raise ValueError(line)
        return []

    def _add(self, at: str, kind: str, members: dict[str, Any]) -> None:
        if kind == "start":
            self._session += 1
        if kind == "step":
            members["name"] = members["stepId"].partition("#")[0]
        head = {"type": kind, "session": self._session, "timestamp": at}
        self._lines.append(head | _DEFAULTS.get(kind, {}) | members)


def _members(text: str) -> dict[str, Any]:
    members: dict[str, Any] = {}
    while text:
        key, _, text = text.partition("=")
        try:
            value, end = json.JSONDecoder().raw_decode(text)
            if text[end : end + 1].strip():
                raise ValueError
        except ValueError:
            word = _WORD.match(text)
            assert word is not None, text
            value, end = word[0], word.end()
        members[key] = value
        text = text[end:].lstrip()
    return members


def _told(found: Diagnosis) -> Iterator[str]:
    """Give a diagnosis line by line; what is empty or unknown is left out."""
    yield found.verdict
    yield f"what: {found.what}"
    yield f"why: {found.why}"
    yield f"next: {found.next.say}"
    if found.next.command is not None:
        yield f"  $ kassette {' '.join(found.next.command)}"
    if found.next.call is not None:
        yield f"  >>> {found.next.call}"
    for way in found.next.then:
        yield f"  if {way.condition}: {way.call}"
    said = found.to_json()
    for key in ("waits", "deliveries", "attempts", "longest", "sessions"):
        for each in said[key]:
            yield f"{key}: {_compact(each)}"
    for key in ("passedOver", "source", "error", "result"):
        if said.get(key):
            yield f"{key}: {_compact(said[key])}"
    yield f"size: {_compact(said['size'])}"


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        shown = (f"{key}={_compact(each)}" for key, each in value.items() if each not in (None, []))
        return " ".join(shown)
    return json.dumps(value, ensure_ascii=False)
