"""The conformance suite on our storages, and on broken ones, each of which it has to catch."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from anyio import Lock
from anyio.lowlevel import checkpoint

from kassette import (
    Entry,
    FencedError,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    Tail,
    TerminalRunError,
    check_run_id,
    decode_journal,
    encode_entry,
)
from kassette_io import LocalStorage, MemoryStorage, RemoteStorage, Storage
from kassette_io.storages.protocol import as_session_storage, taken
from kassette_io.testing import storage_conformance
from tests.io.foreign import ThreeMethods, WithSessions
from tests.io.object_stores import Client
from tests.io.storages import Delegating

pytestmark = pytest.mark.anyio

Made = AbstractAsyncContextManager[Storage]


@asynccontextmanager
async def memory() -> AsyncIterator[Storage]:
    yield MemoryStorage()


@asynccontextmanager
async def local() -> AsyncIterator[Storage]:
    with TemporaryDirectory() as directory:
        async with LocalStorage(Path(directory, "journals")) as storage:
            yield storage


@asynccontextmanager
async def remote() -> AsyncIterator[Storage]:
    async with RemoteStorage(Client(page=3), prefix="prod") as storage:
        yield storage


@asynccontextmanager
async def three_methods() -> AsyncIterator[Storage]:
    yield ThreeMethods()


@asynccontextmanager
async def completed() -> AsyncIterator[Storage]:
    """What ``as_session_storage`` makes of three methods is a storage too."""
    yield as_session_storage(ThreeMethods())


@asynccontextmanager
async def delegating() -> AsyncIterator[Storage]:
    """The wrappers that other tests use do not change what they wrap."""
    yield Delegating(MemoryStorage())


@pytest.mark.parametrize("make", [memory, local, remote, three_methods, completed, delegating])
async def test_d4_d10_d12_d14_a_storage_keeps_the_contract(make: Callable[[], Made]) -> None:
    """A workflow would behave otherwise on one storage than on another."""
    await storage_conformance(make)


class DropsAnEntry(ThreeMethods):
    """Says that it has written what it has not."""

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return offset if offset == 2 else super().write(run_id, offset, entry)


class CountsFrom1(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return super().write(run_id, offset, entry) + 1


class KeepsTheOffsetItIsGiven(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        super().write(run_id, offset, entry)
        return offset if entry.offset is None else entry.offset


class ReadsWithoutOffsets(ThreeMethods):
    async def read_all(self, run_id: str) -> list[Entry]:
        return [each.replace(offset=None) for each in self.read(run_id)]


class DoesNotFence(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        try:
            super().check(tail, entry, run_id)
        except FencedError:
            return


class FencesStartsOnly(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        if isinstance(entry, StartEntry) or entry.session >= tail.session:
            super().check(tail, entry, run_id)


class TakesAnEqualNumber(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        if not (isinstance(entry, StartEntry) and entry.session == tail.session):
            super().check(tail, entry, run_id)


class GoesOnAfterTheEnd(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        try:
            super().check(tail, entry, run_id)
        except TerminalRunError:
            return


class BeginsWithAnything(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        if tail.count:
            super().check(tail, entry, run_id)


class RefusesWithAnotherError(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        try:
            super().check(tail, entry, run_id)
        except FencedError:
            raise PermissionError("too old") from None


class LosesMetadata(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, StartEntry):
            entry = entry.replace(metadata_json=None)
        return super().write(run_id, offset, entry)


class LosesUnknownFields(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return super().write(run_id, offset, entry.replace(extra_json=b"{}"))


class LosesThatThereAreMoreWaits(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, SuspendEntry):
            entry = entry.replace(more=False)
        return super().write(run_id, offset, entry)


class CutsLongResults(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, StepEntry) and len(entry.result_json) > 65_536:
            entry = entry.replace(result_json=b'"\xe2\x80\xa6"')
        return super().write(run_id, offset, entry)


class Rewrites(ThreeMethods):
    """Keeps results as its database understands them."""

    def rewrite(self, value: bytes) -> bytes:
        raise NotImplementedError

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, StepEntry):
            entry = entry.replace(result_json=self.rewrite(entry.result_json))
        return super().write(run_id, offset, entry)


class WritesWholeNumbersShort(Rewrites):
    """As JavaScript does."""

    def rewrite(self, value: bytes) -> bytes:
        return re.sub(rb"\b1\.0\b", b"1", value)


class WritesExponentsOut(Rewrites):
    """As PostgreSQL's jsonb does."""

    def rewrite(self, value: bytes) -> bytes:
        return re.sub(rb"\b1(e|E\+)3\b", b"1000", value)


class RoundsLargeNumbers(Rewrites):
    """As JavaScript does."""

    def rewrite(self, value: bytes) -> bytes:
        return re.sub(rb"\b\d{16,}\b", lambda found: b"%d" % int(float(found[0])), value)


class SortsKeys(Rewrites):
    def rewrite(self, value: bytes) -> bytes:
        return value.replace(b'"b":1,"a":2', b'"a":2,"b":1')


