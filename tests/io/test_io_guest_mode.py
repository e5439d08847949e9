"""Trio as the guest of an asyncio loop: two event loops in one thread, and tasks of both in one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from kassette import UsageError
from kassette_io import Context, Success, Suspended, workflow
from kassette_io.loops.asyncio_home import AsyncioHome
from tests.io.storages import HeldLocal, World
from tests.io.stories import journal_steps, journal_types

AsyncFunction = Callable[[], Awaitable[None]]


def run_side_by_side(host: AsyncFunction, guest: AsyncFunction) -> None:
    """Run ``host`` as a task of asyncio and ``guest`` as one of trio; each outlives the other."""
    host_is_done = trio.Event()

    async def to_the_end() -> None:
        await guest()
        await host_is_done.wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        trio.lowlevel.start_guest_run(
            to_the_end,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
            strict_exception_groups=True,
        )
        token = trio.lowlevel.current_trio_token()
        try:
            await host()
        finally:
            token.run_sync_soon(host_is_done.set)
            (await ended).unwrap()

    asyncio.run(main())


async def nothing() -> None:
    pass


def test_both_loops_run_workflows_at_once(world: World) -> None:
    """If it fails, whoever adds trio as a guest to an asyncio program breaks every run in it: an
    asyncio task that waits for an append is told that trio has to run it.
    """

    async def work(number: int) -> int:
        await checkpoint()
        return number

    @workflow(storage=world.open())
    async def flow(ctx: Context) -> Any:
        async def branch(ctx: Context) -> int:
            return await ctx.step("inner", work, 2)

        first = await ctx.step("first", work, 1)
        inner = await ctx.parallel({"x": branch, "y": branch})
        return [first, inner, await ctx.suspend("ok"), await ctx.step("last", lambda: 4)]

    async def tell(run_id: str) -> None:
        for _ in range(2):
            assert await flow.start(run_id=run_id) == Suspended("ok", run_id)
            done = Success([1, {"x": 2, "y": 2}, 3, 4], run_id)
            assert await flow.resume(run_id, "ok", 3) == done
            run_id += "-again"

    run_side_by_side(lambda: tell("host"), lambda: tell("guest"))


@pytest.mark.parametrize("side", ["host", "guest"])
def test_d2_each_loop_s_own_cancellation_waits_for_the_append(
    held_local: HeldLocal, side: str
) -> None:
    """If it fails, a cancelled task leaves an entry behind that nobody knows of, or hangs."""
    storage = held_local.storage

    @workflow(storage=storage)
    async def flow(ctx: Context) -> None:
        held_local.arm()
        await ctx.step("a", lambda: 1)
        await ctx.step("b", lambda: 2)

    async def start() -> None:
        await flow.start(run_id=side)

    async def cancelled() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(start)
            await held_local.begun()
            group.cancel_scope.cancel()
            held_local.let_go()
        assert await journal_types(storage, side) == ["start", "step"]
        assert await journal_steps(storage, side) == {"a": 1}

    run_side_by_side(*((cancelled, nothing) if side == "host" else (nothing, cancelled)))


def test_d16_only_the_guest_s_calls_go_to_a_loop_of_their_own() -> None:
    """If it fails, an S3 client is handed to the wrong loop: that of another thread for the host,
    or for a trio task the one that is there, which cannot wait in it.
    """
    thread = threading.get_ident()

    async def where() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    async def calls(*, elsewhere: bool) -> None:
        home = AsyncioHome()
        for call in (home.finish, home.call):
            assert (await call(where) != thread) == home.elsewhere == elsewhere
        await home.aclose()

    run_side_by_side(lambda: calls(elsewhere=False), lambda: calls(elsewhere=True))


@pytest.mark.parametrize("first", ["host", "guest"])
def test_d16_a_client_is_not_shared_by_the_two_loops(first: str) -> None:
    """If it fails, a client that the one loop opened is used from the other."""
    home = AsyncioHome()
    taken, refused = threading.Event(), threading.Event()

    async def wait_for(event: threading.Event) -> None:
        while not event.is_set():
            await checkpoint()

    async def takes_it() -> None:
        try:
            await home.finish(nothing)
        finally:
            taken.set()
        await wait_for(refused)
        await home.aclose()

    async def is_refused() -> None:
        await wait_for(taken)
        try:
            with pytest.raises(UsageError, match="in use on another event loop"):
                await home.finish(nothing)
        finally:
            refused.set()

    sides = (takes_it, is_refused)
    run_side_by_side(*(sides if first == "host" else reversed(sides)))
