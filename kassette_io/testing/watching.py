"""Runs a workflow on another storage, with an observer that sees and calls its steps.

The workflow gets a context that behaves like its own. Each step is announced under its id, and the
observer calls its function if the journal does not have the result. A durable sleep journals its
wake time and does not wait; a retry does not wait either. No rules of testing live here.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeAlias, cast, final

from kassette import BranchPath, Retry, UsageError, format_timestamp
from kassette.errors import naming_run
from kassette.immutable import Immutable
from kassette.naming import full_step_name
from kassette.timestamps import Timeout, after
from kassette.values import encode_value
from kassette_io._values.annotations import annotation
from kassette_io.attempts import Attempt, Recorded
from kassette_io.calling import CURRENT
from kassette_io.context import Context
from kassette_io.declaring import check_function, full_name
from kassette_io.storages.protocol import Storage
from kassette_io.streaming import Stream
from kassette_io.workflows import Workflow, workflow

WorkflowOrFunction: TypeAlias = Workflow[Any, Any] | Callable[..., Awaitable[Any]]
"""A workflow, or the function of one."""
Stubs: TypeAlias = Mapping[str, Callable[..., Any]]
"""Functions to call instead of a step's own, by step id, full name or name."""


@final
class AskedStep(Immutable):
    """A step as requested by the workflow.

    ``name`` is its own name, ``full_name`` adds the branch path, and ``step_id`` the number.
    ``arguments`` is their JSON, None if they are not JSON. ``is_sleep`` marks ctx.sleep.
    """

    path: BranchPath
    name: str
    full_name: str
    step_id: str
    arguments: bytes | None
    is_sleep: bool

    def among(self, names: Any) -> str | None:
        """Return the first of this step's names that is in ``names``, or None."""
        return next((n for n in (self.step_id, self.full_name, self.name) if n in names), None)


class Observer(Protocol):
    """Sees and calls a session's steps."""

    def now(self) -> datetime:
        """Return the instant from which durable sleeps count."""
        ...

    def asked(self, step: AskedStep) -> None:
        """Handle the request of a step, recorded or not."""
        ...

    async def call(self, step: AskedStep, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return the result of a step that is not recorded."""
        ...


def watched(
    given: WorkflowOrFunction, storage: Storage, observer: Observer, *, name: str | None = None
) -> Workflow[Any, Any]:
    """Return the workflow on ``storage`` for one session, with ``observer`` and without its hooks.

    ``name`` replaces the workflow's name in the journal. Raise UsageError for an object that is
    neither a workflow nor the function of one.
    """
    version, events = None, None
    if isinstance(given, Workflow):
        fn, version, events = given.fn, given.version, given.events
        name = given.name if name is None else name
    elif callable(cast("object", given)):
        check_function(given)
        fn, name = given, full_name(given) if name is None else name
    else:
        raise UsageError(f"{given!r} is neither a workflow nor the function of one")

    async def watched_fn(ctx: Context, *rest: Any) -> Any:
        watched = WatchedContext(ctx, observer, (), {})
        CURRENT.set(watched)
        return await fn(watched, *rest)

    signature = inspect.signature(fn)
    disguised = cast("Any", watched_fn)
    disguised.__signature__ = signature
    disguised.__annotations__ = {name: annotation(fn, name) for name in signature.parameters}
    return workflow(disguised, storage=storage, name=name, version=version, events=events)


async def call(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function that may be sync or async."""
    result = fn(*args)
    return await result if inspect.isawaitable(result) else result


@final
class WatchedContext:
    """A ``Context`` that forwards to the real one and notifies the observer."""

    def __init__(
        self, inner: Context, observer: Observer, path: BranchPath, counts: dict[str, int]
    ) -> None:
        self.input = inner.input
        self._inner = inner
        self._observer = observer
        self._path = path
        self._counts = counts

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._inner.run_id

    async def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: Retry | None = None,
        **how: Any,
    ) -> Any:
        """See ``Context.step``; retries do not wait."""
        if isinstance(cast("object", name), str) and callable(cast("object", fn)):
            fn = self._observed(self._ask(name, args), fn)
        if retry is not None:
            retry = retry.replace(max_delay=0.0)
        return await self._inner.step(name, fn, *args, retry=retry, **how)

    async def begin(self, name: str, **how: Any) -> Recorded | Attempt:
        """See ``Context.begin``; the observer is called when the work may begin."""
        step = self._ask(name, ()) if isinstance(cast("object", name), str) else None
        begun = await self._inner.begin(name, **how)
        if step is not None and isinstance(begun, Attempt):
            try:
                await self._observer.call(step, _nothing, ())
            except BaseException:
                await begun.fail()
                raise
        return begun

    def stream(self, name: str, source: Callable[..., Any], *args: Any, **how: Any) -> Stream:
        """See ``Context.stream``."""
        return self._inner.stream(name, source, *args, **how, begin=partial(self.begin, name))

    async def suspend(
        self, event_name: str, *, timeout: Timeout | None = None, reason: str | None = None
    ) -> Any:
        """See ``Context.suspend``."""
        return await self._inner.suspend(event_name, timeout=timeout, reason=reason)

    async def sleep(self, seconds: float) -> None:
        """See ``Context.sleep``; the wake time is journaled, but there is no wait."""
        with naming_run(self.run_id):
            wake = after(self._observer.now(), seconds)
        name = f"delay:{round(seconds * 1000)}ms"
        step = self._ask(name, (), is_sleep=True)
        fn = self._observed(step, format_timestamp)
        await self._inner.step(name, fn, wake, interchangeable=True)

    async def parallel(self, branches: Mapping[str, Callable[..., Awaitable[Any]]]) -> Any:
        """See ``Context.parallel``."""
        return await self._inner.parallel(
            {key: self._branch(key, fn) for key, fn in branches.items()}
        )

    def _branch(
        self, key: str, fn: Callable[..., Awaitable[Any]]
    ) -> Callable[[Context], Awaitable[Any]]:
        async def branch(inner: Context) -> Any:
            path = (*self._path, key)
            watched = WatchedContext(inner, self._observer, path, self._counts)
            CURRENT.set(watched)
            return await fn(watched)

        return branch

    def is_misplaced(self, other: Context) -> bool:
        """See ``Context.is_misplaced``."""
        return self._inner.is_misplaced(other)

    def _ask(self, name: str, args: tuple[Any, ...], *, is_sleep: bool = False) -> AskedStep:
        full = full_step_name(self._path, name)
        count = self._counts[full] = self._counts.get(full, 0) + 1
        step_id = full if count == 1 else f"{full}#{count}"
        step = AskedStep(self._path, name, full, step_id, _as_json(args), is_sleep)
        self._observer.asked(step)
        return step

    def _observed(self, step: AskedStep, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def observed(*args: Any) -> Any:
            return await self._observer.call(step, fn, args)

        observed.__annotations__ = {"return": annotation(fn, "return")}
        return observed


def _nothing() -> None:
    """Serve as the function of work that is not a function."""


def _as_json(args: tuple[Any, ...]) -> bytes | None:
    try:
        return encode_value(list(args))
    except UsageError:
        return None
