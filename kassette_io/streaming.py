"""A step whose result arrives item by item: passed on at once, recorded completely or not at all.

Rules:
- The consumer gets each item as decoded from its journaled form, live and on replay, and owns it:
  changing an item does not change what is recorded.
- If the block ends normally before the consumer has read everything, the remaining items are read
  and recorded too. If it ends with an exception or a cancellation, nothing is recorded.
- An incomplete stream is never recorded, even if the consumer handled the error: its source failed,
  an item was refused, or a timeout expired inside of the block. The error is raised when the block
  ends.
- A stream is closed when its block ends, however that happens.
- Memory is bounded by the encoded size of the items.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, cast, final

from kassette import StreamTooLargeError, UsageError, ValueRefusedError
from kassette.brief import brief
from kassette.errors import naming_run
from kassette.values import decode_value, encode_value, settle_value
from kassette_io.attempts import Attempt, Begin, Recorded
from kassette_io.typed import TypedValue, typed_value

MAX_BYTES: Final = 16 << 20
"""The default limit of a stream's items, in bytes of JSON."""


class Form(NamedTuple):
    """How a stream's items are recorded, and turned into items again on replay."""

    fold: Callable[[list[Any]], Any] | None
    unfold: Callable[[Any], Iterable[Any]] | None
    item_type: Any
    result_type: Any
    max_bytes: int


@final
class Stream:
    """The items of a step, live or recorded; returned by ``Context.stream``.

    Use it with ``async with``, and iterate inside the block. ``result`` is what was recorded; it is
    available after the block, and during it on replay.
    """

    def __init__(
        self, begin: Begin, name: str, source: Callable[[], Any], form: Form, run_id: str
    ) -> None:
        if (form.fold is None) != (form.unfold is None):
            raise UsageError(
                f"stream {name!r} needs both fold and unfold, or neither: unfold turns the value "
                "that fold records into items again",
                run_id=run_id,
            )
        if form.fold is None and form.result_type is not None:
            raise UsageError(
                f"stream {name!r} has a result_type but no fold; declare its items with item_type",
                run_id=run_id,
            )
        self._begin = begin
        self._name = name
        self._source = source
        self._form = form
        self._run_id = run_id
        self._item: TypedValue | None = None
        self._attempt: Attempt | None = None
        self._items: AsyncIterator[Any] | None = None
        self._recorded: Iterator[Any] = iter(())
        self._written: list[bytes] = []
        self._bytes = 0
        self._broken: Exception | None = None
        self._closing = AsyncExitStack()
        self.result: Any = None

    async def __aenter__(self) -> Self:
        form = self._form
        if form.item_type is not None:
            with naming_run(self._run_id):
                self._item = typed_value(form.item_type)
        begun = await self._begin(result_type=form.result_type)
        if isinstance(begun, Recorded):
            self.result, items = self._again(begun.result)
            self._recorded = iter(items)
            return self
        self._attempt = begun
        await begun.__aenter__()
        try:
            self._items = await self._open()
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next item, as decoded from its journaled form."""
        if self._items is None:
            for recorded in self._recorded:
                return recorded
            raise StopAsyncIteration
        try:
            return self._take(await anext(self._items))
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._broken = error
            raise
        except BaseException:
            self._broken = UsageError(
                f"stream {self._name!r} was interrupted inside of its block, which then continued; "
                "put the timeout around the whole block",
                run_id=self._run_id,
            )
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._attempt is None:
            return
        error = exc
        try:
            if error is None:
                await self._record(self._attempt)
        except BaseException as failure:
            error = failure
            raise
        finally:
            await self._leave(error)

    async def _record(self, attempt: Attempt) -> None:
        if self._broken is not None:
            raise self._broken
        async for _ in self:
            pass
        await self._closing.aclose()
        items = self._read_all(self._written)
        fold = self._form.fold
        if fold is None:
            await attempt.succeed(decode_value(b"[" + b",".join(self._written) + b"]"))
            self.result = items
            return
        folded = fold(items)
        if inspect.isawaitable(folded):
            folded = await folded
        self.result = await attempt.succeed(folded)

    async def _leave(self, error: BaseException | None) -> None:
        """Close the source and the attempt, whatever either of them raises."""
        assert self._attempt is not None
        kind, traceback = type(error) if error else None, error and error.__traceback__
        try:
            await self._closing.aclose()
        finally:
            self._broken = None
            await self._attempt.__aexit__(kind, error, traceback or None)

    def _again(self, recorded: Any) -> tuple[Any, list[Any]]:
        if self._form.unfold is not None:
            return recorded, list(self._form.unfold(recorded))
        if not isinstance(recorded, list):
            raise ValueRefusedError(
                f"step {self._name!r} was recorded as {brief(recorded)}, which is not a list of "
                "items; if it was recorded with fold, pass unfold as well",
                run_id=self._run_id,
            )
        written = [encode_value(each) for each in cast("list[object]", recorded)]
        return self._read_all(written), self._read_all(written)

    def _read_all(self, written: list[bytes]) -> list[Any]:
        return [self._read(each, number) for number, each in enumerate(written)]

    def _read(self, written: bytes, number: int) -> Any:
        if self._item is None:
            return decode_value(written)
        with naming_run(self._run_id):
            return self._item.rebuild(written, self._called(number))

    async def _open(self) -> AsyncIterator[Any]:
        opened = self._source()
        if inspect.isawaitable(opened):
            opened = await opened
        if not hasattr(opened, "__aiter__") and hasattr(opened, "__aenter__"):
            opened = await self._closing.enter_async_context(opened)
        if not hasattr(opened, "__aiter__"):
            raise UsageError(
                f"the source of stream {self._name!r} returned {brief(opened)}, which is not an "
                "async iterable; pass an async generator function, or one that opens a stream",
                run_id=self._run_id,
            )
        items: AsyncIterator[Any] = aiter(opened)
        for each in (opened, items):
            close = getattr(each, "aclose", None) or getattr(each, "close", None)
            if close is not None:
                self._closing.push_async_callback(_close, close)
                break
        return items

    def _take(self, item: Any) -> Any:
        what = self._called(len(self._written))
        with naming_run(self._run_id):
            kept = None if self._item is None else self._item.keep(item, what)
            written, plain = settle_value(item if kept is None else kept.plain, what)
        self._bytes += len(written)
        if self._bytes > self._form.max_bytes:
            raise StreamTooLargeError(
                f"stream {self._name!r} has more than {self._form.max_bytes} bytes of items. Raise "
                "max_bytes, or record less in several steps",
                run_id=self._run_id,
            )
        self._written.append(written)
        return plain if kept is None else kept.value

    def _called(self, number: int) -> str:
        return f"item {number} of stream {self._name!r}"


async def _close(close: Callable[[], Any]) -> None:
    closed = close()
    if inspect.isawaitable(closed):
        await closed
