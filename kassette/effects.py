"""What the machine asks of a driver.

Rule: a driver performs the effects of one answer strictly in order, and drops the rest of them as
soon as one fails. An entry stands before the effects that it justifies, so nobody is told of
anything that is not durable.
"""

from __future__ import annotations

from typing import Any, TypeAlias, final

from kassette.entries import Entry, ResumeEntry, StepEntry
from kassette.errors import KassetteError
from kassette.immutable import Immutable


@final
class Append(Immutable):
    """Append ``entry`` durably, then report ``Appended`` or ``AppendFailed``."""

    entry: Entry


@final
class Reload(Immutable):
    """Read the whole journal again, then report ``Loaded`` or ``LoadFailed``."""


@final
class Opened(Immutable):
    """The session is open: the workflow may run."""

    session: int


@final
class Diverged(Immutable):
    """Tell whoever looks on that workflow and journal part at ``step_id``.

    ``passed_over`` are recorded steps that the workflow should have asked for before; without any,
    the step is replayed after one that was recorded later.
    """

    step_id: str
    passed_over: tuple[str, ...]


@final
class RunStep(Immutable):
    """Run the step's function, then report ``StepSucceeded`` or ``StepFailed``."""

    step_id: str
    name: str


@final
class Replay(Immutable):
    """Give the caller the recorded result, and its ``on_replay`` too; do not run the function."""

    entry: StepEntry


@final
class Return(Immutable):
    """Give the caller the ``result`` that has just become durable, as ``entry`` reads back."""

    entry: StepEntry
    result: Any


@final
class Deliver(Immutable):
    """Give the caller the event's payload."""

    entry: ResumeEntry


@final
class Release(Immutable):
    """The session has ended: give up locks and buffers held for it."""


@final
class Raise(Immutable):
    """Raise ``error`` to the caller."""

    error: KassetteError


Effect: TypeAlias = (
    Append | Reload | Opened | Diverged | RunStep | Replay | Return | Deliver | Release | Raise
)
"""Everything that a machine can ask for."""
