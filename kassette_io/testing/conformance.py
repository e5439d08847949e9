"""A conformance suite for storages, ours and yours; it needs no test runner.

It checks the contract of ``kassette_io.storages.protocol`` on fresh storages that you create:

    from contextlib import asynccontextmanager
    from kassette_io.testing import storage_conformance

    @asynccontextmanager
    async def make_storage():
        async with connect_to_an_empty_database() as connection:
            yield MyStorage(connection)

    def test_my_storage():
        anyio.run(storage_conformance, make_storage, backend="asyncio")
        anyio.run(storage_conformance, make_storage, backend="trio")

It writes a few thousand small entries, most of them in separate runs: otherwise it could not detect
a listing that ends after its first page, which has 1000 keys in S3.

It cannot check whether an append survives a power cut, or whether appends stay atomic when
processes die or responses get lost. Test that in your storage itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, TypeAlias

from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from kassette import (
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    FencedError,
    ForkSource,
    KassetteError,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    TerminalRunError,
    UsageError,
    WriteContentionError,
)
from kassette.values import encode_value
from kassette_io.lifecycle import fork, start
from kassette_io.storages.protocol import SessionStorage, Storage, as_session_storage

MakeStorage: TypeAlias = Callable[[], AbstractAsyncContextManager[Storage]]
"""Returns an async context manager that yields an empty storage; it may discard it afterwards."""

_STAMP: Final = "2026-01-31T12:00:00.000Z"
_RUN: Final = "run-1"
MANY_RUNS: Final = 1001
"""One more than S3 lists in one response, which is the largest common page size."""
_AT_ONCE: Final = 8
_SPELLINGS: Final = (
    b"1.0",
    b"1e3",
    b"1E+3",
    b"-0.0",
    b"0.10",
    b"1.7976931348623157e308",
    b"9007199254740993",
    b"18446744073709551615",
    b'{"b":1,"a":2}',
    b'{"10":1,"9":2}',
    b'{"a":1,"a":2}',
    b'"\\u00e9\\/"',
    b'"\xc3\xa9 e\xcc\x81"',
)
"""JSON that JavaScript, PostgreSQL's jsonb or Python's json would format differently."""


async def storage_conformance(make_storage: MakeStorage) -> None:
    """Check that a storage obeys every rule, each on a fresh storage from ``make_storage``.

    A storage with ``create``, ``release`` and ``abandon`` is checked as a ``SessionStorage`` too.
    Run the suite under every event loop that the storage supports.

    Raise AssertionError that names the first broken rule, and what the storage did instead.
    """
    for rule, check in RULES.items():
        async with make_storage() as storage:
            try:
                await check(storage)
            except _Broken as broken:
                raise AssertionError(f"{storage!r} breaks a rule: {rule}: {broken}") from None
            except Exception as error:
                raise AssertionError(
                    f"{storage!r} breaks a rule: {rule}: it raised {error!r}"
                ) from error


class _Broken(Exception):
    """What the storage did instead."""


def _expect(kept: bool, instead: str) -> None:
    if not kept:
        raise _Broken(instead)


async def _refuses(
    what: str, kinds: type[KassetteError] | tuple[type[KassetteError], ...], call: Awaitable[object]
) -> None:
    """Check that a call is refused with an error of ``kinds``."""
    listed = kinds if isinstance(kinds, tuple) else (kinds,)
    expected = " or ".join(kind.__name__ for kind in listed)
    try:
        given = await call
    except listed:
        return
    except Exception as error:
        raise _Broken(f"{what} raised {error!r} instead of {expected}") from error
    raise _Broken(f"{what} was accepted (it returned {given!r}) instead of raising {expected}")


def _start(session: int = 1, **fields: Any) -> StartEntry:
    return StartEntry(session=session, timestamp=_STAMP, **fields)


def _step(name: str = "a", session: int = 1, result: object = None) -> StepEntry:
    return StepEntry.of(
        session=session, timestamp=_STAMP, step_id=name, name=name, result=result or name
    )


def _complete(session: int = 1) -> CompleteEntry:
    return CompleteEntry(session=session, timestamp=_STAMP)


async def _append(storage: Storage, *entries: Entry, run_id: str = _RUN) -> None:
    for entry in entries:
        await storage.append(run_id, entry)


async def _supersede(storage: Storage) -> None:
    """Open session 2 after session 1 was abandoned."""
    await _append(storage, _start(), _step("a"))
    await as_session_storage(storage).release(_RUN, 1)
    await _append(storage, _start(2))


async def _holds(storage: Storage, *entries: Entry, run_id: str = _RUN) -> list[Entry]:
    """Check that the journal is exactly ``entries``; return what was read."""
    found = await storage.read_all(run_id)
    _expect(
        len(found) == len(entries),
        f"{len(entries)} entries were appended, read_all returned {len(found)}",
    )
    for offset, (given, wanted) in enumerate(zip(found, entries, strict=True)):
        _expect(
            given.offset == offset,
            f"the entry at position {offset} has offset {given.offset!r} in read_all",
        )
        _expect(given == wanted.at(offset), f"{wanted!r} was appended, read_all returned {given!r}")
    return found


async def _listed(storage: Storage) -> list[str]:
    return sorted([run_id async for run_id in storage.list_runs()])


# --- the rules -------------------------------------------------------------------------------


async def _has_the_methods(storage: Storage) -> None:
    complete = isinstance(storage, Storage)  # pyright: ignore[reportUnnecessaryIsInstance]
    _expect(complete, "append, read_all or list_runs is missing")


async def _unknown_runs_are_empty(storage: Storage) -> None:
    found = await storage.read_all(_RUN)
    _expect(found == [], f"read_all returned {found!r}")
    listed = await _listed(storage)
    _expect(listed == [], f"list_runs of an empty storage returned {listed!r}")


async def _offsets_count_from_0(storage: Storage) -> None:
    appended: list[Entry] = [_start(), _step("a"), _step("b").at(7), _complete()]
    for expected, entry in enumerate(appended):
        given = await storage.append(_RUN, entry)
        _expect(
            type(given) is int and given == expected,
            f"append number {expected + 1} returned offset {given!r} instead of {expected}",
        )
    await _holds(storage, _start(), _step("a"), _step("b"), _complete())


async def _entries_come_back_whole(storage: Storage) -> None:
    extra = b'{"trace":{"id":"7f","tags":[1,null]}}'
    entries: list[Entry] = [
        _start(
            version="v1",
            writer="w",
            workflow="f",
            metadata_json=b'{"q":"\xc3\xbc \xf0\x9f\x99\x82"}',
        ),
        _step("nested", result={"a": [1, 2.5, None, True, {"b": "line\nbreak"}]}),
        _step("long", result="x" * 300_000),
        StepEntry(
            session=1,
            timestamp=_STAMP,
            step_id="extra#2",
            name="extra",
            result_json=b"1e0",
            extra_json=extra,
        ),
        SuspendEntry(session=1, timestamp=_STAMP, reason="", waiting_for="first", more=True),
        SuspendEntry(session=1, timestamp=_STAMP, reason="why", waiting_for="ok", timeout=_STAMP),
        _start(2, source=ForkSource(run_id="run-0", from_offset=3)),
        ResumeEntry.of(session=2, timestamp=_STAMP, event_name="ok", value={"by": "ada"}),
    ]
    ends: list[Entry] = [
        _complete(2),
        ErrorEntry(session=2, timestamp=_STAMP, message="m", name="ValueError", stack="s"),
        CancelEntry(session=2, timestamp=_STAMP, reason="suspend_timeout_expired"),
    ]
    for number, end in enumerate(ends):
        run_id = f"run-{number}"
        await _append(storage, *entries[:6], run_id=run_id)
        await as_session_storage(storage).release(run_id, 1)
        await _append(storage, *entries[6:], end, run_id=run_id)
        await _holds(storage, *entries, end, run_id=run_id)


async def _values_keep_their_spelling(storage: Storage) -> None:
    for number, written in enumerate(_SPELLINGS):
        nested = b'{"q":[' + written + b"]}"
        entries: list[Entry] = [
            _start(metadata_json=nested),
            _step("value").replace(result_json=written),
            _step("nested").replace(result_json=nested),
            SuspendEntry(session=1, timestamp=_STAMP, reason="", waiting_for="ok"),
            _start(2),
            ResumeEntry(session=2, timestamp=_STAMP, event_name="ok", value_json=nested),
        ]
        run_id = f"run-{number}"
        await _append(storage, *entries[:4], run_id=run_id)
        await as_session_storage(storage).release(run_id, 1)
        await _append(storage, *entries[4:], run_id=run_id)
        found = await _holds(storage, *entries, run_id=run_id)
        for given, wanted in zip(found, entries, strict=True):
            _expect(
                _written(given) == _written(wanted),
                f"{wanted!r} was appended, read_all returned {given!r}",
            )


def _written(entry: Entry) -> bytes | None:
    """Return the JSON text of an entry's value, which equal entries may spell differently."""
    match entry:
        case StartEntry(metadata_json=value):
            return value
        case StepEntry(result_json=value) | ResumeEntry(value_json=value):
            return value
        case _:
            return None


