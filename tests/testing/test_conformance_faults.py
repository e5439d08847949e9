"""Each rule of the conformance suite, checked by itself: on storages that break this one alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kassette import (
    Entry,
    ResumeEntry,
    StartEntry,
    SuspendEntry,
    Tail,
    UsageError,
    WriteContentionError,
    check_run_id,
    decode_journal,
)
from kassette_io import Storage
from kassette_io.testing import conformance, storage_conformance
from tests.io.foreign import ThreeMethods, WithSessions, verdict
from tests.testing.broken import (
    AbandonsOnlyOnce,
    AbandonsTheLastEntry,
    AcceptsEqualStarts,
    AcceptsNewerSteps,
    AcceptsOlderEnds,
    AcceptsOlderStarts,
    ArchivesResults,
    CannotAppendToWhatItCreated,
    CountsInFloats,
    CountsWhatIsCancelled,
    CountsWhatItCreates,
    CreatesWhatCameLast,
    EmptiesWhatItRefuses,
    ForgetsWhatWasAbandoned,
    GivesNone,
    GoesOnAfterCancels,
    GoesOnAfterErrors,
    HidesDevices,
    HidesNumbers,
    HidesPunctuation,
    HidesWhatBeginsAlike,
    IgnoresCaseOfKnownRuns,
    LeavesGaps,
    LetsTheSecondSign,
    ListsItsIndex,
    LosesOneOfMany,
    LosesResults,
    MarksCapitals,
    PutsEndsAway,
    PutsMetadataAway,
    PutsResultsAway,
    ReadsByPrefix,
    ReadsWithoutVersion,
    ReleasesOnlyOnce,
    ReleasesOnlyRuns,
    ReleasesOnlySessions,
    ReleasesWhoeverHolds,
    RepeatsWhatIsCancelled,
    SharesOneEntry,
    StartsAfterTheEnd,
    WritesABatchBackwards,
    WritesAfterTheEnd,
    WritesBeforeTheStart,
    WritesLaterWhatIsCancelled,
    WritesWhatItFences,
    WritesWithoutAStart,
)

pytestmark = pytest.mark.anyio


EMPTY = "an unknown run has no entries"
COUNTED = "the storage assigns offsets, counted from 0"
BEGUN = "a journal and a session begin with a start entry"
FENCED = "a superseded session is fenced"
ONCE = "a session number is used only once"
RACE = "of several sessions opened concurrently, one owns the run"
OVER = "nothing follows a terminal entry"
AT_ONCE = "concurrent appends are all stored"
CANCELLED = "a cancelled append is stored completely or not at all"
LISTED = "list_runs yields every run once"
APART = "runs are separate"
CASE = "run ids that differ in case name different runs"
RECOVERED = "a run recovers and can be forked"
CREATED = "create writes a whole journal, and only a new one"
CREATES = "of several concurrent creates, one succeeds"
RELEASED = "a released session lets the next one open"
EITHER = "FencedError or WriteContentionError"

FAULTS: list[tuple[type[ThreeMethods], str, str]] = [
    (GivesNone, EMPTY, "read_all returned None"),
    (ListsItsIndex, EMPTY, "list_runs of an empty storage returned ['index']"),
    (CountsInFloats, COUNTED, "append number 1 returned offset 0.0 instead of 0"),
    (
        LosesResults,
        COUNTED,
        "StepEntry(*b'\"a\"'* was appended, read_all returned StepEntry(*b'null'*)",
    ),
    (HidesWhatBeginsAlike, LISTED, "the runs are ['-', '9', 'A-Z_0.9', 'A:b@c+d_e.f', 'a..b', *"),
    (HidesDevices, LISTED, "the runs are ['-', '9', 'A-Z_0.9', 'A:b@c+d_e.f', 'a..b', 'con', *"),
    (HidesNumbers, LISTED, "the runs are ['-', '9', 'A-Z_0.9', 'A:b@c+d_e.f', 'a..b', 'con', *"),
    (HidesPunctuation, LISTED, "the runs are ['-', '9', 'A-Z_0.9', 'A:b@c+d_e.f', 'a..b', *"),
    (ReadsByPrefix, APART, "3 entries were appended, read_all returned 5"),
    (ReadsWithoutVersion, APART, "2 entries were appended, read_all returned 3"),
    (MarksCapitals, CASE, "read_all of 'Run-a' returned [StartEntry(*], which is another run's"),
    (IgnoresCaseOfKnownRuns, CASE, "StepEntry(*step_id='run-a'* returned StepEntry(*='Run-a'*)"),
    (
        AcceptsNewerSteps,
        BEGUN,
        "a step of a session without a start was accepted (it returned 1) instead of raising UsageError",
    ),
    (
        AcceptsOlderEnds,
        FENCED,
        "a complete of a superseded session was accepted (it returned 3) instead of raising FencedError",
    ),
    (
        AcceptsOlderStarts,
        FENCED,
        f"a start of a superseded session was accepted (it returned 3) instead of raising {EITHER}",
    ),
    (
        AcceptsEqualStarts,
        ONCE,
        f"a second start of session 1 was accepted (it returned 1) instead of raising {EITHER}",
    ),
    (
        GoesOnAfterErrors,
        OVER,
        "a step after 'error' was accepted (it returned 2) instead of raising TerminalRunError",
    ),
    (
        GoesOnAfterCancels,
        OVER,
        "a step after 'cancel' was accepted (it returned 2) instead of raising TerminalRunError",
    ),
    (
        StartsAfterTheEnd,
        OVER,
        "a new session after 'complete' was accepted (it returned 2) instead of raising TerminalRunError",
    ),
    (WritesBeforeTheStart, BEGUN, "0 entries were appended, read_all returned 1"),
    (WritesWithoutAStart, BEGUN, "1 entries were appended, read_all returned 2"),
    (WritesWhatItFences, FENCED, "4 entries were appended, read_all returned 5"),
    (WritesAfterTheEnd, OVER, "2 entries were appended, read_all returned 4"),
    (LetsTheSecondSign, ONCE, "StartEntry(*'first'* was appended, read_all returned *'second'*)"),
    (SharesOneEntry, RACE, "StartEntry(* was appended, read_all returned StartEntry(*)"),
    (LosesOneOfMany, AT_ONCE, "of 30 concurrent appends the journal has 29"),
    (WritesABatchBackwards, AT_ONCE, "append returned other offsets than read_all"),
    (LeavesGaps, AT_ONCE, "the offsets are not 1 to 30"),
    (RepeatsWhatIsCancelled, CANCELLED, "the journal has 3 entries after it"),
    (CountsWhatIsCancelled, CANCELLED, "the next append returned offset 2, not 1"),
    (
        WritesLaterWhatIsCancelled,
        CANCELLED,
        "2 entries were appended, read_all returned 3",
    ),
    (PutsMetadataAway, RECOVERED, "the metadata came back as None"),
    (PutsResultsAway, RECOVERED, "a recorded step returned 'gone' in the next session"),
    (
        PutsEndsAway,
        RECOVERED,
        "starting a run that is over was accepted (it returned None) instead of raising TerminalRunError",
    ),
    (ArchivesResults, RECOVERED, "a recorded step returned 'gone' in a fork"),
    (CannotAppendToWhatItCreated, RECOVERED, "it raised *"),
    (CountsWhatItCreates, CREATED, "the created session's first append returned offset 4, not 3"),
    (EmptiesWhatItRefuses, CREATED, "4 entries were appended, read_all returned 3"),
    (CreatesWhatCameLast, CREATES, "StartEntry(* was appended, read_all returned StartEntry(*)"),
    (ReleasesOnlyOnce, RELEASED, "it raised KeyError('run-1', 1)"),
    (ReleasesOnlySessions, RELEASED, "it raised KeyError('run-1', 9)"),
    (ReleasesOnlyRuns, RELEASED, "it raised KeyError('unknown', 1)"),
    (ReleasesWhoeverHolds, RELEASED, "it raised PermissionError('run-1', 2)"),
    (AbandonsOnlyOnce, RELEASED, "it raised KeyError('run-1', 2)"),
    (ForgetsWhatWasAbandoned, RELEASED, "it raised KeyError('run-1', 3)"),
    (AbandonsTheLastEntry, RELEASED, "5 entries were appended, read_all returned 4"),
]


@pytest.mark.parametrize(
    ("broken", "rule", "says"), FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
async def test_a_rule_tells_what_is_wrong(
    broken: type[ThreeMethods], rule: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage with this fault would be taken for a good one, or its author not know why not."""
    said = await verdict(rule, broken(), monkeypatch)
    assert re.fullmatch(".*".join(map(re.escape, says.split("*"))), said)