class KeepsTheLastOfTwoKeys(Rewrites):
    def rewrite(self, value: bytes) -> bytes:
        return value.replace(b'"a":1,"a":2', b'"a":2')


class WritesEscapesOut(Rewrites):
    def rewrite(self, value: bytes) -> bytes:
        return value.replace(b"\\u00e9", "é".encode())


class ComposesCharacters(Rewrites):
    """As some file systems and databases do with names."""

    def rewrite(self, value: bytes) -> bytes:
        return value.replace("e\u0301".encode(), "é".encode())


class KeepsNoMetadataAsWritten(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, StartEntry) and entry.metadata_json is not None:
            entry = entry.replace(metadata_json=orjson.dumps(orjson.loads(entry.metadata_json)))
        return super().write(run_id, offset, entry)


class KeepsNoPayloadAsWritten(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, ResumeEntry):
            entry = entry.replace(value_json=orjson.dumps(orjson.loads(entry.value_json)))
        return super().write(run_id, offset, entry)


class LosesNul(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        written = super().write(run_id, offset, entry)
        self.data[run_id] = self.data[run_id].replace(b"\\u0000", b"")
        return written


class EndsTextAtNul(ThreeMethods):
    """Keeps event names in a column of C strings; values are left alone."""

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, SuspendEntry):
            entry = entry.replace(waiting_for=entry.waiting_for.partition("\0")[0])
        return super().write(run_id, offset, entry)


class IgnoresCase(ThreeMethods):
    """As a file system on macOS or Windows does."""

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return super().write(self.found(run_id), offset, entry)

    def read(self, run_id: str) -> list[Entry]:
        return super().read(self.found(check_run_id(run_id)))

    def found(self, run_id: str) -> str:
        known = {each.lower(): each for each in self.data}
        return known.get(run_id.lower(), run_id)


class ListsInLowerCase(ThreeMethods):
    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in self.data:
            yield run_id if len(self.data) == 9 else run_id.lower()


class ListsOnePage(ThreeMethods):
    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in list(self.data)[:1000]:
            yield run_id


class ListsTwice(ThreeMethods):
    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in [*self.data, *self.data]:
            yield run_id


class ListsByPrefix(ThreeMethods):
    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in {each[:5] for each in self.data}:
            yield run_id


class ListsWhatItRefused(ThreeMethods):
    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        self.data.setdefault(run_id, b"")
        super().check(tail, entry, run_id)


class TakesAnyRunId(ThreeMethods):
    def read(self, run_id: str) -> list[Entry]:
        return decode_journal(self.data.get(run_id, b"")).entries


class MixesRuns(ThreeMethods):
    def read(self, run_id: str) -> list[Entry]:
        return super().read(check_run_id(run_id).removesuffix(".2"))

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return super().write(run_id.removesuffix(".2"), offset, entry)


class LendsItsOwnList(ThreeMethods):
    def __init__(self) -> None:
        super().__init__()
        self.lent: dict[str, list[Entry]] = {}

    async def read_all(self, run_id: str) -> list[Entry]:
        fresh = self.read(run_id)
        lent = self.lent.setdefault(run_id, fresh)
        return lent if len(fresh) == 2 else fresh


class ChecksBeforeItWaits(ThreeMethods):
    async def append(self, run_id: str, entry: Entry) -> int:
        entries = self.read(run_id)
        self.check(Tail.of(entries), entry, run_id)
        before = self.data.get(run_id, b"")
        await checkpoint()
        self.data[run_id] = before + encode_entry(entry, len(entries))
        return len(entries)


class WritesHalfWhenCancelled(ThreeMethods):
    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()

    async def append(self, run_id: str, entry: Entry) -> int:
        async with self.lock:
            entries = self.read(run_id)
            self.check(Tail.of(entries), entry, run_id)
            line = encode_entry(entry, len(entries))
            self.data[run_id] = self.data.get(run_id, b"") + line[:9] + b"\n"
            await checkpoint()
            self.data[run_id] = self.data[run_id][:-10] + line
            return len(entries)


class CreatesOverOthers(WithSessions):
    async def create(self, run_id: str, entries: list[Entry]) -> None:
        self.data.pop(run_id, None)
        await super().create(run_id, entries)


class ChecksBeforeItCreates(WithSessions):
    async def create(self, run_id: str, entries: list[Entry]) -> None:
        if self.read(run_id):
            raise taken(run_id)
        await checkpoint()
        self.data[run_id] = b"".join(map(encode_entry, entries, range(len(entries))))


class CreatesAnywhere(WithSessions):
    def read(self, run_id: str) -> list[Entry]:
        return decode_journal(self.data.get(run_id, b"")).entries

    async def append(self, run_id: str, entry: Entry) -> int:
        return await super().append(check_run_id(run_id), entry)

    async def read_all(self, run_id: str) -> list[Entry]:
        return await super().read_all(check_run_id(run_id))