async def _any_character_is_kept(storage: Storage) -> None:
    for number, character in enumerate("\0\x01\x1f\x7f\x85\u2028\ufeff\uffff\U0010ffff"):
        text = f"a{character}b"
        entries: list[Entry] = [
            _start(version=text, metadata_json=encode_value({text: text})),
            _step(f"{text}#2", result=[text, {text: character}]),
            SuspendEntry(session=1, timestamp=_STAMP, reason=text, waiting_for=text),
            _start(2),
            ResumeEntry.of(session=2, timestamp=_STAMP, event_name=text, value=text),
            ErrorEntry(session=2, timestamp=_STAMP, message=text, name=text, stack=text),
        ]
        run_id = f"run-{number}"
        await _append(storage, *entries[:3], run_id=run_id)
        await as_session_storage(storage).release(run_id, 1)
        await _append(storage, *entries[3:], run_id=run_id)
        await _holds(storage, *entries, run_id=run_id)


async def _what_is_read_is_the_callers(storage: Storage) -> None:
    await _append(storage, _start(), _step("a"))
    (await storage.read_all(_RUN)).clear()
    await _holds(storage, _start(), _step("a"))


async def _a_journal_begins_with_start(storage: Storage) -> None:
    await _refuses("a step as the first entry", UsageError, storage.append(_RUN, _step()))
    await _holds(storage)
    listed = await _listed(storage)
    _expect(listed == [], f"list_runs returned {listed!r} after a refused append")
    await _append(storage, _start())
    await _refuses(
        "a step of a session without a start", UsageError, storage.append(_RUN, _step(session=5))
    )
    await _holds(storage, _start())


