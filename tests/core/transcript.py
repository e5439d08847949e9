"""Runs transcripts: text files of commands and the effects that follow, which read as stories.

A line is a comment (``# …``), a command (``> …``) or, indented, what a command led to. Commands:

    > A reads                         a machine for session A is made from the shared journal
    > A start [version=V] [metadata=JSON]
    > A resume EVENT JSON
    > A record [BRANCH/…/]NAME        begin a step, or replay it
    > A returns STEP_ID JSON          the step's function returned
    > A raises STEP_ID                the step's function raised
    > A waits [BRANCH/…/]EVENT [timeout=SECONDS]
    > A enters KEYS [in=BRANCH/…]     a parallel block begins
    > A leaves KEYS [in=BRANCH/…] [abandoned]
    > A completes | A fails MESSAGE | A closes
    > disk full | disk broken         the next append is rolled back, or its outcome is unknown
    > clock SECONDS                   time goes on
    > journal                         what is stored

Appends and reloads are performed at once, and what they lead to follows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from kassette import (
    UNSET,
    Append,
    Close,
    Command,
    Complete,
    Deliver,
    Diverged,
    Effect,
    EnterParallel,
    Entry,
    Fail,
    KassetteError,
    LeaveParallel,
    Opened,
    Raise,
    Record,
    Release,
    Reload,
    Replay,
    Resume,
    Return,
    RunStep,
    Start,
    StepFailed,
    StepSucceeded,
    StorageError,
    WaitForEvent,
    encode_entry,
)

from .driving import NOW, Session


def run(text: str) -> str:
    """Give the transcript with what its commands lead to now."""
    world = _World()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line.startswith("> "):
            lines += [f"  {each}" for each in world.perform(line[2:])]
    return "\n".join(lines) + "\n"


def stories() -> Iterator[Path]:
    """Give the transcript files."""
    yield from sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


class _World:
    def __init__(self) -> None:
        self._stored: list[Entry] = []
        self._sessions: dict[str, _Telling] = {}
        self._now = NOW
        self._failures: list[BaseException] = []

    def perform(self, line: str) -> list[str]:
        subject, _, rest = line.partition(" ")
        match subject, rest:
            case "journal", "":
                return [_journaled(entry) for entry in self._stored]
            case "clock", seconds:
                self._now += timedelta(seconds=float(seconds))
                return [f"it is {self._now:%H:%M:%S}"]
            case "disk", kind:
                self._failures.append(StorageError(f"disk {kind}", rolled_back=kind == "full"))
                return []
            case name, "reads":
                self._sessions[name] = _Telling(self._stored)
                return [f"{len(self._stored)} entries"]
            case name, rest:
                return self._tell(self._sessions[name], rest)

    def _tell(self, session: _Telling, words: str) -> list[str]:
        session.now, session.fails, session.told = self._now, self._failures, []
        try:
            session.do(_command(words))
        except (KassetteError, OSError) as error:
            session.told.append(f"raise {type(error).__name__}: {error}")
        return [*session.told, f"({session.machine.state.value})"]


class _Telling(Session):
    """A session that tells what it performs."""

    told: list[str]

    def show(self, effect: Effect) -> None:
        """Tell an effect; an error is told when it arrives."""
        if not isinstance(effect, Raise):
            self.told.append(_effect(effect))


def _command(words: str) -> Command:
    verb, _, rest = words.partition(" ")
    return _VERBS[verb](rest)


def _start(rest: str) -> Start:
    options = dict(option.split("=", maxsplit=1) for option in rest.split())
    metadata: Any = json.loads(options["metadata"]) if "metadata" in options else UNSET
    return Start(metadata, options.get("version"), "token")


def _resume(rest: str) -> Resume:
    event, _, value = rest.partition(" ")
    return Resume(event, json.loads(value), None, "token")


def _record(rest: str) -> Record:
    *path, name = rest.split("/")
    return Record(name, tuple(path))


def _returns(rest: str) -> StepSucceeded:
    step_id, _, result = rest.partition(" ")
    return StepSucceeded(step_id, json.loads(result))


def _waits(rest: str) -> WaitForEvent:
    where, _, option = rest.partition(" timeout=")
    *path, event = where.split("/")
    return WaitForEvent(event, float(option) if option else None, None, tuple(path))


def _block(rest: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    words = rest.split()
    path = next((tuple(word[3:].split("/")) for word in words if word.startswith("in=")), ())
    keys = [word for word in words if not word.startswith("in=") and word != "abandoned"]
    return tuple(keys), path, "abandoned" in words


def _enters(rest: str) -> EnterParallel:
    keys, path, _ = _block(rest)
    return EnterParallel(keys, path)


_VERBS: dict[str, Callable[[str], Command]] = {
    "start": _start,
    "resume": _resume,
    "record": _record,
    "returns": _returns,
    "raises": StepFailed,
    "waits": _waits,
    "enters": _enters,
    "leaves": lambda rest: LeaveParallel(*_block(rest)),
    "completes": lambda rest: Complete(),
    "fails": lambda rest: Fail(rest, "ValueError"),
    "closes": lambda rest: Close(),
}


def _journaled(entry: Entry) -> str:
    return encode_entry(entry, entry.offset or 0).decode().rstrip("\n")


def _effect(effect: Effect) -> str:
    match effect:
        case Append(entry=entry):
            members = json.loads(encode_entry(entry, 0))
            shown = [
                f"{key}={json.dumps(value)}"
                for key, value in members.items()
                if key not in ("type", "offset", "timestamp", "writer")
            ]
            return f"append {entry.type} {' '.join(shown)}"
        case Opened(session=number):
            return f"open session {number}"
        case Replay(entry=step):
            return f"replay {step.step_id} {json.dumps(step.result)}"
        case Return(entry=step, result=result):
            return f"return {step.step_id} {json.dumps(result)}"
        case RunStep(step_id=step_id):
            return f"run {step_id}"
        case Deliver(entry=event):
            return f"deliver {event.event_name} {json.dumps(event.value)}"
        case Diverged(step_id=step_id, passed_over=passed):
            return f"part at {step_id}, passing over {' '.join(passed) or 'nothing'}"
        case Reload():
            return "reload"
        case Release():
            return "release"
        case Raise():
            raise AssertionError("an error is told when it arrives")
