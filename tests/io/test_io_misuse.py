"""Mistakes in using kassette: refused early, with what to do, and never at the cost of the run id."""

from __future__ import annotations

import enum
import functools
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint

from kassette_io import (
    Context,
    Failed,
    MemoryStorage,
    ReplayMismatchError,
    StepEntry,
    Success,
    Suspended,
    SuspendError,
    UsageError,
    Workflow,
    start,
    workflow,
)
from kassette_io.storages.protocol import as_session_storage
from tests.io.storages import World
from tests.io.stories import RUN, Ledger, journal_steps, journal_types, opening

pytestmark = pytest.mark.anyio

# --- what cannot be a workflow ----------------------------------------------------------------------


def sync(ctx: Context) -> int:
    return 1


async def generator(ctx: Context) -> AsyncIterator[int]:
    yield 1


async def nothing() -> None:
    pass


async def too_much(ctx: Context, one: int, two: int) -> None:
    pass


async def keyword(ctx: Context, *, needed: int) -> None:
    pass


def plain_generator(ctx: Context) -> Any:
    yield 1


class Agent:
    async def method(self, ctx: Context) -> str:
        return await ctx.step("a", lambda: "from the method")

    def __call__(self, ctx: Context) -> int:
        return 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (sync, "is not an async function; declare it with `async def`"),
        (functools.partial(sync), "is not an async function"),
        (generator, "is an async generator"),
        (functools.partial(generator), "is an async generator"),
        (plain_generator, "is not an async function"),
        (nothing, "cannot be called with only a context"),
        (too_much, "cannot be called with only a context and an input"),
        (keyword, "cannot be called with only a context"),
        (Agent.method, "is an unbound method, so it would get no 'self'; pass a bound"),
        (Agent, "needs an async function, not Agent"),
        (Agent(), "is not an async function"),
        (7, "needs an async function, not 7"),
    ],
    ids=[
        *("sync", "partial", "generator", "partial generator", "sync generator", "no parameter"),
        *("three", "keyword", "method", "class", "object", "number"),
    ],
)
def test_what_cannot_be_a_workflow_is_refused_when_it_is_declared(wrong: Any, said: str) -> None:
    """If it fails, the first start of a run fails it for good, though nothing of it has run."""
    with pytest.raises(UsageError, match=said):
        workflow(wrong, storage=MemoryStorage())
    with pytest.raises(UsageError, match=said):
        workflow(storage=MemoryStorage())(wrong)


class Callee:
    async def __call__(self, ctx: Context) -> str:
        return "called"


async def plain(ctx: Context) -> str:
    return "called"


@functools.wraps(plain)
def wrapped(*args: Any) -> Any:
    return plain(*args)


anonymous = lambda ctx: plain(ctx)  # noqa: E731, PLW0108


def says_so(ctx: Context) -> Awaitable[str]:
    return plain(ctx)


@pytest.mark.parametrize(
    "right",
    [plain, Callee(), functools.partial(plain), wrapped, says_so, anonymous],
    ids=["function", "object", "partial", "wrapper", "annotated", "lambda"],
)
async def test_whatever_returns_an_awaitable_is_a_workflow(right: Any) -> None:
    """If it fails, a decorated or partial function cannot be made durable."""
    outcome = await workflow(right, storage=MemoryStorage()).start(run_id=RUN)
    assert outcome == Success("called", RUN)


async def test_a_bound_method_is_a_workflow() -> None:
    """If it fails, the advice given for methods does not work."""
    outcome = await workflow(Agent().method, storage=MemoryStorage()).start(run_id=RUN)
    assert outcome == Success("from the method", RUN)


async def test_a_wrapper_that_returns_no_awaitable_leaves_the_run_open(
    memory: MemoryStorage,
) -> None:
    """If it fails, a run id is lost to a decorator that forgot to be async."""
    wrong: Any = functools.wraps(plain)(lambda ctx: 7)
    with pytest.raises(
        UsageError, match=r"returned 7, not an awaitable; declare it with `async def`"
    ):
        await workflow(wrong, storage=memory).start(run_id=RUN)
    assert await workflow(plain, storage=memory).start(run_id=RUN) == Success("called", RUN)


