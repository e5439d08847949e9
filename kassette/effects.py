"""What the machine tells a driver to do.

Rule: a driver performs the effects of one command strictly in order, and drops the rest as soon as
one fails. An entry precedes the effects that depend on it, so no result is returned before it is
durable.
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
    """Notify the observers that workflow and journal diverge at ``step_id``.

    ``passed_over`` are the recorded steps that the workflow should have requested first; if it is
    empty, the step is replayed after one that was recorded later.
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
    """Return the recorded result to the caller and its ``on_replay``; do not run the function."""

    entry: StepEntry


@final
class Return(Immutable):
    """Return ``result`` to the caller: it is durable now, and is what ``entry`` decodes to."""

    entry: StepEntry
    result: Any


@final
class Deliver(Immutable):
    """Return the event's payload to the caller."""

    entry: ResumeEntry


@final
class Release(Immutable):
    """Release the locks and buffers held for the session, which has ended."""


@final
class Raise(Immutable):
    """Raise ``error`` to the caller."""

    error: KassetteError


Effect: TypeAlias = (
    Append | Reload | Opened | Diverged | RunStep | Replay | Return | Deliver | Release | Raise
)
"""Any effect that a machine returns."""
