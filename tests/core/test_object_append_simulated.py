"""Several writers of one journal against a simulated store in which every answer can go astray."""

from __future__ import annotations

from enum import Enum, IntEnum
from itertools import product

import pytest
from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kassette import (
    CompleteEntry,
    Entry,
    FencedError,
    KassetteError,
    StartEntry,
    StepEntry,
    StorageError,
    TerminalRunError,
    UsageError,
    WriteContentionError,
    decode_journal,
)
from kassette.object_append import (
    MAX_ATTEMPTS,
    AppendCommand,
    AppendEffect,
    AppendEntries,
    Found,
    GetFailed,
    GetObject,
    NotFound,
    ObjectWriter,
    PutDenied,
    PutDone,
    PutObject,
    PutRefused,
    PutUnclear,
    Settled,
)

STAMP = "2026-01-31T12:00:00.000Z"


class Fault(Enum):
    """What becomes of a put."""

    NONE = "done and answered, or refused with 412"
    LOST = "done, the answer lost"
    RESENT = "done, then sent again by the SDK: 412"
    SERVER_ERROR = "500, nothing done"
    CONFLICT = "409, nothing done"
    LATE = "a timeout; done later, if it still can be"
    LATE_CONFLICT = "409, because our own first request is on its way"
    DENIED = "403, nothing done"


class Read(IntEnum):
    """What becomes of a get."""

    WHOLE = 0
    FAILS = 1
    CUT = 2


