"""The workflows that are simulated: loops, branches, waits, retries, and code that misbehaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from kassette import KassetteError, Retry, SuspendedError, SuspendError
from kassette_io.context import Context
from tests.simulation.history import History, Live, Told
from tests.simulation.world import Died, Violation, World


class Flaky(Exception):
    """What a step's function raises now and then."""


class Kit:
    """A workflow's context, watched: numbers the steps by itself, notes what ran and was given."""

    __slots__ = ("_counts", "_path", "_resting", "ctx", "earlier", "history", "session", "world")

    def __init__(
        self,
        world: World,
        history: History,
        ctx: Context,
        session: int,
        path: str = "",
        parent: Kit | None = None,
    ) -> None:
        self.world = world
        self.history = history
        self.ctx = ctx
        self.session = session
        self.earlier: Kit | None = None
        self._path = path
        self._counts: dict[str, int] = {} if parent is None else parent._counts
        self._resting: set[str] = set() if parent is None else parent._resting

    def _branch(self, ctx: Context, key: str) -> Kit:
        path = f"{self._path}{key}:"
        return Kit(self.world, self.history, ctx, self.session, path, self)

    async def step(self, name: str, *, failures: int = 0, retry: Retry | None = None) -> Any:
        """Take a step whose function fails ``failures`` times before it returns a new value."""
        full = self._path + name
        count = self._counts[full] = self._counts.get(full, 0) + 1
        step_id = full if count == 1 else f"{full}#{count}"
        left = [failures]
        ran: list[Any] = []

        def act() -> Any:
            self.world.pause("step")
            self.history.lives.append(
                Live(self.history.tick(), self.ctx.run_id, self.session, step_id)
            )
            if self._path in self._resting:
                raise self.world.broken("a_suspended_branch_rests", f"{step_id} runs")
            if left[0]:
                left[0] -= 1
                raise Flaky(f"{step_id} fails")
            ran.append(f"{step_id}/{self.world.count()}")
            return ran[0]

        try:
            value = await self.ctx.step(name, act, retry=retry)
        except SuspendedError:
            if ran:
                raise self.world.broken(
                    "paid_work_is_recorded", f"{step_id} was thrown away"
                ) from None
            raise
        self._note(step_id, value, event=False)
        return value

    async def wait(self, event: str, timeout: float | None = None) -> Any:
        """Wait for an event."""
        try:
            value = await self.ctx.suspend(event, timeout=timeout)
        except SuspendError:
            self._resting.add(self._path)
            raise
        self._note(event, value, event=True)
        return value

    def _note(self, step_id: str, value: Any, *, event: bool) -> None:
        if not self.world.process.alive:
            raise Died
        self.history.told.append(
            Told(self.history.tick(), self.ctx.run_id, self.session, step_id, value, event)
        )

    async def parallel(self, **branches: Callable[[Kit], Awaitable[Any]]) -> dict[str, Any]:
        """Run branches at once, each with a kit of its own."""

        def watched(
            key: str, branch: Callable[[Kit], Awaitable[Any]]
        ) -> Callable[[Context], Awaitable[Any]]:
            return lambda ctx: branch(self._branch(ctx, key))

        return await self.ctx.parallel({key: watched(key, fn) for key, fn in branches.items()})


Program = Callable[[Kit], Awaitable[Any]]


async def line(kit: Kit) -> None:
    """Steps one after another."""
    await kit.step("a")
    await kit.step("b")


async def loop(kit: Kit) -> None:
    """The same step again and again."""
    for _ in range(3):
        await kit.step("turn")


async def branches(kit: Kit) -> None:
    """A parallel block between steps."""
    await kit.step("a")

    async def left(kit: Kit) -> None:
        await kit.step("s")
        await kit.step("s")

    async def right(kit: Kit) -> None:
        await kit.step("s")

    await kit.parallel(left=left, right=right)
    await kit.step("z")


async def nested(kit: Kit) -> None:
    """A parallel block in a branch of another."""

    async def leaf(kit: Kit) -> None:
        await kit.step("s")

    async def inner(kit: Kit) -> None:
        await kit.step("before")
        await kit.parallel(x=leaf, y=leaf)

    await kit.parallel(deep=inner, flat=leaf)


async def waiting(kit: Kit) -> None:
    """A wait between steps."""
    await kit.step("a")
    await kit.wait("go")
    await kit.step("b")


async def company(kit: Kit) -> None:
    """Waits in branches, beside a branch that works on."""

    async def waits_first(kit: Kit) -> None:
        await kit.wait("one")
        await kit.step("s")

    async def works(kit: Kit) -> None:
        await kit.step("s")
        await kit.step("s")

    async def works_then_waits(kit: Kit) -> None:
        await kit.step("s")
        await kit.wait("two")

    await kit.parallel(p=waits_first, q=works, r=works_then_waits)
    await kit.step("z")


async def deadline(kit: Kit) -> None:
    """A wait that may expire when a clock jumps."""
    await kit.step("a")
    await kit.wait("go", timeout=3600)
    await kit.step("b")


async def retries(kit: Kit) -> None:
    """Steps whose functions fail before they succeed, beside a sleep."""
    await kit.step("a", failures=2, retry=Retry(3, delay=1.0))
    await kit.ctx.sleep(5)
    try:
        await kit.step("b", failures=1)
    except Flaky:
        await kit.step("instead")


async def fails(kit: Kit) -> None:
    """A workflow that raises."""
    await kit.step("a")
    raise Flaky("the workflow fails")


async def swallows(kit: Kit) -> None:
    """A bare ``except:`` around a wait, with calls after it."""
    await kit.step("a")
    try:
        await kit.wait("go")
    except (Died, Violation):
        raise
    except BaseException:
        for _ in range(2):
            with suppress(Exception):
                await kit.step("never")
    await kit.step("b")


async def swallows_in_a_branch(kit: Kit) -> None:
    """A branch that catches its own suspension and works on, beside one that may."""

    async def stubborn(kit: Kit) -> None:
        try:
            await kit.wait("go")
        except SuspendError:
            await kit.step("never")

    async def works(kit: Kit) -> None:
        await kit.step("s")
        await kit.step("s")

    await kit.parallel(x=stubborn, y=works)


async def clings(kit: Kit) -> None:
    """Calls on the context of an earlier session, which has ended."""
    if kit.earlier is not None:
        with suppress(KassetteError):
            await kit.earlier.step("late")
            raise kit.world.broken("an_ended_session_rests", "it took a step")
        with suppress(KassetteError):
            await kit.earlier.wait("go")
            raise kit.world.broken("an_ended_session_rests", "it gave an event")
    await kit.step("a")
    await kit.wait("go")
    await kit.step("b")


async def careless(kit: Kit) -> None:
    """Errors of storage swallowed, branches and all, and the work gone on with."""

    async def tries(kit: Kit) -> None:
        for _ in range(2):
            with suppress(Exception):
                await kit.step("s")

    await kit.parallel(x=tries, y=tries)
    with suppress(Exception):
        await kit.step("a")
    await kit.step("z")


PROGRAMS: tuple[Program, ...] = (
    line,
    loop,
    branches,
    nested,
    waiting,
    company,
    deadline,
    retries,
    fails,
    swallows,
    swallows_in_a_branch,
    clings,
    careless,
)
"""From simple to strange."""

EVENTS: dict[str, tuple[str, ...]] = {
    "waiting": ("go",),
    "company": ("one", "two"),
    "deadline": ("go",),
    "swallows": ("go",),
    "clings": ("go",),
    "swallows_in_a_branch": ("go",),
}
"""What the workflows wait for."""