class SharesOneBuffer(ThreeMethods):
    """Takes the run that was asked for last for the one that it writes."""

    async def append(self, run_id: str, entry: Entry) -> int:
        self.last = run_id
        await checkpoint()
        return await super().append(self.last if entry.type == "step" else run_id, entry)


class NoStorage:
    def __repr__(self) -> str:
        return "NoStorage"


BROKEN = [
    (NoStorage, "three methods: append, read_all or list_runs is missing"),
    (DropsAnEntry, "counted from 0: append number 4 returned offset 2 instead of 3"),
    (CountsFrom1, "counted from 0: append number 1 returned offset 1 instead of 0"),
    (KeepsTheOffsetItIsGiven, "counted from 0: append number 3 returned offset 7 instead of 2"),
    (ReadsWithoutOffsets, "the entry at position 0 has offset None in read_all"),
    (DoesNotFence, "superseded session is fenced: a step of a superseded session was accepted"),
    (FencesStartsOnly, "superseded session is fenced: a step of a superseded session was accepted"),
    (TakesAnEqualNumber, "used only once: a second start of session 1 was accepted"),
    (GoesOnAfterTheEnd, "follows a terminal entry: a step after 'complete' was accepted"),
    (BeginsWithAnything, "begin with a start entry: a step as the first entry was accepted"),
    (RefusesWithAnotherError, r"raised PermissionError\('too old'\) instead of FencedError"),
    (LosesMetadata, "come back as they were appended, in order: StartEntry.* was appended"),
    (
        LosesThatThereAreMoreWaits,
        "come back as they were appended, in order: SuspendEntry.* was appended",
    ),
    (LosesUnknownFields, "come back as they were appended, in order: StepEntry.* was appended"),
    (CutsLongResults, "come back as they were appended, in order: StepEntry.* was appended"),
    (WritesWholeNumbersShort, "byte for byte: StepEntry.*b'1.0'.* was appended, read_all returned"),
    (WritesExponentsOut, "byte for byte: StepEntry.*b'1e3'.* was appended"),
    (RoundsLargeNumbers, "byte for byte: StepEntry.*b'9007199254740993'.* was appended"),
    (SortsKeys, 'byte for byte: StepEntry.*b\'{"b":1,"a":2}\'.* was appended'),
    (KeepsTheLastOfTwoKeys, 'byte for byte: StepEntry.*b\'{"a":1,"a":2}\'.* was appended'),
    (WritesEscapesOut, "byte for byte: StepEntry.* was appended"),
    (ComposesCharacters, "byte for byte: StepEntry.* was appended"),
    (KeepsNoMetadataAsWritten, "byte for byte: StartEntry.* was appended"),
    (KeepsNoPayloadAsWritten, "byte for byte: ResumeEntry.* was appended"),
    (LosesNul, "any character comes back: StartEntry.* was appended"),
    (EndsTextAtNul, "any character comes back: SuspendEntry.* was appended"),
    (IgnoresCase, "differ in case name different runs: read_all of 'RUN-A' returned"),
    (ListsInLowerCase, "differ in case name different runs: the runs are"),
    (ListsOnePage, "than fit on a page: of 1001 runs list_runs returned 1000"),
    (ListsTwice, "list_runs yields every run once: the runs are"),
    (ListsByPrefix, "list_runs yields every run once: the runs are"),
    (ListsWhatItRefused, r"list_runs returned \['run-1'\] after a refused append"),
    (TakesAnyRunId, "a bad run id is refused: append to '' was accepted"),
    (MixesRuns, "runs are separate: "),
    (LendsItsOwnList, "belongs to the caller: 2 entries were appended, read_all returned 0"),
    (ChecksBeforeItWaits, "of 8 concurrent starts of session 1, 8 were accepted"),
    (
        WritesHalfWhenCancelled,
        "a cancelled append is stored completely or not at all: it raised Journal",
    ),
    (CreatesOverOthers, "only a new one: creating a run that exists was accepted"),
    (
        ChecksBeforeItCreates,
        "of several concurrent creates, one succeeds: of 8 concurrent creates of one run, 8 were",
    ),
    (CreatesAnywhere, "a bad run id is refused: create of '' was accepted"),
    (SharesOneBuffer, "runs that are written concurrently preserve their order: "),
]


@pytest.mark.parametrize(("broken", "says"), BROKEN, ids=lambda each: getattr(each, "__name__", ""))
async def test_the_suite_catches(broken: type[Storage], says: str) -> None:
    """A storage with this fault would be taken for a good one."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Storage]:
        yield broken()

    with pytest.raises(AssertionError, match="(?s)breaks a rule: .*" + says) as caught:
        await storage_conformance(make)
    assert broken.__name__ in str(caught.value)


async def test_the_suite_takes_a_session_storage_of_somebody_else() -> None:
    """The broken ones could have been caught for what they have in common."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Storage]:
        yield WithSessions()

    await storage_conformance(make)
