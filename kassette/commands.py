"""What a driver tells the machine: requests of the workflow and reports of what was performed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias, final

from kassette.entries import UNSET, Entry, Unset
from kassette.naming import BranchPath


@final
@dataclass(frozen=True, slots=True)
class Start:
    """Open a session: a new run, or recovery of one that has a journal.

    ``metadata`` is checked against the journal only where it is given (None is a value).
    ``writer`` is a token unique to this session, made by the driver: randomness is IO.
    """

    metadata: object | Unset = UNSET
    version: str | None = None
    writer: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Resume:
    """Open a session that delivers ``event_name``; a payload already journaled wins."""

    event_name: str
    value: object
    version: str | None = None
    writer: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Appended:
    """Report: storage holds ``entry`` durably, at ``offset``."""

    entry: Entry
    offset: int


@final
@dataclass(frozen=True, slots=True)
class AppendFailed:
    """Report: the append of ``entry`` raised ``error``; what that means is decided here."""

    entry: Entry
    error: BaseException


@final
@dataclass(frozen=True, slots=True)
class Loaded:
    """Report: the whole journal, read again as ``Reload`` asked."""

    entries: list[Entry]


@final
@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Report: the journal could not be read again."""

    error: BaseException


@final
@dataclass(frozen=True, slots=True)
class Record:
    """The workflow asks for step ``name`` on branch ``path``."""

    name: str
    path: BranchPath = ()


@final
@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """Report: the function of a running step returned ``result``."""

    step_id: str
    result: object


@final
@dataclass(frozen=True, slots=True)
class StepFailed:
    """Report: the function of a running step raised, or was cancelled. Nothing is journaled."""

    step_id: str


@final
@dataclass(frozen=True, slots=True)
class WaitForEvent:
    """The workflow asks for event ``event_name``; ``timeout`` is in seconds from now."""

    event_name: str
    timeout: float | None = None
    reason: str | None = None
    path: BranchPath = ()


@final
@dataclass(frozen=True, slots=True)
class EnterParallel:
    """The workflow at ``path`` starts one branch for every key."""

    keys: tuple[str, ...]
    path: BranchPath = ()


@final
@dataclass(frozen=True, slots=True)
class LeaveParallel:
    """Report: every branch of the block has finished, failed or suspended.

    ``abandoned`` says that the block was cancelled instead: what its branches wait for is dropped,
    as nothing of it was journaled.
    """

    keys: tuple[str, ...]
    path: BranchPath = ()
    abandoned: bool = False


@final
@dataclass(frozen=True, slots=True)
class Complete:
    """The workflow returned."""


@final
@dataclass(frozen=True, slots=True)
class Fail:
    """The workflow raised; ``name`` is the exception's type, ``stack`` its traceback."""

    message: str
    name: str | None = None
    stack: str | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, slots=True)
class Close:
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
    | EnterParallel
    | LeaveParallel
    | Complete
    | Fail
    | Close
)
