"""What a driver tells the machine: requests of the workflow and reports of what was performed.

``caller`` says which task a request comes from, by anything that tells the tasks of a session
apart; the machine only compares it. A driver with a single task may leave it out.
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

    ``metadata`` is checked against the journal only where it is given (None is a value).
    ``writer`` is a token unique to this session, made by the driver: randomness is IO. ``workflow``
    is the name of the workflow that asks, which has to be the one that the journal began with.
    ``notes`` say which process and code opens the session (``host``, ``pid``, ``lib``, ``code``,
    ``found``); ``strict`` has steps refused where workflow and journal part.
    """

    metadata: object | Unset = UNSET
    version: str | None = None
    writer: str | None = None
    workflow: str | None = None
    notes: Mapping[str, Any] | None = None
    strict: bool = False


@final
class Resume(Immutable):
    """Open a session that delivers ``event_name``; a payload already journaled wins.

    ``given_at`` is the instant (aware) at which the answer was given, if that was before now: the
    instant that decides whether it came before the deadline. ``by`` says, in free text, who gave
    it; ``notes`` and ``strict`` are those of ``Start``.
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
    """Report: storage holds ``entry`` durably, at ``offset``."""

    entry: Entry
    offset: int


@final
class AppendFailed(Immutable):
    """Report: the append of ``entry`` raised ``error``; what that means is decided here."""

    entry: Entry
    error: BaseException


@final
class Loaded(Immutable):
    """Report: the whole journal, read again as ``Reload`` asked."""

    entries: list[Entry]


@final
class LoadFailed(Immutable):
    """Report: the journal could not be read again."""

    error: BaseException


@final
class Record(Immutable):
    """The workflow asks for step ``name`` on branch ``path``.

    ``interchangeable`` says that calls of this name may overlap, since their results may be
    swapped. ``aside`` says that the caller is not the task that runs the branch.
    """

    name: str
    path: BranchPath = ()
    caller: Hashable = None
    interchangeable: bool = False
    aside: bool = False


@final
class StepSucceeded(Immutable):
    """Report: the function of a running step returned ``result``.

    It took ``attempts``; ``errors`` are those of the last that failed.
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
    """The workflow asks for event ``event_name``; ``timeout`` is what ``deadline_of`` takes."""

    event_name: str
    timeout: Timeout | None = None
    reason: str | None = None
    path: BranchPath = ()
    caller: Hashable = None


@final
class EnterFunction(Immutable):
    """Report: the workflow's function begins. Until it ends, no wait is written."""


@final
class LeaveFunction(Immutable):
    """Report: the workflow's function has ended, by a suspension; the waits may be written."""


@final
class EnterParallel(Immutable):
    """The workflow at ``path`` starts one branch for every key."""

    keys: tuple[str, ...]
    path: BranchPath = ()
    caller: Hashable = None


@final
class LeaveParallel(Immutable):
    """Report: every branch of the block has finished, failed or suspended.

    ``abandoned`` says that the block was cancelled instead: what its branches wait for is dropped,
    as nothing of it was journaled.
    """

    keys: tuple[str, ...]
    path: BranchPath = ()
    abandoned: bool = False
    caller: Hashable = None


@final
class Complete(Immutable):
    """The workflow returned ``result``, which is noted where JSON holds it and it is small."""

    result: object | Unset = UNSET


@final
class Fail(Immutable):
    """The workflow raised; ``name`` is the exception's type, ``stack`` its traceback.

    ``notes`` say which step's error it is, if it is one's.
    """

    message: str
    name: str | None = None
    stack: str | None = None
    notes: Mapping[str, Any] | None = None


@final
class Close(Immutable):
    """Leave the session without ending the run: cancellation, a crash survived, ``aclose()``."""


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
"""Everything that a machine can be told."""