async def _older_sessions_are_fenced(storage: Storage) -> None:
    await _supersede(storage)
    late: list[Entry] = [_step(), _complete()]
    for entry in late:
        await _refuses(
            f"a {entry.type} of a superseded session", FencedError, storage.append(_RUN, entry)
        )
    await _refuses(
        "a start of a superseded session",
        (FencedError, WriteContentionError),
        storage.append(_RUN, _start()),
    )
    await _append(storage, _step("b", 2))
    await _holds(storage, _start(), _step("a"), _start(2), _step("b", 2))


async def _a_session_number_is_taken_once(storage: Storage) -> None:
    await _append(storage, _start(1, writer="first"))
    await _refuses(
        "a second start of session 1",
        (FencedError, WriteContentionError),
        storage.append(_RUN, _start(1, writer="second")),
    )
    await _append(storage, _step("a"))
    await _holds(storage, _start(1, writer="first"), _step("a"))


async def _racing_starts_leave_one_owner(storage: Storage) -> None:
    won: list[str] = []

    async def race(writer: str) -> None:
        with suppress(FencedError, WriteContentionError):
            await storage.append(_RUN, _start(1, writer=writer))
            won.append(writer)

    async with create_task_group() as group:
        for number in range(8):
            group.start_soon(race, f"w{number}")
    _expect(len(won) == 1, f"of 8 concurrent starts of session 1, {len(won)} were accepted")
    await _holds(storage, _start(1, writer=won[0]))


async def _nothing_follows_a_terminal_entry(storage: Storage) -> None:
    ends: list[Entry] = [
        _complete(),
        ErrorEntry(session=1, timestamp=_STAMP, message="m"),
        CancelEntry(session=1, timestamp=_STAMP),
    ]
    for end in ends:
        run_id = f"run-{end.type}"
        await _append(storage, _start(), end, run_id=run_id)
        await _refuses(
            f"a step after {end.type!r}", TerminalRunError, storage.append(run_id, _step())
        )
        await as_session_storage(storage).release(run_id, 1)
        await _refuses(
            f"a new session after {end.type!r}", TerminalRunError, storage.append(run_id, _start(2))
        )
        await _holds(storage, _start(), end, run_id=run_id)


async def _appends_at_once_are_all_kept(storage: Storage) -> None:
    given: dict[str, int] = {}

    async def append(name: str) -> None:
        given[name] = await storage.append(_RUN, _step(name))

    await _append(storage, _start())
    async with create_task_group() as group:
        for number in range(30):
            group.start_soon(append, f"s{number}")
    found = await storage.read_all(_RUN)
    at = {each.step_id: each.offset for each in found if isinstance(each, StepEntry)}
    _expect(len(found) == 31, f"of 30 concurrent appends the journal has {len(found) - 1}")
    _expect(at == given, "append returned other offsets than read_all")
    _expect(sorted(given.values()) == [*range(1, 31)], "the offsets are not 1 to 30")


