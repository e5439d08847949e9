"""The scheduler: fibers of simulated processes, one clock, crashes; no disk, no store, no rule.

A fiber is a greenlet. Whatever it does to the world outside of its process it does right after
``pause``, and there it may be put aside for another fiber, or die with its process. So every
interleaving of outside effects, and a crash between any two of them, is a list of choices.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from tests.simulation.choices import Choices

T = TypeVar("T")

EPOCH = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MAX_PAUSES = 6000


class Violation(BaseException):
    """A promise was broken; ``name`` says which."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name
        self.what = what


class Cancelled(BaseException):
    """The group that this fiber belongs to wants it to end, for ``reason``."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason


class Died(BaseException):
    """The process of this fiber is dead; nothing that it does now has any effect."""


class Process:
    """What dies together."""

    __slots__ = ("alive", "counter", "mortal", "name", "seen", "skew")

    def __init__(self, name: str, *, mortal: bool = True) -> None:
        self.name = name
        self.alive = True
        self.mortal = mortal
        self.skew = timedelta(0)
        self.counter = 0
        self.seen = 0


class Fiber:
    """One thread of control of a process; ``cancelled`` says why its group wants it to end."""

    __slots__ = (
        "__weakref__",
        "cancelled",
        "error",
        "finished",
        "flights",
        "greenlet",
        "name",
        "process",
        "waiters",
    )

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.name = name
        self.finished = False
        self.cancelled: BaseException | None = None
        self.flights: list[Any] = []
        self.error: BaseException | None = None
        self.waiters: list[Fiber] = []
        self.greenlet: Any = None


class World:
    """Everything that happens in one schedule."""

    def __init__(self, choices: Choices, *, tracing: bool = False) -> None:
        self.choices = choices
        self.elapsed = 0.0
        self.pauses = 0
        self.runnable: list[Fiber] = []
        self.fibers: list[Fiber] = []
        self.sleepers: list[tuple[float, int, Fiber]] = []
        self.trace: list[str] | None = [] if tracing else None
        self.violation: Violation | None = None
        self.doomed: list[Process] = []
        self.crashes_left = 0
        self.power_losses_left = 0
        self.clock_jumps_left = 0
        self.crash_rate = 0.0
        self.switch_rate = 0.0
        self.on_crash: Callable[[list[Process]], None] = lambda dead: None
        self.on_power_loss: Callable[[], list[Process]] = list
        self.on_point: Callable[[str], bool] | None = None
        self.on_turn: Callable[[], bool] | None = None
        self.abandoned = self.timeless = False
        self._counter = 0
        self._made = 0
        self._left: Fiber | None = None
        self._hub = getcurrent()
        self._current: Fiber | None = None

    # --- fibers ----------------------------------------------------------------------------

    @property
    def fiber(self) -> Fiber:
        """The fiber that runs."""
        assert self._current is not None
        return self._current

    @property
    def process(self) -> Process:
        """The process of the fiber that runs."""
        return self.fiber.process

    def spawn(self, process: Process, name: str, function: Callable[[], object]) -> Fiber:
        """Have ``function`` called in a fiber of its own."""
        fiber = Fiber(process, name)
        if process.counter == 0:
            self._made += 1
            process.counter = self._made * 100_000

        def run() -> None:
            try:
                function()
            except Died:
                pass
            except Violation as violation:
                self.violation = self.violation or violation
            except Exception as error:
                self.broken("only_expected_errors", repr(error))
            except BaseException as error:
                fiber.error = error
            fiber.finished = True
            self._remove(fiber)
            for waiter in fiber.waiters:
                self.wake(waiter)

        fiber.greenlet = greenlet(run, self._hub)
        self.fibers.append(fiber)
        self.runnable.append(fiber)
        return fiber

    def wake(self, fiber: Fiber) -> None:
        """Let a fiber that waits go on."""
        if not fiber.finished and fiber not in self.runnable:
            self.runnable.append(fiber)

    def wait(self) -> None:
        """Put the running fiber aside until somebody wakes it."""
        fiber = self.fiber
        if not fiber.process.alive:
            raise Died
        self.runnable.remove(fiber)
        self._yield(fiber)

    def sleep(self, seconds: float) -> None:
        """Put the running fiber aside until the clock has gone on by ``seconds``."""
        self.pause("sleep")
        if seconds > 0 and not self.timeless:
            self._counter += 1
            self.sleepers.append((self.elapsed + seconds, self._counter, self.fiber))
            self.wait()

    def join(self, fiber: Fiber) -> None:
        """Wait until ``fiber`` has ended."""
        while not fiber.finished:
            fiber.waiters.append(self.fiber)
            self.wait()

    # --- points ----------------------------------------------------------------------------

    def pause(self, what: str) -> None:
        """Come to a point: others may run now, the process may die, the clock may jump."""
        fiber = self.fiber
        if not fiber.process.alive:
            raise Died
        self.pauses += 1
        if self.pauses > MAX_PAUSES:
            raise self.broken("bounded", f"still busy with {what!r} after {MAX_PAUSES} points")
        if self.trace is not None:
            self.trace.append(f"{fiber.process.name:<6} {fiber.name:<10} {what}")
        if self.on_point is not None and not self.on_point(what):
            self.abandoned = True
            self._yield(fiber)
        choices = self.choices
        if self.crashes_left and choices.chance(self.crash_rate):
            self.crashes_left -= 1
            self._crash()
        if self.clock_jumps_left and choices.chance(0.01):
            self.clock_jumps_left -= 1
            fiber.process.skew += timedelta(seconds=(60, 7200, -60, -7200)[choices.below(4)])
            self.say("the clock jumps")
        if self.sleepers and choices.chance(0.03):
            self._next_sleeper()
        if len(self.runnable) > 1 and choices.chance(self.switch_rate):
            self._left = fiber
            self._yield(fiber)

    def _crash(self) -> None:
        if self.power_losses_left and self.choices.chance(0.4):
            self.power_losses_left -= 1
            self.say("POWER LOSS")
            self.doomed = self.on_power_loss()
        else:
            alive = list(dict.fromkeys(each.process for each in self.fibers))
            victim = alive[self.choices.below(len(alive))]
            self.say(f"CRASH of {victim.name}")
            self.doomed = [victim] if victim.mortal else []
        self._yield(self.fiber)

    def feel(self) -> None:
        """Raise Cancelled in a fiber that is to end, unless a flight of it is held."""
        reason = self.fiber.cancelled
        if reason is not None and not any(flight.held for flight in self.fiber.flights):
            raise Cancelled(reason)

    def say(self, what: str) -> None:
        """Put a line into the trace, if there is one."""
        if self.trace is not None:
            name = self._current.process.name if self._current is not None else ""
            self.trace.append(f"{name:<6} {'':<10} {what}")

    def broken(self, name: str, what: str) -> Violation:
        """Note that a promise was broken; give what to raise."""
        violation = Violation(name, what)
        if self.violation is None:
            self.violation = violation
            self.say(f"VIOLATION of {violation}")
        return violation

    def now(self) -> datetime:
        """Give the instant, as the clock of the running process shows it."""
        instant = EPOCH + timedelta(seconds=self.elapsed)
        return instant + self._current.process.skew if self._current is not None else instant

    def count(self) -> int:
        """Give a number that was never given before; others' numbers do not shift it."""
        self.process.counter += 1
        return self.process.counter

    # --- the hub ---------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything run until nothing is left to do; raise the violation, if there is one."""
        try:
            while self.violation is None and not self.abandoned and self._turn():
                pass
        finally:
            self.kill([fiber.process for fiber in self.fibers])
        if self.violation is not None:
            raise self.violation

    def _turn(self) -> bool:
        if self.doomed:
            dead, self.doomed = self.doomed, []
            self.kill(dead)
            self.on_crash(dead)
            return True
        runnable = self.runnable
        if not runnable:
            return self._next_sleeper()
        left, self._left = self._left, None
        if left is not None:
            runnable = [fiber for fiber in runnable if fiber is not left]
        elif len(runnable) > 1 and self.on_turn is not None and not self.on_turn():
            self.abandoned = True
            return False
        which = self.choices.below(len(runnable)) if len(runnable) > 1 else 0
        self._enter(runnable[which])
        return True

    def _next_sleeper(self) -> bool:
        if self.sleepers:
            due = min(self.sleepers)
            self.sleepers.remove(due)
            self.elapsed = max(self.elapsed, due[0])
            self.wake(due[2])
            return True
        stuck = [fiber for fiber in self.fibers if not fiber.finished]
        if stuck:
            names = ", ".join(f"{fiber.process.name}/{fiber.name}" for fiber in stuck)
            raise self.broken("bounded", f"deadlock: {names} wait for ever")
        return False

    def _enter(self, fiber: Fiber) -> None:
        self._current = fiber
        try:
            fiber.greenlet.switch()
        finally:
            self._current = None
        if fiber.error is not None:
            raise fiber.error

    def _yield(self, fiber: Fiber) -> None:
        self._hub.switch()
        self._current = fiber
        if not fiber.process.alive:
            raise Died

    def kill(self, processes: list[Process]) -> None:
        """End processes at once."""
        for process in processes:
            process.alive = False
        for fiber in [each for each in self.fibers if each.process in processes]:
            if not fiber.finished:
                self._current = fiber
                while not fiber.greenlet.dead:
                    with suppress(Died):
                        fiber.greenlet.throw(Died)
                self._current = None
                fiber.finished = True
            self._remove(fiber)
        self.sleepers = [each for each in self.sleepers if each[2].process.alive]

    def _remove(self, fiber: Fiber) -> None:
        if fiber in self.runnable:
            self.runnable.remove(fiber)
        if fiber in self.fibers:
            self.fibers.remove(fiber)


def complete(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in the running fiber; everything it awaits waits by itself."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("a coroutine waits for an event loop")
