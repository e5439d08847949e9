"""kassette: agent loops that survive crashes; the drivers, storages and the workflow wrapper.

A map for newcomers:

- ``workflows``  the decorator that makes an async function durable
- ``context``    steps, waits, sleeps and parallel branches inside it
- ``attempts``, ``streaming``  steps whose work is not a function, and item by item
- ``observing``  callbacks for what happens in sessions
- ``lifecycle``  ``start``, ``resume`` and ``fork``: sessions without the wrapper
- ``run``        one open session; ``driver`` performs the machine's effects
- ``calling``, ``branches``, ``settling``  calls of steps, parallel branches, and how they end
- ``typed``      values of declared types, implemented in ``_values``
- ``declaring``, ``noting``  checks of a workflow's function, and what a session notes about itself
- ``results``    the results of a workflow
- ``storages``   the storage protocols and the three built-in storages
- ``loops``      the differences between asyncio and trio
- ``testing``    crash tests and journal replay for workflows; a conformance suite for storages
- ``pytest_plugin``  the fixture ``kassette_journal`` and its options

Every decision is made in ``kassette``, which knows no event loop and no files. The names in it that
workflow authors need are exported from here as well.
"""

from typing import TYPE_CHECKING

from kassette._lazy import lazy_names

if TYPE_CHECKING:
    from kassette.entries import (
        CancelEntry as CancelEntry,
        CompleteEntry as CompleteEntry,
        Entry as Entry,
        ErrorEntry as ErrorEntry,
        ResumeEntry as ResumeEntry,
        StartEntry as StartEntry,
        StepEntry as StepEntry,
        SuspendEntry as SuspendEntry,
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
    from kassette_io.attempts import (
        Attempt as Attempt,
        Recorded as Recorded,
    )
    from kassette_io.context import (
        Context as Context,
        current_context as current_context,
    )
    from kassette_io.lifecycle import (
        create_run_id as create_run_id,
        fork as fork,
        resume as resume,
        start as start,
    )
    from kassette_io.observing import (
        Observer as Observer,
        SessionInfo as SessionInfo,
    )
    from kassette_io.results import (
        Failed as Failed,
        RunResult as RunResult,
        Success as Success,
        Suspended as Suspended,
    )
    from kassette_io.run import (
        Run as Run,
    )
    from kassette_io.storages.local import (
        LocalStorage as LocalStorage,
    )
    from kassette_io.storages.memory import (
        MemoryStorage as MemoryStorage,
    )
    from kassette_io.storages.object_store import (
        GetObjectResult as GetObjectResult,
        ObjectStoreClient as ObjectStoreClient,
    )
    from kassette_io.storages.protocol import (
        BatchStorage as BatchStorage,
        SessionStorage as SessionStorage,
        Storage as Storage,
    )
    from kassette_io.storages.remote import (
        RemoteStorage as RemoteStorage,
    )
    from kassette_io.storages.s3 import (
        S3ObjectStoreClient as S3ObjectStoreClient,
    )
    from kassette_io.storages.urls import (
        open_storage as open_storage,
    )
    from kassette_io.streaming import (
        Stream as Stream,
    )
    from kassette_io.typed import (
        ValueCodec as ValueCodec,
    )
    from kassette_io.workflows import (
        Workflow as Workflow,
        workflow as workflow,
    )

_NAMES = {
    "kassette.entries": (
        "CancelEntry CompleteEntry Entry ErrorEntry ResumeEntry StartEntry StepEntry "
        "SuspendEntry is_terminal"
    ),
    "kassette.errors": (
        "EventPendingError FencedError InternalError JournalCorruptionError KassetteError "
        "MetadataMismatchError PreconditionFailedError ReplayMismatchError "
        "RunCancelledError SessionClosedError StorageError StreamTooLargeError SuspendError "
        "SuspendedError "
        "TerminalRunError UsageError ValueRefusedError VersionMismatchError "
        "WriteContentionError is_precondition_failed_error is_suspend_error"
    ),
    "kassette.retry": ("Retry"),
    "kassette.status": (
        "Cancelled Completed FailedRun RunStatus SuspendedRun Unsettled get_metadata run_status"
    ),
    "kassette_io.attempts": ("Attempt Recorded"),
    "kassette_io.context": ("Context current_context"),
    "kassette_io.lifecycle": ("create_run_id fork resume start"),
    "kassette_io.storages.local": ("LocalStorage"),
    "kassette_io.storages.memory": ("MemoryStorage"),
    "kassette_io.storages.object_store": ("GetObjectResult ObjectStoreClient"),
    "kassette_io.storages.remote": ("RemoteStorage"),
    "kassette_io.storages.s3": ("S3ObjectStoreClient"),
    "kassette_io.observing": ("Observer SessionInfo"),
    "kassette_io.results": ("Failed RunResult Success Suspended"),
    "kassette_io.run": ("Run"),
    "kassette_io.storages.protocol": ("BatchStorage SessionStorage Storage"),
    "kassette_io.streaming": ("Stream"),
    "kassette_io.typed": ("ValueCodec"),
    "kassette_io.storages.urls": ("open_storage"),
    "kassette_io.workflows": ("Workflow workflow"),
}

__all__ = sorted(" ".join(_NAMES.values()).split())  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll]
__getattr__ = lazy_names(__name__, _NAMES)
