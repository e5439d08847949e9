"""Who holds a run, known without asking for its lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kassette.evidence.diagnosis import Lock
from kassette.notes import Running
from kassette_io.storages import lock_state
from kassette_io.storages.lock_state import read_lock_state
from kassette_io.storages.run_lock import RunLock

HOST = os.uname().nodename


def written(path: Path, **members: object) -> str:
    says = {"pid": 1, "host": HOST, "runId": "r", "session": 2, "since": "then", **members}
    path.write_text(json.dumps(says), "utf-8")
    return str(path)


def test_a_lock_is_seen_held_and_then_released(tmp_path: Path) -> None:
    """A run that works would be restarted, or one that was left be waited for."""
    path = str(tmp_path / "r.lock")
    assert read_lock_state(path) == Lock(held=False)
    lock = RunLock.take(path, run_id="r", session=3)
    lock.note_running(b'[{"stepId":"pay","attempt":2}]')
    state = read_lock_state(path)
    assert state.held is True
    assert (state.pid, state.host, state.session) == (os.getpid(), HOST, 3)
    assert state.running == (Running("pay", attempt=2),)
    lock.release(left_over=True)
    assert read_lock_state(path) == state.replace(held=False)


def test_looking_does_not_disturb_whoever_opens_the_run(tmp_path: Path) -> None:
    """A session that opens while somebody looks would be refused."""
    path = written(tmp_path / "r.lock")
    before = os.stat(path)
    read_lock_state(path)
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns
    lock = RunLock.take(path, run_id="r", session=1)
    for _ in range(3):
        read_lock_state(path)
    assert lock.is_held()
    lock.release()


def test_a_lock_of_another_host_may_be_held_there(tmp_path: Path) -> None:
    """A run that works on another machine would be said to be left."""
    assert read_lock_state(written(tmp_path / "r.lock", host="elsewhere")).held is None
    assert read_lock_state(written(tmp_path / "r.lock")).held is False


def test_without_a_table_of_locks_it_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS, a run that works would be said to be left."""
    monkeypatch.setattr(lock_state, "PROCESSES", str(tmp_path / "none"))
    assert read_lock_state(written(tmp_path / "r.lock")).held is None
    (tmp_path / "r.lock").write_text("1", "utf-8")
    assert read_lock_state(str(tmp_path / "r.lock")) == Lock(held=None, pid=1)


def test_a_waiting_request_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that somebody waits for, and POSIX locks, would be taken for one that is held."""
    path = written(tmp_path / "r.lock")
    inode = os.stat(path).st_ino
    monkeypatch.setattr(lock_state, "PROCESSES", str(tmp_path))
    table = tmp_path / "locks"
    table.write_text(
        f"1: -> FLOCK  ADVISORY  WRITE 7 fe:00:{inode} 0 EOF\n"
        f"2: POSIX  ADVISORY  WRITE 7 fe:00:{inode} 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 7 fe:00:1{inode} 0 EOF\n",
        "ascii",
    )
    assert read_lock_state(path).held is False
    table.write_text(f"1: FLOCK  ADVISORY  WRITE 7 fe:00:{inode} 0 EOF\n", "ascii")
    assert read_lock_state(path).held is True


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", '{"pid":[],"host":7,"since":{}}'])
def test_a_lock_file_that_says_nothing_says_nothing(tmp_path: Path, text: str) -> None:
    """A damaged lock file would end the command that explains the run."""
    (tmp_path / "r.lock").write_text(text, "utf-8")
    assert read_lock_state(str(tmp_path / "r.lock")) == Lock(held=False)


def test_a_malformed_list_of_steps_is_unknown(tmp_path: Path) -> None:
    """Starting again would be said to be safe, though a payment was running."""
    assert read_lock_state(written(tmp_path / "r.lock", running="pay")).running is None
    assert read_lock_state(written(tmp_path / "r.lock", running=[])).running == ()


def test_a_pid_alone_counts_while_a_process_has_it(tmp_path: Path) -> None:
    """A run that the TypeScript kassette works on would be said to be left, and start refused."""
    (tmp_path / "r.lock").write_text(str(os.getpid()), "utf-8")
    assert read_lock_state(str(tmp_path / "r.lock")) == Lock(held=True, pid=os.getpid())
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / "r.lock").write_text(str(done.pid), "utf-8")
    assert read_lock_state(str(tmp_path / "r.lock")) == Lock(held=False, pid=done.pid)


def test_a_path_that_cannot_be_looked_at_is_unknown(tmp_path: Path) -> None:
    """A run in a directory that one may not enter would be said to be left."""
    (tmp_path / "file").touch()
    assert read_lock_state(str(tmp_path / "file" / "r.lock")) == Lock(held=None)
