"""kassette: agent loops that survive crashes; the drivers, storages and the workflow wrapper.

A map for newcomers:

- ``workflow``   the decorator that makes an async function durable
- ``context``    steps, waits, sleeps and parallel branches inside it
- ``lifecycle``  ``start``, ``resume`` and ``fork``: sessions without the wrapper
- ``run``        one open session: performs the machine's effects
- ``storage``    what a storage promises; ``local_storage``, ``memory_storage`` keep it
- ``typed``      values of declared types, through pydantic
- ``results``, ``urls``  what came of a workflow; storage by URL

Everything that decides is in ``kassette``, which knows no event loop and no file. What workflow
authors need of it is exported from here as well.
"""

from kassette import (
    CancelEntry,
    Cancelled,
    Completed,
    CompleteEntry,
    Entry,
    ErrorEntry,
    EventPendingError,
    FailedRun,
    FencedError,
    InternalError,
    JournalCorruptionError,
    KassetteError,
    MetadataMismatchError,
    PreconditionFailedError,
    ReplayMismatchError,
    ResumeEntry,
    Retry,
    RunCancelledError,
    RunStatus,
    SessionClosedError,
    StartEntry,
    StepEntry,
    StorageError,
    SuspendedError,
    SuspendedRun,
    SuspendEntry,
    SuspendError,
    TerminalRunError,
    Unsettled,
    UsageError,
    VersionMismatchError,
    WriteContentionError,
    get_metadata,
    is_precondition_failed_error,
    is_suspend_error,
    is_terminal,
    run_status,
)
from kassette_io.context import Context
from kassette_io.lifecycle import create_run_id, fork, resume, start
from kassette_io.local_storage import LocalStorage
from kassette_io.memory_storage import MemoryStorage
from kassette_io.results import Failed, RunResult, Success, Suspended
from kassette_io.run import Run
from kassette_io.storage import SessionStorage, Storage
from kassette_io.urls import open_storage
from kassette_io.workflow import Workflow, workflow

__all__ = [
    "CancelEntry",
    "Cancelled",
    "CompleteEntry",
    "Completed",
    "Context",
    "Entry",
    "ErrorEntry",
    "EventPendingError",
    "Failed",
    "FailedRun",
    "FencedError",
    "InternalError",
    "JournalCorruptionError",
    "KassetteError",
    "LocalStorage",
    "MemoryStorage",
    "MetadataMismatchError",
    "PreconditionFailedError",
    "ReplayMismatchError",
    "ResumeEntry",
    "Retry",
    "Run",
    "RunCancelledError",
    "RunResult",
    "RunStatus",
    "SessionClosedError",
    "SessionStorage",
    "StartEntry",
    "StepEntry",
    "Storage",
    "StorageError",
    "Success",
    "SuspendEntry",
    "SuspendError",
    "Suspended",
    "SuspendedError",
    "SuspendedRun",
    "TerminalRunError",
    "Unsettled",
    "UsageError",
    "VersionMismatchError",
    "Workflow",
    "WriteContentionError",
    "create_run_id",
    "fork",
    "get_metadata",
    "is_precondition_failed_error",
    "is_suspend_error",
    "is_terminal",
    "open_storage",
    "resume",
    "run_status",
    "start",
    "workflow",
]
