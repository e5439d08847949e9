"""Drives a machine: sends commands, performs effects, reports back; knows no step or workflow.

Rules for every await here:
- The driver always waits until an append has finished. None begins while a cancellation is pending.
  A cancellation that arrives during an append takes effect at the next await: a step whose entry
  was written returns its result, as it will on replay. If a storage is interrupted nevertheless,
  the outcome is unknown, and the machine considers the session lost.
- Effects are performed in order; when one fails, the rest are dropped.
- However a session ends, its lock and buffers in the storage are released.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast
from weakref import ref

from anyio import CancelScope, Event

from kassette import (
    Append,
    Appended,
    AppendFailed,
    Command,
    Deliver,
    Diverged,
    Effect,
    Entry,
    Loaded,
    LoadFailed,
    Machine,
    Opened,
    Raise,
    Release,
    Reload,
    Replay,
    Return,
    RunStep,
    State,
)
from kassette.errors import naming_run
from kassette_io import _clock
from kassette_io.attempts import Attempt
from kassette_io.calling import Flight
from kassette_io.loops.waiting import checkpoint_if_cancelled, finish
from kassette_io.noting import recorder
from kassette_io.observing import Observer, Watch
from kassette_io.storages.protocol import BatchStorage, SessionStorage


class Driver:
    """A machine, its storage, and the steps in flight."""

    def __init__(
        self, machine: Machine, storage: SessionStorage, observers: Sequence[Observer] = ()
    ) -> None:
        self._machine = machine
        self._storage = storage
        self._released = Event()
        self._flights: set[Flight] = set()
        self._at_rest: Event | None = None
        self._forgotten: dict[str, ref[Attempt]] = {}
        """Attempts whose block has not been entered, so their work has not begun."""
        self._watch = Watch(observers, machine) if observers else None
        self._recorder = recorder(storage, machine)

    @property
    def run_id(self) -> str:
        """The run's id, the same in every session."""
        return self._machine.run_id

    async def _come_to_rest(self) -> None:
        for attempt in [each() for each in self._forgotten.values()]:
            if attempt is not None:
                attempt.drop()
        while self._machine.in_flight and not self._machine.ended:
            self._at_rest = Event()
            await self._at_rest.wait()

    async def come_to_rest(self) -> None:
        """Wait until all steps in flight have ended and are recorded, despite cancellations."""
        if self._machine.in_flight and not self._machine.ended:
            await finish(self._come_to_rest)

    def _attempt_failed(
        self, step_id: str, attempt: int, error: Exception, delay: float | None
    ) -> None:
        if self._recorder is not None and delay is not None:
            self._recorder.attempt_failed(step_id, attempt, error)
        if self._watch is not None:
            self._watch.tell("attempt_failed", step_id, attempt, error, delay)

    def _handle(self, command: Command) -> list[Effect]:
        machine = self._machine
        effects = machine.handle(command, now=_clock.now())
        if self._flights and machine.state is State.SUSPENDING:
            for flight in self._flights:
                if machine.has_suspended(flight.path):
                    flight.hold()
        if self._at_rest is not None and (machine.ended or not machine.in_flight):
            self._at_rest.set()
        return effects

    async def _report(self, command: Command, *, failing: bool = False) -> None:
        """Send a command and perform its effects, even while being cancelled.

        A cancellation takes effect afterwards, unless ``failing``: another error is being raised.
        """
        effects = self._handle(command)
        if not effects:
            return
        with CancelScope(shield=True):
            await self._perform(effects)
        if not failing:
            await checkpoint_if_cancelled()

    async def _report_failure(self, command: Command, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            self._let_go(command)
        else:
            await self._report(command, failing=True)

    def _let_go(self, command: Command) -> None:
        """Send a command, and release without waiting: this coroutine is no longer driven."""
        if any(isinstance(effect, Release) for effect in self._handle(command)):
            self._storage.abandon(self.run_id, self._machine.session)
            if self._watch is not None:
                self._watch.released()

    async def _perform(self, effects: list[Effect]) -> Return | Deliver | None:
        given: Return | Deliver | None = None
        waiting = list(reversed(effects))
        while waiting:
            match waiting.pop():
                case Append(entry=entry):
                    if waiting and isinstance(waiting[-1], Append):
                        waiting.extend(reversed(await self._append_all([entry, *_taken(waiting)])))
                        continue
                    try:
                        offset = await self._storage.append(self.run_id, entry)
                    except BaseException as error:
                        await self._report_failure(AppendFailed(entry, error), error)
                        raise
                    waiting.extend(reversed(self._appended(entry, offset)))
                case Return() | Deliver() as answer:
                    given = answer
                case Release():
                    await self._storage.release(self.run_id, self._machine.session)
                    self._released.set()
                    if self._watch is not None:
                        self._watch.released()
                case Raise(error=error):
                    effects.clear()
                    try:
                        raise error
                    finally:
                        del error  # its traceback leads to this frame
                case Reload():
                    waiting.extend(reversed(await self._reload()))
                case Opened():
                    pass
                case (
                    RunStep() | Replay() | Diverged()
                ):  # pragma: no cover - answers to Record alone
                    raise AssertionError("a step outside record")
        return given

    async def _append_all(self, entries: list[Entry]) -> list[Effect]:
        """Append several entries, together if the storage supports it; report each."""
        storage = self._storage
        effects: list[Effect] = []
        try:
            if isinstance(storage, BatchStorage):
                offset = await storage.append_all(self.run_id, entries)
                for at, entry in enumerate(entries, offset):
                    effects += self._appended(entry, at)
            else:
                for entry in entries:
                    offset = await storage.append(self.run_id, entry)
                    effects += self._appended(entry, offset)
        except BaseException as error:
            await self._report_failure(AppendFailed(entries[0], error), error)
            raise
        return effects

    def _appended(self, entry: Entry, offset: int) -> list[Effect]:
        effects = self._handle(Appended(entry, offset))
        if self._watch is not None:
            self._watch.appended(entry)
        return effects

    async def _reload(self) -> list[Effect]:
        try:
            with naming_run(self.run_id):
                entries = await self._storage.read_all(self.run_id)
        except BaseException as error:
            await self._report_failure(LoadFailed(error), error)
            raise
        return self._handle(Loaded(entries))


def _taken(waiting: list[Effect]) -> Iterator[Entry]:
    """Remove and yield the appends that come next."""
    while waiting and isinstance(waiting[-1], Append):
        yield cast("Append", waiting.pop()).entry
