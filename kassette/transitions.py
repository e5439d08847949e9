"""Which command is allowed in which state, and where it leads; the machine follows this table.

Rules:
- ``TRANSITIONS`` has, for every state and command, the states that may follow. A command that is
  not in the row of the current state is refused, and changes nothing.
- The states in ``ENDED`` accept late reports of work that was in flight; the only transition out of
  one is from suspended to lost, when the ``suspend`` entry could not be written.
- Only ``machine.py`` assigns a state, through one method that checks this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from kassette.commands import (
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    EnterFunction,
    EnterParallel,
    Fail,
    LeaveFunction,
    LeaveParallel,
    Loaded,
    LoadFailed,
    Record,
    Resume,
    Start,
    StepFailed,
    StepSucceeded,
    WaitForEvent,
)


class State(Enum):
    """The state of a session."""

    NEW = "new"
    OPENING = "opening"
    RELOADING = "reloading"
    DELIVERING = "delivering"
    CANCELLING = "cancelling"
    ACTIVE = "active"
    SUSPENDING = "suspending"
    CLOSING = "closing"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    LOST = "lost"


ENDED: Final = frozenset({State.SUSPENDED, State.CLOSED, State.LOST})
"""The states in which a session can do nothing more."""


_S = State
_OPENED = (_S.ACTIVE, _S.DELIVERING, _S.CANCELLING)


def _to(*states: State) -> frozenset[State]:
    return frozenset(states)


TRANSITIONS: Final[Mapping[State, Mapping[type[Command], frozenset[State]]]] = MappingProxyType(
    {
        _S.NEW: {
            Start: _to(_S.OPENING),
            Resume: _to(_S.OPENING),
            Close: _to(_S.CLOSED),
        },
        _S.OPENING: {
            Appended: _to(*_OPENED, _S.RELOADING, _S.LOST),
            AppendFailed: _to(_S.LOST),
            Close: _to(_S.CLOSED),
        },
        _S.RELOADING: {
            Loaded: _to(*_OPENED, _S.CLOSED, _S.LOST),
            LoadFailed: _to(_S.LOST),
            Close: _to(_S.CLOSED),
        },
        _S.DELIVERING: {
            Appended: _to(_S.ACTIVE),
            AppendFailed: _to(_S.LOST),
            Close: _to(_S.CLOSED),
        },
        _S.CANCELLING: {
            Appended: _to(_S.CLOSED),
            AppendFailed: _to(_S.LOST),
            Close: _to(_S.CLOSED),
        },
        _S.ACTIVE: {
            Record: _to(_S.ACTIVE),
            StepSucceeded: _to(_S.ACTIVE),
            StepFailed: _to(_S.ACTIVE),
            Appended: _to(_S.ACTIVE),
            AppendFailed: _to(_S.ACTIVE, _S.LOST),
            WaitForEvent: _to(_S.ACTIVE, _S.SUSPENDING, _S.SUSPENDED),
            EnterFunction: _to(_S.ACTIVE),
            LeaveFunction: _to(_S.ACTIVE),
            EnterParallel: _to(_S.ACTIVE),
            LeaveParallel: _to(_S.ACTIVE),
            Complete: _to(_S.CLOSING),
            Fail: _to(_S.CLOSING),
            Close: _to(_S.CLOSED),
        },
        _S.SUSPENDING: {
            Record: _to(_S.SUSPENDING),
            StepSucceeded: _to(_S.SUSPENDING),
            StepFailed: _to(_S.SUSPENDING, _S.SUSPENDED),
            Appended: _to(_S.SUSPENDING, _S.SUSPENDED),
            AppendFailed: _to(_S.SUSPENDING, _S.SUSPENDED, _S.LOST),
            WaitForEvent: _to(_S.SUSPENDING),
            LeaveFunction: _to(_S.SUSPENDING, _S.SUSPENDED),
            EnterParallel: _to(_S.SUSPENDING),
            LeaveParallel: _to(_S.ACTIVE, _S.SUSPENDING, _S.SUSPENDED),
            Close: _to(_S.CLOSED),
        },
        _S.CLOSING: {
            StepFailed: _to(_S.CLOSING),
            Appended: _to(_S.CLOSING, _S.CLOSED),
            AppendFailed: _to(_S.CLOSING, _S.ACTIVE, _S.LOST),
            LeaveParallel: _to(_S.CLOSING),
            Close: _to(_S.CLOSED),
        },
        _S.SUSPENDED: {
            Record: _to(_S.SUSPENDED),
            WaitForEvent: _to(_S.SUSPENDED),
            EnterParallel: _to(_S.SUSPENDED),
            Appended: _to(_S.SUSPENDED),
            AppendFailed: _to(_S.LOST),
            Close: _to(_S.SUSPENDED),
        },
        _S.CLOSED: {
            Loaded: _to(_S.CLOSED),
            LoadFailed: _to(_S.CLOSED),
            StepFailed: _to(_S.CLOSED),
            Appended: _to(_S.CLOSED),
            AppendFailed: _to(_S.CLOSED),
            LeaveParallel: _to(_S.CLOSED),
            Close: _to(_S.CLOSED),
        },
        _S.LOST: {
            StepFailed: _to(_S.LOST),
            Appended: _to(_S.LOST),
            AppendFailed: _to(_S.LOST),
            LeaveParallel: _to(_S.LOST),
            Close: _to(_S.LOST),
        },
    }
)
"""For every state and command, the states that may follow."""
