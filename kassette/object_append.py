"""How entries are appended to a journal that is one object in a store; gets and puts are asked for.

The loop (D5, D6): put the whole journal with the new lines under the condition that the object is
still the one we know; read only when that is not so. A writer that knows the object appends with
one put.

Rules:
- A put that was refused (412), that met another one (409), or whose answer was lost settles
  nothing. The journal is read back, and what it holds decides: it begins with the very bytes that
  were put, so they landed (a line names its session and offset, a ``start`` its writer); or it does
  not, and the append is decided anew on what was found.
- Where nothing has changed, the identical bytes are put again under the same condition: the first
  attempt may still land, and then the second is refused and finds it.
- Where the object has changed, the first attempt can never land, since its condition cannot come
  true again: a journal only grows.
- A journal that was there and is gone was deleted. It is never created anew. One that no longer
  begins with what was known of it was deleted and made anew: it is somebody else's run.
- A clear refusal (403, 501, a bucket that is not there) ends the append at once. It says that
  nothing was written only if no earlier put of the append may still land.
- A body that ends within what the writer knows, or within what it has put, was cut off on its way:
  objects are replaced as a whole. It is no usable answer, and nothing is ever built on it. (Where
  nothing is known yet, only the client can tell; it has to.)

Two things can be in the way of an append, and each has a budget of its own:
- *Others.* ``MAX_ATTEMPTS`` refused puts (the reference's five), with growing pauses; then
  WriteContentionError.
- *An outage*: no usable answer. The store is asked again, with growing pauses, until ``patience``
  seconds have passed since the first such answer; then StorageError. Giving up loses results that
  are paid for and recorded nowhere else, and a server restarts within seconds, so it is worth a
  while. The time is counted, not the attempts: how many fit depends on how each of them fails. A
  put without an answer is looked for at least once, however short the patience.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, TypeAlias, assert_never, final

from kassette.codec import decode_journal, encode_entry
from kassette.entries import Entry
from kassette.errors import (
    InternalError,
    JournalCorruptionError,
    KassetteError,
    StorageError,
    UsageError,
    WriteContentionError,
    with_run_id,
)
from kassette.immutable import Immutable
from kassette.tail import Tail, check_append

MAX_ATTEMPTS: Final = 5
PATIENCE: Final = 30.0
"""Seconds of an outage that an append outlasts by default.

It is several times what a server needs to restart or to fail over. More would seldom help, and a
process that is told to stop has to wait for its appends.
"""
FIRST_PAUSE: Final = 0.05
MAX_PAUSE: Final = 2.0


@final
class AppendEntries(Immutable):
    """Append ``entries`` together. With ``create`` they are a whole journal, which must be new.

    ``patience`` is for how many seconds a store that gives no usable answer is asked again.
    """

    entries: Sequence[Entry]
    create: bool = False
    patience: float = PATIENCE


@final
class Found(Immutable):
    """Report: the object is there, and ``body`` is certainly all of it."""

    body: bytes
    etag: str


@final
class NotFound(Immutable):
    """Report: the store itself says that there is no such object."""


@final
class GetFailed(Immutable):
    """Report: no usable answer to a get: a timeout, a lost connection, a 5xx, half a body."""

    error: BaseException


@final
class GetDenied(Immutable):
    """Report: a clear refusal to give the object, which no repetition mends (403)."""

    error: KassetteError


@final
class PutDone(Immutable):
    """Report: the put was accepted; the object has this etag now."""

    etag: str


@final
class PutRefused(Immutable):
    """Report: the condition did not hold (412, 404), or another put was under way (409)."""


@final
class PutUnclear(Immutable):
    """Report: no answer that settles it: a timeout, a lost connection, a 5xx."""

    error: BaseException


@final
class PutDenied(Immutable):
    """Report: a clear refusal that no repetition mends (403); nothing was written."""

    error: KassetteError


AppendCommand: TypeAlias = (
    AppendEntries
    | Found
    | NotFound
    | GetFailed
    | GetDenied
    | PutDone
    | PutRefused
    | PutUnclear
    | PutDenied
)


@final
class GetObject(Immutable):
    """Read the object, after a random part of ``pause`` seconds."""

    pause: float = 0.0


@final
class PutObject(Immutable):
    """Put ``body`` if the object's etag is still ``etag``; None: if there is no object."""

    body: bytes
    etag: str | None


