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
- A clear refusal says that nothing was written only if no earlier put of the append may still land.
- ``MAX_ATTEMPTS`` puts, with growing pauses; then WriteContentionError.
"""

from __future__ import annotations

from collections.abc import Sequence
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
FIRST_PAUSE: Final = 0.05
MAX_PAUSE: Final = 2.0


@final
class AppendEntries(Immutable):
    """Append ``entries`` together. With ``create`` they are a whole journal, which must be new."""

    entries: Sequence[Entry]
    create: bool = False


@final
class Found(Immutable):
    """Report: the object is there."""

    body: bytes
    etag: str


@final
class NotFound(Immutable):
    """Report: there is no such object."""


@final
class GetFailed(Immutable):
    """Report: the object could not be read."""

    error: BaseException


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
    AppendEntries | Found | NotFound | GetFailed | PutDone | PutRefused | PutUnclear | PutDenied
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
        self._attempts = 0
        self._sent: bytes | None = None
        self._may_land = False
        self._outcomes: list[int | KassetteError] = []
        self._cause: BaseException | None = None

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

    def handle(self, command: AppendCommand) -> AppendEffect:
        """Decide what comes next. Raises InternalError for a report of something not asked for."""
        match command:
            case AppendEntries(entries=entries, create=create):
                self._entries, self._create = entries, create
                self._attempts, self._sent, self._cause = 0, None, None
                self._may_land = False
                if create:
                    if self._etag is not None:
                        return self._refuse(self._taken())
                    self.know(b"", None)
                return self._put() if self._known else GetObject()
            case Found(body=body, etag=etag):
                return self._found(body, etag)
            case NotFound():
                return self._not_found()
            case GetFailed(error=error):
                return self._lose(self._doubt(self._storage_error("read", error)))
            case PutDone(etag=etag):
                return self._landed(etag)
            case PutRefused() | PutUnclear():
                if isinstance(command, PutUnclear):
                    self._cause = command.error
                self._may_land = True
                return self._look()
            case PutDenied(error=error):
                return self._refuse(self._doubt(with_run_id(error, self._run_id)))
            case _:
                assert_never(command)

    def _put(self) -> AppendEffect:
        if self._attempts == MAX_ATTEMPTS:
            return self._lose(self._contention())
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
        self._attempts += 1
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
        return GetObject(min(FIRST_PAUSE * 2.0 ** (self._attempts - 1), MAX_PAUSE))

    def _found(self, body: bytes, etag: str) -> AppendEffect:
        landed = self._sent is not None and body.startswith(self._sent)
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
        return self._put()

    def _not_found(self) -> AppendEffect:
        if self._etag is not None:
            return self._lose(self._deleted())
        self.know(b"", None)
        return self._put()

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
            f"run {self._run_id!r} has a journal already; fork into a new run id",
            run_id=self._run_id,
        )

    def _contention(self) -> WriteContentionError:
        error = WriteContentionError(
            f"run {self._run_id!r}: {MAX_ATTEMPTS} conditional puts were refused or went unanswered"
            f"{f' (last: {_told(self._cause)})' if self._cause else ''}. "
            "Start the run again; its journal tells what landed",
            run_id=self._run_id,
        )
        error.__cause__ = self._cause
        return error

    def _storage_error(self, verb: str, cause: BaseException) -> KassetteError:
        if isinstance(cause, KassetteError):
            return with_run_id(cause, self._run_id)
        error = StorageError(
            f"cannot {verb} the journal of run {self._run_id!r}: {cause!r}", run_id=self._run_id
        )
        error.__cause__ = cause
        return error

    def _deleted(self, how: str = "") -> StorageError:
        return StorageError(
            f"the journal of run {self._run_id!r} was deleted {how}while its session was open. "
            "It is not written any more; restore the object, or start a new run id",
            run_id=self._run_id,
        )


def _told(error: BaseException) -> str:
    """Give what an error says; one that is not ours may say nothing but its name."""
    return str(error) if isinstance(error, KassetteError) else repr(error)
