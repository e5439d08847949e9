"""What an exception that leaves a workflow, or a branch of it, says about the run; decides only.

Rules:
- A SuspendError of the run itself, alone or in (nested) groups with its like, is a suspension. One
  of another run is a failure of this workflow, which should have handled it.
- A group with other errors beside a suspension is those errors, as far as a branch is concerned.
- A mistake in using the run (a UsageError, or steps that do not match the journal) says nothing
  about the workflow: the run stays open, so that code that is mended can go on with it.
- Cancellation, KeyboardInterrupt, SystemExit and GeneratorExit settle nothing (D2), not even beside
  ordinary errors in a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard, cast

from kassette import KassetteError, ReplayMismatchError, SuspendError, UsageError


def without_suspension(error: BaseException, run_id: str) -> BaseException | None:
    """Return what ``error`` is besides a suspension of run ``run_id``; None: nothing else.

    The SuspendError of another run is returned as a UsageError that says so.
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
    """Tell whether ``error`` is an end of the workflow's own making, a suspension included."""
    return all(isinstance(each, (Exception, SuspendError)) for each in leaves(error))


def mistake_in(error: BaseException, run_id: str) -> UsageError | ReplayMismatchError | None:
    """Return the first mistake in using run ``run_id`` that ``error`` is or holds, if any."""
    return next((each for each in leaves(error) if is_mistake(each, run_id)), None)


def is_mistake(error: BaseException, run_id: str) -> TypeGuard[UsageError | ReplayMismatchError]:
    """Tell whether ``error`` is a mistake in using run ``run_id``."""
    return isinstance(error, (UsageError, ReplayMismatchError)) and error.run_id == run_id


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in nested groups, or the one that is no group."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(each)
    else:
        yield error


def cut_short(what: str) -> RuntimeError:
    """Return the failure of something that ended by a cancellation which nobody asked it for."""
    return RuntimeError(
        f"{what} awaited a task or future that was cancelled, and nobody cancelled {what}; where "
        "that may happen, catch asyncio.CancelledError around the await"
    )


def _escaped(error: SuspendError, run_id: str) -> KassetteError:
    failure = UsageError(
        f"run {error.run_id!r} suspended inside of the workflow of run {run_id!r}, waiting for "
        f"{error.event_name!r}, and its SuspendError got out. Drive it with a Workflow, whose "
        "start() returns Suspended, or catch the SuspendError where the other run is used",
        run_id=error.run_id,
    )
    failure.__cause__ = error
    return failure