class Store:
    """One object, its versions, and the puts that are still on their way to it."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.etag: str | None = None
        self.versions = 0
        self.late: list[PutObject] = []
        self.deletions = 0
        self.clock = 0.0
        self._decoded: tuple[bytes | None, list[Entry]] = None, []

    def put(self, put: PutObject) -> bool:
        """Do a conditional put; check that a journal only grows."""
        if put.etag != self.etag:
            return False
        assert put.body.startswith(self.body or b"")
        self.versions += 1
        self.body, self.etag = put.body, f"e{self.versions}"
        return True

    def answer(self, put: PutObject, fault: Fault) -> AppendCommand:
        """Let ``fault`` befall a put."""
        match fault:
            case Fault.NONE:
                return PutDone(str(self.etag)) if self.put(put) else PutRefused()
            case Fault.LOST:
                self.put(put)
                return PutUnclear(TimeoutError())
            case Fault.RESENT:
                self.put(put)
                return PutRefused()
            case Fault.SERVER_ERROR:
                return PutUnclear(StorageError("500"))
            case Fault.CONFLICT:
                return PutRefused()
            case Fault.LATE:
                self.late.append(put)
                return PutUnclear(TimeoutError())
            case Fault.LATE_CONFLICT:
                self.late.append(put)
                return PutRefused()
            case Fault.DENIED:
                return PutDenied(StorageError("403", rolled_back=True))

    def read(self, read: Read = Read.WHOLE) -> AppendCommand:
        """Answer a get; a body that is cut off ends with a line, so that it looks like a journal."""
        if read is Read.FAILS:
            return GetFailed(OSError("unreachable"))
        if self.body is None:
            return NotFound()
        lines = self.body.splitlines(keepends=True)
        return Found(b"".join(lines[:-1]) if read is Read.CUT else self.body, str(self.etag))

    def land(self, which: int) -> None:
        """Let a put arrive that nobody waits for any more."""
        self.put(self.late.pop(which % len(self.late)))

    def delete(self) -> None:
        """Remove the object, as an operator would."""
        self.body = self.etag = None
        self.deletions += 1

    def entries(self) -> list[Entry]:
        """Give what the journal holds; that it can be read says that its offsets have no gap."""
        if self._decoded[0] is not self.body:
            self._decoded = self.body, decode_journal(self.body or b"").entries
        return self._decoded[1]


def identity(entry: Entry) -> str:
    """Name an entry apart from all others of a simulation."""
    match entry:
        case StartEntry():
            return f"start {entry.session} of {entry.writer}"
        case StepEntry():
            return str(entry.result)
        case other:
            return f"{other.type} of session {other.session}"


class Author:
    """A session: what it has asked for, what it was told, and what it may still do."""

    def __init__(self, store: Store, token: str, *, knows: bool) -> None:
        self.store = store
        self.token = token
        self.session = max((entry.session for entry in store.entries()), default=0) + 1
        self.writer = ObjectWriter("run-1")
        if knows:
            self.writer.know(store.body or b"", store.etag)
        self.saw_it = knows and store.body is not None
        self.told: dict[str, tuple[int, int]] = {}
        self.never: list[str] = []
        self.order: list[str] = []
        self.steps = 0
        self.refused = 0
        self.sent = b""
        self.over = self.completes = False
        self.pending: list[Entry] = []
        self.effect: AppendEffect | None = None
        self.begin(StartEntry(session=self.session, timestamp=STAMP, writer=token))

    @property
    def idle(self) -> bool:
        return self.effect is None and not self.over

    def begin(self, *entries: Entry) -> None:
        """Ask for an append."""
        self.pending, self.refused, self.sent = [*entries], 0, b""
        self.tell(AppendEntries(self.pending))

    def begin_steps(self, count: int) -> None:
        """Ask for steps that waited together."""
        steps: list[Entry] = []
        for _ in range(count):
            self.steps += 1
            name = f"step {self.steps} of {self.token}"
            steps.append(
                StepEntry.of(
                    session=self.session, timestamp=STAMP, step_id=name, name=name, result=name
                )
            )
        self.begin(*steps)

    def advance(self, fault: Fault, read: Read = Read.WHOLE) -> None:
        """Perform what the writer asks for."""
        match self.effect:
            case GetObject():
                answer = self.store.read(read)
                if read is Read.CUT and isinstance(answer, Found):
                    within = self.sent.startswith(answer.body) and answer.body != self.sent
                    answer = answer if within else GetFailed(OSError("found out by the client"))
                self.saw_it |= isinstance(answer, Found)
                self.tell(answer)
            case PutObject() as put:
                assert self.refused < MAX_ATTEMPTS
                assert put.etag is not None or not self.saw_it, "a deleted journal was made anew"
                self.sent = put.body
                answer = self.store.answer(put, fault)
                self.refused += isinstance(answer, PutRefused)
                self.saw_it |= isinstance(answer, PutDone)
                self.tell(answer)
            case _:
                raise AssertionError(self.effect)

    def tell(self, command: AppendCommand) -> None:
        """Report to the writer; a second passes with every report."""
        self.store.clock += 1.0
        self.take(self.writer.handle(command, now=self.store.clock))

    def take(self, effect: AppendEffect) -> None:
        """Take the writer's next wish, or what came of the append."""
        if not isinstance(effect, Settled):
            self.effect = effect
            return
        self.effect = None
        for entry, outcome in zip(self.pending, effect.outcomes, strict=True):
            name = identity(entry)
            if isinstance(outcome, int):
                self.told[name] = (outcome, self.store.deletions)
                self.order.append(name)
            else:
                self.judge(name, outcome)

    def judge(self, name: str, error: KassetteError) -> None:
        """Check that a refusal says what is so, and do as the machine does with it."""
        match error:
            case FencedError():
                assert self.store.deletions or any(
                    isinstance(entry, StartEntry)
                    and entry.session >= self.session
                    and entry.writer != self.token
                    for entry in self.store.entries()
                ), "fenced, and nobody has taken the run over"
                self.never.append(name)
            case TerminalRunError() | UsageError():
                self.never.append(name)
            case StorageError(rolled_back=True):
                self.never.append(name)
                self.over |= not self.told
                return
            case StorageError() | WriteContentionError():
                pass
            case _:
                raise AssertionError(error)
        self.over = True


def check(store: Store, authors: list[Author]) -> None:
    """Check what has to be so at every instant."""
    entries = store.entries()
    names = [identity(entry) for entry in entries]
    assert len(set(names)) == len(names), "an entry is there twice"
    owners = {entry.session: entry.writer for entry in entries if isinstance(entry, StartEntry)}
    sessions = [entry.session for entry in entries]
    assert sessions == sorted(sessions), "an old session wrote behind a newer one"
    for entry in entries:
        if isinstance(entry, StepEntry):
            owner = entry.name.rpartition(" of ")[2]
            assert owners.get(entry.session) == owner, "a step got into somebody else's journal"
    assert not any(entry.type == "complete" for entry in entries[:-1])
    for author in authors:
        for name, (offset, deletions) in author.told.items():
            if deletions == store.deletions:
                assert names[offset] == name, "what was told as landed is not there"
        assert not set(author.never) & set(names), "what was refused for certain is there"
        mine = [name for name in author.order if name in names]
        assert [name for name in names if name in mine] == mine, "out of order"