@final
class Settled(Immutable):
    """The append is decided: for each entry its offset, or why it was refused."""

    outcomes: list[int | KassetteError]


AppendEffect: TypeAlias = GetObject | PutObject | Settled


@final
class Outage:
    """How long a store that gives no usable answer is asked again, and how often.

    Times are seconds of one clock that never goes back.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since = inf
        self._failures = 0
        self.cause: BaseException | None = None

    def fail(self, cause: BaseException, now: float) -> None:
        """Take note of a request that got no usable answer."""
        self._since = min(self._since, now)
        self._failures += 1
        self.cause = cause

    def is_over(self, now: float) -> bool:
        """Return whether there is an outage that has lasted for longer than the patience."""
        return now - self._since >= self._patience

    def pause(self, refusals: int = 0) -> float:
        """Return the seconds to pause at most, after this outage and some refusals."""
        doublings = min(self._failures + refusals - 1, 10)
        return float(min(FIRST_PAUSE * 2.0**doublings, MAX_PAUSE))

    def error(self, doing: str, now: float) -> StorageError:
        """Return what to raise where the outage has outlasted the patience."""
        told = f"{_told(self.cause, doing)}; no usable answer for {now - self._since:.1f} s"
        error = StorageError(told)
        error.__cause__ = self.cause
        return error


@final
class ObjectWriter:
    """What a writer of run ``run_id`` knows of its object, and the append that is under way."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._known = False
        self._body = b""
        self._etag: str | None = None
        self._tail = Tail()
        self._entries: Sequence[Entry] = ()
        self._create = False
        self._outage = Outage(0.0)
        self._refusals = 0
        self._sent: bytes | None = None
        self._may_land = False
        self._outcomes: list[int | KassetteError] = []

    @property
    def known(self) -> bool:
        """Whether the object's state is known, so that an append begins with a put."""
        return self._known

    def know(self, body: bytes, etag: str | None) -> None:
        """Take what a get has found (an etag of None: nothing) as the object's present state.

        Raises JournalCorruptionError.
        """
        try:
            journal = decode_journal(body)
        except JournalCorruptionError as error:
            raise with_run_id(error, self._run_id) from error.__cause__
        self._known = True
        self._body = body[: journal.whole]
        self._etag = etag
        self._tail = Tail.of(journal.entries)

    def handle(self, command: AppendCommand, *, now: float) -> AppendEffect:
        """Decide what comes next, at ``now`` seconds of a clock that never goes back.

        Raises InternalError for a report of something not asked for.
        """
        match command:
            case AppendEntries(entries=entries, create=create, patience=patience):
                self._entries, self._create = entries, create
                self._outage, self._refusals = Outage(patience), 0
                self._sent = None
                self._may_land = False
                if create:
                    if self._etag is not None:
                        return self._refuse(self._taken())
                    self.know(b"", None)
                return self._put(now) if self._known else GetObject()
            case Found(body=body, etag=etag):
                return self._found(body, etag, now)
            case NotFound():
                return self._not_found(now)
            case GetFailed(error=error):
                return self._ask_again(error, now)
            case GetDenied(error=error):
                return self._lose(self._doubt(with_run_id(error, self._run_id)))
            case PutDone(etag=etag):
                return self._landed(etag)
            case PutRefused() | PutUnclear():
                if isinstance(command, PutUnclear):
                    self._outage.fail(command.error, now)
                else:
                    self._refusals += 1
                self._may_land = True
                return self._look()
            case PutDenied(error=error):
                return self._refuse(self._doubt(with_run_id(error, self._run_id)))
            case _:
                assert_never(command)

    def _put(self, now: float) -> AppendEffect:
        if self._refusals == MAX_ATTEMPTS:
            return self._lose(self._contention())
        if self._outage.is_over(now):
            return self._lose(self._gone_silent(now))
        lines: list[bytes] = []
        self._outcomes = []
        tail = self._tail
        for entry in self._entries:
            try:
                check_append(tail, entry, run_id=self._run_id)
            except KassetteError as error:
                self._outcomes.append(error)
                continue
            self._outcomes.append(tail.count)
            lines.append(encode_entry(entry, tail.count))
            tail = tail.then(entry)
        if not lines:
            return Settled(self._outcomes)
        self._sent = b"".join((self._body, *lines))
        return PutObject(self._sent, self._etag)

    def _landed(self, etag: str) -> AppendEffect:
        sent = self._sent
        if sent is None:
            raise InternalError("a put succeeded that was not asked for", run_id=self._run_id)
        self._body, self._etag = sent, etag
        for entry, outcome in zip(self._entries, self._outcomes, strict=True):
            if isinstance(outcome, int):
                self._tail = self._tail.then(entry)
        return Settled(self._outcomes)

    def _look(self) -> AppendEffect:
        return GetObject(self._outage.pause(self._refusals))

    def _ask_again(self, error: BaseException, now: float) -> AppendEffect:
        self._outage.fail(error, now)
        if self._outage.is_over(now):
            return self._lose(self._gone_silent(now))
        return self._look()

    def _found(self, body: bytes, etag: str, now: float) -> AppendEffect:
        landed = self._sent is not None and body.startswith(self._sent)
        if self._is_cut_off(body, etag):
            return self._ask_again(self._cut_off(body), now)
        if self._known and not body.startswith(self._body):
            return self._lose(self._deleted("and made anew by somebody else "))
        if etag != self._etag:
            self._may_land = False
        try:
            self.know(body, etag)
        except JournalCorruptionError as error:
            return self._lose(error)
        if landed:
            return Settled(self._outcomes)
        if self._create:
            return self._refuse(self._taken())
        return self._put(now)

    def _is_cut_off(self, body: bytes, etag: str) -> bool:
        """Return whether ``body`` ends within what the object has, or may have, by what we know.

        What is known and no more under another etag is cut off too: somebody has written since.
        """
        if self._sent is None or len(body) >= len(self._sent):
            return False
        unchanged = len(body) == len(self._body) and etag == self._etag
        return self._sent.startswith(body) and not unchanged

    def _not_found(self, now: float) -> AppendEffect:
        if self._etag is not None:
            return self._lose(self._deleted())
        self.know(b"", None)
        return self._put(now)

    def _refuse(self, error: KassetteError) -> Settled:
        """Refuse the whole append; what is known of the object stays known."""
        return Settled([error] * len(self._entries))

    def _lose(self, error: KassetteError) -> Settled:
        """Refuse the whole append, and forget what is no longer certain."""
        self._known, self._body, self._etag = False, b"", None
        return self._refuse(error)

    def _doubt(self, error: KassetteError) -> KassetteError:
        """Take back that nothing was written, where an earlier put may still land."""
        if not (self._may_land and isinstance(error, StorageError) and error.rolled_back):
            return error
        doubtful = StorageError(
            f"{error}. An earlier attempt to write went unanswered and may still land",
            run_id=error.run_id,
        )
        doubtful.__cause__ = error
        return doubtful

    def _taken(self) -> UsageError:
        return UsageError(
            f"run {self._run_id!r} already has a journal; fork into a new run id",
            run_id=self._run_id,
        )

    def _contention(self) -> WriteContentionError:
        cause = self._outage.cause
        others = "" if cause is None else f" (others failed, last: {_told(cause, 'put')})"
        error = WriteContentionError(
            f"run {self._run_id!r}: {MAX_ATTEMPTS} conditional puts were refused{others}. Somebody "
            "else is writing; start the run again, its journal tells what landed",
            run_id=self._run_id,
        )
        error.__cause__ = cause
        return error

    def _gone_silent(self, now: float) -> StorageError:
        """Say that the patience is at its end, and what is known of the entries."""
        verb = "read" if self._sent is None else "append to"
        error = self._outage.error(f"{verb} the journal of run {self._run_id!r}", now)
        if self._sent is not None:
            told = f"{error}. What was sent may have landed all the same: start the run again"
            error = StorageError(f"{told}, its journal tells")
            error.__cause__ = self._outage.cause
        return with_run_id(error, self._run_id)

    def _cut_off(self, body: bytes) -> StorageError:
        return StorageError(
            f"a read gave {len(body)} bytes of the journal of run {self._run_id!r}, which had "
            f"{len(self._body)} before and has been written since: the read was cut off, or "
            "somebody restored a copy",
            run_id=self._run_id,
        )

    def _deleted(self, how: str = "") -> StorageError:
        return StorageError(
            f"the journal of run {self._run_id!r} was deleted {how}while its session was open. "
            "It is not written any more; restore the object, or start a new run id",
            run_id=self._run_id,
        )


def _told(error: BaseException | None, doing: str) -> str:
    """Return what an error says; one that is not ours may say nothing but its name."""
    return str(error) if isinstance(error, KassetteError) else f"cannot {doing}: {error!r}"
