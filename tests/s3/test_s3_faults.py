"""Every fault, in every phase of a run: each step recorded once, or an error and a retry recovers.

There is one writer at a time, so both servers serve; moto would not be fit for more, since nothing
of it is locked between a condition's check and the write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

import pytest
from anyio import CapacityLimiter, create_task_group
from orjson import loads

from kassette import (
    Entry,
    SessionClosedError,
    StepEntry,
    StorageError,
    TerminalRunError,
    WriteContentionError,
    run_status,
)
from kassette_io import RemoteStorage, S3ObjectStoreClient, resume, start

from .conftest import PLENTY
from .proxy import (
    AFTER_LATE,
    BARE_404,
    CLOSED_BEFORE,
    CONFLICT,
    CUT_AT_A_LINE,
    CUT_IN_CHUNKS,
    ERROR_AFTER,
    LATE,
    LOST,
    LOST_BY_RESET,
    PAGE_404,
    PASS,
    RESENT,
    RESET_BEFORE,
    SILENT,
    SILENT_BEFORE,
    SLOW_DOWN,
    TRUNCATED,
    UNMEASURED,
    Fault,
    Proxy,
    Request,
    refusal,
)
from .servers import S3Server
from .support import PREFIX, Counted, Deadlines, journal, raw_journal, step_ids, types, until_done

pytestmark = pytest.mark.anyio

PUT_FAULTS: dict[str, tuple[Fault, ...]] = {
    "answer lost": (LOST,),
    "connection reset after it landed": (LOST_BY_RESET,),
    "500 after it landed": (ERROR_AFTER,),
    "reset before it landed": (RESET_BEFORE,),
    "closed before it landed": (CLOSED_BEFORE,),
    "answer past the deadline": (SILENT,),
    "nothing, past the deadline": (SILENT_BEFORE,),
    "503 slow down": (SLOW_DOWN,),
    "412 by the SDK's own re-send": (RESENT,),
    "409 conflict in progress": (CONFLICT,),
    "false 412": (refusal(412, "PreconditionFailed"),),
    "half an answer": (TRUNCATED,),
    "three times nothing, then lost": (SLOW_DOWN, RESET_BEFORE, CONFLICT, ERROR_AFTER),
    "ten times nothing": (SLOW_DOWN,) * 10,
    "404 of a gateway": (BARE_404, PAGE_404),
    "403": (refusal(403, "AccessDenied"),),
}

WORLD = (StorageError, WriteContentionError)

Phase = Callable[["Play"], Awaitable[None]]


class Play:
    """One run of two steps and a wait between; each phase can be repeated until it is done."""

    def __init__(self, client: S3ObjectStoreClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self.effects = Counted()
        self.results: list[object] = []

    def storage(self) -> RemoteStorage:
        """Give a storage that knows nothing, as after a crash."""
        return RemoteStorage(self.client, prefix=PREFIX)

    async def begin(self) -> None:
        async with await start(self.storage(), self.run_id, metadata={"n": 1}):
            pass

    async def one_step(self) -> None:
        async with await start(self.storage(), self.run_id) as run:
            self.results.append(await run.record("one", self.effects, "one"))

    async def wait(self) -> None:
        from kassette import EventPendingError, SuspendError

        try:
            async with await start(self.storage(), self.run_id) as run:
                await run.record("one", self.effects, "one")
                await run.wait_for_event("go")
        except (SuspendError, EventPendingError):
            pass

    async def resume(self) -> None:
        async with await resume(self.storage(), self.run_id, "go", 42) as run:
            await run.record("one", self.effects, "one")
            assert await run.wait_for_event("go") == 42

    async def complete(self) -> None:
        try:
            async with await start(self.storage(), self.run_id) as run:
                await run.record("one", self.effects, "one")
                assert await run.wait_for_event("go") == 42
                self.results.append(await run.record("two", self.effects, "two"))
                await run.complete()
        except TerminalRunError:
            return  # an attempt before was told nothing, and had done it; check_run looks


PHASES: tuple[Phase, ...] = (Play.begin, Play.one_step, Play.wait, Play.resume, Play.complete)


def check_run(play: Play, entries: list[Entry], errors: list[BaseException]) -> None:
    assert run_status(entries).status == "completed"
    kinds = types(entries)
    assert step_ids(entries) == ["one", "two"]
    assert [kinds.count(each) for each in ("suspend", "resume", "complete")] == [1, 1, 1]
    sessions = [entry.session for entry in entries if entry.type == "start"]
    assert sessions == sorted(set(sessions)), "a session was opened twice"
    recorded = [entry.result for entry in entries if isinstance(entry, StepEntry)]
    assert all(result in recorded for result in play.results), "a false success"
    for name, calls in play.effects.calls.items():
        assert calls <= 1 + len(errors), f"step {name} ran although it was recorded"


class OncePerEntry:
    """Lets the puts of each entry meet a run's faults in order, whatever session repeats them."""

    def __init__(self) -> None:
        self.faults: dict[str, tuple[Fault, ...]] = {}
        self.met: Counter[tuple[str, object]] = Counter()

    def __call__(self, request: Request) -> Fault:
        if request.method != "PUT":
            return PASS
        run_id = request.path.split("/")[-2]
        entry = loads(request.body.splitlines()[-1])
        faults = self.faults[run_id]
        if entry["type"] == "start" and entry["session"] > 1 and faults[0].then == "hold":
            return PASS  # one session is as good as the next, and each takes a whole deadline
        key = (run_id, entry.get("stepId", entry["type"]))
        self.met[key] += 1
        return faults[self.met[key] - 1] if self.met[key] <= len(faults) else PASS


