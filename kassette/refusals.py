"""The error for a command that is not allowed in a session's state; nothing is decided here."""

from __future__ import annotations

from kassette.commands import (
    Appended,
    AppendFailed,
    Command,
    Loaded,
    LoadFailed,
    Resume,
    Start,
    StepFailed,
    StepSucceeded,
)
from kassette.errors import (
    FencedError,
    InternalError,
    KassetteError,
    SessionClosedError,
    StorageError,
    UsageError,
)
from kassette.transitions import State
from kassette.waits import Waits


def refusal(
    command: Command, state: State, run_id: str, waits: Waits, lost_to: BaseException | None
) -> KassetteError:
    """Return the error for a command that is not allowed in ``state``."""
    asked = type(command).__name__
    if isinstance(command, (Start, Resume)):
        return UsageError("a machine opens only one session; create a new one")
    match state:
        case State.SUSPENDING | State.SUSPENDED if not isinstance(command, (Loaded, LoadFailed)):
            return waits.swallowed()
        case State.CLOSING | State.CLOSED if not isinstance(command, (Loaded, LoadFailed)):
            return SessionClosedError(
                f"the session of run {run_id!r} is closed; {asked} was called after its end"
            )
        case State.LOST if isinstance(lost_to, FencedError):
            fenced = lost_to
            return FencedError(fenced.rejected_session, fenced.active_session, run_id=run_id)
        case State.LOST:
            error = SessionClosedError(
                f"the session of run {run_id!r} was lost ({lost_to}); "
                "start the run again, it continues from its journal"
            )
            error.__cause__ = lost_to
            return error
        case State.NEW if not isinstance(
            command, (Appended, AppendFailed, Loaded, LoadFailed, StepSucceeded, StepFailed)
        ):
            return UsageError(f"{asked} needs an open session; start or resume the run first")
        case _:
            return InternalError(f"{asked} is not allowed in state {state.value!r}")


def journal_replaced(run_id: str) -> StorageError:
    """Return the error for a journal that became shorter between reading and appending."""
    return StorageError(
        f"the journal of run {run_id!r} was deleted or replaced while it was being opened. Restore "
        "it, or use a new run id",
        run_id=run_id,
    )
