"""Every way on which a value of a declared type is kept, and a comparison that is not kassette's."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from kassette_io import Context, MemoryStorage, StartEntry, StepEntry, UsageError, workflow
from tests.io.stories import RUN

WAYS = ("input", "result", "payload")


async def every_way(declared: Any, value: Any) -> tuple[list[Any], Any]:
    """Keep ``value`` as input, result and payload, live and in two later sessions.

    Give everything that the workflow saw, and the journaled result. Raises UsageError where the
    value is refused, after checking that nothing of it was written.
    """
    seen: list[Any] = []
    journaled: list[Any] = []
    for way in WAYS:
        storage = MemoryStorage()
        try:
            await one_way(storage, way, declared, value, seen)
        except UsageError:
            types = [each.type for each in await storage.read_all(RUN)]
            allowed = {"input": [], "result": ["start"], "payload": ["start", "suspend"]}
            assert types == allowed[way], "something of a refused value was written"
            raise
        journaled += [
            entry.result if isinstance(entry, StepEntry) else entry.metadata
            for entry in await storage.read_all(RUN)
            if (isinstance(entry, StepEntry) and way == "result")
            or (isinstance(entry, StartEntry) and way == "input" and entry.offset == 0)
        ]
    assert len(seen) == 3 * len(WAYS)
    return seen, journaled[-1]


async def one_way(
    storage: MemoryStorage, way: str, declared: Any, value: Any, seen: list[Any]
) -> None:
    async def with_input(ctx: Context, given: Any) -> None:
        seen.append(given)
        await ctx.suspend("one")
        await ctx.suspend("two")

    async def with_result(ctx: Context) -> None:
        seen.append(await ctx.step("s", lambda: value, result_type=declared))
        await ctx.suspend("one")
        await ctx.suspend("two")

    async def with_payload(ctx: Context) -> None:
        seen.append(await ctx.suspend("value"))
        await ctx.suspend("one")
        await ctx.suspend("two")

    with_input.__annotations__["given"] = declared
    if way == "input":
        await workflow(with_input, storage=storage).start(value, run_id=RUN)
    elif way == "result":
        await workflow(with_result, storage=storage).start(run_id=RUN)
    else:
        flow = workflow(with_payload, storage=storage, events={"value": declared})
        await flow.start(run_id=RUN)
        await flow.resume(RUN, "value", value)
    function: Any = {"input": with_input, "result": with_result, "payload": with_payload}[way]
    later = workflow(function, storage=storage, events={"value": declared})
    await later.resume(RUN, "one", None)
    await later.resume(RUN, "two", None)


def strictly_same(one: Any, other: Any) -> bool:
    """Compare without asking the classes: types, attributes and members, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseModel):
        return all(
            strictly_same(getattr(one, name), getattr(other, name))
            for name in ("__dict__", "__pydantic_extra__", "__pydantic_private__")
        )
    if isinstance(one, dict):
        return [*one] == [*other] and all(strictly_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(strictly_same, one, other))
    if isinstance(one, datetime):  # pydantic has a class of its own for fixed offsets
        return (
            bool(one == other) and one.isoformat() == other.isoformat() and one.fold == other.fold
        )
    if hasattr(one, "__dataclass_fields__"):
        return all(
            strictly_same(getattr(one, name), getattr(other, name))
            for name in one.__dataclass_fields__
        )
    return (bool(one == other) and repr(one) == repr(other)) or isinstance(one, (set, frozenset))


async def assert_kept(declared: Any, value: Any) -> Any:
    """Check that ``value`` comes back equal on every way; give what was journaled of it."""
    before = copy.deepcopy(value)
    seen, journaled = await every_way(declared, value)
    for each in seen:
        assert strictly_same(each, before), f"{before!r} came back as {each!r}"
        assert each == before
    return journaled
