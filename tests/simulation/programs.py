"""The workflows that are simulated: loops, branches, waits, retries, and code that misbehaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from kassette import KassetteError, Retry, SuspendedError, SuspendError
from kassette_io.context import Context
from tests.simulation.history import History, Live, Told
from tests.simulation.world import Cancelled, Died, Fiber, Violation, World, complete


class Flaky(Exception):
    """What a step's function raises now and then."""


class Kit:
    """A workflow's context, watched: numbers the steps by itself, notes what ran and was given."""

    __slots__ = (
        "_counts",
        "_path",
        "_resting",
        "asked",
        "ctx",
        "earlier",
        "history",
        "session",
        "world",
    )

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
        self.asked: list[str] = [] if parent is None else parent.asked

    def _branch(self, ctx: Context, key: str) -> Kit:
        path = f"{self._path}{key}:"
        return Kit(self.world, self.history, ctx, self.session, path, self)

    async def step(self, name: str, *, failures: int = 0, retry: Retry | None = None) -> Any:
        """Take a step whose function fails ``failures`` times before it returns a new value.

        A step that fails gives its number back.
        """
        full = self._path + name
        count = self._counts[full] = self._counts.get(full, 0) + 1
        step_id = full if count == 1 else f"{full}#{count}"
        left = [failures]
        ran: list[Any] = []

        async def act() -> Any:
            if self._path in self._resting:
                raise self.world.broken("a_suspended_branch_rests", f"{step_id} runs")
            self.world.pause("step")
            try:
                self.world.feel()
            except Cancelled as cancelled:
                if not isinstance(cancelled.reason, SuspendError):
                    raise
                raise self.world.broken(
                    "paid_work_is_recorded", f"{step_id} was cut off by a suspension"
                ) from None
            self.history.lives.append(
                Live(self.history.tick(), self.ctx.run_id, self.session, step_id)
            )
            if left[0]:
                left[0] -= 1
                raise Flaky(f"{step_id} fails")
            ran.append(f"{step_id}/{self.world.count()}")
            return ran[0]

        try:
            value = await self.ctx.step(name, act, retry=retry)
        except BaseException as error:
            self._counts[full] = count - 1
            if ran and isinstance(error, (SuspendedError, SuspendError)):
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
        except SuspendError as error:
            self._resting.add(self._path)
            if error.event_name == event:
                self.asked.append(event)
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

    async def together(self, *tools: Callable[[Kit], Awaitable[Any]], cancelling: bool) -> None:
        """Run plain tasks at once, as a framework runs tools; one that ends early may end all."""
        world = self.world
        fibers: list[Fiber] = []
        errors: list[BaseException] = []

        def call(tool: Callable[[Kit], Awaitable[Any]]) -> None:
            try:
                complete(tool(self))  # type: ignore[arg-type]
            except (Died, Violation):
                raise
            except Cancelled:
                pass
            except BaseException as error:
                errors.append(error)
                for fiber in fibers:
                    fiber.cancelled = error if cancelling else None

        for number, tool in enumerate(tools):
            fibers.append(world.spawn(world.process, f"tool {number}", partial(call, tool)))
        for fiber in fibers:
            world.join(fiber)
            if errors and not cancelling:
                break
        if errors:
            raise BaseExceptionGroup("tools", errors)

    async def think(self) -> None:
        """Do something that is no step, and can be cancelled."""
        self.world.pause("think")
        self.world.feel()


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


async def repeats(kit: Kit) -> None:
    """Steps that are caught and repeated by hand, with a crash in between where it likes."""
    await kit.step("a")
    for failures in (1, 1, 0):
        try:
            await kit.step("b", failures=failures)
        except Flaky:
            await kit.think()
            continue
        break
    await kit.wait("go")
    await kit.step("b")


async def _pays(kit: Kit) -> None:
    await kit.step("pay")


async def _pays_and_asks(kit: Kit) -> None:
    await kit.think()
    await kit.step("look")
    await kit.wait("one")


async def _asks(kit: Kit) -> None:
    await kit.think()
    await kit.wait("two")
    await kit.step("act")


async def tools(kit: Kit) -> None:
    """Tools in plain tasks, of which two ask; the runner cancels the others when one does."""
    await kit.together(_pays, _pays_and_asks, _asks, cancelling=True)
    await kit.step("z")


async def gathered(kit: Kit) -> None:
    """Tools in plain tasks; who waits for them goes on with the first that raises."""
    await kit.together(_asks, _pays, _pays_and_asks, cancelling=False)
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
    repeats,
    tools,
    gathered,
)
"""From simple to strange."""

EVENTS: dict[str, tuple[str, ...]] = {
    "waiting": ("go",),
    "company": ("one", "two"),
    "deadline": ("go",),
    "swallows": ("go",),
    "clings": ("go",),
    "swallows_in_a_branch": ("go",),
    "repeats": ("go",),
    "tools": ("one", "two"),
    "gathered": ("one", "two"),
}
"""What the workflows wait for."""
