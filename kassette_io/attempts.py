"""A step whose work is not a function: begun here, and ended by the code that does the work.

Rules:
- An attempt that ends in any other way than with ``succeed`` has failed: nothing is recorded, and
  the step may be retried.
- The work is inside of the step: a replay skips it, so it must not run other steps.
- The work runs in its owner's task and is cancelled with it. Only a step's function is protected
  from cancellation when a sibling suspends.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, final

from kassette import UsageError
from kassette_io.typed import TypedValue


class Recorded(NamedTuple):
    """A step that is already in the journal, with its ``result``."""

    result: Any


class _Step(Protocol):
    """The part of a session that an attempt uses."""

    async def succeed(self, value: Any) -> Any:
        """Record ``value`` and return it as decoded from the journal."""
        ...

    async def fail(self, error: BaseException) -> None:
        """Record that the step has no result."""
        ...

    def let_go(self, error: BaseException) -> None:
        """Fail the step as ``fail`` does, without waiting."""
        ...


class _Session(Protocol):
    """The part of a session that ends a step."""

    async def succeed_step(self, step_id: str, result: Any, typed: TypedValue | None) -> Any:
        """Record the result of a step that has begun."""
        ...

    async def fail_step(self, step_id: str, error: BaseException) -> None:
        """Record that a step has ended without a result."""
        ...

    def drop_step(self, step_id: str, error: BaseException) -> None:
        """Record it as ``fail_step`` does, without waiting."""
        ...


@final
class Half:
    """How an attempt of a step ends."""

    __slots__ = ("_run", "_step_id", "_typed")

    def __init__(self, run: _Session, step_id: str, typed: TypedValue | None) -> None:
        self._run = run
        self._step_id = step_id
        self._typed = typed

    async def succeed(self, value: Any) -> Any:
        """Record ``value`` and return it as decoded from the journal."""
        return await self._run.succeed_step(self._step_id, value, self._typed)

    async def fail(self, error: BaseException) -> None:
        """Record that the step has no result."""
        await self._run.fail_step(self._step_id, error)

    def let_go(self, error: BaseException) -> None:
        """Fail the step as ``fail`` does, without waiting."""
        self._run.drop_step(self._step_id, error)


@final
class Attempt:
    """A step that has begun and is not recorded yet; returned by ``Context.begin``.

    Use it as ``async with attempt:`` around the work, and end it with ``succeed``. A block that
    ends without ``succeed`` records nothing.
    """

    def __init__(
        self, run_id: str, step_id: str, step: _Step, enter: Callable[[], Callable[[], None]]
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self._step = step
        self._enter = enter
        self._leave: Callable[[], None] | None = None
        self._settled = False

    def __repr__(self) -> str:
        return f"<Attempt of step {self.step_id!r}, {'ended' if self._settled else 'open'}>"

    async def succeed(self, value: Any) -> Any:
        """Record ``value`` as the step's result, and return it as decoded from the journal.

        Raise UsageError if the attempt has ended or was not entered, ValueRefusedError for a value
        that would not come back equal, and StorageError or FencedError if it could not be written.
        After a ValueRefusedError, StorageError or FencedError the attempt has failed.
        """
        if self._settled:
            raise UsageError(
                f"the attempt of step {self.step_id!r} has ended; begin the step again",
                run_id=self.run_id,
            )
        if self._leave is None:
            raise UsageError(
                f"the attempt of step {self.step_id!r} has not been entered; do the work and call "
                "succeed() inside of `async with attempt:`",
                run_id=self.run_id,
            )
        self._settled = True
        return await self._step.succeed(value)

    async def fail(self, error: BaseException | None = None) -> None:
        """End the step without a result, so that it may be retried. Do nothing after its end."""
        if self._settled:
            return
        self._settled = True
        if self._leave is None:
            self._step.let_go(error or _Unfinished())
        else:
            await self._step.fail(error or _Unfinished())

    def drop(self) -> None:
        """Abandon a step whose attempt was never entered, and warn about it."""
        if self._settled:
            return
        self._settled = True
        self._step.let_go(_Unfinished())
        warnings.warn(
            f"the attempt of step {self.step_id!r} was begun but never entered; use "
            "`async with attempt:` around the work",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    async def __aenter__(self) -> Self:
        if self._settled or self._leave is not None:
            raise UsageError(
                f"the attempt of step {self.step_id!r} has already been entered; begin the step "
                "again",
                run_id=self.run_id,
            )
        self._leave = self._enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave is not None:
            self._leave()
        await self.fail(exc)

    def __del__(self) -> None:
        self.drop()


class _Unfinished(Exception):
    """The block of an attempt ended without a result."""


Begin = Callable[..., Awaitable[Recorded | Attempt]]
"""A function that begins the step of a given name."""
