"""The results of ``Workflow.start`` and ``resume``, for ``match``; no behaviour."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeAlias, TypeVar, final

from kassette.immutable import Immutable

T_co = TypeVar("T_co", covariant=True)


@final
class Success(Immutable, Generic[T_co]):
    """The workflow returned ``result``; the run is complete.

    ``run_status`` reads the same from a journal as ``Completed``.
    """

    status: ClassVar[str] = "success"

    result: T_co
    run_id: str


@final
class Failed(Immutable):
    """The workflow raised ``error``; its type, message and traceback are in the journal.

    The run has ended: ``start`` with its id raises TerminalRunError; fork it to retry from a step.
    This is the result of a call in this process; ``FailedRun`` is what ``run_status`` reads from
    the journal of such a run.
    """

    status: ClassVar[str] = "failed"

    error: Exception
    run_id: str


@final
class Suspended(Immutable):
    """The workflow waits for ``event``; no process is needed until it arrives.

    Deliver it with ``resume(run_id, event, value)``. This is the result of a call in this process;
    ``SuspendedRun`` is what ``run_status`` reads from the journal of such a run.
    """

    status: ClassVar[str] = "suspended"

    event: str
    run_id: str


RunResult: TypeAlias = Success[T_co] | Failed | Suspended
