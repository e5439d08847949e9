"""Opens sessions: ``start``, ``resume`` and ``fork``; the rules are in the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime

from kassette import (
    UNSET,
    Entry,
    Machine,
    Resume,
    Start,
    Unset,
    check_run_id,
    plan_fork,
)
from kassette.errors import naming_run
from kassette.evidence.found import found
from kassette.notes import Found
from kassette_io import _clock
from kassette_io.loops.waiting import checkpoint_if_cancelled
from kassette_io.noting import NOBODY, Asking, session_notes
from kassette_io.observing import Observer, checked, tell_refused
from kassette_io.run import Run
from kassette_io.storages.protocol import Storage, as_session_storage


def create_run_id() -> str:
    """Return a new run id, a random UUID. Any string that ``check_run_id`` accepts works too."""
    from uuid import uuid4  # the only use of a slow import

    return str(uuid4())


async def start(
    storage: Storage,
    run_id: str,
    *,
    version: str | None = None,
    metadata: object | Unset = UNSET,
    observers: Sequence[Observer] = (),
) -> Run:
    """Open a session of a new run, or recover a run, which resumes where it left off.

    ``version`` is a non-empty text that identifies the shape of the caller's code; it must equal
    the first one in the journal. ``metadata`` (JSON) is stored with a new run and, if given,
    compared on recovery. ``observers`` are called for what happens in the session.

    Raise, before anything runs: UsageError for an invalid argument, TerminalRunError if the run has
    ended, VersionMismatchError, EventPendingError if it waits for an event, MetadataMismatchError,
    RunCancelledError if a deadline has passed, WriteContentionError or FencedError if another
    session has the run, StorageError, JournalCorruptionError.
    """
    command = start_command(metadata, version)
    return await open_session(storage, run_id, command, checked(observers))


async def resume(
    storage: Storage,
    run_id: str,
    event_name: str,
    value: object,
    *,
    version: str | None = None,
    given_at: datetime | None = None,
    by: str | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Open a session that delivers ``value`` (JSON) as ``event_name``.

    It is safe to repeat: a value already in the journal wins, and nothing is written twice.
    ``given_at`` is the (aware) instant at which the answer was given, if that was earlier, for
    example because the run was busy; that instant, not the current time, must be before the
    deadline. ``by`` is recorded with the event: a free text that names who gave it.

    Raise what ``start`` raises except EventPendingError, and UsageError if the run does not wait
    for this event.
    """
    command = resume_command(event_name, value, version, given_at, by)
    return await open_session(storage, run_id, command, checked(observers))


async def fork(
    storage: Storage,
    new_run_id: str,
    *,
    source: str,
    from_offset: int | None = None,
    from_step_id: str | None = None,
    version: str | None = None,
    observers: Sequence[Observer] = (),
) -> Run:
    """Open a session of a new run that begins with the entries of ``source`` before a fork point.

    The fork point is ``from_offset``, or the first step with ``from_step_id``; the entry there is
    not copied. The source is only read. The built-in storages create the new journal atomically.

    Raise UsageError for an unknown source or fork point, or a target that exists; StorageError.
    """
    return await open_fork(
        storage, new_run_id, source, from_offset, from_step_id, version, checked(observers)
    )


async def open_fork(
    storage: Storage,
    new_run_id: str,
    source: str,
    from_offset: int | None,
    from_step_id: str | None,
    version: str | None,
    observers: Sequence[Observer],
    asking: Asking = NOBODY,
) -> Run:
    """Fork as ``fork`` does, on behalf of a workflow."""
    new_run_id, source = check_run_id(new_run_id), check_run_id(source)
    sessions = as_session_storage(storage)
    with naming_run(source):
        recorded = await sessions.read_all(source)
    entries = plan_fork(
        source,
        recorded,
        from_offset=from_offset,
        from_step_id=from_step_id,
        version=version,
        writer=_token(),
        workflow=asking.workflow,
        notes=session_notes(asking.code),
        now=_clock.now(),
    )
    await sessions.create(new_run_id, entries)
    machine = Machine.opened(new_run_id, entries, strict=asking.strict)
    run = Run(machine, sessions, observers)
    run.settle_in()
    try:
        await checkpoint_if_cancelled()
    except BaseException as error:
        await run.close_after(error)
        raise
    run.tell_opened()
    return run


def start_command(metadata: object | Unset, version: str | None, asking: Asking = NOBODY) -> Start:
    """Return the command that opens a session, with a new token."""
    notes = session_notes(asking.code)
    return Start(metadata, version, _token(), asking.workflow, notes, asking.strict)


def resume_command(
    event_name: str,
    value: object,
    version: str | None,
    given_at: datetime | None,
    by: str | None,
    asking: Asking = NOBODY,
) -> Resume:
    """Return the command that opens a session with an event, with a new token."""
    return Resume(
        event_name,
        value,
        version,
        _token(),
        asking.workflow,
        given_at,
        by,
        session_notes(asking.code),
        asking.strict,
    )


async def open_session(
    storage: Storage,
    run_id: str,
    command: Start | Resume,
    observers: Sequence[Observer],
    *,
    revise: Callable[[Start, Sequence[Entry]], Start] | None = None,
) -> Run:
    """Read the journal, then open a session with ``command``.

    ``revise`` may change a ``Start`` according to the journal, or refuse it.
    """
    run_id = check_run_id(run_id)
    sessions = as_session_storage(storage)
    try:
        with naming_run(run_id):
            entries = await sessions.read_all(run_id)
            if revise is not None and isinstance(command, Start):
                command = revise(command, entries)
        command = _with_found(command, found(entries, _left_behind(sessions, run_id)))
        run = Run(Machine(run_id, entries), sessions, observers)
        await run.open(command)
    except Exception as error:
        tell_refused(observers, run_id, error)
        raise
    return run


def _left_behind(storage: object, run_id: str) -> Found | None:
    asked = getattr(storage, "left_behind", None)
    return None if asked is None else asked(run_id)


def _with_found(command: Start | Resume, left: Found | None) -> Start | Resume:
    if left is None:
        return command
    return command.replace(notes={**(command.notes or {}), "found": left.to_json()})


def _token() -> str:
    """Return a token unique to a session, which identifies its ``start`` entry."""
    return os.urandom(16).hex()