@pytest.mark.parametrize("event", [None, "", 7, ["unhashable"], "\ud800"])
async def test_a_bad_event_name_is_refused_by_name(memory: MemoryStorage, event: Any) -> None:
    """If it fails, a typo in a handler ends in a TypeError from inside of the library."""
    flow = workflow(plain, storage=memory, events={"ok": bool})
    with pytest.raises(UsageError, match="an event name") as caught:
        await flow.resume(RUN, event, True)
    assert caught.value.run_id == RUN


@pytest.mark.parametrize("run_id", [None, 7, ["unhashable"], "a/b"])
async def test_a_bad_run_id_is_refused_by_name(memory: MemoryStorage, run_id: Any) -> None:
    """If it fails, a missing run id ends in an AttributeError from inside of the library."""
    with pytest.raises(UsageError, match="is not a valid run id"):
        await workflow(plain, storage=memory).resume(run_id, "ok", True)


# --- mistakes inside of a run leave it open ------------------------------------------------------------


async def test_a_step_inside_of_a_step_is_refused(world: World) -> None:
    """If it fails, a later step of the same name is given the inner one's result after a crash."""
    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async def plan() -> Any:
            return await ctx.step("llm", work.work, "plan for A")

        return await ctx.step("plan", plan)

    with pytest.raises(UsageError, match="'llm' was requested inside of step 'plan'") as caught:
        await flow.start(run_id=RUN)
    assert caught.value.run_id == RUN
    assert (work.done, await journal_types(world.open())) == ([], ["start"])


@pytest.mark.parametrize("how", ["parallel", "sleep", "in a task", "sync"])
async def test_nothing_durable_begins_inside_of_a_step(memory: MemoryStorage, how: str) -> None:
    """If it fails, there is a way round the refusal, and results are mixed up after a crash."""

    @workflow(storage=memory)
    async def flow(ctx: Context) -> Any:
        async def inner(branch: Context) -> Any:
            return await branch.step("inner", lambda: 1)

        async def outer() -> Any:
            if how == "parallel":
                return await ctx.parallel({"x": inner})
            if how == "sleep":
                return await ctx.sleep(0)
            async with create_task_group() as group:
                group.start_soon(inner, ctx)
            return None

        async def called_later() -> Any:
            return await made.pop()

        def makes() -> None:
            made.append(inner(ctx))

        made: list[Any] = []
        if how == "sync":
            await ctx.step("makes", makes)
            return await ctx.step("outer", called_later)
        return await ctx.step("outer", outer)

    with pytest.raises(UsageError, match="inside of step 'outer'"):
        await flow.start(run_id=RUN)
    assert "error" not in await journal_types(memory)


async def test_another_run_may_be_driven_inside_of_a_step(memory: MemoryStorage) -> None:
    """If it fails, a step cannot start a workflow of its own."""

    @workflow(storage=memory)
    async def inner(ctx: Context) -> int:
        return await ctx.step("a", lambda: 1)

    @workflow(storage=memory)
    async def outer(ctx: Context) -> int:
        async def starts() -> int:
            outcome = await inner.start(run_id="inner")
            assert isinstance(outcome, Success)
            return outcome.result

        return await ctx.step("a", starts) + await ctx.step("b", lambda: 1)

    assert await outer.start(run_id=RUN) == Success(2, RUN)


async def test_steps_of_one_name_that_overlap_are_refused(world: World) -> None:
    """If it fails, two calls swap their results after a crash, and nobody notices."""
    begun = Event()

    async def first() -> int:
        begun.set()
        await checkpoint()
        return 1

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async def second() -> None:
            await begun.wait()
            await ctx.step("fetch", lambda: 2)

        async with create_task_group() as group:
            group.start_soon(second)
            await ctx.step("fetch", first)

    with pytest.raises(UsageError, match="called again before its first call had ended"):
        await flow.start(run_id=RUN)
    assert "error" not in await journal_types(world.open())


