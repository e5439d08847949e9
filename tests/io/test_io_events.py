"""D3 for inputs and event payloads: typed, checked before anything is journaled, rebuilt alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, Field

from kassette_io import (
    Context,
    MemoryStorage,
    MetadataMismatchError,
    ResumeEntry,
    Success,
    Suspended,
    UsageError,
    Workflow,
    workflow,
)
from tests.io.storages import World
from tests.io.stories import RUN, journal_types

pytestmark = pytest.mark.anyio


class Verdict(BaseModel):
    is_ok: bool = Field(alias="isOk")
    on: date | None = None


@dataclass
class Ticket:
    title: str
    price: Decimal = Decimal(0)


def asking(storage: Any, *names: str) -> Workflow[None, list[Any]]:
    """Make a workflow that waits for the events in turn."""

    async def body(ctx: Context) -> list[Any]:
        return [await ctx.suspend(name) for name in names]

    return workflow(body, storage=storage, events={"approval": Verdict, "note": str, "when": date})


async def test_d3_a_declared_payload_is_rebuilt_live_and_replayed(world: World) -> None:
    """If it fails, an answer reaches the workflow as a dict, or as one thing only the first time."""
    flow = asking(world.open(), "approval", "when", "note")
    await flow.start(run_id=RUN)
    verdict = Verdict(isOk=True, on=date(2026, 1, 2))
    assert await flow.resume(RUN, "approval", verdict) == Suspended("when", RUN)
    assert await flow.resume(RUN, "when", date(2026, 2, 3)) == Suspended("note", RUN)
    outcome = await flow.resume(RUN, "note", "")
    assert outcome == Success([verdict, date(2026, 2, 3), ""], RUN)
    resumes = [
        each.value for each in await world.open().read_all(RUN) if isinstance(each, ResumeEntry)
    ]
    assert resumes == [{"isOk": True, "on": "2026-01-02"}, "2026-02-03", ""]


async def test_d3_a_payload_may_be_given_as_json(memory: MemoryStorage) -> None:
    """If it fails, a webhook's JSON has to be turned into a model by hand first."""
    flow = asking(memory, "approval")
    await flow.start(run_id=RUN)
    given = {"isOk": False, "on": "2026-01-02"}
    outcome = await flow.resume(RUN, "approval", given)
    assert outcome == Success([Verdict(isOk=False, on=date(2026, 1, 2))], RUN)


@pytest.mark.parametrize("value", [None, {}, {"isOk": "perhaps"}, "yes", [True], {"isOk": None}])
async def test_d3_a_payload_that_does_not_fit_is_refused_before_anything_is_journaled(
    world: World, value: object
) -> None:
    """If it fails, a bad answer is in the journal for good, and every recovery fails on it."""
    flow = asking(world.open(), "approval")
    await flow.start(run_id=RUN)
    before = await world.open().read_all(RUN)
    with pytest.raises(UsageError, match="the value of event 'approval' does not fit") as caught:
        await flow.resume(RUN, "approval", value)
    assert "Verdict" in str(caught.value)
    assert await world.open().read_all(RUN) == before
    outcome = await flow.resume(RUN, "approval", {"isOk": True})
    assert outcome == Success([Verdict(isOk=True)], RUN)


async def test_d3_the_type_of_approval_covers_approval_of_an_item(world: World) -> None:
    """If it fails, the repeated waits that the reference recommends are untyped."""
    flow = asking(world.open(), "approval:1", "approval:a:b", "approvals:1")
    await flow.start(run_id=RUN)
    with pytest.raises(UsageError, match="does not fit"):
        await flow.resume(RUN, "approval:1", "yes")
    assert await flow.resume(RUN, "approval:1", {"isOk": True}) == Suspended("approval:a:b", RUN)
    with pytest.raises(UsageError, match="does not fit"):
        await flow.resume(RUN, "approval:a:b", "yes")
    assert await flow.resume(RUN, "approval:a:b", {"isOk": False}) == Suspended("approvals:1", RUN)
    assert await flow.resume(RUN, "approvals:1", "untyped") == Success(
        [Verdict(isOk=True), Verdict(isOk=False), "untyped"], RUN
    )


async def test_d3_an_exact_declaration_beats_the_prefix(memory: MemoryStorage) -> None:
    """If it fails, one item of many cannot have a payload of its own."""

    async def body(ctx: Context) -> Any:
        return await ctx.suspend("approval:special")

    flow = workflow(body, storage=memory, events={"approval": Verdict, "approval:special": date})
    await flow.start(run_id=RUN)
    outcome = await flow.resume(RUN, "approval:special", "2026-01-02")
    assert outcome == Success(date(2026, 1, 2), RUN)


async def test_d3_payloads_in_branches_are_typed_too(memory: MemoryStorage) -> None:
    """If it fails, a wait inside a parallel branch gets plain JSON."""

    async def branch(ctx: Context) -> Any:
        return await ctx.suspend("approval")

    async def body(ctx: Context) -> Any:
        return await ctx.parallel({"x": branch})

    flow = workflow(body, storage=memory, events={"approval": Verdict})
    await flow.start(run_id=RUN)
    outcome = await flow.resume(RUN, "approval", {"isOk": True})
    assert outcome == Success({"x": Verdict(isOk=True)}, RUN)


