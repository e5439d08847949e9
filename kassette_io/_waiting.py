"""How a task waits for a job on whichever event loop runs it; neither loop is imported before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from kassette_io._writers import EventLoop, Job


async def perform(post: Callable[[Job], None], request: object) -> Any:
    """Hand ``request`` over with ``post`` and give what comes of it, waiting to the end (D2)."""
    loop = _running_loop()
    job = Job(request, loop, loop.current_waker())
    loop.prepare(job)
    post(job)
    await loop.wait(job)
    return job.outcome()


def _running_loop() -> EventLoop:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        from kassette_io import _waiting_trio

        return _waiting_trio
    from kassette_io import _waiting_asyncio

    return _waiting_asyncio