async def test_interchangeable_steps_may_overlap(world: World) -> None:
    """If it fails, an adapter that names a call by its request cannot run two equal ones at once."""
    both: list[int] = []
    together = Event()

    async def call() -> int:
        both.append(1)
        if len(both) == 2:
            together.set()
        await together.wait()
        return 7

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> list[int]:
        results: list[int] = []

        async def ask() -> None:
            results.append(await ctx.step("request ab12", call, interchangeable=True))

        async with create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask)
        return results

    assert await flow.start(run_id=RUN) == Success([7, 7], RUN)
    assert await journal_steps(world.open()) == {"request ab12": 7, "request ab12#2": 7}


async def test_two_branches_that_wait_for_one_event_are_refused_at_once(world: World) -> None:
    """If it fails, the mistake shows when a person has answered, and the run is over then."""
    raised: list[BaseException] = []

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        async def asks(branch: Context) -> Any:
            return await branch.suspend("ok")

        try:
            await ctx.parallel({"x": asks, "y": asks})
        except BaseException as error:
            raised.append(error)
            raise

    with pytest.raises(UsageError, match="two waits have the event name 'ok'") as mistake:
        await flow.start(run_id=RUN)
    assert raised == [mistake.value]
    assert not hasattr(mistake.value, "__notes__"), "the branch that waits has not failed"
    assert await journal_types(world.open()) == ["start"]


async def test_an_ordinary_error_beside_a_suspension_waits_for_the_answer(world: World) -> None:
    """If it fails, a block with a failed branch ends the run though another branch waits."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async def asks(branch: Context) -> Any:
            return await branch.suspend("ok")

        async def fails(branch: Context) -> Any:
            raise ValueError("no")

        return await ctx.parallel({"x": asks, "y": fails})

    assert await flow.start(run_id=RUN) == Suspended("ok", RUN)
    outcome = await flow.resume(RUN, "ok", 1)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ValueError)


async def test_code_that_does_not_match_the_journal_leaves_the_run_open(world: World) -> None:
    """If it fails, a bad deploy ends every run in flight for good."""
    storage = world.open()
    await storage.append(RUN, opening())
    entry = StepEntry.of(
        session=1, timestamp=opening().timestamp, step_id="a", name="other", result=1
    )
    await storage.append(RUN, entry)
    await as_session_storage(storage).release(RUN, 1)

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> int:
        return await ctx.step("a", lambda: 2)

    with pytest.raises(ReplayMismatchError):
        await flow.start(run_id=RUN)
    assert "error" not in await journal_types(world.open())


async def test_a_mistake_that_is_caught_stays_the_workflows_business(world: World) -> None:
    """If it fails, a workflow cannot try one way and take another."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> int:
        with pytest.raises(UsageError):
            await ctx.step("a#b", lambda: 1)
        return await ctx.step("a", lambda: 2)

    assert await flow.start(run_id=RUN) == Success(2, RUN)


# --- whose run it is -----------------------------------------------------------------------------------


def named(function: str, storage: Any, **options: Any) -> Workflow[None, str]:
    async def body(ctx: Context) -> str:
        await ctx.suspend("ok")
        return await ctx.step("answer", lambda: function)

    body.__name__ = function
    body.__qualname__ = f"{named.__qualname__}.<locals>.{function}"
    return workflow(body, storage=storage, **options)


async def test_another_workflow_is_refused_the_run(world: World) -> None:
    """If it fails, two workflows with one run id take each other's results in silence."""
    await named("billing", world.open()).start(run_id=RUN)
    other = named("shipping", world.open())
    for asked in (other.start(run_id=RUN), other.resume(RUN, "ok", 1)):
        with pytest.raises(
            UsageError, match=r"was started by workflow '.*billing'.*name='billing'"
        ):
            await asked
    assert await journal_types(world.open()) == ["start", "suspend"]