class Writers(RuleBasedStateMachine):
    """Sessions that open, write, lose answers and are superseded, in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.authors: list[Author] = []

    def chosen(self, which: int, *, idle: bool) -> Author | None:
        found = [each for each in self.authors if each.idle is idle and not each.over]
        return found[which % len(found)] if found else None

    @precondition(lambda self: len(self.authors) < 6)
    @rule(knows=st.booleans(), twice=st.booleans())
    def open_sessions(self, knows: bool, twice: bool) -> None:
        for _ in range(1 + twice):
            self.authors.append(Author(self.store, f"w{len(self.authors)}", knows=knows))

    @rule(which=st.integers(0, 5), count=st.integers(1, 3))
    def write(self, which: int, count: int) -> None:
        author = self.chosen(which, idle=True)
        if author is not None:
            author.begin_steps(count)

    @rule(
        which=st.integers(0, 5),
        fault=st.sampled_from(Fault),
        read=st.sampled_from([*[Read.WHOLE] * 6, Read.FAILS, Read.CUT]),
    )
    def perform(self, which: int, fault: Fault, read: Read) -> None:
        author = self.chosen(which, idle=False)
        if author is not None:
            author.advance(fault, read)

    @rule(which=st.integers(0, 5))
    def perform_well(self, which: int) -> None:
        author = self.chosen(which, idle=False)
        if author is not None:
            author.advance(Fault.NONE)

    @precondition(lambda self: self.store.late)
    @rule(which=st.integers(0, 5))
    def a_late_put_arrives(self, which: int) -> None:
        self.store.land(which)

    @precondition(lambda self: self.store.versions > 3 and not self.store.deletions)
    @rule()
    def an_operator_deletes_the_journal(self) -> None:
        self.store.delete()

    @precondition(lambda self: self.store.versions > 6)
    @rule(which=st.integers(0, 5))
    def complete(self, which: int) -> None:
        author = self.chosen(which, idle=True)
        if author is not None and not author.completes:
            author.completes = True
            author.begin(CompleteEntry(session=author.session, timestamp=STAMP))

    @invariant()
    def nothing_is_lost_doubled_or_made_up(self) -> None:
        check(self.store, self.authors)


Writers.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    phases=[Phase.generate, Phase.shrink],
    deadline=None,
    derandomize=True,
    database=None,
)


TestD5AnyNumberOfWriters = Writers.TestCase
"""Two sessions would own a run, or an entry would be lost, doubled or made up."""


WHEN = ("at once", "after the read", "after the next put", "never")


def run_alone(faults: tuple[Fault, ...], when: str, *, rival: bool) -> None:
    """Append one step through a sequence of faults, late puts landing ``when``."""
    store = Store()
    author = Author(store, "me", knows=True)
    author.advance(Fault.NONE)
    authors = [author]
    author.begin_steps(1)
    if rival:
        authors.append(Author(store, "rival", knows=True))
        authors[1].advance(Fault.NONE)
    script = [*faults, *[Fault.NONE] * MAX_ATTEMPTS]
    while author.effect is not None:
        was_put = isinstance(author.effect, PutObject)
        waiting = len(store.late)
        author.advance(script.pop(0) if was_put else Fault.NONE)
        due = {
            "at once": was_put,
            "after the read": not was_put,
            "after the next put": was_put and waiting > 0,
            "never": False,
        }[when]
        while due and store.late:
            store.land(0)
        check(store, authors)
    while store.late:
        store.land(0)
    check(store, authors)
    names = [identity(entry) for entry in store.entries()]
    denied = Fault.DENIED in faults
    if rival:
        assert author.over or denied
        assert names == ["start 1 of me", "start 2 of rival"]
    elif not denied:
        assert names == ["start 1 of me", "step 1 of me"], "an append that could be done was not"
        assert author.told["step 1 of me"] == (1, 0)


@pytest.mark.parametrize("rival", [False, True])
@pytest.mark.parametrize("when", WHEN)
def test_every_sequence_of_three_faults(when: str, rival: bool) -> None:
    """Some sequence of faults would lose or double the step, or take itself for fenced."""
    for faults in product(Fault, repeat=3):
        run_alone(faults, when, rival=rival)
