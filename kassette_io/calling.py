"""Calls a step's function: its context, its attempts, its timeout; no journal here.

Rules:
- A step's function runs in a copy of its caller's context, so variables that it sets are gone when
  it returns, live and on replay. The copy records which steps it is inside of.
- All attempts of a step are one call here. The timeout applies to each of them.
- A step whose function is awaited is a ``Flight``: once its branch, or one around it, has
  suspended, it is held, and a cancellation of its caller no longer reaches it, because its work may
  cost money. Before that, cancelling the caller cancels the step. Under asyncio, where nothing can
  block ``Task.cancel``, it runs in its own task.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from time import monotonic
from typing import Any, Protocol, TypeVar, cast, final

from anyio import move_on_after, sleep

from kassette import BranchPath, FailedAttempt, Retry, UsageError
from kassette.notes import MOST_ERRORS

T = TypeVar("T")


@final
class Call:
    """A function, its arguments, its retry schedule, and its timeout per attempt in ``seconds``."""

    __slots__ = (
        "args",
        "attempts",
        "errors",
        "fn",
        "on_failed_attempt",
        "retry",
        "seconds",
        "step_id",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        retry: Retry | None = None,
        seconds: float | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.retry = retry
        self.seconds = seconds
        self.step_id = ""
        self.attempts = 1
        self.errors: list[FailedAttempt] = []
        """The errors of the last failed attempts."""
        self.on_failed_attempt: Callable[[int, Exception, float | None], None] | None = None

    @property
    def is_simple(self) -> bool:
        """Whether the function is called once, without a timeout, and is not ``async def``."""
        if self.retry is not None or self.seconds is not None:
            return False
        code = getattr(self.fn, "__code__", None)
        return code is None or not code.co_flags & inspect.CO_COROUTINE

    async def perform(self) -> Any:
        """Call the function until an attempt succeeds or is the last one."""
        retry = self.retry
        if retry is None:
            return await self._attempt()
        while True:
            began = monotonic()
            try:
                return await self._attempt()
            except Exception as error:
                delay = retry.delay_after(self.attempts, error)
                if self.on_failed_attempt is not None:
                    self.on_failed_attempt(self.attempts, error, delay)
                if delay is None:
                    raise
                self.errors.append(FailedAttempt.of(error, monotonic() - began))
                del self.errors[:-MOST_ERRORS]
            await sleep(delay)
            self.attempts += 1

    async def _attempt(self) -> Any:
        if self.seconds is None:
            result = self.fn(*self.args)
            return await result if inspect.isawaitable(result) else result
        with move_on_after(self.seconds):
            result = self.fn(*self.args)
            return await result if inspect.isawaitable(result) else result
        raise TimeoutError(
            f"an attempt of step {self.step_id!r} took longer than {self.seconds:g} s"
        )


@final
class Flight:
    """A step of branch ``path`` that is awaited."""

    __slots__ = ("held", "path", "scope")

    def __init__(self, path: BranchPath, *, held: bool) -> None:
        self.path = path
        self.held = held
        self.scope: Any = None

    def hold(self) -> None:
        """Protect the step from a cancellation of its caller from now on."""
        self.held = True
        if self.scope is not None:
            self.scope.shield = True


class Owner(Protocol):
    """The session that a step belongs to."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...


_INSIDE: ContextVar[tuple[tuple[Owner, str], ...]] = ContextVar("kassette_inside", default=())
"""The sessions and ids of the steps whose functions are running; the innermost is last."""


CURRENT: ContextVar[Any] = ContextVar("kassette_context", default=None)
"""The ``Context`` of the workflow, or of its branch, whose code is running; None in a step."""


def context_inside(owner: Owner, step_id: str) -> Context:
    """Return a copy of the current context, marked as inside of this step."""
    context = copy_context()
    context.run(_INSIDE.set, (*_INSIDE.get(), (owner, step_id)))
    context.run(CURRENT.set, None)
    return context


def go_inside(owner: Owner, step_id: str) -> Callable[[], None]:
    """Mark the current context as inside of this step; return a function that undoes it."""
    inside, around = _INSIDE.get(), CURRENT.get()
    _INSIDE.set((*inside, (owner, step_id)))
    CURRENT.set(None)

    def go_out() -> None:
        _INSIDE.set(inside)
        CURRENT.set(around)

    return go_out


def check_outside(owner: Owner, kind: str, what: object) -> None:
    """Raise UsageError inside of a step of ``owner``: a replay would not request ``what``."""
    for session, step_id in _INSIDE.get():
        if session is owner:
            raise UsageError(
                f"{kind} {what!r} was requested inside of step {step_id!r}, but a replay does not "
                "run that step, so its result would go to a later call. Run steps one after "
                "another, and pass results on as arguments",
                run_id=owner.run_id,
            )


def as_coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    """Return a coroutine that awaits ``awaitable``, or itself if it is one."""
    if type(awaitable) is types.CoroutineType:  # pyright: ignore[reportUnknownMemberType]
        return cast("Coroutine[Any, Any, T]", awaitable)
    return _await(awaitable)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


@types.coroutine
def in_context(context: Context, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await ``coroutine`` in the running task, with each of its steps run inside of ``context``."""
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            awaited = context.run(step, value)
        except StopIteration as end:
            return cast("T", end.value)
        try:
            value = yield awaited
            step = coroutine.send
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as error:
            step, value = coroutine.throw, error
