"""The sans-IO core of kassette: pure values in, pure values out, no loop, no file, no clock.

A map for newcomers:

- ``entries``      the seven kinds of journal entry
- ``codec``        journal lines: bytes to entries and back
- ``values``       which JSON values may be journaled, and how
- ``machine``      one session of one run: commands in, effects out
- ``transitions``  which command has a place in which state
- ``commands``, ``effects``  the machine's vocabulary
- ``replay``       a journal as replay asks it
- ``tail``         whether an append may follow what a journal ends with
- ``forking``      what a fork's journal holds
- ``status``       what a run is doing
- ``retry``        when a failed attempt is tried again
- ``naming``, ``timestamps``  names and instants as the journal writes them
- ``errors``       everything that is raised, and who acts next

``kassette_io`` performs the effects; a normal program imports only that.
"""

from kassette.codec import Journal, decode_journal, decode_line, encode_entry
from kassette.commands import (
    Appended,
    AppendFailed,
    Close,
    Command,
    Complete,
    EnterParallel,
    Fail,
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
from kassette.effects import (
    Append,
    Deliver,
    Effect,
    Opened,
    Raise,
    Release,
    Reload,
    Replay,
    Return,
    RunStep,
)
from kassette.entries import (
    SUSPEND_TIMEOUT_EXPIRED,
    UNSET,
    BaseEntry,
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    TerminalEntry,
    Unset,
    is_terminal,
)
from kassette.errors import (
    EventPendingError,
    FencedError,
    InternalError,
    JournalCorruptionError,
    KassetteError,
    MetadataMismatchError,
    PreconditionFailedError,
    ReplayMismatchError,
    RunCancelledError,
    SessionClosedError,
    StorageError,
    SuspendedError,
    SuspendError,
    TerminalRunError,
    UsageError,
    VersionMismatchError,
    WriteContentionError,
    is_precondition_failed_error,
    is_suspend_error,
)
from kassette.forking import plan_fork
from kassette.machine import Machine
from kassette.naming import BranchPath, check_run_id, is_run_id
from kassette.retry import Retry
from kassette.status import (
    Cancelled,
    Completed,
    FailedRun,
    RunStatus,
    SuspendedRun,
    Unsettled,
    get_metadata,
    run_status,
)
from kassette.tail import Tail, check_append
from kassette.timestamps import format_timestamp, parse_timestamp
from kassette.transitions import ENDED, TRANSITIONS, State

__all__ = [
    "Append",
    "AppendFailed",
    "Appended",
    "BaseEntry",
    "BranchPath",
    "CancelEntry",
    "Cancelled",
    "Close",
    "Command",
    "Complete",
    "CompleteEntry",
    "Completed",
    "Deliver",
    "ENDED",
    "Effect",
    "EnterParallel",
    "Entry",
    "ErrorEntry",
    "EventPendingError",
    "Fail",
    "FailedRun",
    "FencedError",
    "ForkSource",
    "InternalError",
    "Journal",
    "JournalCorruptionError",
    "KassetteError",
    "LeaveParallel",
    "LoadFailed",
    "Loaded",
    "Machine",
    "MetadataMismatchError",
    "Opened",
    "PreconditionFailedError",
    "Raise",
    "Record",
    "Release",
    "Reload",
    "Replay",
    "ReplayMismatchError",
    "Resume",
    "ResumeEntry",
    "Retry",
    "Return",
    "RunCancelledError",
    "RunStatus",
    "RunStep",
    "SUSPEND_TIMEOUT_EXPIRED",
    "SessionClosedError",
    "Start",
    "StartEntry",
    "State",
    "StepEntry",
    "StepFailed",
    "StepSucceeded",
    "StorageError",
    "SuspendEntry",
    "SuspendError",
    "SuspendedError",
    "SuspendedRun",
    "TRANSITIONS",
    "Tail",
    "TerminalEntry",
    "TerminalRunError",
    "UNSET",
    "Unset",
    "Unsettled",
    "UsageError",
    "VersionMismatchError",
    "WaitForEvent",
    "WriteContentionError",
    "check_append",
    "check_run_id",
    "decode_journal",
    "decode_line",
    "encode_entry",
    "format_timestamp",
    "get_metadata",
    "is_precondition_failed_error",
    "is_run_id",
    "is_suspend_error",
    "is_terminal",
    "parse_timestamp",
    "plan_fork",
    "run_status",
]