async def test_every_fault_of_a_put_leaves_each_entry_once(
    bucket: str, proxy: Proxy, s3_server: S3Server, no_pauses: None
) -> None:
    """Zero duplicates, zero false FencedError (which no attempt catches), zero false success.

    Start, step, suspend, resume and complete meet every fault. The runs go side by side, each with
    a single writer, so moto serves as well.
    """
    proxy.choose = faults = OncePerEntry()
    patient = S3ObjectStoreClient(bucket, endpoint_url=proxy.url, timeout=PLENTY)
    hasty = S3ObjectStoreClient(bucket, endpoint_url=proxy.url, timeout=PLENTY)
    proxy.on_hold.append(Deadlines(hasty).expire)
    errors: dict[str, list[BaseException]] = {name: [] for name in PUT_FAULTS}
    plays: dict[str, Play] = {}
    limit = CapacityLimiter(6)

    async def play(name: str) -> None:
        async with limit:
            for perform in PHASES:
                errors[name] += await until_done(partial(perform, plays[name]), WORLD)

    async with patient, hasty, create_task_group() as group:
        for number, (name, each) in enumerate(PUT_FAULTS.items()):
            plays[name] = Play(hasty if each[0].then == "hold" else patient, f"run-{number}")
            faults.faults[f"run-{number}"] = PUT_FAULTS[name]
            group.start_soon(play, name)
    for name, played in plays.items():
        check_run(played, journal(s3_server, bucket, played.run_id), errors[name])
        for entry in ("start", "one", "suspend", "resume", "two", "complete"):
            assert faults.met[played.run_id, entry] >= len(PUT_FAULTS[name]), (name, entry)
        assert bool(errors[name]) == (name == "403"), (name, "reading back settles it", errors)


async def test_a_fault_of_a_get_stops_nothing(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    s3_server: S3Server,
    no_pauses: None,
    impatient: Deadlines,
) -> None:
    """Half a journal would be taken for a whole one, or none for a run that is there.

    Steps would run again, acknowledged entries be overwritten, a run be told that it is fenced.
    """
    faults = (
        *(LOST, LOST_BY_RESET, ERROR_AFTER, SLOW_DOWN, SILENT),
        *(TRUNCATED, CUT_AT_A_LINE, CUT_IN_CHUNKS, UNMEASURED, BARE_404, PAGE_404),
    )
    for number, fault in enumerate(faults):
        play = Play(client, f"run-{number}")
        for perform in PHASES:
            proxy.script(*[fault] * (1 if fault is UNMEASURED else 2), method="GET")
            await perform(play)
            assert proxy.unused() == 0
        check_run(play, journal(s3_server, bucket, play.run_id), [])


@pytest.mark.parametrize("fault", [CUT_AT_A_LINE, CUT_IN_CHUNKS, BARE_404, PAGE_404, SILENT])
async def test_a_fault_of_a_read_back_loses_no_session(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    s3_server: S3Server,
    no_pauses: None,
    impatient: Deadlines,
    fault: Fault,
) -> None:
    """A session would hear that its journal was deleted, or write over what others had read."""
    effects = Counted()
    async with await start(RemoteStorage(client, prefix=PREFIX), "run-1") as run:
        for name in ("one", "two", "three"):
            proxy.script(LOST, SLOW_DOWN)
            proxy.script(*[fault] * 4, method="GET")
            assert await run.record(name, effects, name) == {"name": name, "call": 1}
            proxy.forget()
        await run.complete()
    assert types(journal(s3_server, bucket, "run-1")) == [
        *("start", "step", "step", "step", "complete")
    ]


async def test_a_get_that_is_refused_after_a_lost_put_leaves_the_step_to_a_retry(
    client: S3ObjectStoreClient, bucket: str, proxy: Proxy, s3_server: S3Server, no_pauses: None
) -> None:
    """Not known is not the same as not written: the session must end, the next one replays."""
    effects = Counted()
    run = await start(RemoteStorage(client, prefix=PREFIX), "run-1")
    proxy.script(LOST)
    proxy.script(refusal(403, "ExpiredToken"), method="GET")
    with pytest.raises(StorageError, match="may still succeed") as caught:
        await run.record("one", effects, "one")
    assert not caught.value.rolled_back
    with pytest.raises(SessionClosedError):
        await run.record("two", effects, "two")
    async with await start(RemoteStorage(client, prefix=PREFIX), "run-1") as again:
        assert await again.record("one", effects, "one") == {"name": "one", "call": 1}
    assert step_ids(journal(s3_server, bucket, "run-1")) == ["one"]


