"""Journals written by hand in the reference's format: read, gone on with, written back alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kassette import ForkSource
from kassette_io import (
    Cancelled,
    Completed,
    Context,
    EventPendingError,
    FailedRun,
    LocalStorage,
    MemoryStorage,
    RunCancelledError,
    StartEntry,
    StepEntry,
    Storage,
    Success,
    SuspendedRun,
    TerminalRunError,
    Unsettled,
    VersionMismatchError,
    fork,
    resume,
    run_status,
    start,
    workflow,
)
from tests.io.stories import RUN, Clock, Ledger

pytestmark = pytest.mark.anyio


NOTES = re.compile(
    r',"(?:(?:host|lib|code|opened|startedAt)":"[^"]*"|pid":[0-9]+|delivers":\{[^}]*\}'
    r'|passedOver":\[[^]]*\]|found":\{[^}]*\})'
)
"""What a session notes of itself, which tests of its own look at."""

SUSPENDED = (
    '{"type":"start","session":1,"offset":0,"timestamp":"2025-12-31T23:59:59.000Z",'
    '"version":"v3","metadata":{"ticket":"T-1","items":[1,2.50,null]}}\n'
    '{"type":"step","session":1,"offset":1,"timestamp":"2025-12-31T23:59:59.100Z",'
    '"stepId":"llm","name":"llm","result":{"text":"caf\\u00e9","n":1e2}}\n'
    '{"type":"start","session":2,"offset":2,"timestamp":"2025-12-31T23:59:59.200Z","version":"v3"}\n'
    '{"type":"step","session":2,"offset":3,"timestamp":"2025-12-31T23:59:59.300Z",'
    '"stepId":"llm#2","name":"llm","result":null}\n'
    '{"type":"step","session":2,"offset":4,"timestamp":"2025-12-31T23:59:59.400Z",'
    '"stepId":"x:tool:search","name":"x:tool:search","result":[],"cost":{"usd":0.10}}\n'
    '{"type":"suspend","session":2,"offset":5,"timestamp":"2025-12-31T23:59:59.500Z",'
    '"reason":"Waiting for event: approval:1","waitingFor":"approval:1",'
    '"timeout":"2026-02-01T00:00:00.000Z","channel":"#ops"}\n'
)

LINES = {
    "complete": '{"type":"complete","session":2,"offset":6,"timestamp":"2026-01-01T00:00:00.000Z"}\n',
    "error": (
        '{"type":"error","session":2,"offset":6,"timestamp":"2026-01-01T00:00:00.000Z",'
        '"message":"boom","name":"TypeError","stack":"TypeError: boom\\n    at agent.ts:3"}\n'
    ),
    "error without a stack": (
        '{"type":"error","session":2,"offset":6,"timestamp":"2026-01-01T00:00:00.000Z",'
        '"message":"boom","attempts":3}\n'
    ),
    "cancel": (
        '{"type":"cancel","session":2,"offset":6,"timestamp":"2026-01-01T00:00:00.000Z",'
        '"reason":"suspend_timeout_expired"}\n'
    ),
    "cancel without a reason": (
        '{"type":"cancel","session":2,"offset":6,"timestamp":"2026-01-01T00:00:00.000Z"}\n'
    ),
}
STATUS = {
    "complete": Completed(),
    "error": FailedRun(
        message="boom", name="TypeError", stack="TypeError: boom\n    at agent.ts:3"
    ),
    "error without a stack": FailedRun(message="boom"),
    "cancel": Cancelled(reason="suspend_timeout_expired"),
    "cancel without a reason": Cancelled(),
}

FORKED = (
    '{"type":"start","session":1,"offset":0,"timestamp":"2025-12-31T23:59:59.000Z",'
    '"metadata":{"ticket":"T-1"}}\n'
    '{"type":"step","session":1,"offset":1,"timestamp":"2025-12-31T23:59:59.100Z",'
    '"stepId":"llm","name":"llm","result":1}\n'
    '{"type":"resume","session":1,"offset":2,"timestamp":"2025-12-31T23:59:59.200Z",'
    '"eventName":"ok","value":false}\n'
    '{"type":"start","session":2,"offset":3,"timestamp":"2025-12-31T23:59:59.300Z",'
    '"source":{"runId":"run-abc","fromOffset":7}}\n'
)


class Shelf:
    """One storage whose journals can be looked at as text."""

    def __init__(self, kind: str, directory: Path) -> None:
        self._directory = directory
        self.memory: dict[str, bytes] = {}
        self.storage: Storage = (
            MemoryStorage(self.memory) if kind == "memory" else LocalStorage(directory)
        )
        self._kind = kind

    def put(self, text: str, run_id: str = RUN) -> None:
        if self._kind == "memory":
            self.memory[run_id] = text.encode()
        else:
            (self._directory / f"{run_id}.jsonl").write_text(text, encoding="utf-8")

    def text(self, run_id: str = RUN) -> str:
        """Give the journal, with the tokens of writers made alike."""
        raw = (
            self.memory[run_id]
            if self._kind == "memory"
            else (self._directory / f"{run_id}.jsonl").read_bytes()
        )
        text = re.sub(r'"writer":"[0-9a-f]{32}"', '"writer":"W"', raw.decode())
        return NOTES.sub("", text)


@pytest.fixture(params=["memory", "local"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(str(request.param), tmp_path)


@pytest.mark.parametrize("last", LINES)
async def test_all_seven_types_are_read(shelf: Shelf, last: str) -> None:
    """If it fails, a journal of the other implementation cannot be read, or says something else."""
    resumed = (
        '{"type":"resume","session":2,"offset":6,"timestamp":"2025-12-31T23:59:59.600Z",'
        '"eventName":"approval:1","value":{"ok":false}}\n'
    )
    text = SUSPENDED + resumed + LINES[last].replace('"offset":6', '"offset":7')
    shelf.put(text)
    entries = await shelf.storage.read_all(RUN)
    assert [entry.type for entry in entries] == [
        "start",
        "step",
        "start",
        "step",
        "step",
        "suspend",
        "resume",
        last.split(maxsplit=1)[0],
    ]
    assert [entry.offset for entry in entries] == list(range(8))
    first, llm = entries[:2]
    assert isinstance(first, StartEntry)
    assert first.metadata == {"ticket": "T-1", "items": [1, 2.5, None]}
    assert isinstance(llm, StepEntry)
    assert llm.result == {"text": "café", "n": 100.0}
    assert [entry.extra for entry in entries[4:6]] == [{"cost": {"usd": 0.1}}, {"channel": "#ops"}]
    assert run_status(entries) == STATUS[last]
    with pytest.raises(TerminalRunError):
        await start(shelf.storage, RUN)
    assert shelf.text() == text


async def test_offsets_may_be_left_out(shelf: Shelf) -> None:
    """If it fails, a journal whose lines carry no offset counts as damaged."""
    shelf.put(re.sub(r'"offset":\d+,', "", SUSPENDED))
    entries = await shelf.storage.read_all(RUN)
    assert [entry.offset for entry in entries] == list(range(6))
    assert run_status(entries) == SuspendedRun(
        waiting_for="approval:1", timeout="2026-02-01T00:00:00.000Z"
    )


async def test_a_suspended_journal_is_gone_on_with_to_the_letter(
    shelf: Shelf, clock: Clock
) -> None:
    """If it fails, what is appended to a journal of the other implementation is not its format, or
    what stood there before is touched.
    """
    shelf.put(SUSPENDED)
    work = Ledger()

    async def search(ctx: Context) -> Any:
        return await ctx.step("tool:search", work.note, "search")

    @workflow(storage=shelf.storage, name="answer", version="v3")
    async def flow(ctx: Context, given: Any) -> Any:
        first = await ctx.step("llm", work.note, "llm")
        second = await ctx.step("llm", work.note, "llm#2")
        found = await ctx.parallel({"x": search})
        answer = await ctx.suspend("approval:1")
        third = await ctx.step("llm", work.note, "llm#3", {"é": [True, 1.0]})
        return [given["ticket"], first["n"], second, found["x"], answer, third]

    with pytest.raises(EventPendingError):
        await flow.start(run_id=RUN)
    with pytest.raises(VersionMismatchError):
        await flow.resume(RUN, "approval:1", 1, version="v4")
    assert shelf.text() == SUSPENDED
    outcome = await flow.resume(RUN, "approval:1", {"ok": False})
    assert outcome == Success(["T-1", 100.0, None, [], {"ok": False}, {"é": [True, 1.0]}], RUN)
    assert work.done == ["llm#3"]
    assert shelf.text() == (
        SUSPENDED + '{"type":"start","session":3,"offset":6,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"version":"v3","writer":"W","workflow":"answer"}\n'
        '{"type":"resume","session":3,"offset":7,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"eventName":"approval:1","value":{"ok":false}}\n'
        '{"type":"step","session":3,"offset":8,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"stepId":"llm#3","name":"llm","result":{"é":[true,1.0]}}\n'
        '{"type":"complete","session":3,"offset":9,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"result":["T-1",100.0,null,[],{"ok":false},{"é":[true,1.0]}]}\n'
    )


async def test_an_expired_journal_is_cancelled_to_the_letter(shelf: Shelf, clock: Clock) -> None:
    """If it fails, a deadline that the other implementation wrote is not kept, or its end is odd."""
    shelf.put(SUSPENDED)
    clock.forward(12 * 3600)
    with pytest.raises(RunCancelledError):
        await resume(shelf.storage, RUN, "approval:1", {"ok": True})
    assert shelf.text() == (
        SUSPENDED + '{"type":"start","session":3,"offset":6,"timestamp":"2026-02-01T00:00:00.000Z",'
        '"writer":"W"}\n'
        '{"type":"cancel","session":3,"offset":7,"timestamp":"2026-02-01T00:00:00.000Z",'
        '"reason":"suspend_timeout_expired"}\n'
    )


async def test_a_failure_is_written_to_the_letter(shelf: Shelf, clock: Clock) -> None:
    """If it fails, the other implementation cannot show why a run of ours failed."""
    run = await start(shelf.storage, RUN, metadata=None, version="v1")
    with pytest.raises(OSError, match="disk"):
        await run.record("a", failing)
    await run.fail(OSError("no \ud800 disk"))
    assert shelf.text() == (
        '{"type":"start","session":1,"offset":0,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"version":"v1","writer":"W","metadata":null}\n'
        '{"type":"error","session":1,"offset":1,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"message":"no \\\\ud800 disk","name":"OSError","stack":"OSError: no \\\\ud800 disk\\n"}\n'
    )


def failing() -> None:
    raise OSError("disk")


async def test_a_suspension_is_written_to_the_letter(shelf: Shelf, clock: Clock) -> None:
    """If it fails, the other implementation cannot resume a run of ours."""

    async def asks(ctx: Context, event: str, timeout: float | None) -> Any:
        return await ctx.suspend(event, timeout=timeout, reason=None if timeout else "look at it")

    @workflow(storage=shelf.storage, name="asks")
    async def flow(ctx: Context) -> Any:
        return await ctx.parallel(
            {
                "a": lambda own: asks(own, "ok:a", 90.5),
                "b": lambda own: asks(own, "ok:b", None),
            }
        )

    await flow.start(run_id=RUN)
    first, *rest = shelf.text().splitlines()
    assert first == (
        '{"type":"start","session":1,"offset":0,"timestamp":"2026-01-31T12:00:00.000Z","writer":"W","workflow":"asks"}'
    )
    assert sorted(
        re.sub(r'"offset":\d', '"offset":N', line).replace(',"more":true', "") for line in rest
    ) == [
        '{"type":"suspend","session":1,"offset":N,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"branch":"a","reason":"Waiting for event: ok:a","waitingFor":"ok:a",'
        '"timeout":"2026-01-31T12:01:30.500Z"}',
        '{"type":"suspend","session":1,"offset":N,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"branch":"b","reason":"look at it","waitingFor":"ok:b"}',
    ]
    assert [',"more":true}' in line for line in rest] == [True, False]


async def test_a_fork_of_a_hand_written_journal_keeps_unknown_fields_and_spelling(
    shelf: Shelf, clock: Clock
) -> None:
    """If it fails, a fork loses what another version wrote, or changes how a value is written."""
    shelf.put(SUSPENDED, "source")
    async with await fork(shelf.storage, RUN, source="source", from_offset=5, version="v4") as run:
        assert run.metadata == {"ticket": "T-1", "items": [1, 2.5, None]}
    assert shelf.text() == (
        '{"type":"start","session":1,"offset":0,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"version":"v4","writer":"W","metadata":{"ticket":"T-1","items":[1,2.50,null]}}\n'
        '{"type":"step","session":1,"offset":1,"timestamp":"2025-12-31T23:59:59.100Z",'
        '"stepId":"llm","name":"llm","result":{"text":"caf\\u00e9","n":1e2}}\n'
        '{"type":"step","session":1,"offset":2,"timestamp":"2025-12-31T23:59:59.300Z",'
        '"stepId":"llm#2","name":"llm","result":null}\n'
        '{"type":"step","session":1,"offset":3,"timestamp":"2025-12-31T23:59:59.400Z",'
        '"cost":{"usd":0.1},"stepId":"x:tool:search","name":"x:tool:search","result":[]}\n'
        '{"type":"start","session":2,"offset":4,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"version":"v4","writer":"W","source":{"runId":"source","fromOffset":5}}\n'
    )
    assert shelf.text("source") == SUSPENDED


async def test_a_hand_written_fork_is_gone_on_with(shelf: Shelf, clock: Clock) -> None:
    """If it fails, a fork that the other implementation made cannot be recovered."""
    shelf.put(FORKED)
    entries = await shelf.storage.read_all(RUN)
    assert run_status(entries) == Unsettled()
    assert isinstance(entries[3], StartEntry)
    assert entries[3].source == ForkSource(run_id="run-abc", from_offset=7)
    async with await start(shelf.storage, RUN, metadata={"ticket": "T-1"}) as run:
        assert run.session == 3
        assert await run.record("llm", lambda: 0) == 1
        assert await run.wait_for_event("ok") is False
        await run.complete()
    assert shelf.text() == (
        FORKED + '{"type":"start","session":3,"offset":4,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"writer":"W"}\n'
        '{"type":"complete","session":3,"offset":5,"timestamp":"2026-01-31T12:00:00.000Z"}\n'
    )


async def test_d11_a_torn_last_line_is_cut_off_by_the_next_writer(
    shelf: Shelf, clock: Clock
) -> None:
    """If it fails, half a line of a crash spoils the line that follows it."""
    shelf.put(FORKED + '{"type":"step","session":2,"offset":4,"timest')
    assert len(await shelf.storage.read_all(RUN)) == 4
    assert shelf.text().endswith("timest")
    await (await start(shelf.storage, RUN)).complete()
    assert shelf.text() == (
        FORKED + '{"type":"start","session":3,"offset":4,"timestamp":"2026-01-31T12:00:00.000Z",'
        '"writer":"W"}\n'
        '{"type":"complete","session":3,"offset":5,"timestamp":"2026-01-31T12:00:00.000Z"}\n'
    )


async def test_a_recorded_journal_serves_as_a_test_fixture(shelf: Shelf) -> None:
    """If it fails, a journal copied into a test suite does not replay without the models."""
    shelf.put(FORKED)

    @workflow(storage=shelf.storage)
    async def flow(ctx: Context, given: Any) -> Any:
        return [await ctx.step("llm", lambda: 1 / 0), await ctx.suspend("ok")]

    assert await flow.start(run_id=RUN) == Success([1, False], RUN)
