"""The append loop of a journal that is one object in a store; gets and puts are effects.

The loop: put the whole journal with the new lines, on the condition that the object is still the
known version; read only if that fails. A writer that knows the object appends with one put.

Rules:
- A put that was refused (412), that met a concurrent put (409), or whose response was lost is
  inconclusive. The journal is read back, and its contents decide: if it begins with exactly the
  bytes that were put, they were written (a line has its session and offset, a ``start`` its
  writer); otherwise the append is decided again on what was read.
- If nothing has changed, the identical bytes are put again under the same condition: the first
  attempt may still succeed, and then the second is refused and finds it.
- If the object has changed, the first attempt can never succeed, since its condition cannot become
  true again: a journal only grows.
- A known journal that is missing was deleted, and is never recreated. One that no longer begins
  with its known bytes was deleted and recreated by another writer: it is a different run.
- A definite refusal (403, 501, a missing bucket) ends the append immediately. It guarantees that
  nothing was written only if no earlier put of the append may still succeed.
- A body that ends within the bytes that the writer knows, or has put, is incomplete, because
  objects are replaced as a whole. It counts as no usable response, and nothing is built on it. (If
  nothing is known yet, only the client can detect this, and must.)

Two things can delay an append, and each has its own budget:
- *Contention.* ``MAX_ATTEMPTS`` refused puts (five, as in the TypeScript kassette), with backoff;
  then WriteContentionError.
- *An outage*: no usable response. The request is retried, with backoff, until ``patience`` seconds
  have passed since the first such failure; then StorageError. Giving up loses results that cost
  money and are recorded nowhere else, and servers restart within seconds, so waiting pays. The
  limit is a time and not a number of attempts, because these fail at different speeds. A put
  without a response is looked for at least once, however short the patience.
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
"""How long, in seconds, an append retries during an outage by default.

It is several times what a server needs to restart or fail over. More would rarely help, and a
process that is told to stop has to wait for its appends.
"""
FIRST_PAUSE: Final = 0.05
MAX_PAUSE: Final = 2.0


@final
class AppendEntries(Immutable):
    """Append ``entries`` together. With ``create`` they are a whole journal, which must be new.

    ``patience`` is how many seconds requests without a usable response are retried.
    """

    entries: Sequence[Entry]
    create: bool = False
    patience: float = PATIENCE


@final
class Found(Immutable):
    """Report: the object exists, and ``body`` is certainly complete."""

    body: bytes
    etag: str


@final
class NotFound(Immutable):
    """Report: the store itself says that the object does not exist."""


@final
class GetFailed(Immutable):
    """Report: no usable response to a get: a timeout, a lost connection, a 5xx, half a body."""

    error: BaseException


@final
class GetDenied(Immutable):
    """Report: a definite refusal of a get, for which a retry is useless (403)."""

    error: KassetteError


@final
class PutDone(Immutable):
    """Report: the put succeeded; the object now has this etag."""

    etag: str


@final
class PutRefused(Immutable):
    """Report: the condition failed (412, 404), or another put was in progress (409)."""


@final
class PutUnclear(Immutable):
    """Report: no conclusive response to a put: a timeout, a lost connection, a 5xx."""

    error: BaseException


@final
class PutDenied(Immutable):
    """Report: a definite refusal, for which a retry is useless (403); nothing was written."""

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
    """Read the object, after a random fraction of ``pause`` seconds."""

    pause: float = 0.0


@final
class PutObject(Immutable):
    """Put ``body`` if the object's etag is still ``etag``; with None, if it does not exist."""

    body: bytes
    etag: str | None


@final
class Settled(Immutable):
    """The outcome of the append: for each entry its offset, or the error."""

    outcomes: list[int | KassetteError]


AppendEffect: TypeAlias = GetObject | PutObject | Settled


@final
class Outage:
    """How long and how often requests are retried during an outage.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since = inf
        self._failures = 0
        self.cause: BaseException | None = None

    def fail(self, cause: BaseException, now: float) -> None:
        """Record a request without a usable response."""
        self._since = min(self._since, now)
        self._failures += 1
        self.cause = cause

    def is_over(self, now: float) -> bool:
        """Return whether there is an outage that has lasted longer than the patience."""
        return now - self._since >= self._patience

    def pause(self, refusals: int = 0) -> float:
        """Return the longest pause in seconds, after the failures so far and some refusals."""
        doublings = min(self._failures + refusals - 1, 10)
        return float(min(FIRST_PAUSE * 2.0**doublings, MAX_PAUSE))

    def error(self, doing: str, now: float) -> StorageError:
        """Return the error to raise when the outage has outlasted the patience."""
        told = f"{_told(self.cause, doing)}; no usable response for {now - self._since:.1f} s"
        error = StorageError(told)
        error.__cause__ = self.cause
        return error


@final
class ObjectWriter:
    """What a writer of run ``run_id`` knows about its object, and the append in progress."""

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
        """Set the object's state from a get; an etag of None means that it does not exist.

        Raise JournalCorruptionError for a damaged journal.
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
        """Return the next effect, at ``now`` seconds of a monotonic clock.

        Raise InternalError for a report of something that was not requested.
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
            raise InternalError("a put succeeded that was not requested", run_id=self._run_id)
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
            return self._lose(self._deleted("and recreated by another writer "))
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
        """Return whether ``body`` ends within the bytes that the object must have.

        The known bytes alone under another etag are incomplete too: another writer has appended.
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
        """Refuse the whole append; the known state of the object is still valid."""
        return Settled([error] * len(self._entries))

    def _lose(self, error: KassetteError) -> Settled:
        """Refuse the whole append, and forget the state that is no longer certain."""
        self._known, self._body, self._etag = False, b"", None
        return self._refuse(error)

    def _doubt(self, error: KassetteError) -> KassetteError:
        """Return the error without ``rolled_back`` if an earlier put may still succeed."""
        if not (self._may_land and isinstance(error, StorageError) and error.rolled_back):
            return error
        doubtful = StorageError(
            f"{error}. An earlier write got no response and may still succeed",
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
            f"run {self._run_id!r}: {MAX_ATTEMPTS} conditional writes were refused{others}, so "
            "another session is writing. Start the run again; its journal shows what was recorded",
            run_id=self._run_id,
        )
        error.__cause__ = cause
        return error

    def _gone_silent(self, now: float) -> StorageError:
        """Return the error for an outage, with what is known about the entries."""
        verb = "read" if self._sent is None else "append to"
        error = self._outage.error(f"{verb} the journal of run {self._run_id!r}", now)
        if self._sent is not None:
            told = f"{error}. The entry may have been written all the same: start the run again"
            error = StorageError(f"{told}; its journal shows whether it was")
            error.__cause__ = self._outage.cause
        return with_run_id(error, self._run_id)

    def _cut_off(self, body: bytes) -> StorageError:
        return StorageError(
            f"a read returned {len(body)} bytes of the journal of run {self._run_id!r}, which had "
            f"{len(self._body)} before and has been written since: the read was incomplete, or "
            "an old copy was restored",
            run_id=self._run_id,
        )

    def _deleted(self, how: str = "") -> StorageError:
        return StorageError(
            f"the journal of run {self._run_id!r} was deleted {how}while its session was open. "
            "It is no longer written; restore the object, or use a new run id",
            run_id=self._run_id,
        )


def _told(error: BaseException | None, doing: str) -> str:
    """Return the message of an error; for one that is not ours, with its type."""
    return str(error) if isinstance(error, KassetteError) else f"cannot {doing}: {error!r}"