async def test_d3_a_payload_type_that_changed_since_is_a_clear_error(
    memory: MemoryStorage,
) -> None:
    """If it fails, a deploy that changed an event's type crashes without saying where."""
    flow = asking(memory, "when", "approval")
    await flow.start(run_id=RUN)
    await flow.resume(RUN, "when", "2026-01-02")

    async def body(ctx: Context) -> Any:
        return await ctx.suspend("when")

    changed = workflow(body, storage=memory, events={"when": Verdict, "approval": Verdict})
    with pytest.raises(UsageError, match="the value of event 'when' as journaled does not fit"):
        await changed.resume(RUN, "approval", {"isOk": True})
    assert (await journal_types(memory))[-1] == "resume"
    assert await flow.start(run_id=RUN) == Success([date(2026, 1, 2), Verdict(isOk=True)], RUN), (
        "rolled back, the run goes on"
    )


async def test_d3_a_typed_input_is_rebuilt_in_every_session(world: World) -> None:
    """If it fails, the workflow gets its input as a dict, or as another type after a crash."""
    seen: list[Any] = []

    @workflow(storage=world.open())
    async def flow(ctx: Context, ticket: Ticket) -> str:
        seen.append((ticket, ctx.input))
        await ctx.suspend("ok")
        return ticket.title

    ticket = Ticket("broken", Decimal("1.10"))
    await flow.start(ticket, run_id=RUN)
    assert await flow.resume(RUN, "ok", None) == Success("broken", RUN)
    assert seen == [(ticket, ticket), (ticket, ticket)]
    assert type(seen[1][0].price) is Decimal


async def test_d3_an_input_that_does_not_fit_begins_no_run(world: World) -> None:
    """If it fails, a run exists that no code can work on."""

    @workflow(storage=world.open())
    async def flow(ctx: Context, ticket: Ticket) -> str:
        return ticket.title

    for bad in ({}, None, {"title": 1}, "ticket"):
        with pytest.raises(UsageError, match="the input does not fit its declared type Ticket"):
            await flow.start(bad, run_id=RUN)  # type: ignore[arg-type]
    assert await journal_types(world.open()) == []


async def test_a_recovery_with_an_equal_typed_input_is_no_mismatch(memory: MemoryStorage) -> None:
    """If it fails, the same input given again is refused because it was written as JSON."""

    @workflow(storage=memory)
    async def flow(ctx: Context, ticket: Ticket) -> str:
        if crash:
            raise KeyboardInterrupt
        return ticket.title

    crash = True
    with pytest.raises(KeyboardInterrupt):
        await flow.start(Ticket("a", Decimal("1.1")), run_id=RUN)
    crash = False
    with pytest.raises(MetadataMismatchError):
        await flow.start(Ticket("b"), run_id=RUN)
    assert await flow.start(Ticket("a", Decimal("1.1")), run_id=RUN) == Success("a", RUN)


async def test_an_event_type_that_is_none_is_refused_where_it_is_declared(
    memory: MemoryStorage,
) -> None:
    """If it fails, a bad declaration shows up when the first answer arrives, days later."""

    async def body(ctx: Context) -> None:
        return None

    with pytest.raises(UsageError, match="cannot be rebuilt from JSON"):
        workflow(body, storage=memory, events={"approval": ...})


async def test_d3_a_fork_keeps_typed_payloads(memory: MemoryStorage) -> None:
    """If it fails, a fork gets an answer as plain JSON that the source got typed."""
    flow = asking(memory, "approval", "when")
    await flow.start(run_id="source")
    await flow.resume("source", "approval", {"isOk": True})
    outcome = await flow.fork("source", from_offset=4, run_id=RUN)
    assert outcome == Suspended("when", RUN)
    assert await flow.resume(RUN, "when", "2026-01-02") == Success(
        [Verdict(isOk=True), date(2026, 1, 2)], RUN
    )


async def test_d3_a_datetime_keeps_its_zone_and_microseconds(memory: MemoryStorage) -> None:
    """If it fails, an instant shifts or loses precision on its way through the journal."""
    instant = datetime.fromisoformat("2026-01-02T03:04:05.678901+05:30")

    async def body(ctx: Context) -> Any:
        return (await ctx.suspend("at")).isoformat()

    flow = workflow(body, storage=memory, events={"at": datetime})
    await flow.start(run_id=RUN)
    assert await flow.resume(RUN, "at", instant) == Success(instant.isoformat(), RUN)


async def test_d3_an_input_type_that_changed_since_is_a_clear_error(memory: MemoryStorage) -> None:
    """If it fails, a deploy that changed the input's type crashes without saying which run it was,
    or ends the run.
    """
    await asking(memory, "ok").start(run_id=RUN)

    @workflow(storage=memory, name="body")
    async def changed(ctx: Context, ticket: Ticket) -> str:
        return ticket.title

    with pytest.raises(UsageError, match="the input as journaled does not fit") as caught:
        await changed.resume(RUN, "ok", 1)
    assert caught.value.run_id == RUN
    assert (await journal_types(memory))[-1] != "error"


async def test_what_does_not_fit_names_its_run(memory: MemoryStorage) -> None:
    """If it fails, an error log of many runs does not say which one was answered badly."""

    @workflow(storage=memory, events={"approval": Verdict})
    async def flow(ctx: Context, ticket: Ticket) -> Any:
        return await ctx.suspend("approval")

    with pytest.raises(UsageError) as caught:
        await flow.start(7, run_id=RUN)  # type: ignore[arg-type]
    assert caught.value.run_id == RUN
    await flow.start(Ticket("a"), run_id=RUN)
    with pytest.raises(UsageError) as caught:
        await flow.resume(RUN, "approval", 7)
    assert caught.value.run_id == RUN
