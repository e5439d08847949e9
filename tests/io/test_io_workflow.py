"""The wrapper: inputs, results, hooks, versions, run ids; what a program sees of its workflows."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from kassette import ErrorEntry
from kassette_io import (
    Context,
    Failed,
    FailedRun,
    KassetteError,
    MemoryStorage,
    MetadataMismatchError,
    RunCancelledError,
    RunResult,
    StartEntry,
    Success,
    Suspended,
    TerminalRunError,
    UsageError,
    VersionMismatchError,
    create_run_id,
    run_status,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, Clock, Ledger, journal_steps, journal_types

pytestmark = pytest.mark.anyio


async def body(ctx: Context, command: str) -> str:
    """Do as the input says."""
    await ctx.step("a", lambda: 1)
    if command == "fail":
        raise LookupError("no such thing")
    if command == "wait":
        return str(await ctx.suspend("ok"))
    return command


def said(outcome: RunResult[str]) -> str:
    """Say what came of a run, as a program would."""
    match outcome:
        case Success(result, run_id):
            return f"{run_id}: {result}"
        case Failed(error, run_id):
            return f"{run_id} failed: {error}"
        case Suspended(event, run_id):
            return f"{run_id} waits for {event}"


async def test_results_are_made_for_match(world: World) -> None:
    """If it fails, the three things that can come of a run are not told apart."""
    flow = workflow(body, storage=world.open())
    outcomes = [await flow.start(each, run_id=each) for each in ("done", "fail", "wait")]
    assert [said(each) for each in outcomes] == [
        "done: done",
        "fail failed: no such thing",
        "wait waits for ok",
    ]
    assert [each.status for each in outcomes] == ["success", "failed", "suspended"]
    types = [(await journal_types(world.open(), each))[-1] for each in ("done", "fail", "wait")]
    assert types == ["complete", "error", "suspend"]


async def test_a_failure_is_in_the_journal_with_its_traceback(world: World) -> None:
    """If it fails, a failed run cannot be explained from its journal."""
    flow = workflow(body, storage=world.open())
    outcome = await flow.start("fail", run_id=RUN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LookupError)
    entries = await world.open().read_all(RUN)
    last = entries[-1]
    assert isinstance(last, ErrorEntry)
    assert (last.name, last.message) == ("LookupError", "no such thing")
    assert last.stack is not None
    assert 'raise LookupError("no such thing")' in last.stack
    assert run_status(entries) == FailedRun(
        message="no such thing", name="LookupError", stack=last.stack
    )


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [Unspeakable(), ValueError("half \ud800"), ValueError(), ExceptionGroup("g", [OSError()])],
)
async def test_a_failure_that_is_hard_to_write_is_written(world: World, error: Exception) -> None:
    """If it fails, a run that failed in an odd way stays open for ever."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> None:
        raise error

    outcome = await flow.start(run_id=RUN)
    assert outcome == Failed(error, RUN)
    last = (await world.open().read_all(RUN))[-1]
    assert isinstance(last, ErrorEntry)
    assert last.name == type(error).__name__


async def test_a_job_delivered_twice_is_told_that_it_is_done(world: World) -> None:
    """If it fails, a dispatcher that delivers twice does the work twice, or cannot tell why not."""
    flow = workflow(body, storage=world.open())
    await flow.start("done", run_id=RUN)
    with pytest.raises(TerminalRunError) as caught:
        await flow.start("done", run_id=RUN)
    assert caught.value.terminal_state == "complete"


async def test_run_ids_are_fresh_where_none_is_given(world: World) -> None:
    """If it fails, two runs without a name become one."""
    flow = workflow(body, storage=world.open())
    outcomes = [await flow.start("done") for _ in range(3)]
    listed = {run_id async for run_id in world.open().list_runs()}
    assert {outcome.run_id for outcome in outcomes} == listed
    assert len(listed) == 3
    assert len({create_run_id() for _ in range(100)}) == 100


@pytest.mark.parametrize("run_id", ["", ".", "a/b", "../a", "a\n", "x" * 201, None, 7])
async def test_d10_a_bad_run_id_is_refused_everywhere(world: World, run_id: Any) -> None:
    """If it fails, a run id from outside becomes a path."""
    flow = workflow(body, storage=world.open())
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: flow.resume(run_id, "ok", 1),
        lambda: flow.fork(run_id, from_offset=0),
        lambda: flow.fork("a", from_offset=0, run_id="" if run_id is None else run_id),
    ]
    if run_id is not None:
        calls.append(lambda: flow.start("done", run_id=run_id))
    for call in calls:
        with pytest.raises(UsageError, match="is not a valid run id"):
            await call()
    assert [each async for each in world.open().list_runs()] == []


