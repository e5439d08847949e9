"""A full disk for real: a file size limit everywhere, and a small tmpfs where one can be mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .full_disks import RUN_ID, STORIES, work
from .journals import Journal
from .processes import Processes


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Give every kind of full disk that this machine has, and a directory on each."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "kassette-tests", str(small)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, check=False).returncode
    try:
        found = {"limit": tmp_path / "journals"}
        yield {**found, "tmpfs": small / "journals"} if mounted else found
    finally:
        if mounted:
            subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_full_disk(
    processes: Processes, disks: dict[str, Path], backend: str, story: str
) -> None:
    """Broken, a full disk fails the run, tears its journal, or ends a session that could go on."""
    for kind, directory in disks.items():
        told = processes.run(
            work, backend=backend, directory=str(directory), kind=kind, story=story
        )
        assert told, "the disk was never full"
        for each in told:
            assert each == {"rolled back": True, "run": RUN_ID, "says why": True, "cause": True}
        journal = Journal.read(directory / f"{RUN_ID}.jsonl")
        journal.check_order()
        assert journal.torn == b""
        assert journal.entries[-1]["type"] == "complete"
        assert not (directory / f"{RUN_ID}.lock").exists()
