"""Decides what an exception that leaves a workflow, or a branch of it, means for the run.

Rules:
- A SuspendError of the run itself, alone or in (nested) groups of such errors, is a suspension. One
  of another run is a failure of this workflow, which should have handled it.
- For a branch, a group with other errors next to a suspension counts as those errors.
- A mistake in using the run (a UsageError, or steps that do not match the journal) is not a failure
  of the workflow: the run stays open, so that corrected code can continue it.
- Cancellation, KeyboardInterrupt, SystemExit and GeneratorExit do not end the run, not even in a
  group with ordinary errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard, cast

from kassette import KassetteError, ReplayMismatchError, SuspendError, UsageError


def without_suspension(error: BaseException, run_id: str) -> BaseException | None:
    """Return ``error`` without suspensions of run ``run_id``; None if nothing else is left.

    A SuspendError of another run is returned as a UsageError that explains it.
    """
    if isinstance(error, SuspendError):
        return None if error.run_id == run_id else _escaped(error, run_id)
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    rest = [without_suspension(each, run_id) for each in group.exceptions]
    if all(mine is each for mine, each in zip(rest, group.exceptions, strict=True)):
        return group
    kept = [each for each in rest if each is not None]
    if not kept:
        return None
    derived: BaseExceptionGroup[BaseException] = group.derive(kept)
    derived.__traceback__ = group.__traceback__
    derived.__cause__, derived.__context__ = group.__cause__, group.__context__
    return derived


def settles(error: BaseException) -> bool:
    """Return whether ``error`` is the workflow's own outcome, such as a failure or suspension."""
    return all(isinstance(each, (Exception, SuspendError)) for each in leaves(error))


def mistake_in(error: BaseException, run_id: str) -> UsageError | ReplayMismatchError | None:
    """Return the first mistake in using run ``run_id`` in ``error`` or its groups, if any."""
    return next((each for each in leaves(error) if is_mistake(each, run_id)), None)


def is_mistake(error: BaseException, run_id: str) -> TypeGuard[UsageError | ReplayMismatchError]:
    """Return whether ``error`` is a mistake in using run ``run_id``."""
    return isinstance(error, (UsageError, ReplayMismatchError)) and error.run_id == run_id


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in nested groups, or ``error`` itself if it is not a group."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(each)
    else:
        yield error


def cut_short(what: str) -> RuntimeError:
    """Return the failure of a workflow or branch that ended with a stray CancelledError."""
    return RuntimeError(
        f"{what} awaited a task or future that was cancelled, but {what} itself was not; if that "
        "can happen, catch asyncio.CancelledError around the await"
    )


def _escaped(error: SuspendError, run_id: str) -> KassetteError:
    failure = UsageError(
        f"run {error.run_id!r} suspended inside of the workflow of run {run_id!r}, waiting for "
        f"{error.event_name!r}, and its SuspendError was not handled. Use a Workflow for it, whose "
        "start() returns Suspended, or catch the SuspendError where the other run is used",
        run_id=error.run_id,
    )
    failure.__cause__ = error
    return failure