@pytest.mark.parametrize(
    "again",
    [
        {"name": "billing"},
        {"name": "billing", "version": None},
        {},
    ],
)
async def test_a_workflow_is_known_by_the_last_part_of_its_name(
    world: World, again: dict[str, Any]
) -> None:
    """If it fails, a function that is moved, or run as a script, loses the runs that it began; or
    the advice to give it its old name does not work.
    """
    await named("billing", world.open()).start(run_id=RUN)
    function = "renamed" if again else "billing"
    flow = named(function, world.open(), **again)
    assert await flow.resume(RUN, "ok", 1) == Success(function, RUN)


async def test_a_run_without_a_workflows_name_is_anybodys(world: World) -> None:
    """If it fails, runs of earlier releases, or of plain sessions, cannot be gone on with."""
    async with await start(world.open(), RUN):
        pass
    assert await named("any", world.open()).start(run_id=RUN) == Suspended("ok", RUN)


async def test_a_fork_may_be_another_workflows(world: World) -> None:
    """If it fails, a run cannot be forked into the workflow that replaces it."""
    await named("old", world.open()).start(run_id=RUN)
    new = named("new", world.open())
    assert await new.fork(RUN, from_offset=1, run_id="forked") == Suspended("ok", "forked")
    with pytest.raises(UsageError, match="started by workflow"):
        await named("old", world.open()).start(run_id="forked")
    assert await new.resume("forked", "ok", 1) == Success("new", "forked")


# --- names that are members of an enumeration ------------------------------------------------------------


class Name(str, enum.Enum):  # noqa: UP042 - its str() is the member's name
    PAY = "pay"
    EVENT = "approved"
    KEY = "x"
    RUN = "run-1"
    VERSION = "v1"


async def test_a_str_enum_member_is_its_text_everywhere(world: World) -> None:
    """If it fails, the first id is made from the value and the second from the member's name."""

    @workflow(storage=world.open(), version=Name.VERSION)
    async def flow(ctx: Context) -> Any:
        results = [await ctx.step(Name.PAY, str, number) for number in (1, 2)]

        async def branch(own: Context) -> int:
            return await own.step(Name.PAY, lambda: 3)

        block = await ctx.parallel({Name.KEY: branch})
        return [*results, block["x"], await ctx.suspend(Name.EVENT)]

    assert await flow.start(run_id=Name.RUN) == Suspended("approved", "run-1")
    assert await flow.resume(Name.RUN, Name.EVENT, "yes") == Success(["1", "2", 3, "yes"], "run-1")
    assert await journal_steps(world.open(), "run-1") == {"pay": "1", "pay#2": "2", "x:pay": 3}
    runs = [each async for each in world.open().list_runs()]
    assert runs == ["run-1"]
    entries = await world.open().read_all("run-1")
    assert [getattr(entry, "version", None) for entry in entries if entry.type == "start"] == [
        "v1",
        "v1",
    ]
    assert "Name." not in str(entries)


# --- observers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), SuspendError("ok", run_id="another")])
async def test_what_a_hook_raises_goes_no_further(world: World, error: BaseException) -> None:
    """If it fails, a hook takes the caller's result away."""

    async def broken(outcome: object) -> None:
        raise error

    flow = workflow(plain, storage=world.open(), on_finish=broken)
    assert await flow.start(run_id=RUN) == Success("called", RUN)


async def test_the_suspension_of_another_run_in_a_branch_is_that_branchs_failure(
    world: World,
) -> None:
    """If it fails, the block ends in a KeyError, or seems to wait for an event of another run."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async def leaks(branch: Context) -> Any:
            async with await start(world.open(), "other") as other:
                await other.wait_for_event("ok")

        return await ctx.parallel({"x": leaks})

    outcome = await flow.start(run_id=RUN)
    assert isinstance(outcome, Failed)
    assert "run 'other' suspended inside of the workflow" in str(outcome.error)
