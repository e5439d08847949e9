"""The workflow wrapper: opens the session, runs the function, records its outcome.

Rules:
- If the function returns, the run is completed: ``Success``. If it raises, the run has failed:
  ``Failed``.
- If it suspends, the result is ``Suspended``, even if the SuspendError was swallowed. The waits of
  all its tasks are written when the function has ended and nothing is in flight. The journal is
  authoritative: it says suspended, and a warning is logged about a function that swallowed the
  error.
- Cancellation, KeyboardInterrupt, SystemExit and GeneratorExit count as a crash: nothing is
  appended, the session is closed, and the exception propagates.
- Errors of the session itself (a fence, a full disk, a lock) are not failures of the workflow, and
  neither are mistakes in using it (``settling``), including a value that is refused when it is
  written or read: they are raised to the caller, nothing is appended, and the next ``start``
  continues from the journal.
- Errors before the function runs are raised to the caller, and no hook is called.
- A function that cannot be a workflow is refused when it is declared, not at its first start.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, cast, final, overload

from kassette import (
    UNSET,
    Entry,
    FencedError,
    InternalError,
    JournalCorruptionError,
    Start,
    StartEntry,
    StorageError,
    SuspendError,
    Unset,
    UsageError,
    ValueRefusedError,
    WriteContentionError,
    check_run_id,
)
from kassette.brief import brief
from kassette.errors import naming_run
from kassette.naming import check_event_name, check_label
from kassette_io import _clock, lifecycle
from kassette_io.calling import CURRENT
from kassette_io.context import Context
from kassette_io.declaring import check_function, full_name
from kassette_io.loops.waiting import is_stray_cancellation, times_cancelled
from kassette_io.noting import Asking, fingerprint
from kassette_io.observing import Observer, checked
from kassette_io.results import Failed, RunResult, Success, Suspended
from kassette_io.run import Run
from kassette_io.settling import cut_short, mistake_in, settles, without_suspension
from kassette_io.storages.protocol import Storage, as_session_storage
from kassette_io.typed import TypedValue, annotated_value, typed_value

InT = TypeVar("InT")
OutT = TypeVar("OutT")

OnFinish = Callable[[RunResult[Any]], object]
"""A function, sync or async, that is called with every result; its errors are logged."""
OnDivergence = Literal["warn", "raise"]
"""What to do where workflow and journal diverge."""
OnError = Callable[[Failed], object]
"""A function, sync or async, called with a failure before ``on_finish``; its errors are logged."""

_OF_THE_SESSION = (
    StorageError,
    WriteContentionError,
    FencedError,
    JournalCorruptionError,
    InternalError,
)
_REMEMBERED_ANSWERS: Final = 1024


@final
class Workflow(Generic[InT, OutT]):
    """A durable async function, returned by ``workflow``.

    ``fn``, ``version`` and ``events`` are the arguments of ``workflow``; ``name`` is the workflow's
    name in journals.
    """

    def __init__(
        self,
        fn: Callable[..., Awaitable[OutT]],
        *,
        storage: Storage,
        name: str | None = None,
        version: str | None = None,
        on_finish: OnFinish | None = None,
        on_error: OnError | None = None,
        events: Mapping[str, Any] | None = None,
        observers: Sequence[Observer] = (),
        on_divergence: OnDivergence = "warn",
    ) -> None:
        check_function(fn)
        self._takes_input, self._input_type, self._input_default = _input_of(fn)
        self.fn = fn
        self.name = full_name(fn) if name is None else check_label("a workflow's name", name)
        self.version = version
        self._asking = Asking(self.name, fingerprint(fn), _is_strict(on_divergence))
        self._storage = as_session_storage(storage)
        self._on_finish = on_finish
        self._on_error = on_error
        self.observers = checked(observers)
        self.events: Mapping[str, Any] = _declared_events(events)
        self._events = {name: typed_value(each) for name, each in self.events.items()}
        self._refused: OrderedDict[tuple[str, str], tuple[datetime, object]] = OrderedDict()
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __repr__(self) -> str:
        return f"<Workflow {self.__name__}>"

    async def start(
        self,
        input: InT | Unset = UNSET,
        *,
        run_id: str | None = None,
        version: str | None = None,
    ) -> RunResult[OutT]:
        """Run the workflow to its end or its next suspension; recover ``run_id`` if it exists.

        ``input`` is journaled with a new run; if omitted, it is the default of the function's
        parameter. On recovery pass the same input, or omit it; it is the same if it decodes, as its
        declared type, to a value equal to the recorded one. Without a ``run_id``, a new random one
        is created. ``version`` overrides the workflow's own.

        Raise what ``kassette_io.start`` raises; UsageError for a new run without the input that the
        function requires; ValueRefusedError for an input or a result that would not come back
        equal, and for a recorded value that no longer fits (the run stays open). A dispatcher that
        delivers a job twice can treat a TerminalRunError whose ``terminal_state`` is ``"complete"``
        as done.
        """
        run_id = lifecycle.create_run_id() if run_id is None else run_id
        with naming_run(run_id):
            metadata = self._plain_input(input)
        run = await lifecycle.open_session(
            self._storage,
            run_id,
            lifecycle.start_command(metadata, self._version(version), self._asking),
            self.observers,
            revise=partial(self._revised, input),
        )
        return await self._drive(run)

    def _plain_input(self, given: Any) -> Any:
        if self._input_type is None or isinstance(given, Unset):
            return given
        return self._input_type.to_plain(given, "the input")

    def _revised(self, given: object | Unset, command: Start, entries: Sequence[Entry]) -> Start:
        """Return the command with the input's default for a new run, or the equal recorded input.

        An input that no longer fits its type is detected when the session is open, because a run
        that has ended, or waits, must report that first.
        """
        if not entries:
            if not self._takes_input or not isinstance(given, Unset):
                return command
            if self._input_default is inspect.Parameter.empty:
                raise UsageError(
                    "a new run needs the input that the workflow takes; pass input= (None is valid)"
                )
            return command.replace(metadata=self._plain_input(self._input_default))
        recorded = _recorded_input(entries)
        if self._input_type is None or recorded is None or isinstance(given, Unset):
            return command
        try:
            same = self._input_type.is_same(given, recorded, "the input")
        except ValueRefusedError:
            return command.replace(metadata=UNSET)
        return command.replace(metadata=UNSET) if same else command

    async def resume(
        self,
        run_id: str,
        event_name: str,
        value: object,
        *,
        version: str | None = None,
        given_at: datetime | None = None,
        by: str | None = None,
    ) -> RunResult[OutT]:
        """Deliver an event to a suspended run, and continue to its end or its next suspension.

        A payload of a type declared in ``events`` is checked before anything is journaled. It is
        safe to repeat: a value already in the journal wins. ``given_at`` is the (aware) instant at
        which the answer was given; that instant, not the current time, must be before the deadline.
        If this workflow refused an answer because another session had the run open, and it is
        retried with the same value, the instant of the first try counts. ``by`` is recorded with
        the event: a free text that names who gave it.

        Raise what ``kassette_io.resume`` raises.
        """
        run_id, event_name = check_run_id(run_id), _checked_event(event_name, run_id)
        typed = self._event_type(event_name)
        if typed is not None:
            with naming_run(run_id):
                value = typed.to_plain(value, f"the value of event {event_name!r}")
        given_at = self._first_given(run_id, event_name, value, given_at)
        try:
            command = lifecycle.resume_command(
                event_name, value, self._version(version), given_at, by, self._asking
            )
            run = await lifecycle.open_session(self._storage, run_id, command, self.observers)
        except WriteContentionError:
            self._remember_refused(run_id, event_name, value, given_at or _clock.now())
            raise
        self._refused.pop((run_id, event_name), None)
        return await self._drive(run)

    def _first_given(
        self, run_id: str, event_name: str, value: object, given_at: datetime | None
    ) -> datetime | None:
        refused = self._refused.get((run_id, event_name))
        if given_at is not None or refused is None or refused[1] != value:
            return given_at
        return refused[0]

    def _remember_refused(
        self, run_id: str, event_name: str, value: object, instant: datetime
    ) -> None:
        self._refused[run_id, event_name] = instant, value
        if len(self._refused) > _REMEMBERED_ANSWERS:
            self._refused.popitem(last=False)

    async def fork(
        self,
        source: str,
        *,
        from_offset: int | None = None,
        from_step_id: str | None = None,
        run_id: str | None = None,
        version: str | None = None,
    ) -> RunResult[OutT]:
        """Create a new run from the entries of ``source`` before a fork point, and run it.

        The fork point is ``from_offset``, or the first step with ``from_step_id``; the steps before
        it are replayed. Without a ``run_id``, a new random one is created. Raise what
        ``kassette_io.fork`` raises.
        """
        run = await lifecycle.open_fork(
            self._storage,
            lifecycle.create_run_id() if run_id is None else run_id,
            source,
            from_offset,
            from_step_id,
            self._version(version),
            self.observers,
            self._asking,
        )
        return await self._drive(run)

    def _version(self, version: str | None) -> str | None:
        return self.version if version is None else version

    def _event_type(self, name: str) -> TypedValue | None:
        """Return the declared type of an event; ``approval`` covers ``approval:<item>`` as well."""
        if name in self._events:
            return self._events[name]
        return self._events.get(name.partition(":")[0])

    async def _drive(self, run: Run) -> RunResult[OutT]:
        async with run:
            outcome = await self._outcome(run)
        try:
            await self._tell(outcome)
            return outcome
        finally:
            del outcome  # the error's traceback may lead to this frame

    async def _outcome(self, run: Run) -> RunResult[OutT]:
        run.settle_in()
        context = Context(run, self._input(run), self._event_type)
        before = times_cancelled()
        run.enter_function()
        around = CURRENT.get()
        CURRENT.set(context)
        try:
            running = self.fn(context, context.input) if self._takes_input else self.fn(context)
            if not inspect.isawaitable(running):
                raise UsageError(
                    f"{self.__name__} returned {running!r}, not an awaitable; declare it with "
                    "`async def`",
                    run_id=run.run_id,
                )
            result = await running
        except BaseException as error:
            CURRENT.set(around)
            return await self._after(run, error, before)
        CURRENT.set(around)
        if run.lost_to is not None:
            raise run.lost_to
        if run.waiting_for is not None:
            _warn_swallowed(run)
            return Suspended(await run.leave_function(), run.run_id)
        await run.complete(self._plain_output(result))
        return Success(result, run.run_id)

    def _plain_output(self, result: OutT) -> object | Unset:
        """Return the result as JSON; UNSET if it would not come back equal."""
        try:
            typed = annotated_value(self.fn, "return")
            return result if typed is None else typed.to_plain(result, "the workflow's result")
        except UsageError:
            return UNSET

    async def _after(self, run: Run, error: BaseException, before: int) -> RunResult[OutT]:
        if is_stray_cancellation(error, before):
            stray, error = error, cut_short("the workflow")
            error.__cause__ = stray
        if not settles(error):
            raise error
        if run.lost_to is not None:
            if error is run.lost_to:
                raise error
            raise run.lost_to from error
        mistake = mistake_in(error, run.run_id)
        if mistake is not None:
            await run.come_to_rest()
            raise mistake
        rest = without_suspension(error, run.run_id)
        if run.waiting_for is not None:
            if run.refused_wait is not None:
                await run.come_to_rest()
                raise UsageError(run.refused_wait, run_id=run.run_id)
            if rest is error and run.was_told:
                _warn_swallowed(run)
            return Suspended(await run.leave_function(), run.run_id)
        if not isinstance(rest, Exception):
            raise error
        if isinstance(rest, _OF_THE_SESSION) and rest.run_id == run.run_id:
            raise rest
        await run.fail(rest)
        return Failed(rest, run.run_id)

    def _input(self, run: Run) -> Any:
        metadata = run.metadata
        if self._input_type is None:
            return metadata
        with naming_run(run.run_id):
            return self._input_type.rebuild_decoded(metadata, "the input")

    async def _tell(self, outcome: RunResult[OutT]) -> None:
        if isinstance(outcome, Failed) and self._on_error is not None:
            await _call_hook("on_error", self._on_error, outcome)
        if self._on_finish is not None:
            await _call_hook("on_finish", self._on_finish, outcome)


@overload
def workflow(
    fn: Callable[[Context, InT], Awaitable[OutT]],
    *,
    storage: Storage,
    name: str | None = None,
    version: str | None = None,
    on_finish: OnFinish | None = None,
    on_error: OnError | None = None,
    events: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    on_divergence: OnDivergence = "warn",
) -> Workflow[InT, OutT]: ...


@overload
def workflow(
    fn: Callable[[Context], Awaitable[OutT]],
    *,
    storage: Storage,
    name: str | None = None,
    version: str | None = None,
    on_finish: OnFinish | None = None,
    on_error: OnError | None = None,
    events: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    on_divergence: OnDivergence = "warn",
) -> Workflow[None, OutT]: ...


@overload
def workflow(
    *,
    storage: Storage,
    name: str | None = None,
    version: str | None = None,
    on_finish: OnFinish | None = None,
    on_error: OnError | None = None,
    events: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    on_divergence: OnDivergence = "warn",
) -> _Decorator: ...


def workflow(
    fn: Callable[..., Awaitable[Any]] | None = None,
    *,
    storage: Storage,
    name: str | None = None,
    version: str | None = None,
    on_finish: OnFinish | None = None,
    on_error: OnError | None = None,
    events: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    on_divergence: OnDivergence = "warn",
) -> Any:
    """Make an async function durable; use it as a decorator or as a function.

    ``fn`` takes a ``Context`` and, if it has a second parameter, the input. The input is decoded as
    that parameter's annotation if it is not plain JSON; with ``Annotated[X, codec]``, by that
    ``ValueCodec``. The code between steps must be deterministic: given the same recorded results,
    it must take the same branches.

    ``name`` is recorded in the journal, and another workflow cannot use its runs; the default is
    the function's module and qualified name, of which only the last part is compared. ``version``
    identifies the shape of the workflow: a run continues only with the version that started it.
    ``events`` maps event names to payload types or codecs, which check payloads on delivery; an
    entry for ``approval`` covers ``approval:<item>`` too. ``observers`` are called for every
    session. ``on_divergence`` decides what happens where workflow and journal diverge, because a
    recorded step was renamed, removed or moved: ``"warn"`` logs it and notifies the observers,
    ``"raise"`` raises ReplayMismatchError instead of running a step. ``on_error`` and ``on_finish``
    are for logging and metrics: sync or async functions that are called after the result has been
    recorded. What they raise is logged.

    Raise UsageError for an object that is not a storage, a function that is not async, or a type
    that cannot be decoded from JSON.
    """
    settings: dict[str, Any] = {
        "storage": storage,
        "name": name,
        "version": version,
        "on_finish": on_finish,
        "on_error": on_error,
        "events": events,
        "observers": observers,
        "on_divergence": on_divergence,
    }
    if fn is None:
        return cast("_Decorator", partial(Workflow[Any, Any], **settings))
    return Workflow[Any, Any](fn, **settings)


class _Decorator(Protocol):
    """The type of ``workflow(...)`` without a function, for type checkers."""

    @overload
    def __call__(self, fn: Callable[[Context, InT], Awaitable[OutT]]) -> Workflow[InT, OutT]: ...

    @overload
    def __call__(self, fn: Callable[[Context], Awaitable[OutT]]) -> Workflow[None, OutT]: ...


def _recorded_input(entries: Sequence[Entry]) -> bytes | None:
    """Return the input's text in the journal, if there is one."""
    return next(
        (
            entry.metadata_json
            for entry in entries
            if isinstance(entry, StartEntry) and entry.metadata_json is not None
        ),
        None,
    )