async def test_the_input_is_what_the_run_began_with(world: World) -> None:
    """If it fails, a recovery works on another input than the run that it recovers."""
    seen: list[Any] = []

    @workflow(storage=world.open())
    async def flow(ctx: Context, given: Any) -> Any:
        seen.append((given, ctx.input, ctx.run_id))
        return await ctx.suspend("ok")

    await flow.start({"n": [1]}, run_id=RUN)
    await flow.resume(RUN, "ok", 1)
    assert seen == [({"n": [1]}, {"n": [1]}, RUN)] * 2


async def test_on_recovery_the_input_may_be_left_out_or_repeated(world: World) -> None:
    """If it fails, a dispatcher has to remember inputs that the journal holds, or may not."""
    crash = True

    @workflow(storage=world.open())
    async def flow(ctx: Context, number: int | None) -> Any:
        if crash:
            raise KeyboardInterrupt
        return number

    for given in (0, None):
        run_id = f"run-{given}"
        crash = True
        with pytest.raises(KeyboardInterrupt):
            await flow.start(given, run_id=run_id)
        with pytest.raises(KeyboardInterrupt):
            await flow.start(run_id=run_id)
        with pytest.raises(MetadataMismatchError) as caught:
            await flow.start(1, run_id=run_id)
        assert (caught.value.stored_metadata, caught.value.provided_metadata) == (given, 1)
        crash = False
        assert await flow.start(given, run_id=run_id) == Success(given, run_id)


async def test_a_new_run_needs_the_input_that_its_function_takes(world: World) -> None:
    """If it fails, a forgotten input begins a run that can never work."""
    flow = workflow(body, storage=world.open())
    with pytest.raises(UsageError, match="needs the input"):
        await flow.start(run_id=RUN)
    assert await journal_types(world.open()) == []


async def test_a_function_without_input_needs_none(world: World) -> None:
    """If it fails, the simplest workflow cannot be started."""

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        return ctx.input

    assert await flow.start(run_id=RUN) == Success(None, RUN)
    first = (await world.open().read_all(RUN))[0]
    assert isinstance(first, StartEntry)
    assert first.metadata_json is None