async def _a_cancelled_append_is_there_or_not(storage: Storage) -> None:
    for steps in range(6):
        run_id = f"run-{steps}"
        await _append(storage, _start(), run_id=run_id)
        await _append_and_cancel(storage, run_id, steps)
        found = await storage.read_all(run_id)
        _expect(len(found) <= 2, f"the journal has {len(found)} entries after it")
        offset = await storage.append(run_id, _step("b"))
        _expect(offset == len(found), f"the next append returned offset {offset}, not {len(found)}")
        landed = [_step("a")] if len(found) == 2 else []
        await _holds(storage, _start(), *landed, _step("b"), run_id=run_id)


async def _append_and_cancel(storage: Storage, run_id: str, steps: int) -> None:
    """Cancel an append after ``steps`` iterations of the event loop."""
    scope = CancelScope()

    async def append() -> None:
        with scope:
            await storage.append(run_id, _step("a"))

    async with create_task_group() as group:
        group.start_soon(append)
        for _ in range(steps):
            await checkpoint()
        scope.cancel()


async def _runs_are_listed_once(storage: Storage) -> None:
    names = ["run-1", "run-10", "A:b@c+d_e.f", "A-Z_0.9", "-", "a..b", "con", "9", "x" * 200]
    for run_id in names:
        await _append(storage, _start(), _step(), run_id=run_id)
    listed = await _listed(storage)
    _expect(
        listed == sorted(names), f"the runs are {sorted(names)!r}, list_runs returned {listed!r}"
    )


async def _runs_are_kept_apart(storage: Storage) -> None:
    await _append(storage, _start(), _step("a"), run_id="run-1")
    await _append(storage, _start(), _complete(), run_id="run-1.2")
    await _append(storage, _step("b"), run_id="run-1")
    await _holds(storage, _start(), _step("a"), _step("b"), run_id="run-1")
    await _holds(storage, _start(), _complete(), run_id="run-1.2")


async def _case_tells_runs_apart(storage: Storage) -> None:
    run_ids = ["run-a", "RUN-A", "Run-a"]
    for run_id in run_ids:
        found = await storage.read_all(run_id)
        _expect(found == [], f"read_all of {run_id!r} returned {found!r}, which is another run's")
        await _append(storage, _start(), _step(run_id), run_id=run_id)
    for run_id in run_ids:
        await _holds(storage, _start(), _step(run_id), run_id=run_id)
    listed = await _listed(storage)
    _expect(listed == sorted(run_ids), f"the runs are {run_ids!r}, list_runs returned {listed!r}")


async def _many_runs_are_listed(storage: Storage) -> None:
    run_ids = [f"run-{number}" for number in range(MANY_RUNS)]
    unwritten = iter(run_ids)

    async def write() -> None:
        for run_id in unwritten:
            await _append(storage, _start(), run_id=run_id)
            await as_session_storage(storage).release(run_id, 1)

    async with create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(write)
    listed = await _listed(storage)
    _expect(listed == sorted(run_ids), f"of {MANY_RUNS} runs list_runs returned {len(listed)}")


async def _runs_at_once_keep_their_order(storage: Storage) -> None:
    run_ids = [f"run-{number}" for number in range(12)]

    async def write(run_id: str) -> None:
        await _append(storage, _start(), *map(_step, "abcd"), run_id=run_id)

    async with create_task_group() as group:
        for run_id in run_ids:
            group.start_soon(write, run_id)
    for run_id in run_ids:
        await _holds(storage, _start(), *map(_step, "abcd"), run_id=run_id)


