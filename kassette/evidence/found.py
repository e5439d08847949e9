"""What a session finds of one before it that never ended; entries and a lock file's content in.

Rules:
- A session that ended in order (suspended, or the run is over) leaves nothing behind.
- What a lock file says about running steps is newer than the journal: steps that were recorded
  after it was written are no longer running. Without a lock file (object storage, a journal that
  was copied) the last entry says what ran beside it when it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import orjson

from kassette.entries import Entry, StartEntry, StepEntry, SuspendEntry, is_terminal
from kassette.notes import (
    MOST_IDS,
    Found,
    Running,
    running_of,
    start_notes_of,
    step_notes_of,
)

MOST_TORN: Final = 4096
"""How many bytes of a torn line are noted."""


def found(entries: Sequence[Entry], left: Found | None) -> Found | None:
    """Return what is left of the newest session; None if it ended in order, or there was none.

    ``left`` is what storage has found beside the entries: a lock file's content, a torn line.
    """
    if not entries:
        return left
    last = entries[-1]
    if is_terminal(last) or (isinstance(last, SuspendEntry) and not last.more):
        return None if left is None or left.torn is None else Found(torn=left.torn)
    session = last.session
    start = next((each for each in reversed(entries) if isinstance(each, StartEntry)), None)
    opened = None if start is None or start.session != session else start_notes_of(start)
    recorded = {each.step_id for each in entries if isinstance(each, StepEntry)}
    running = _running(entries, left, session)
    return Found(
        session=session,
        pid=None if opened is None else opened.pid,
        host=None if opened is None else opened.host,
        running=tuple(each for each in running if each.step_id not in recorded)[:MOST_IDS],
        torn=None if left is None else left.torn,
    )


def _running(entries: Sequence[Entry], left: Found | None, session: int) -> Sequence[Running]:
    if left is not None and left.session == session:
        return left.running
    for entry in reversed(entries):
        if entry.session != session:
            break
        if isinstance(entry, StepEntry):
            return [Running(step_id) for step_id in step_notes_of(entry).running]
    return ()


def read_left(lock: bytes | None, torn: bytes) -> Found | None:
    """Return what a lock file and the bytes behind the last whole line say; None if nothing."""
    session: int | None = None
    running: tuple[Running, ...] = ()
    says: Any = None
    with suppress(orjson.JSONDecodeError):
        says = orjson.loads(lock or b"null")
    if isinstance(says, dict):
        members = cast("dict[str, Any]", says)
        number = members.get("session")
        session = number if type(number) is int else None
        running = running_of(members.get("running"))
    text = torn[:MOST_TORN].decode("utf-8", "backslashreplace") or None
    if session is None and text is None:
        return None
    return Found(session=session, running=running, torn=text)
