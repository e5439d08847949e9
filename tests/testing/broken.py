"""Storages that break one promise each, for the conformance suite to find."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from kassette import (
    Entry,
    FencedError,
    KassetteError,
    StartEntry,
    StepEntry,
    Tail,
    TerminalRunError,
    UsageError,
    check_run_id,
    encode_entry,
    is_terminal,
)
from kassette_io.storages.protocol import taken
from tests.io.foreign import ThreeMethods, WithSessions

# --- reading and listing -----------------------------------------------------------------------


class GivesNone(ThreeMethods):
    """For a run that is unknown, as ``dict.get`` does."""

    async def read_all(self, run_id: str) -> Any:
        return self.read(run_id) or None


class ListsItsIndex(ThreeMethods):
    async def list_runs(self) -> AsyncIterator[str]:
        yield "index"


class CountsInFloats(ThreeMethods):
    """As JavaScript does."""

    async def append(self, run_id: str, entry: Entry) -> Any:
        return float(await super().append(run_id, entry))


class LosesResults(ThreeMethods):
    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        if isinstance(entry, StepEntry):
            entry = entry.replace(result_json=b"null")
        return super().write(run_id, offset, entry)


class ListsAllBut(ThreeMethods):
    def hides(self, run_id: str) -> bool:
        raise NotImplementedError

    async def list_runs(self) -> AsyncIterator[str]:
        for run_id in self.data:
            if not self.hides(run_id):
                yield run_id


class HidesWhatBeginsAlike(ListsAllBut):
    """Goes on behind the last key, and takes longer ones for a part of it."""

    def hides(self, run_id: str) -> bool:
        return any(run_id.startswith(each) for each in self.data if each != run_id)


class HidesDevices(ListsAllBut):
    """As Windows does."""

    def hides(self, run_id: str) -> bool:
        return run_id in ("con", "prn", "aux", "nul")


class HidesNumbers(ListsAllBut):
    def hides(self, run_id: str) -> bool:
        return run_id.isdecimal()


class HidesPunctuation(ListsAllBut):
    def hides(self, run_id: str) -> bool:
        return not any(map(str.isalnum, run_id))


class ReadsByPrefix(ThreeMethods):
    async def read_all(self, run_id: str) -> list[Entry]:
        return [each for key in self.data if key.startswith(run_id) for each in self.read(key)]


class ReadsWithoutVersion(ThreeMethods):
    """Takes what is behind the dot for a version of the run."""

    async def read_all(self, run_id: str) -> list[Entry]:
        return self.read(run_id.partition(".")[0])


class MarksCapitals(ThreeMethods):
    """Tells capitals apart on a disk that does not: by one mark for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, str] = {}

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        self.names[self.marked(run_id)] = run_id
        return super().write(self.marked(run_id), offset, entry)

    def read(self, run_id: str) -> list[Entry]:
        return super().read(self.marked(check_run_id(run_id)))

    async def list_runs(self) -> AsyncIterator[str]:
        for marked in self.data:
            yield self.names[marked]

    def marked(self, run_id: str) -> str:
        return run_id if run_id == run_id.lower() else f"+{run_id.lower()[:199]}"


class IgnoresCaseOfKnownRuns(ThreeMethods):
    """Finds the last one in an index that ignores case."""

    async def read_all(self, run_id: str) -> list[Entry]:
        alike = [each for each in self.data if each.lower() == run_id.lower()]
        return self.read(alike[-1] if run_id in self.data else run_id)


# --- refusing ----------------------------------------------------------------------------------


class Accepts(ThreeMethods):
    """Lets pass some of what it should refuse."""

    def passes(self, tail: Tail, entry: Entry) -> bool:
        raise NotImplementedError

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        if not self.passes(tail, entry):
            super().check(tail, entry, run_id)


