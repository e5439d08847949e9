"""Directories and files that this user may not read, write or enter; each a clear StorageError."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kassette import StorageError
from kassette_io import LocalStorage, start

from .processes import Processes
from .strangers import RUN_ID, meet

BACKENDS = ["asyncio", "trio"]

DENIED = [RUN_ID, "PermissionError"]
NEW_DENIED = ["new", "PermissionError"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory that any user can reach; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="kassette-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


EXPECTED: dict[str, dict[str, Any]] = {
    "closed directory": {
        "start": DENIED,
        "start new": NEW_DENIED,
        "fork": DENIED,
        "read": DENIED,
        "list": [None, "PermissionError"],
    },
    "read-only directory": {
        "start": DENIED,
        "start new": NEW_DENIED,
        "fork": ["copy", "PermissionError"],
        "read": "done",
        "list": "done",
        "left": [f"{RUN_ID}.jsonl"],
    },
    "closed files": {
        "start": [DENIED, DENIED],
        "start new": "done",
        "fork": DENIED,
        "read": DENIED,
        "list": "done",
    },
    "directory closed under a session": {
        "555 record": "done",
        "555 again": "done",
        "000 record": DENIED,
        "000 again": "done",
    },
}


@pytest.mark.parametrize("story", EXPECTED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_may_not_be_touched_is_a_clear_error(
    processes: Processes, directory: Path, backend: str, story: str
) -> None:
    """Broken, a missing permission is a bare OSError, an empty success, or a lock for ever."""
    told = processes.run(meet, backend=backend, directory=str(directory), story=story)
    assert told == EXPECTED[story]


@pytest.mark.anyio
async def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    """Broken, a mistyped path looks like a storage without runs."""
    path = tmp_path / "journals"
    path.write_text("mine")
    for storage in (LocalStorage(path), LocalStorage(path / "deeper")):
        with pytest.raises(StorageError, match=r"Not a directory|File exists"):
            await start(storage, RUN_ID)
        with pytest.raises(StorageError, match="Not a directory"):
            await storage.read_all(RUN_ID)
        with pytest.raises(StorageError, match="Not a directory"):
            _ = [run_id async for run_id in storage.list_runs()]
    assert path.read_text() == "mine"


@pytest.mark.anyio
async def test_a_missing_directory_holds_no_run_and_is_not_made_by_looking(tmp_path: Path) -> None:
    """Broken, a look at a mistyped path leaves directories behind."""
    storage = LocalStorage(tmp_path / "deep" / "journals")
    assert await storage.read_all(RUN_ID) == []
    assert [run_id async for run_id in storage.list_runs()] == []
    await storage.release(RUN_ID, 1)
    assert list(tmp_path.iterdir()) == []
