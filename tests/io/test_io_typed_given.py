"""D3.1 and D3.5: JSON in the place of a typed value is read as what it says, or is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import ipaddress
import pathlib
import typing as t
import uuid
from typing import Annotated, Any

import pydantic
import pytest

from kassette_io import (
    Context,
    MemoryStorage,
    MetadataMismatchError,
    Success,
    ValueRefusedError,
    workflow,
)
from tests.io.keeping import every_way, strictly_same
from tests.io.stories import RUN

pytestmark = pytest.mark.anyio


class Approval(pydantic.BaseModel):
    approved: bool
    amount: int = 0


class Deaf(Approval):
    model_config = pydantic.ConfigDict(extra="ignore")


class Open(Approval):
    model_config = pydantic.ConfigDict(extra="allow")


class Named(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    first: dt.date = pydantic.Field(alias="firstDay")
    last: dt.date | None = pydantic.Field(
        default=None, validation_alias=pydantic.AliasChoices("lastDay", "end")
    )


class Area(pydantic.BaseModel):
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Shouting(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def loud(cls, text: str) -> str:
        return text.upper()


class Root(pydantic.RootModel[list[Approval]]):
    pass


@dataclasses.dataclass
class Visit:
    at: dt.datetime
    who: list[Approval] = dataclasses.field(default_factory=list)


class Span(t.NamedTuple):
    first: dt.date
    days: int = 1


ID = uuid.UUID("6f1c22a0-0f5c-4a58-9b0b-0a4a2a3f5d10")
NOON = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
DAY = dt.date(2026, 7, 1)
TWO = dt.timezone(dt.timedelta(hours=2))
READ: dict[str, tuple[Any, Any, Any]] = {
    "Z": (dt.datetime, "2026-07-01T12:00:00Z", NOON),
    "zero offset": (dt.datetime, "2026-07-01T12:00:00+00:00", NOON),
    "small letters": (dt.datetime, "2026-07-01t12:00:00.000z", NOON),
    "a blank": (dt.datetime, "2026-07-01 14:00:00+02:00", NOON.astimezone(TWO)),
    "no seconds": (dt.datetime, "2026-07-01T12:00", NOON.replace(tzinfo=None)),
    "zeros of nanoseconds": (dt.datetime, "2026-07-01T12:00:00.000000000Z", NOON),
    "a time": (dt.time, "12:00", dt.time(12)),
    "a duration": (dt.timedelta, "PT90S", dt.timedelta(seconds=90)),
    "an id": (uuid.UUID, str(ID).upper(), ID),
    "an id without hyphens": (list[uuid.UUID], [ID.hex], [ID]),
    "digits": (decimal.Decimal, "1e2", decimal.Decimal("1E+2")),
    "a path": (pathlib.Path, "a//b", pathlib.Path("a/b")),
    "an address": (ipaddress.IPv6Address, "0::1", ipaddress.ip_address("::1")),
    "a whole number": (
        Approval,
        {"approved": True, "amount": 7.0},
        Approval(approved=True, amount=7),
    ),
    "what is left out": (Approval, {"approved": True}, Approval(approved=True)),
    "what is to be ignored": (Deaf, {"approved": True, "x": 1}, Deaf(approved=True)),
    "more": (Open, {"approved": True, "x": [1]}, Open.model_validate({"approved": True, "x": [1]})),
    "names": (
        Named,
        {"first": "2026-07-01", "end": "2026-07-01"},
        Named(first=DAY, lastDay=DAY),  # type: ignore[call-arg]
    ),
    "what is computed": (Area, {"side": 2, "area": 4}, Area(side=2)),
    "a root": (Root, [{"approved": True}], Root([Approval(approved=True)])),
    "a dataclass": (Visit, {"at": "2026-07-01T12:00:00Z"}, Visit(NOON)),
    "a shorter named tuple": (Span, ["2026-07-01"], Span(DAY)),
    "a set": (set[dt.datetime], ["2026-07-01T12:00:00+00:00"], {NOON}),
    "a deque": (collections.deque[dt.date], ["2026-07-01"], collections.deque([DAY])),
    "keys": (dict[uuid.UUID, dt.date], {str(ID).upper(): "2026-07-01"}, {ID: DAY}),
    "keys of numbers": (dict[int, dt.date], {"1": "2026-07-01"}, {1: DAY}),
    "bytes": (list[bytes], [{"base64": "YWJj"}], [b"abc"]),
    "an address of the web": (
        pydantic.AnyUrl,
        "https://example.com",
        pydantic.AnyUrl("https://example.com"),
    ),
}


@pytest.mark.parametrize(("declared", "plain", "value"), READ.values(), ids=READ)
async def test_d3_1_json_that_says_the_value_in_another_spelling_is_read(
    declared: Any, plain: Any, value: Any
) -> None:
    """If it fails, what webhooks really send is refused for how it is spelled."""
    seen, _ = await every_way(declared, plain)
    assert all(strictly_same(each, value) for each in seen), seen


CHANGED: dict[str, tuple[Any, Any, str]] = {
    "a number for an instant": (dt.datetime, 20260701, "is the number 20260701"),
    "digits for an instant": (dt.datetime, "20260701", "is the text '20260701'"),
    "a day for an instant": (dt.datetime, "2026-07-01", "would be read as"),
    "nanoseconds": (dt.datetime, "2026-07-01T12:00:00.123456789Z", "would be read as"),
    "a number for a date": (dt.date, 86400, "would be read as"),
    "digits for a date": (dt.date, "0", "would be read as"),
    "an instant for a date": (dt.date, "2026-07-01T00:00:00", "would be read as"),
    "a number for a time": (dt.time, 3600, "would be read as"),
    "a number for a duration": (dt.timedelta, 90, "would be read as"),
    "a broken number for a Decimal": (decimal.Decimal, 0.1, "would be read as"),
    "a number for a Decimal": (list[decimal.Decimal], [7], "[0]"),
    "a member twice": (set[dt.date], ["2026-07-01"] * 2, "has 2 items, and would be read as 1"),
    "a key": (dict[int, str], {"01": "a"}, "['01'] would be lost"),
    "a key of a date": (dict[dt.date, int], {"86400": 1}, "['86400'] would be lost"),
    "text for yes": (Approval, {"approved": "on"}, "['approved'] is the text 'on'"),
    "a number for yes": (Approval, {"approved": 1}, "['approved'] is the number 1"),
    "text for a number": (Approval, {"approved": True, "amount": "7"}, "['amount']"),
    "a key of a model": (Approval, {"approved": True, "refund": True}, "['refund'] would be lost"),
    "a key of a dataclass": (Visit, {"at": "2026-07-01T12:00Z", "x": 1}, "['x'] would be lost"),
    "inside of a dataclass": (
        Visit,
        {"at": "2026-07-01T12:00Z", "who": [{"approved": "yes"}]},
        "['who'][0]['approved']",
    ),
    "inside of a root": (Root, [{"approved": "yes"}], "[0]['approved']"),
    "inside of a union": (dt.date | list[Approval], [{"approved": "yes"}], "approved"),
    "inside of an extra": (dict[str, Approval | None], {"a": {"approved": "yes"}}, "['a']"),
    "what is computed": (Area, {"side": 2, "area": 5}, "['area'] would be lost"),
    "what a validator changes": (Shouting, {"text": "a"}, "['text'] is the text 'a'"),
    "a longer tuple": (tuple[dt.date, ...], ["2026-07-01", 86400], "[1]"),
}


@pytest.mark.parametrize(("declared", "plain", "why"), CHANGED.values(), ids=CHANGED)
async def test_d3_1_json_that_would_be_read_as_something_else_is_refused(
    declared: Any, plain: Any, why: str
) -> None:
    """If it fails, a webhook's 20260701 becomes a day in 1970, and nobody learns of it."""
    with pytest.raises(ValueRefusedError) as caught:
        await every_way(declared, plain)
    assert why in str(caught.value), str(caught.value)


