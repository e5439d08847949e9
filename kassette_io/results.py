"""What came of a workflow: made for ``match``; no behaviour."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeAlias, TypeVar, final

from kassette.immutable import Immutable

T_co = TypeVar("T_co", covariant=True)


@final
class Success(Immutable, Generic[T_co]):
    """The workflow returned ``result``; the run is complete."""

    status: ClassVar[str] = "success"

    result: T_co
    run_id: str


@final
class Failed(Immutable):
    """The workflow raised ``error``, which is in the journal; the run is over."""

    status: ClassVar[str] = "failed"

    error: Exception
    run_id: str


@final
class Suspended(Immutable):
    """The workflow waits for ``event``; the next call is ``resume(run_id, event, value)``."""

    status: ClassVar[str] = "suspended"

    event: str
    run_id: str


RunResult: TypeAlias = Success[T_co] | Failed | Suspended
