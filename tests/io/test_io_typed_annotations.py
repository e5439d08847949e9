"""D3.6: an annotation means the same however it is written, and wherever its function hides."""

# ruff: noqa: UP045 - types are declared as older code writes them
from __future__ import annotations

import functools
import sys
import types
import typing as t
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import date
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import typing_extensions as te

from kassette_io import Context, MemoryStorage, Success, UsageError, start, workflow
from tests.io.stories import RUN

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

pytestmark = pytest.mark.anyio
assert te is not None  # in the text of older aliases


@dataclass
class Line:
    day: date


LINE = Line(date(2026, 1, 2))
STYLES = ("", "from __future__ import annotations\n")

SPELLINGS = {
    "a class": "Line",
    "text": "'Line'",
    "with extras": "t.Annotated[Line, 'a remark', 7]",
    "text with extras": "'t.Annotated[Line, 1]'",
    "extras around text": "t.Annotated['Line', 1]",
    "an option": "t.Optional[Line]",
    "an option of text": "t.Optional['Line']",
    "a union": "Line | None",
    "an older union": "t.Union[None, 'Line']",
    "what is awaited": "abc.Awaitable[Line]",
    "what is awaited, as text": "'abc.Coroutine[t.Any, t.Any, Line]'",
    "what an awaitable is awaited to": "t.Awaitable[abc.Awaitable['Line']]",
    "a future": "asyncio.Future[Line]",
}


def written(style: str, head: str, annotation: str) -> Callable[..., Any]:
    """Give a function as a module of its own would hold it."""
    module = types.ModuleType("written")
    source = f"{style}import asyncio, typing as t\nfrom collections import abc\n{head} -> {annotation}:\n    return LINE\n"
    vars(module).update(Line=Line, LINE=LINE)
    exec(compile(source, "written.py", "exec", dont_inherit=True), vars(module))
    made: Callable[..., Any] = module.f
    return made


async def kept_by(fn: Callable[..., Any], *args: Any) -> Any:
    """Give what a step of ``fn`` returns on replay, after checking that it is so live."""
    storage, seen = MemoryStorage(), []
    for _ in range(2):
        async with await start(storage, RUN) as run:
            seen.append(await run.record("a", fn, *args))
    assert seen[0] == seen[1]
    assert type(seen[0]) is type(seen[1])
    return seen[1]


@pytest.mark.parametrize("style", STYLES, ids=["evaluated", "as text"])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("head", ["def f()", "async def f()"])
async def test_d3_6_every_spelling_says_the_same(style: str, spelling: str, head: str) -> None:
    """If it fails, a typed result depends on the first line of its module."""
    assert await kept_by(written(style, head, spelling)) == LINE


@pytest.mark.parametrize("style", STYLES, ids=["evaluated", "as text"])
@pytest.mark.parametrize(
    "spelling",
    [
        "int",
        "'int'",
        "t.Optional[int]",
        "t.Annotated[int, 1]",
        "t.Awaitable[int]",
        "dict[str, int]",
        "t.Literal['a']",
    ],
)
async def test_d3_6_every_spelling_of_a_plain_type_is_checked(style: str, spelling: str) -> None:
    """If it fails, whether a result is checked depends on the first line of its module."""
    with pytest.raises(UsageError, match="step 'a' does not fit its declared type"):
        await kept_by(written(style, "async def f()", spelling))


IGNORED = [
    "Missing", "list[Missing]", "t.Any", "object", "X", "t.NoReturn", "OnlyForCheckers | None",
    "abc.AsyncIterator[int]", "abc.Iterator[int]", "t.Callable[[], int]", "7", "list[", "abc.Awaitable", "t.Self",
]  # fmt: skip


@pytest.mark.parametrize("annotation", IGNORED)
async def test_d3_6_what_says_nothing_is_ignored_alike(annotation: str) -> None:
    """If it fails, a name that exists for type checkers alone breaks a step or an input."""

    async def body(ctx: Context, given: Any) -> Any:
        def step() -> Any:
            return given

        step.__annotations__ = {"return": annotation, "other": "Missing"}
        return await ctx.step("a", step)

    body.__annotations__ = {"given": annotation}
    flow = workflow(body, storage=MemoryStorage())
    assert await flow.start({"a": [1]}, run_id=RUN) == Success({"a": [1]}, RUN)
    with pytest.raises(UsageError, match="JSON does not support"):
        await flow.start(LINE, run_id="other")


async def test_d3_6_one_annotation_needs_no_other() -> None:
    """If it fails, a parameter that only checkers can name hides what a function returns."""

    def step(price: OnlyForCheckers | None = None) -> Line:
        return LINE

    assert await kept_by(step) == LINE