COUNT = iter(range(10_000))


def unlike() -> int:
    """Return another number each time, as a factory of ids does."""
    return next(COUNT)


class Trace(pydantic.BaseModel):
    span: int = pydantic.Field(default_factory=unlike)
    name: str = ""


class Job(pydantic.BaseModel):
    id: int
    trace: int = pydantic.Field(default_factory=unlike, alias="traceId")
    tags: list[str] = pydantic.Field(default_factory=list)
    where: Trace = pydantic.Field(default_factory=Trace)
    tries: int = 0


@dataclasses.dataclass
class Plain:
    id: int
    at: Annotated[int, "unlike"] = dataclasses.field(default_factory=unlike)
    days: set[dt.date] = dataclasses.field(default_factory=set)


AGAIN: dict[str, tuple[Any, Any, Any]] = {
    "a model": (Job, {"id": 1}, {"id": 1}),
    "in another order": (Job, {"id": 1, "tries": 2}, {"tries": 2.0, "id": 1}),
    "a part of a part": (Job, {"id": 1, "where": {"name": "a"}}, {"id": 1, "where": {"name": "a"}}),
    "a default": (Job, {"id": 1, "tags": []}, {"id": 1}),
    "a dataclass": (Plain, {"id": 1}, {"id": 1}),
    "in a list": (list[Job], [{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 2}]),
    "in a dict": (dict[str, Job | None], {"a": {"id": 1}}, {"a": {"id": 1}}),
    "in a tuple": (tuple[Job, Plain], [{"id": 1}, {"id": 1}], [{"id": 1}, {"id": 1}]),
    "as it was made": (Job, {"id": 1, "traceId": 5}, {"id": 1}),
}
ANOTHER: dict[str, tuple[Any, Any, Any]] = {
    "a field": (Job, {"id": 1}, {"id": 2}),
    "a field that was not left out": (Job, {"id": 1, "traceId": 5}, {"id": 1, "traceId": 6}),
    "a default": (Job, {"id": 1, "tries": 5}, {"id": 1}),
    "a factory of what is always the same": (Job, {"id": 1, "tags": ["a"]}, {"id": 1}),
    "a part": (Job, {"id": 1, "where": {"name": "a"}}, {"id": 1}),
    "members": (Plain, {"id": 1, "days": ["2026-07-01"]}, {"id": 1}),
    "one in a list": (list[Job], [{"id": 1}, {"id": 2}], [{"id": 1}]),
}


