"""Every interleaving and every crash point of a small system; each state is visited once.

A schedule is a list of choices, so all schedules are a tree. It is walked depth first, running each
one from its beginning. A state is what the disk or the store holds, what was told to
whom, and for each process that lives everything it has seen of them, which determines what it does
next. Where a schedule comes to a state that
another one has been in, the rest of it has been seen and is left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from kassette_io.storages.object_store import GetObjectResult
from tests.simulation.choices import Choices
from tests.simulation.disk import Disk, Found
from tests.simulation.history import History
from tests.simulation.programs import Kit, Program
from tests.simulation.scenario import DIRECTORY, Plan, Scenario
from tests.simulation.world import Violation, World

CALLS = (
    *("open", "stat", "fstat", "write", "pread", "pwrite"),
    *("ftruncate", "fsync", "flock", "unlink", "rename", "mkdir"),
)


async def one_step(kit: Kit) -> None:
    """The smallest workflow that records something."""
    await kit.step("a")


async def one_wait(kit: Kit) -> None:
    """The smallest workflow that suspends."""
    await kit.wait("go")


def _system(program: Program, *, local: bool, **more: Any) -> Callable[[], Plan]:
    def plan() -> Plan:
        made = Plan(local=local, program=program)
        for name, value in more.items():
            setattr(made, name, value)
        return made

    return plan


_LOST = {"faults": 1.0, "kinds": ("lost",), "faults_at_most": 1}
_LATE = {"faults": 1.0, "kinds": ("late",), "faults_at_most": 1}
SYSTEMS: dict[str, Callable[[], Plan]] = {
    "disk, a step, a crash": _system(one_step, local=True, crashes=1),
    "disk, a step, a crash or a loss of power": _system(
        one_step, local=True, crashes=1, power_losses=1
    ),
    "disk, a wait, a crash": _system(one_wait, local=True, crashes=1),
    "store, a step, two crashes": _system(one_step, local=False, crashes=2),
    "store, a wait, a crash": _system(one_wait, local=False, crashes=1),
    "store, a step, a put whose answer is lost": _system(one_step, local=False, **_LOST),
    "store, a step, a put that arrives late": _system(one_step, local=False, **_LATE),
}
"""Two sessions each."""


class Branching(Choices):
    """Follows ``prefix``, then takes what is dull; remembers how many ways there were."""

    __slots__ = ("bounds", "prefix")

    def __init__(self, prefix: list[int]) -> None:
        super().__init__()
        self.prefix = prefix
        self.bounds: list[int] = []

    def chance(self, probability: float) -> bool:
        return self.below(2) == 1

    def below(self, bound: int) -> int:
        at = len(self.taken)
        chosen = self.prefix[at] if at < len(self.prefix) else 0
        self.taken.append(chosen)
        self.bounds.append(bound)
        return chosen

    def others(self) -> list[list[int]]:
        """Give the beginnings of schedules that turn off this one behind its prefix."""
        return [
            [*self.taken[:at], other]
            for at in range(len(self.prefix), len(self.taken))
            for other in range(1, self.bounds[at])
        ]


class Exploration:
    """What was visited. ``complete`` says that nothing was left out; ``script`` leads to the failure."""

    __slots__ = ("complete", "failure", "schedules", "script", "states")

    def __init__(self) -> None:
        self.schedules = 0
        self.states: set[int] = set()
        self.failure: Violation | None = None
        self.script: list[int] = []
        self.complete = False


def explore(plan: Callable[[], Plan], *, at_most: int | None = None) -> Exploration:
    """Run all schedules of a plan, or the first ``at_most``; only inside of ``wired``."""
    found = Exploration()
    waiting: list[list[int]] = [[]]
    while waiting:
        if found.schedules == at_most:
            return found
        choices = Branching(waiting.pop())
        found.schedules += 1
        try:
            _Observed(choices, plan(), found.states).run()
        except Violation as violation:
            found.failure, found.script = violation, choices.taken
            return found
        waiting.extend(choices.others())
    found.complete = True
    return found


def retell(plan: Callable[[], Plan], script: list[int]) -> list[str]:
    """Tell a schedule that was found, line by line; only inside of ``wired``."""
    scenario = _Observed(Branching(script), plan(), set())
    scenario.world.trace = []
    with suppress(Violation):
        scenario.run()
    return scenario.world.trace


class _Observed(Scenario):
    """A schedule that is given up in a state that was visited before."""

    def __init__(self, choices: Branching, plan: Plan, states: set[int]) -> None:
        super().__init__(choices, plan)
        self._choices = choices
        self._states = states
        self.world.on_point = self._arrive
        self.world.on_turn = self._is_new
        self.world.timeless = True
        self.disk.prepare(DIRECTORY)
        _observe(self.disk, self.world)
        self.store.get_object = _observed_request(self.world, self.store.get_object)  # type: ignore[method-assign, assignment]
        self.store.put_object = _observed_request(self.world, self.store.put_object)  # type: ignore[method-assign, assignment]

    def _arrive(self, what: str) -> bool:
        world = self.world
        world.process.seen = hash((world.process.seen, world.fiber.name, what))
        return self._is_new()

    def _is_new(self) -> bool:
        world = self.world
        if len(self._choices.taken) < len(self._choices.prefix):
            return True
        alive = {fiber.process: None for fiber in world.fibers}
        state = hash(
            (
                tuple((each.name, each.seen) for each in alive),
                tuple((fiber.process.name, fiber.name) for fiber in world.fibers),
                tuple(sorted((each.process.name, each.name) for each in world.runnable)),
                world.crashes_left,
                world.power_losses_left,
                self.store.faults_left,
                tuple(self.store.bodies.items()),
                _disk_state(self.disk),
                _told(self.history),
            )
        )
        if state in self._states:
            return False
        self._states.add(state)
        return True


def _told(history: History) -> tuple[Any, ...]:
    """Give what the invariants will judge; who is dead or done has left nothing else behind."""
    acks = [(ack.time, ack.run_id, ack.line, ack.owner) for ack in history.acks]
    rest = (*history.lives, *history.told, *history.outcomes, *history.forks)
    ordered = sorted([*acks, *rest], key=_time)
    refused = ((run_id, hash(entry)) for run_id, entry in history.refused)
    return (*(each[1:] for each in ordered), *refused)


def _time(event: tuple[Any, ...]) -> int:
    return int(event[0])


def _disk_state(disk: Disk) -> tuple[Any, ...]:
    inodes = {id(each): each for each in (*disk.names.values(), *disk.durable_names.values())}
    return (
        tuple(sorted((path, inode.number) for path, inode in disk.names.items())),
        tuple(sorted((path, inode.number) for path, inode in disk.durable_names.items())),
        tuple(sorted(disk.directories)),
        tuple(sorted(disk.durable_directories)),
        tuple(
            sorted(
                (
                    inode.number,
                    inode.data,
                    inode.durable,
                    tuple(inode.dirty),
                    inode.lock.process.name if inode.lock is not None else "",
                )
                for inode in inodes.values()
            )
        ),
    )


def _observe(disk: Disk, world: World) -> None:
    """Note for each process what its system calls have told it."""

    def observed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def observing(*args: Any) -> Any:
            process, told = world.process, None
            try:
                result = told = call(*args)
                if isinstance(result, Found):
                    told = (result.st_ino, result.st_size)
                return result
            except OSError as error:
                told = error.errno
                raise
            finally:
                process.seen = hash((process.seen, world.fiber.name, name, told))

        return observing

    for name in CALLS:
        setattr(disk, name, observed(name, getattr(disk, name)))
    disk.fcntl.flock = disk.flock


def _observed_request(
    world: World, request: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def observing(*args: Any) -> Any:
        process, told = world.process, None
        try:
            result = told = await request(*args)
            if isinstance(result, GetObjectResult):
                told = (result.content, result.etag)
            return result
        except Exception as error:
            told = repr(error)
            raise
        finally:
            process.seen = hash((process.seen, world.fiber.name, args[0], told))

    return observing
