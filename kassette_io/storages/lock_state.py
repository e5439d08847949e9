"""What a run's lock file says, and whether a process holds it; never takes or disturbs the lock.

Rules:
- The kernel's table of locks (``/proc/locks``) is read, and nothing is tried: taking the lock to
  see whether it is free would refuse a session that opens at that moment.
- The table names files by device and inode. The device is not compared, because some file systems
  (overlay, btrfs) report another one there. A lock on another file with the same inode then counts
  as held, which is the harmless mistake.
- The table shows the locks of this host's processes, and in a container only of the container's. A
  lock that is not listed is free only if the file names this host; otherwise that is unknown.
- A lock file of the TypeScript kassette has only a pid, and counts while a process has that pid.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, cast

import orjson

from kassette.evidence.diagnosis import Lock
from kassette.notes import running_of
from kassette_io.storages.run_lock import pid_of_another, read_lock

PROCESSES = "/proc"
"""Where the kernel lists its processes and locks; absent on systems other than Linux."""


def read_lock_state(path: str) -> Lock:
    """Return the state of the lock file at ``path``. Without a file no process holds the lock."""
    try:
        inode = os.stat(path).st_ino
    except FileNotFoundError:
        return Lock(held=False)
    except OSError:
        return Lock(held=None)
    text = read_lock(path) or b""
    another = pid_of_another(text)
    if another is not None:
        return Lock(held=_exists(another), pid=another)
    members = _members(text)
    host = _text(members, "host")
    held = _is_listed(inode)
    if held is False and host is not None and host != os.uname().nodename:
        held = None
    running = members.get("running")
    return Lock(
        held=held,
        pid=_number(members, "pid"),
        host=host,
        since=_text(members, "since"),
        session=_number(members, "session"),
        running=running_of(cast("object", running)) if isinstance(running, list) else None,
    )


def _is_listed(inode: int) -> bool | None:
    """Return whether the kernel lists a lock on a file with this inode; None without a table."""
    ending = f":{inode}"
    try:
        with open(f"{PROCESSES}/locks", encoding="ascii", errors="replace") as table:
            for line in table:
                fields = line.split()
                is_held = "FLOCK" in fields and "->" not in fields
                if is_held and any(field.endswith(ending) for field in fields):
                    return True
    except OSError:
        return None
    return False


def _exists(pid: int) -> bool | None:
    if not os.path.isdir(PROCESSES):
        return None
    return os.path.isdir(f"{PROCESSES}/{pid}")


def _members(text: bytes) -> dict[str, Any]:
    with suppress(orjson.JSONDecodeError):
        says: Any = orjson.loads(text)
        if isinstance(says, dict):
            return cast("dict[str, Any]", says)
    return {}


def _text(members: dict[str, Any], key: str) -> str | None:
    value = members.get(key)
    return value if isinstance(value, str) else None


def _number(members: dict[str, Any], key: str) -> int | None:
    value = members.get(key)
    return value if type(value) is int else None
