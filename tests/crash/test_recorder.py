"""Which step was running when a process was killed, known afterwards from what it left on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kassette import StartEntry, decode_journal
from kassette.notes import start_notes_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "lives", [40, pytest.param(200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_a_killed_process_leaves_the_name_of_the_step_it_was_in(tmp_path: Path, lives: int) -> None:
    """After a crash nobody could say which payment may have been made."""
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.crash.recorded", str(tmp_path), str(lives), "7"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    left = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert len(left) == lives
    named = 0
    for session, life in enumerate(left, 1):
        found = life["found"]
        assert found["session"] == session
        assert found["host"] == os.uname().nodename
        running = found.get("running", [])
        assert [each["stepId"] for each in running] in ([], [life["next"]])
        assert all(each["attempt"] == 1 and each["startedAt"] for each in running)
        named += bool(running)
    assert named > lives / 2
    entries = decode_journal((tmp_path / "run-1.jsonl").read_bytes()).entries
    starts = [start_notes_of(each).found for each in entries if isinstance(each, StartEntry)]
    noted = [each and each.to_json() for each in starts]
    assert noted == [None, *(life["found"] for life in left[:-1])]