class Hooks:
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def finish(self, outcome: Any) -> None:
        self.told.append(("finish", outcome.status))

    def error(self, failed: Failed) -> None:
        self.told.append(("error", str(failed.error)))

    async def finish_async(self, outcome: Any) -> None:
        await checkpoint()
        self.finish(outcome)

    async def error_async(self, failed: Failed) -> None:
        await checkpoint()
        self.error(failed)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_hooks_are_told_of_every_result(world: World, kind: str) -> None:
    """If it fails, metrics miss runs, or are told of them twice."""
    hooks = Hooks()
    flow = workflow(
        body,
        storage=world.open(),
        on_finish=hooks.finish if kind == "sync" else hooks.finish_async,
        on_error=hooks.error if kind == "sync" else hooks.error_async,
    )
    for command in ("done", "fail", "wait"):
        await flow.start(command, run_id=command)
    await flow.resume("wait", "ok", "yes")
    await flow.fork("done", from_offset=1)
    assert hooks.told == [
        ("finish", "success"),
        ("error", "no such thing"),
        ("finish", "failed"),
        ("finish", "suspended"),
        ("finish", "success"),
        ("finish", "success"),
    ]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_hooks_raise_is_logged_and_goes_no_further(
    world: World, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If it fails, a broken metric fails the run, or hides its result."""

    def broken(outcome: Any) -> None:
        raise OSError("metrics are down")

    async def broken_async(outcome: Any) -> None:
        await checkpoint()
        raise OSError("metrics are down")

    hook = broken if kind == "sync" else broken_async
    flow = workflow(body, storage=world.open(), on_finish=hook, on_error=hook)
    with caplog.at_level(logging.ERROR, "kassette"):
        assert await flow.start("done", run_id="done") == Success("done", "done")
        assert (await flow.start("fail", run_id="fail")).status == "failed"
    assert [record.name for record in caplog.records] == ["kassette"] * 3
    assert "on_error raised" in caplog.text
    assert "on_finish raised" in caplog.text
    assert "metrics are down" in caplog.text


async def test_hooks_run_once_the_result_is_durable_and_the_run_let_go(world: World) -> None:
    """If it fails, a hook that starts the next run of the same id finds this one locked."""

    async def look(outcome: Any) -> None:
        seen.append((await journal_types(world.open()))[-1])
        with pytest.raises(KassetteError) as caught:
            await flow.start("done", run_id=RUN)
        seen.append(type(caught.value))

    seen: list[Any] = []
    flow = workflow(body, storage=world.open(), on_finish=look)
    await flow.start("done", run_id=RUN)
    assert seen == ["complete", TerminalRunError]


async def test_no_hook_is_called_for_what_happened_before_the_function_ran(
    world: World, clock: Clock
) -> None:
    """If it fails, a refused start is reported as a run that finished."""
    hooks = Hooks()

    async def waits(ctx: Context) -> Any:
        return await ctx.suspend("ok", timeout=1)

    flow = workflow(
        waits, storage=world.open(), version="v1", on_finish=hooks.finish, on_error=hooks.error
    )
    await flow.start(run_id=RUN)
    hooks.told.clear()
    with pytest.raises(VersionMismatchError):
        await flow.resume(RUN, "ok", 1, version="v2")
    with pytest.raises(UsageError):
        await flow.resume(RUN, "other", 1)
    clock.forward(1)
    with pytest.raises(RunCancelledError):
        await flow.resume(RUN, "ok", 1)
    with pytest.raises(TerminalRunError):
        await flow.start(run_id=RUN)
    assert hooks.told == []


async def test_a_version_given_with_the_call_overrides_the_workflows_own(world: World) -> None:
    """If it fails, an old run cannot be finished under its own version."""
    versions: list[str | None] = []

    def of(version: str | None) -> Any:
        return workflow(body, storage=world.open(), version=version)

    await of("v1").start("wait", run_id=RUN, version="v0")
    for flow, version in ((of("v1"), None), (of(None), "v1")):
        with pytest.raises(VersionMismatchError) as caught:
            await flow.resume(RUN, "ok", "yes", version=version)
        versions.append(caught.value.stored_version)
    assert versions == ["v0", "v0"]
    assert await of("v1").resume(RUN, "ok", "yes", version="v0") == Success("yes", RUN)
    forked = await of("v2").fork(RUN, from_offset=1, run_id="fork", version="v3")
    assert isinstance(forked, Suspended)
    first = (await world.open().read_all("fork"))[0]
    assert isinstance(first, StartEntry)
    assert first.version == "v3"


async def test_a_fork_has_the_workflows_own_version(world: World) -> None:
    """If it fails, a fork that was made after a deploy cannot be started by the code that made it."""
    storage = world.open()
    await workflow(body, storage=storage, version="1").start("x", run_id="source")
    newer = workflow(body, storage=storage, version="2")

    async def version_of(run_id: str) -> str | None:
        starts = [e for e in await storage.read_all(run_id) if isinstance(e, StartEntry)]
        return starts[-1].version

    await newer.fork("source", from_offset=1, run_id="own")
    assert await version_of("own") == "2"
    await newer.fork("source", from_offset=1, run_id="given", version="3")
    assert await version_of("given") == "3"


@pytest.mark.parametrize("version", ["", 7, "\ud800"])
async def test_a_version_that_is_no_text_is_refused(world: World, version: Any) -> None:
    """If it fails, a version is journaled that can never be compared."""
    with pytest.raises(UsageError, match="a version"):
        await workflow(body, storage=world.open(), version=version).start("done", run_id=RUN)
    assert await journal_types(world.open()) == []


async def test_it_is_a_decorator_and_a_function_over_any_callable(world: World) -> None:
    """If it fails, a method, a partial or a callable object cannot be a workflow."""
    storage = world.open()

    class Agent:
        async def method(self, ctx: Context, command: str) -> str:
            return await body(ctx, command)

        async def __call__(self, ctx: Context, command: str) -> str:
            return await body(ctx, command)

    async def with_more(prefix: str, ctx: Context, command: str) -> str:
        return prefix + await body(ctx, command)

    flows: dict[str, Any] = {
        "body": workflow(body, storage=storage),
        "decorated": workflow(storage=storage)(body),
        "method": workflow(Agent().method, storage=storage),
        "Agent": workflow(Agent(), storage=storage),
        "partial": workflow(functools.partial(with_more, ""), storage=storage),
    }
    for name, flow in flows.items():
        assert await flow.start("done", run_id=name) == Success("done", name)
    assert repr(flows["decorated"]) == "<Workflow body>"
    assert flows["decorated"].__doc__ == "Do as the input says."


async def test_workflows_run_side_by_side_without_knowing_of_each_other(world: World) -> None:
    """If it fails, two runs of one workflow share steps."""
    from anyio import create_task_group

    work = Ledger()

    @workflow(storage=world.open())
    async def flow(ctx: Context, number: int) -> Any:
        return [await ctx.step("a", work.work, str(number), number) for _ in range(3)]

    outcomes: dict[int, Any] = {}

    async def run(number: int) -> None:
        outcomes[number] = await flow.start(number, run_id=f"run-{number}")

    async with create_task_group() as group:
        for number in range(20):
            group.start_soon(run, number)
    assert outcomes == {n: Success([n, n, n], f"run-{n}") for n in range(20)}
    assert set(await journal_steps(world.open(), "run-7")) == {"a", "a#2", "a#3"}


async def test_a_workflow_inside_a_step_of_another(memory: MemoryStorage) -> None:
    """If it fails, an inner run's end or suspension is taken for the outer one's."""
    inner = workflow(body, storage=memory)

    @workflow(storage=memory)
    async def outer(ctx: Context) -> Any:
        async def call() -> str:
            return said(await inner.start("wait", run_id="inner"))

        return await ctx.step("call", call)

    assert await outer.start(run_id="outer") == Success("inner waits for ok", "outer")
    assert await inner.resume("inner", "ok", "yes") == Success("yes", "inner")
