"""What a driver sends to the machine: requests of the workflow, and reports of performed effects.

``caller`` identifies the task of a request, by anything that differs between the tasks of a
session; the machine only compares it. A driver with a single task may omit it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, final

from kassette.entries import UNSET, Entry, Unset
from kassette.immutable import Immutable
from kassette.naming import BranchPath
from kassette.notes import FailedAttempt
from kassette.timestamps import Timeout


@final
class Start(Immutable):
    """Open a session: a new run, or recovery of one that has a journal.

    ``metadata`` is checked against the journal only if it is given (None is a value). ``writer`` is
    a token unique to this session, created by the driver because randomness is IO. ``workflow`` is
    the name of the calling workflow, which must be the one that started the run. ``notes`` describe
    the process and code that open the session (``host``, ``pid``, ``lib``, ``code``, ``found``).
    ``strict`` refuses steps where workflow and journal diverge.
    """

    metadata: object | Unset = UNSET
    version: str | None = None
    writer: str | None = None
    workflow: str | None = None
    notes: Mapping[str, Any] | None = None
    strict: bool = False


@final
class Resume(Immutable):
    """Open a session that delivers ``event_name``; a payload already in the journal wins.

    ``given_at`` is the (aware) instant at which the answer was given, if that was earlier; it is
    compared with the deadline instead of the current time. ``by`` is a free text that names who
    gave the answer; ``notes`` and ``strict`` are those of ``Start``.
    """

    event_name: str
    value: object
    version: str | None = None
    writer: str | None = None
    workflow: str | None = None
    given_at: datetime | None = None
    by: str | None = None
    notes: Mapping[str, Any] | None = None
    strict: bool = False


@final
class Appended(Immutable):
    """Report: ``entry`` has been stored durably at ``offset``."""

    entry: Entry
    offset: int


@final
class AppendFailed(Immutable):
    """Report: the append of ``entry`` raised ``error``; the machine decides what that means."""

    entry: Entry
    error: BaseException


@final
class Loaded(Immutable):
    """Report: the whole journal, read again as requested by ``Reload``."""

    entries: list[Entry]


@final
class LoadFailed(Immutable):
    """Report: the journal could not be read again."""

    error: BaseException


@final
class Record(Immutable):
    """The workflow requests step ``name`` on branch ``path``.

    ``interchangeable`` means that calls of this name may overlap, since their results may be
    swapped. ``aside`` means that the caller is not the task that runs the branch.
    """

    name: str
    path: BranchPath = ()
    caller: Hashable = None
    interchangeable: bool = False
    aside: bool = False


@final
class StepSucceeded(Immutable):
    """Report: the function of a running step returned ``result``.

    ``attempts`` is their number, ``errors`` are those of the last failed ones.
    """

    step_id: str
    result: object
    attempts: int = 1
    errors: Sequence[FailedAttempt] = ()


@final
class StepFailed(Immutable):
    """Report: the function of a running step raised, or was cancelled. Nothing is journaled."""

    step_id: str


@final
class WaitForEvent(Immutable):
    """The workflow waits for ``event_name``; ``timeout`` is a timeout as for ``deadline_of``."""

    event_name: str
    timeout: Timeout | None = None
    reason: str | None = None
    path: BranchPath = ()
    caller: Hashable = None


@final
class EnterFunction(Immutable):
    """Report: the workflow's function begins. No wait is written before it ends."""


@final
class LeaveFunction(Immutable):
    """Report: the workflow's function has ended with a suspension; the waits may be written."""


@final
class EnterParallel(Immutable):
    """The workflow at ``path`` starts one branch for every key."""

    keys: tuple[str, ...]
    path: BranchPath = ()
    caller: Hashable = None


@final
class LeaveParallel(Immutable):
    """Report: every branch of the block has finished, failed or suspended.

    ``abandoned`` means that the block was cancelled instead: the waits of its branches are dropped,
    as none of them was journaled.
    """

    keys: tuple[str, ...]
    path: BranchPath = ()
    abandoned: bool = False
    caller: Hashable = None


@final
class Complete(Immutable):
    """The workflow returned ``result``, which is recorded if it is JSON and small enough."""

    result: object | Unset = UNSET


@final
class Fail(Immutable):
    """The workflow raised; ``name`` is the exception's type, ``stack`` its traceback.

    ``notes`` name the step that raised the error, if one did.
    """

    message: str
    name: str | None = None
    stack: str | None = None
    notes: Mapping[str, Any] | None = None


@final
class Close(Immutable):
    """Close the session without ending the run: after a cancellation, a crash, or ``aclose()``."""


Command: TypeAlias = (
    Start
    | Resume
    | Appended
    | AppendFailed
    | Loaded
    | LoadFailed
    | Record
    | StepSucceeded
    | StepFailed
    | WaitForEvent
    | EnterFunction
    | LeaveFunction
    | EnterParallel
    | LeaveParallel
    | Complete
    | Fail
    | Close
)
"""Any command to a machine."""