async def _bad_run_ids_are_refused(storage: Storage) -> None:
    for run_id in ("", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a\n", "\xfc", "x" * 201):
        await _refuses(f"append to {run_id!r}", UsageError, storage.append(run_id, _start()))
        await _refuses(f"read_all of {run_id!r}", UsageError, storage.read_all(run_id))
        if isinstance(storage, SessionStorage):
            creating = storage.create(run_id, [_start()])
            await _refuses(f"create of {run_id!r}", UsageError, creating)
    listed = await _listed(storage)
    _expect(listed == [], f"list_runs returned {listed!r}")


async def _runs_recover(storage: Storage) -> None:
    async with await start(storage, _RUN, metadata={"q": 1}) as run:
        await run.record("llm", str, "first")
    async with await start(storage, _RUN) as run:
        _expect(run.metadata == {"q": 1}, f"the metadata came back as {run.metadata!r}")
        replayed = await run.record("llm", str, "again")
        _expect(replayed == "first", f"a recorded step returned {replayed!r} in the next session")
        await run.complete()
    async with await fork(storage, "run-2", source=_RUN, from_offset=2) as branch:
        replayed = await branch.record("llm", str, "again")
        _expect(replayed == "first", f"a recorded step returned {replayed!r} in a fork")
        await branch.complete()

    async def start_again() -> None:
        async with await start(storage, _RUN):
            pass

    await _refuses("starting a run that is over", TerminalRunError, start_again())


async def _a_journal_is_created_in_one_go(storage: Storage) -> None:
    if not isinstance(storage, SessionStorage):
        return
    entries: list[Entry] = [_start(), _step(), _start(2)]
    await storage.create(_RUN, entries)
    await _holds(storage, *entries)
    offset = await storage.append(_RUN, _step("b", 2))
    _expect(offset == 3, f"the created session's first append returned offset {offset}, not 3")
    await storage.release(_RUN, 2)
    await _refuses("creating a run that exists", UsageError, storage.create(_RUN, entries))
    await _holds(storage, *entries, _step("b", 2))


async def _of_creates_at_once_one_wins(storage: Storage) -> None:
    if not isinstance(storage, SessionStorage):
        return
    made: list[str] = []

    async def create(writer: str) -> None:
        with suppress(KassetteError):
            await storage.create(_RUN, [_start(writer=writer), _start(2)])
            made.append(writer)

    async with create_task_group() as group:
        for number in range(8):
            group.start_soon(create, f"w{number}")
    _expect(len(made) == 1, f"of 8 concurrent creates of one run, {len(made)} were accepted")
    await _holds(storage, _start(writer=made[0]), _start(2))


async def _sessions_are_released(storage: Storage) -> None:
    if not isinstance(storage, SessionStorage):
        return
    await _append(storage, _start())
    for session in (1, 1, 9):
        await storage.release(_RUN, session)
    await storage.release("unknown", 1)
    await _append(storage, _start(2), _step("a", 2))
    await storage.release(_RUN, 1)
    await _append(storage, _step("b", 2))
    storage.abandon(_RUN, 2)
    storage.abandon(_RUN, 2)
    await _append(storage, _start(3))
    await storage.release(_RUN, 3)
    await _holds(storage, _start(), _start(2), _step("a", 2), _step("b", 2), _start(3))


RULES: Final[dict[str, Callable[[Storage], Awaitable[None]]]] = {
    "a storage has three methods": _has_the_methods,
    "an unknown run has no entries": _unknown_runs_are_empty,
    "the storage assigns offsets, counted from 0": _offsets_count_from_0,
    "entries come back as they were appended, in order": _entries_come_back_whole,
    "values come back as they were written, byte for byte": _values_keep_their_spelling,
    "any character comes back": _any_character_is_kept,
    "the result of read_all belongs to the caller": _what_is_read_is_the_callers,
    "a journal and a session begin with a start entry": _a_journal_begins_with_start,
    "a superseded session is fenced": _older_sessions_are_fenced,
    "a session number is used only once": _a_session_number_is_taken_once,
    "of several sessions opened concurrently, one owns the run": _racing_starts_leave_one_owner,
    "nothing follows a terminal entry": _nothing_follows_a_terminal_entry,
    "concurrent appends are all stored": _appends_at_once_are_all_kept,
    "a cancelled append is stored completely or not at all": _a_cancelled_append_is_there_or_not,
    "list_runs yields every run once": _runs_are_listed_once,
    "runs are separate": _runs_are_kept_apart,
    "run ids that differ in case name different runs": _case_tells_runs_apart,
    "runs that are written concurrently preserve their order": _runs_at_once_keep_their_order,
    "a bad run id is refused": _bad_run_ids_are_refused,
    "a run recovers and can be forked": _runs_recover,
    "create writes a whole journal, and only a new one": _a_journal_is_created_in_one_go,
    "of several concurrent creates, one succeeds": _of_creates_at_once_one_wins,
    "a released session lets the next one open": _sessions_are_released,
    "list_runs yields more runs than fit on a page": _many_runs_are_listed,
}
"""The function that checks each rule, in order of execution."""
