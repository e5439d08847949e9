"""Journals as a stranger reads them, without a line of the code under test."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Journal:
    """The whole lines of a journal, what is torn after them, and the entries on the lines."""

    whole: bytes
    torn: bytes
    entries: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Journal:
        return cls.of(path.read_bytes() if path.exists() else b"")

    @classmethod
    def of(cls, data: bytes) -> Journal:
        end = data.rfind(b"\n") + 1
        return cls(data[:end], data[end:], [json.loads(each) for each in data[:end].splitlines()])

    def steps(self) -> dict[str, Any]:
        found = [each for each in self.entries if each["type"] == "step"]
        results = {each["stepId"]: each["result"] for each in found}
        assert len(results) == len(found), "a step id is recorded twice"
        return results

    def check_order(self) -> None:
        assert [each["offset"] for each in self.entries] == list(range(len(self.entries)))
        sessions = [each["session"] for each in self.entries]
        assert sessions == sorted(sessions), "an older session wrote after a newer one"
        starts = [each["session"] for each in self.entries if each["type"] == "start"]
        assert starts == sorted(set(starts)), "two sessions have one number"
        assert set(sessions) == set(starts), "a session wrote without a start"


def is_held_open(path: Path) -> bool:
    """Tell whether this process has a descriptor of the file."""
    descriptors = Path("/proc/self/fd").iterdir()
    return str(path) in [os.readlink(each) for each in descriptors if each.is_symlink()]