class AcceptsNewerSteps(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return entry.session > tail.session > 0


class AcceptsOlderEnds(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return entry.session < tail.session and is_terminal(entry)


class AcceptsOlderStarts(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return entry.session < tail.session and isinstance(entry, StartEntry)


class AcceptsEqualStarts(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return entry.session == tail.session and isinstance(entry, StartEntry)


class GoesOnAfterErrors(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return tail.terminal == "error"


class GoesOnAfterCancels(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return tail.terminal == "cancel"


class StartsAfterTheEnd(Accepts):
    def passes(self, tail: Tail, entry: Entry) -> bool:
        return tail.terminal is not None and isinstance(entry, StartEntry)


class WritesWhatItRefuses(ThreeMethods):
    """Checks too late."""

    refused: type[KassetteError]

    def concerns(self, tail: Tail, entry: Entry) -> bool:
        return True

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        try:
            super().check(tail, entry, run_id)
        except self.refused:
            if self.concerns(tail, entry):
                self.write(run_id, tail.count, entry)
            raise


class WritesBeforeTheStart(WritesWhatItRefuses):
    refused = UsageError

    def concerns(self, tail: Tail, entry: Entry) -> bool:
        return tail.count == 0


class WritesWithoutAStart(WritesWhatItRefuses):
    refused = UsageError

    def concerns(self, tail: Tail, entry: Entry) -> bool:
        return tail.count > 0


class WritesWhatItFences(WritesWhatItRefuses):
    refused = FencedError

    def concerns(self, tail: Tail, entry: Entry) -> bool:
        return isinstance(entry, StepEntry)


class WritesAfterTheEnd(WritesWhatItRefuses):
    refused = TerminalRunError


class LetsTheSecondSign(ThreeMethods):
    """Refuses a second start, and names its writer as that of the first."""

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        if isinstance(entry, StartEntry) and entry.session == tail.session == tail.count == 1:
            self.data[run_id] = encode_entry(entry, 0)
        super().check(tail, entry, run_id)


# --- at once -----------------------------------------------------------------------------------


class SharesOneEntry(ThreeMethods):
    """Takes the entry that was given last for the one that it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Entry] = []

    async def append(self, run_id: str, entry: Entry) -> int:
        self.given.insert(0, entry)
        await checkpoint()
        last = next((each for each in self.given if each is not entry), entry)
        try:
            return await super().append(run_id, last if isinstance(entry, StartEntry) else entry)
        finally:
            self.given.remove(entry)


class LosesOneOfMany(ThreeMethods):
    """Has room for so many at once."""

    def write(self, run_id: str, offset: int, entry: Entry) -> int:
        return offset if offset == 30 else super().write(run_id, offset, entry)


class WritesABatchBackwards(ThreeMethods):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, list[Entry]] = {}

    async def append(self, run_id: str, entry: Entry) -> int:
        if not isinstance(entry, StepEntry):
            return await super().append(run_id, entry)
        entries = self.read(run_id)
        self.check(Tail.of(entries), entry, run_id)
        waiting = self.waiting.setdefault(run_id, [])
        waiting.append(entry)
        offset = len(entries) + len(waiting) - 1
        await checkpoint()
        while waiting:
            self.write(run_id, len(self.read(run_id)), waiting.pop())
        return offset


class LeavesGaps(ThreeMethods):
    """As the sequences of databases do."""

    async def append(self, run_id: str, entry: Entry) -> int:
        return self.number(await super().append(run_id, entry))

    async def read_all(self, run_id: str) -> list[Entry]:
        return [each.at(self.number(offset)) for offset, each in enumerate(self.read(run_id))]

    def number(self, offset: int) -> int:
        return offset if offset < 20 else offset + 1


class RepeatsWhatIsCancelled(ThreeMethods):
    async def append(self, run_id: str, entry: Entry) -> int:
        offset = await super().append(run_id, entry)
        try:
            for _ in range(6):
                await checkpoint()
        except get_cancelled_exc_class():
            self.write(run_id, offset + 1, entry)
            raise
        return offset


class CountsWhatIsCancelled(ThreeMethods):
    def __init__(self) -> None:
        super().__init__()
        self.gone: dict[str, int] = {}

    async def append(self, run_id: str, entry: Entry) -> int:
        try:
            await checkpoint()
        except get_cancelled_exc_class():
            self.gone[run_id] = 1
            raise
        return await super().append(run_id, entry) + self.gone.get(run_id, 0)


class WritesLaterWhatIsCancelled(ThreeMethods):
    """Leaves it in a queue, for whoever comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: dict[str, Entry] = {}

    async def append(self, run_id: str, entry: Entry) -> int:
        try:
            await checkpoint()
        except get_cancelled_exc_class():
            self.queue[run_id] = entry
            raise
        offset = await super().append(run_id, entry)
        if run_id in self.queue:
            self.write(run_id, offset + 1, self.queue.pop(run_id))
        return offset


# --- recovering and forking --------------------------------------------------------------------


class ShowsLessAtRest(WithSessions):
    """Has put away a part of what a session that has signed left behind, while nobody holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.at_rest: set[str] = set()

    def left(self, entry: Entry) -> Entry | None:
        raise NotImplementedError

    def read(self, run_id: str) -> list[Entry]:
        found = super().read(run_id)
        signed = any(isinstance(each, StartEntry) and each.writer is not None for each in found)
        if not signed or run_id not in self.at_rest:
            return found
        return [each for each in map(self.left, found) if each is not None]

    async def append(self, run_id: str, entry: Entry) -> int:
        offset = await super().append(run_id, entry)
        self.at_rest.discard(run_id)
        return offset

    async def release(self, run_id: str, session: int) -> None:
        self.at_rest.add(run_id)


class PutsMetadataAway(ShowsLessAtRest):
    def left(self, entry: Entry) -> Entry:
        return entry.replace(metadata_json=None) if isinstance(entry, StartEntry) else entry


class PutsResultsAway(ShowsLessAtRest):
    def left(self, entry: Entry) -> Entry:
        return entry.replace(result_json=b'"gone"') if isinstance(entry, StepEntry) else entry


class PutsEndsAway(ShowsLessAtRest):
    def left(self, entry: Entry) -> Entry | None:
        return None if is_terminal(entry) else entry


class ArchivesResults(PutsResultsAway):
    """Only those of runs that are over."""

    def read(self, run_id: str) -> list[Entry]:
        found = WithSessions.read(self, run_id)
        return super().read(run_id) if Tail.of(found).terminal else found


class CannotAppendToWhatItCreated(WithSessions):
    def __init__(self) -> None:
        super().__init__()
        self.created: set[str] = set()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        await super().create(run_id, entries)
        self.created.add(run_id)

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        if run_id in self.created:
            raise PermissionError(run_id)
        super().check(tail, entry, run_id)


# --- sessions ----------------------------------------------------------------------------------


class CountsWhatItCreates(WithSessions):
    """The first append after it is given the number of the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.created: set[str] = set()

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        await super().create(run_id, entries)
        self.created.add(run_id)

    async def append(self, run_id: str, entry: Entry) -> int:
        offset = await super().append(run_id, entry)
        return offset + 1 if run_id in self.created else offset


class EmptiesWhatItRefuses(WithSessions):
    async def create(self, run_id: str, entries: list[Entry]) -> None:
        known = bool(self.read(run_id))
        self.data.pop(run_id, None)
        await super().create(run_id, entries)
        if known:
            raise taken(run_id)


class CreatesWhatCameLast(WithSessions):
    def __init__(self) -> None:
        super().__init__()
        self.given: list[list[Entry]] = []

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        self.given.insert(0, entries)
        await checkpoint()
        await super().create(
            run_id, next((each for each in self.given if each is not entries), entries)
        )


class Holding(WithSessions):
    """Remembers what it holds, and whom it has let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go: list[tuple[str, int]] = []
        self.abandoned: list[str] = []

    async def append(self, run_id: str, entry: Entry) -> int:
        if isinstance(entry, StartEntry):
            self.let_go.clear()
        return await super().append(run_id, entry)


class ReleasesOnlyOnce(Holding):
    async def release(self, run_id: str, session: int) -> None:
        if (run_id, session) in self.let_go:
            raise KeyError(run_id, session)
        self.let_go.append((run_id, session))


class ReleasesOnlySessions(Holding):
    async def release(self, run_id: str, session: int) -> None:
        if run_id in self.data and session > Tail.of(self.read(run_id)).session:
            raise KeyError(run_id, session)


class ReleasesOnlyRuns(Holding):
    async def release(self, run_id: str, session: int) -> None:
        if run_id not in self.data:
            raise KeyError(run_id, session)


class ReleasesWhoeverHolds(Holding):
    """Takes an old session's release for one of the session that is open."""

    async def release(self, run_id: str, session: int) -> None:
        self.let_go.append((run_id, Tail.of(self.read(run_id)).session))

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        super().check(tail, entry, run_id)
        if (run_id, entry.session) in self.let_go:
            raise PermissionError(run_id, entry.session)


class AbandonsOnlyOnce(Holding):
    def abandon(self, run_id: str, session: int) -> None:
        if (run_id, session) in self.let_go:
            raise KeyError(run_id, session)
        self.let_go.append((run_id, session))


class ForgetsWhatWasAbandoned(Holding):
    def abandon(self, run_id: str, session: int) -> None:
        self.abandoned.append(run_id)

    async def release(self, run_id: str, session: int) -> None:
        if run_id in self.abandoned:
            raise KeyError(run_id, session)


class AbandonsTheLastEntry(Holding):
    """Throws away what it has not sent yet."""

    def abandon(self, run_id: str, session: int) -> None:
        if run_id not in self.abandoned:
            self.data[run_id] = b"".join(self.data[run_id].splitlines(keepends=True)[:-1])
        self.abandoned.append(run_id)
