"""What the machine asks of a driver.

Rule: a driver performs the effects of one answer strictly in order, and drops the rest of them as
soon as one fails. An entry stands before the effects that it justifies, so nobody is told of
anything that is not durable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

from kassette.entries import Entry, ResumeEntry, StepEntry
from kassette.errors import KassetteError


@final
@dataclass(frozen=True, slots=True)
class Append:
    """Append ``entry`` durably, then report ``Appended`` or ``AppendFailed``."""

    entry: Entry


@final
@dataclass(frozen=True, slots=True)
class Reload:
    """Read the whole journal again, then report ``Loaded`` or ``LoadFailed``."""


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """The session is open: the workflow may run."""

    session: int


@final
@dataclass(frozen=True, slots=True)
class RunStep:
    """Run the step's function, then report ``StepSucceeded`` or ``StepFailed``."""

    step_id: str
    name: str


@final
@dataclass(frozen=True, slots=True)
class Replay:
    """Give the caller the recorded result, and its ``on_replay`` too; do not run the function."""

    entry: StepEntry


@final
@dataclass(frozen=True, slots=True)
class Return:
    """Give the caller the result that has just become durable."""

    entry: StepEntry


@final
@dataclass(frozen=True, slots=True)
class Deliver:
    """Give the caller the event's payload."""

    entry: ResumeEntry


@final
@dataclass(frozen=True, slots=True)
class Release:
    """The session has ended: give up locks and buffers held for it."""


@final
@dataclass(frozen=True, slots=True)
class Raise:
    """Raise ``error`` to the caller."""

    error: KassetteError


Effect: TypeAlias = Append | Reload | Opened | RunStep | Replay | Return | Deliver | Release | Raise