def _input_of(fn: Callable[..., object]) -> tuple[bool, TypedValue | None, Any]:
    positional = [
        each
        for each in inspect.signature(fn).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) < 2:
        return False, None, inspect.Parameter.empty
    return True, annotated_value(fn, positional[1].name), positional[1].default


def _is_strict(on_divergence: object) -> bool:
    if on_divergence not in ("warn", "raise"):
        raise UsageError(f'on_divergence must be "warn" or "raise", not {brief(on_divergence)}')
    return on_divergence == "raise"


def _declared_events(events: object) -> Mapping[str, Any]:
    if events is not None and not isinstance(events, Mapping):
        raise UsageError(f"events= must map event names to types, not be {events!r}")
    declared = cast("Mapping[object, Any]", events or {})
    return {check_event_name(name): each for name, each in declared.items()}


def _checked_event(name: object, run_id: str) -> str:
    with naming_run(run_id):
        return check_event_name(name)


def _warn_swallowed(run: Run) -> None:
    from logging import getLogger

    getLogger("kassette").warning(
        "run %r is waiting for %r, but its function caught the SuspendError and continued; "
        "raise it again (see is_suspend_error)",
        run.run_id,
        run.waiting_for,
    )


async def _call_hook(name: str, hook: Callable[..., object], outcome: object) -> None:
    try:
        returned = hook(outcome)
        if inspect.isawaitable(returned):
            await returned
    except (Exception, SuspendError):
        from logging import getLogger

        getLogger("kassette").exception("%s raised; the run's result is unaffected", name)