async def delivered_twice(declared: Any, first: Any, again: Any) -> tuple[Any, Any]:
    storage, seen = MemoryStorage(), list[Any]()

    async def body(ctx: Context, job: Any) -> None:
        seen.append(job)
        if len(seen) == 1:
            raise KeyboardInterrupt

    body.__annotations__["job"] = declared
    flow = workflow(body, storage=storage)
    with pytest.raises(KeyboardInterrupt):
        await flow.start(first, run_id=RUN)
    assert await flow.start(again, run_id=RUN) == Success(None, RUN)
    return seen[0], seen[1]


@pytest.mark.parametrize(("declared", "first", "again"), AGAIN.values(), ids=AGAIN)
async def test_d3_5_a_raw_job_that_is_delivered_again_recovers_its_run(
    declared: Any, first: Any, again: Any
) -> None:
    """If it fails, a job whose type makes an id or a time is never recovered by its queue."""
    one, other = await delivered_twice(declared, first, again)
    assert one == other


@pytest.mark.parametrize(("declared", "first", "again"), ANOTHER.values(), ids=ANOTHER)
async def test_d3_5_a_raw_job_that_says_something_else_does_not(
    declared: Any, first: Any, again: Any
) -> None:
    """If it fails, a run id that was used twice gives one job the answer of another."""
    with pytest.raises(MetadataMismatchError):
        await delivered_twice(declared, first, again)
