"""The waits of one session and its parallel blocks; no steps, no session state.

Rules:
- Every wait of a run has a different event name.
- A wait raises SuspendError in its own task immediately. From then on its branch (or, outside of
  ``parallel``, the workflow) begins nothing new.
- A suspended branch of a parallel block does not stop its siblings.
- Another task on the same branch, which does not know about the suspension, gets its own
  SuspendError at its next request. If that request is an event, the run waits for that too. A task
  that got a SuspendError and makes another request has swallowed it, and gets a SuspendedError.
- The ``suspend`` entries are written together, and last. A wait that is already in the journal is
  not written again, unless the run would not be suspended otherwise. All but the last have
  ``more``, which announces the next one.
- A wait reached again in a later session retains its first deadline.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import NamedTuple, final

from kassette.commands import EnterParallel, LeaveParallel, WaitForEvent
from kassette.effects import Deliver, Raise
from kassette.entries import SuspendEntry
from kassette.errors import SuspendedError, SuspendError, UsageError
from kassette.naming import BranchPath, check_branch_key, check_event_name, check_label
from kassette.notes import write_notes
from kassette.replay import Recorded
from kassette.timestamps import deadline_of


class _Wait(NamedTuple):
    event: str
    reason: str
    deadline: str | None
    path: BranchPath


@final
class Waits:
    """The waits and branches of a session of run ``run_id`` over the journal ``recorded``."""

    __slots__ = ("_awaited", "_branches", "_paths", "_recorded", "_run_id", "_told", "_waits")

    def __init__(self, recorded: Recorded, run_id: str) -> None:
        self._recorded = recorded
        self._run_id = run_id
        self._branches: set[BranchPath] = set()
        self._awaited: dict[str, BranchPath] = {}
        self._waits: list[_Wait] = []
        self._paths: set[BranchPath] = set()
        self._told: set[Hashable] = set()

    @property
    def waiting_for(self) -> str | None:
        """The event that the run's status names once the waits are written; None without one."""
        written = self._to_write()
        return written[-1].event if written else None

    @property
    def in_parallel(self) -> bool:
        """Whether a parallel block is open."""
        return bool(self._branches)

    def suspended(self, path: BranchPath) -> bool:
        """Return whether the branch ``path``, or one around it, has suspended."""
        if not self._paths:
            return False
        return any(path[:depth] in self._paths for depth in range(len(path) + 1))

    def was_told(self, caller: Hashable) -> bool:
        """Return whether ``caller`` has got a SuspendError."""
        return caller in self._told

    def refuse(self, caller: Hashable) -> Raise:
        """Return the SuspendError for a request of ``caller``, whose branch has suspended.

        Raise SuspendedError if ``caller`` has already got one.
        """
        if caller in self._told:
            raise self.swallowed()
        return self._tell(caller, self.waiting_for or "")

    def swallowed(self) -> SuspendedError:
        """Return the error for a task that has swallowed its SuspendError."""
        return SuspendedError(
            f"run {self._run_id!r} has suspended, waiting for {self.waiting_for!r}. Something "
            "caught the SuspendError and continued: raise it again (see is_suspend_error)"
        )

    def wait(self, command: WaitForEvent, now: datetime, *, open: bool) -> Deliver | Raise:
        """Deliver the event, or record the wait and suspend the branch.

        ``open`` means that the waits are not written yet. Raise UsageError for an invalid wait, or
        an event that another wait has; SuspendedError as ``refuse`` does.
        """
        path, caller = command.path, command.caller
        suspended = self.suspended(path) or not open
        if suspended and caller in self._told:
            raise self.swallowed()
        event = check_event_name(command.event_name)
        reason = (
            f"Waiting for event: {event}"
            if command.reason is None
            else check_label("a reason", command.reason)
        )
        if event in self._awaited:
            raise UsageError(
                f"two waits have the event name {event!r}; use a different name for every wait, "
                f"for example '{event}:<item>'"
            )
        recorded = self._recorded
        deadline = deadline_of(command.timeout, now, f"the timeout of event {event!r}")
        resume = recorded.resumes.get(event)
        if resume is not None:
            if suspended:
                return self.refuse(caller)
            self._awaited[event] = path
            return Deliver(resume)
        if open:
            self._awaited[event] = path
            self._waits.append(_Wait(event, reason, recorded.deadlines.get(event, deadline), path))
            self._paths.add(path)
        return self._tell(caller, event)

    def enter(self, command: EnterParallel) -> None:
        """Open the branches of a parallel block. Raise UsageError for an invalid or used key."""
        branches = [(*command.path, check_branch_key(key)) for key in command.keys]
        for branch in branches:
            if branch in self._branches:
                raise UsageError(
                    f"branch {':'.join(branch)!r} is already running; concurrent parallel blocks "
                    "need different keys"
                )
        self._branches.update(branches)

    def leave(self, command: LeaveParallel) -> Raise | None:
        """Close the branches of a parallel block; if one has suspended, suspend the outer branch.

        An abandoned block was cancelled: its waits are dropped, as none of them was written, and
        its event names may be used again. If the cause is that the outer branch has suspended, they
        remain: the run waits for all of them.
        """
        branches = {(*command.path, key) for key in command.keys}
        depth = len(command.path) + 1
        self._branches -= branches
        waits = [wait for wait in self._waits if wait.path[:depth] in branches]
        if command.abandoned and self.suspended(command.path):
            return None
        if command.abandoned:
            self._waits = [wait for wait in self._waits if wait not in waits]
            self._paths = {path for path in self._paths if path[:depth] not in branches}
            self._awaited = {
                event: path for event, path in self._awaited.items() if path[:depth] not in branches
            }
            return None
        if not waits:
            return None
        self._paths.add(command.path)
        return self._tell(command.caller, waits[-1].event)

    def entries(self, session: int, timestamp: str, passed_over: list[str]) -> list[SuspendEntry]:
        """Return the entries to write so that the journal has every wait and ends with one.

        The last entry records the steps that the session has ``passed_over``.
        """
        waits = self._to_write()
        return [
            SuspendEntry(
                session=session,
                timestamp=timestamp,
                reason=wait.reason,
                waiting_for=wait.event,
                timeout=wait.deadline,
                more=wait is not waits[-1],
                extra_json=write_notes(
                    {
                        "branch": ":".join(wait.path) or None,
                        "passedOver": passed_over if wait is waits[-1] else None,
                    }
                ),
            )
            for wait in waits
        ]

    def _to_write(self) -> list[_Wait]:
        unwritten = [wait for wait in self._waits if wait.event not in self._recorded.deadlines]
        return unwritten or self._waits[-1:]

    def _tell(self, caller: Hashable, event: str) -> Raise:
        self._told.add(caller)
        return Raise(SuspendError(event, run_id=self._run_id))