async def test_d3_6_a_class_of_a_function_is_out_of_reach_as_text() -> None:
    """If it fails, the rule for local classes differs between inputs and results."""

    @dataclass
    class Local:
        n: int

    def as_text() -> Local:
        return Local(1)

    with pytest.raises(UsageError, match="JSON does not support"):
        await kept_by(as_text)
    as_text.__annotations__["return"] = Local
    assert await kept_by(as_text) == Local(1)


def sync() -> Line:
    return LINE


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fn)
    async def wrapper(*args: Any) -> Any:
        found = fn(*args)
        return await found if isinstance(found, Awaitable) else found

    return wrapper


def starts() -> Coroutine[Any, Any, Line]:
    async def work() -> Line:
        return LINE

    return work()


class Shop:
    def method(self) -> Line:
        return LINE

    @classmethod
    def of_class(cls) -> Line:
        return LINE

    @staticmethod
    def static() -> Line:
        return LINE

    async def __call__(self) -> Line:
        return LINE

    bound = functools.partialmethod(method)


CALLABLES: dict[str, Callable[..., Any]] = {
    "a function": sync,
    "a partial of partials": partial(partial(partial(sync))),
    "a method": Shop().method,
    "a class method": Shop.of_class,
    "a static method": Shop.static,
    "a bound partial method": Shop().bound,
    "a callable object": Shop(),
    "a partial of a callable object": partial(Shop()),
    "a wrapped function": decorated(sync),
    "a wrapped method": decorated(Shop().method),
    "twice wrapped": decorated(decorated(sync)),
    "a cached function": functools.cache(sync),
    "a sync function that starts an async one": starts,
    "that, wrapped": decorated(starts),
}


@pytest.mark.parametrize("fn", CALLABLES.values(), ids=CALLABLES)
async def test_d3_6_every_callable_is_asked(fn: Callable[..., Any]) -> None:
    """If it fails, a typed function loses its type by the way in which it is passed."""
    assert await kept_by(fn) == LINE


async def test_d3_6_inputs_are_declared_as_results_are() -> None:
    """If it fails, a workflow that is a method or a partial gets its input as a dict."""

    class Agent:
        async def method(self, ctx: Context, line: Line) -> Any:
            return line

        async def __call__(self, ctx: Context, line: Annotated[Line, 1]) -> Any:
            return line

    async def more(prefix: str, ctx: Context, line: Optional_) -> Any:
        return line

    for fn in (Agent().method, Agent(), partial(more, "")):
        flow: Any = workflow(fn, storage=MemoryStorage())
        assert await flow.start(LINE, run_id=RUN) == Success(LINE, RUN)
        with pytest.raises(UsageError, match="the input does not fit"):
            await flow.start({"day": "soon"}, run_id="other")


Optional_ = t.Optional[Line]


async def test_d3_6_a_class_is_a_function_that_says_nothing() -> None:
    """If it fails, ``dict`` and ``str`` cannot be steps."""
    assert await kept_by(dict, [("a", 1)]) == {"a": 1}
    assert await kept_by(str, 7) == "7"
    assert await kept_by(len, "abc") == 3


X = t.TypeVar("X")
OLDER = """
Pair = te.TypeAliasType("Pair", tuple[X, X], type_params=(X,))
Nest = te.TypeAliasType("Nest", "list[Nest] | date")
Json = te.TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | None")

def generic(value: X) -> list[X]:
    return value
"""
NEWER = """
type Pair[X] = tuple[X, X]
type Nest = list[Nest] | date
type Json = dict[str, Json] | list[Json] | str | int | None

def generic[X](value: X) -> list[X]:
    return value
"""
exec(NEWER if sys.version_info >= (3, 12) else OLDER)


async def test_d3_6_aliases_of_the_newer_syntax() -> None:
    """If it fails, ``type X = …`` is no declared type."""
    day = date(2026, 1, 2)
    names: dict[str, Any] = globals()
    pair: Any = names["Pair"]
    for declared, value in (
        (pair[date], (day, day)),
        (names["Nest"], [day, [day, []]]),
        (names["Json"], {"a": ["b", None]}),
        (list[pair[int]], [(1, 2)]),
    ):
        storage = MemoryStorage()
        for _ in range(2):
            async with await start(storage, RUN) as run:
                found = await run.record("a", lambda value=value: value, result_type=declared)
                assert found == value
    assert await kept_by(names["generic"], ["anything"]) == ["anything"]