BAD = "a bad run id is refused"


class AcceptsOne(WithSessions):
    """Takes a run id that is none."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.accepted = run_id

    def read(self, run_id: str) -> list[Entry]:
        if run_id == self.accepted:
            return decode_journal(self.data.get(run_id, b"")).entries
        return super().read(run_id)


class ReadsOne(AcceptsOne):
    async def append(self, run_id: str, entry: Entry) -> int:
        return await super().append(check_run_id(run_id), entry)


class CreatesOne(AcceptsOne):
    async def append(self, run_id: str, entry: Entry) -> int:
        return await super().append(check_run_id(run_id), entry)

    async def read_all(self, run_id: str) -> list[Entry]:
        return await super().read_all(check_run_id(run_id))


class ListsOne(WithSessions):
    """Refuses it, and keeps a place for it."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.listed = run_id

    def read(self, run_id: str) -> list[Entry]:
        if run_id == self.listed:
            self.data[run_id] = b""
        return super().read(run_id)


@pytest.mark.parametrize(
    "run_id",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\n", "\xfc", "x" * 201],
    ids=lambda each: ascii(each)[:10],
)
async def test_each_bad_run_id_has_to_be_refused_everywhere(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that makes names of files of run ids would leave its directory, or lose a run."""
    for broken, says in (
        (
            AcceptsOne,
            f"append to {run_id!r} was accepted (it returned 0) instead of raising UsageError",
        ),
        (
            ReadsOne,
            f"read_all of {run_id!r} was accepted (it returned []) instead of raising UsageError",
        ),
        (
            CreatesOne,
            f"create of {run_id!r} was accepted (it returned None) instead of raising UsageError",
        ),
        (ListsOne, f"list_runs returned [{run_id!r}]"),
    ):
        with monkeypatch.context() as patch:
            assert await verdict(BAD, broken(run_id), patch) == says


# --- and a storage that breaks none ------------------------------------------------------------


class AsStrictAsCanBe(WithSessions):
    """Refuses all that no session does: it holds each run for one session, and has few places.

    An old session is refused as one who does not hold the run, and an event if nobody waits for it.
    """

    places = 32

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, int] = {}

    def check(self, tail: Tail, entry: Entry, run_id: str) -> None:
        holder = self.held.get(run_id)
        if isinstance(entry, StartEntry) and (holder is not None or len(self.held) == self.places):
            raise WriteContentionError(f"session {holder} holds run {run_id!r}", run_id=run_id)
        super().check(tail, entry, run_id)
        if isinstance(entry, ResumeEntry):
            entries = self.read(run_id)
            waits = [each.waiting_for for each in entries if isinstance(each, SuspendEntry)]
            if entry.event_name not in waits:
                raise UsageError(f"nobody waits for {entry.event_name!r}", run_id=run_id)
        if isinstance(entry, StartEntry):
            self.held[run_id] = entry.session
        elif holder != entry.session:
            raise WriteContentionError(f"session {holder} holds run {run_id!r}", run_id=run_id)

    async def create(self, run_id: str, entries: list[Entry]) -> None:
        if run_id in self.held:
            raise WriteContentionError(f"run {run_id!r} is held", run_id=run_id)
        await super().create(run_id, entries)
        self.held[run_id] = entries[-1].session

    async def release(self, run_id: str, session: int) -> None:
        self.abandon(run_id, session)

    def abandon(self, run_id: str, session: int) -> None:
        if self.held.get(run_id) == session:
            del self.held[run_id]


@pytest.mark.parametrize("rule", conformance.RULES)
async def test_each_rule_leaves_a_strict_storage_in_peace(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good storage would be refused for what the suite does, and no session ever would."""
    monkeypatch.setattr(conformance, "RULES", {rule: conformance.RULES[rule]})
    monkeypatch.setattr(conformance, "MANY_RUNS", 2 * AsStrictAsCanBe.places)

    @asynccontextmanager
    async def make() -> AsyncIterator[Storage]:
        yield AsStrictAsCanBe()

    await storage_conformance(make)
