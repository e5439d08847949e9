"""What the system tells of itself: its kind, its file systems, the memory of a process."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """What a reader has to know before believing a figure."""

    python: str
    system: str
    cores: int
    load: float
    directory: str
    file_system: str

    def __str__(self) -> str:
        warning = (
            " (MEMORY: an fsync costs nothing here, choose a disk with --dir)"
            if self.file_system in ("tmpfs", "ramfs")
            else ""
        )
        return (
            f"Python {self.python}, {self.system}, {self.cores} cores, load {self.load:.2f}\n"
            f"journals in {self.directory}, file system {self.file_system}{warning}"
        )


def describe(directory: Path) -> Machine:
    return Machine(
        python=platform.python_version(),
        system=platform.platform(),
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0],
        directory=str(directory),
        file_system=file_system(directory.resolve()),
    )


def file_system(directory: Path) -> str:
    """Give the type of the file system that holds ``directory``, as Linux tells it."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return innermost(directory, mounts)


def innermost(directory: Path, mounts: Iterable[str]) -> str:
    """Find the mount closest around ``directory`` in the lines of a ``mountinfo``."""
    kind, depth = "unknown", -1
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        if directory.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = after.split()[0], len(point.parts)
    return kind


def peak_megabytes() -> float:
    """Give the largest size that this process has had."""
    if STATUS.exists():
        return peak_in(STATUS.read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


def peak_in(status: str) -> float:
    """Find the peak in what Linux tells of a process; ``ru_maxrss`` counts its parent's too."""
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / MEGABYTE
