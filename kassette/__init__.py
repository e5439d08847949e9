"""The sans-IO core of kassette: values in, values out; no event loop, no files, no clock.

A map for newcomers:

- ``entries``      the seven kinds of journal entry
- ``codec``        journal lines: bytes to entries and back
- ``values``       which JSON values may be journaled, and how
- ``opening``      whether a session may be opened on a journal
- ``machine``      one session of one run: commands in, effects out
- ``steps``, ``waits``  its parts: numbering and replay of steps, and waits for events
- ``lanes``        where workflow and journal diverge: renamed, removed and reordered steps
- ``notes``        what an entry records beyond what replay needs: who wrote it, since when
- ``transitions``  which command is allowed in which state
- ``marks``, ``refusals``  the entries that begin and end a session, and errors for refused commands
- ``commands``, ``effects``  the machine's vocabulary
- ``replay``       an index of a journal for replay
- ``tail``         whether an append may follow the end of a journal
- ``object_append``  the append loop of a journal that is one object in a store
- ``forking``      the entries of a fork's journal
- ``status``       what a run is doing
- ``evidence``     analyses of a journal: spans, open waits, fork points, differences, summaries
- ``retry``        when a failed attempt is retried
- ``naming``, ``timestamps``  names and instants as the journal writes them
- ``immutable``    the base class of all values here
- ``brief``        how a value is quoted in a message
- ``errors``       all errors, and who acts next

``kassette_io`` performs the effects; a normal program imports only that.
"""

from typing import TYPE_CHECKING

from kassette._lazy import lazy_names

if TYPE_CHECKING:
    from kassette.codec import (
        Journal as Journal,
        decode_journal as decode_journal,
        decode_line as decode_line,
        encode_entry as encode_entry,
    )
    from kassette.commands import (
        Appended as Appended,
        AppendFailed as AppendFailed,
        Close as Close,
        Command as Command,
        Complete as Complete,
        EnterFunction as EnterFunction,
        EnterParallel as EnterParallel,
        Fail as Fail,
        LeaveFunction as LeaveFunction,
        LeaveParallel as LeaveParallel,
        Loaded as Loaded,
        LoadFailed as LoadFailed,
        Record as Record,
        Resume as Resume,
        Start as Start,
        StepFailed as StepFailed,
        StepSucceeded as StepSucceeded,
        WaitForEvent as WaitForEvent,
    )
    from kassette.effects import (
        Append as Append,
        Deliver as Deliver,
        Diverged as Diverged,
        Effect as Effect,
        Opened as Opened,
        Raise as Raise,
        Release as Release,
        Reload as Reload,
        Replay as Replay,
        Return as Return,
        RunStep as RunStep,
    )
    from kassette.entries import (
        SUSPEND_TIMEOUT_EXPIRED as SUSPEND_TIMEOUT_EXPIRED,
        UNSET as UNSET,
        BaseEntry as BaseEntry,
        CancelEntry as CancelEntry,
        CompleteEntry as CompleteEntry,
        Entry as Entry,
        ErrorEntry as ErrorEntry,
        ForkSource as ForkSource,
        ResumeEntry as ResumeEntry,
        StartEntry as StartEntry,
        StepEntry as StepEntry,
        SuspendEntry as SuspendEntry,
        TerminalEntry as TerminalEntry,
        Unset as Unset,
        is_terminal as is_terminal,
    )
    from kassette.errors import (
        EventPendingError as EventPendingError,
        FencedError as FencedError,
        InternalError as InternalError,
        JournalCorruptionError as JournalCorruptionError,
        KassetteError as KassetteError,
        MetadataMismatchError as MetadataMismatchError,
        PreconditionFailedError as PreconditionFailedError,
        ReplayMismatchError as ReplayMismatchError,
        RunCancelledError as RunCancelledError,
        SessionClosedError as SessionClosedError,
        StorageError as StorageError,
        StreamTooLargeError as StreamTooLargeError,
        SuspendedError as SuspendedError,
        SuspendError as SuspendError,
        TerminalRunError as TerminalRunError,
        UsageError as UsageError,
        ValueRefusedError as ValueRefusedError,
        VersionMismatchError as VersionMismatchError,
        WriteContentionError as WriteContentionError,
        is_precondition_failed_error as is_precondition_failed_error,
        is_suspend_error as is_suspend_error,
    )
    from kassette.forking import (
        plan_fork as plan_fork,
    )
    from kassette.machine import (
        Machine as Machine,
    )
    from kassette.naming import (
        BranchPath as BranchPath,
        check_run_id as check_run_id,
        is_run_id as is_run_id,
    )
    from kassette.notes import (
        FailedAttempt as FailedAttempt,
    )
    from kassette.retry import (
        Retry as Retry,
    )
    from kassette.status import (
        Cancelled as Cancelled,
        Completed as Completed,
        FailedRun as FailedRun,
        RunStatus as RunStatus,
        SuspendedRun as SuspendedRun,
        Unsettled as Unsettled,
        get_metadata as get_metadata,
        run_status as run_status,
    )
    from kassette.tail import (
        Tail as Tail,
        check_append as check_append,
    )
    from kassette.timestamps import (
        format_timestamp as format_timestamp,
        parse_timestamp as parse_timestamp,
    )
    from kassette.transitions import (
        ENDED as ENDED,
        TRANSITIONS as TRANSITIONS,
        State as State,
    )

_NAMES = {
    "kassette.codec": ("Journal decode_journal decode_line encode_entry"),
    "kassette.commands": (
        "AppendFailed Appended Close Command Complete EnterFunction EnterParallel Fail "
        "LeaveFunction LeaveParallel LoadFailed Loaded Record Resume Start StepFailed "
        "StepSucceeded WaitForEvent"
    ),
    "kassette.effects": (
        "Append Deliver Diverged Effect Opened Raise Release Reload Replay Return RunStep"
    ),
    "kassette.entries": (
        "BaseEntry CancelEntry CompleteEntry Entry ErrorEntry ForkSource ResumeEntry "
        "SUSPEND_TIMEOUT_EXPIRED StartEntry StepEntry SuspendEntry TerminalEntry UNSET "
        "Unset is_terminal"
    ),
    "kassette.errors": (
        "EventPendingError FencedError InternalError JournalCorruptionError KassetteError "
        "MetadataMismatchError PreconditionFailedError ReplayMismatchError "
        "RunCancelledError SessionClosedError StorageError StreamTooLargeError SuspendError "
        "SuspendedError "
        "TerminalRunError UsageError ValueRefusedError VersionMismatchError WriteContentionError "
        "is_precondition_failed_error is_suspend_error"
    ),
    "kassette.forking": ("plan_fork"),
    "kassette.machine": ("Machine"),
    "kassette.naming": ("BranchPath check_run_id is_run_id"),
    "kassette.notes": ("FailedAttempt"),
    "kassette.retry": ("Retry"),
    "kassette.status": (
        "Cancelled Completed FailedRun RunStatus SuspendedRun Unsettled get_metadata run_status"
    ),
    "kassette.tail": ("Tail check_append"),
    "kassette.timestamps": ("format_timestamp parse_timestamp"),
    "kassette.transitions": ("ENDED State TRANSITIONS"),
}

__all__ = sorted(" ".join(_NAMES.values()).split())  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll]
__getattr__ = lazy_names(__name__, _NAMES)