@pytest.mark.parametrize("entry", ["start", "step", "complete"])
async def test_d5_a_put_that_lands_late_is_found_and_not_written_twice(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    s3_server: S3Server,
    no_pauses: None,
    impatient: Deadlines,
    entry: str,
) -> None:
    """Between the look and the second put the first one lands: the second one's 412 is our own."""
    effects = Counted()
    late = {"start": 0, "step": 1, "complete": 2}[entry]
    proxy.script(*[PASS] * late, LATE, AFTER_LATE)
    async with await start(RemoteStorage(client, prefix=PREFIX), "run-1") as run:
        assert await run.record("one", effects, "one") == {"name": "one", "call": 1}
        await run.complete()
    assert types(journal(s3_server, bucket, "run-1")) == ["start", "step", "complete"]
    assert proxy.methods() == ["GET"] + ["PUT"] * late + ["PUT", "GET", "PUT", "GET"] + ["PUT"] * (
        2 - late
    )


async def test_d5_a_put_that_lands_after_the_next_session_changes_nothing(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    s3_server: S3Server,
    impatient: Deadlines,
) -> None:
    """What an earlier process sent can still arrive: its condition must have come untrue."""
    effects = Counted()
    run = await start(RemoteStorage(client, prefix=PREFIX, patience=0), "run-1")
    proxy.script(LATE)
    with pytest.raises(StorageError, match="may have been written all the same"):
        await run.record("one", effects, "one")
    async with await start(RemoteStorage(client, prefix=PREFIX), "run-1") as again:
        assert await again.record("one", effects, "one") == {"name": "one", "call": 2}
        before = raw_journal(s3_server, bucket, "run-1")
        proxy.land_late_ones()
        assert raw_journal(s3_server, bucket, "run-1") == before
        await again.complete()
    assert types(journal(s3_server, bucket, "run-1")) == ["start", "start", "step", "complete"]


@pytest.mark.parametrize("answer", [(404, "NoSuchKey"), (412, "PreconditionFailed")], ids=str)
async def test_d5_a_deleted_journal_is_an_error_and_never_created_anew(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    s3_server: S3Server,
    no_pauses: None,
    answer: tuple[int, str],
) -> None:
    """Servers answer If-Match on a missing key with 404 or 412; a new journal would lack its past."""
    async with await start(RemoteStorage(client, prefix=PREFIX), "run-1") as run:
        await run.record("one", lambda: 1)
        await client.delete_object(f"{PREFIX}/run-1/journal.jsonl")
        proxy.script(refusal(*answer))
        with pytest.raises(StorageError, match="deleted"):
            await run.record("two", lambda: 2)
    assert raw_journal(s3_server, bucket, "run-1") == b""


WEIGHTS: dict[str, list[tuple[Fault, int]]] = {
    "PUT": [
        (PASS, 50),
        (LOST, 8),
        (LOST_BY_RESET, 6),
        (ERROR_AFTER, 8),
        (RESET_BEFORE, 6),
        (SLOW_DOWN, 6),
        (RESENT, 6),
        (CONFLICT, 5),
        (AFTER_LATE, 5),
    ],
    "GET": [
        (PASS, 70),
        (TRUNCATED, 7),
        (SLOW_DOWN, 7),
        (LOST, 6),
        (CUT_AT_A_LINE, 6),
        (PAGE_404, 4),
    ],
}
SEEDS = 30


@pytest.mark.parametrize("patience", ["quick", "slow"])
async def test_many_faults_at_random_lose_and_duplicate_nothing(
    client: S3ObjectStoreClient,
    bucket: str,
    proxy: Proxy,
    atomic_server: S3Server,
    no_pauses: None,
    impatient: Deadlines,
    patience: str,
) -> None:
    """Faults come in company: what each alone leaves right, two in a row may not."""
    slow = patience == "slow"
    weights = dict(WEIGHTS)
    if slow:
        weights["PUT"] = [*WEIGHTS["PUT"], (SILENT, 4), (LATE, 6)]
    for seed in range(SEEDS // 10 if slow else SEEDS):
        random = Random(seed)

        def choose(request: Request, random: Random = random) -> Fault:
            faults = weights.get(request.method, [(PASS, 1)])
            return random.choices([each for each, _ in faults], [each for _, each in faults])[0]

        play = Play(client, f"run-{seed}")
        errors: list[BaseException] = []
        proxy.choose = choose
        for perform in PHASES:
            errors += await until_done(partial(perform, play), WORLD)
        proxy.choose = None
        proxy.land_late_ones()
        check_run(play, journal(atomic_server, bucket, play.run_id), errors)
