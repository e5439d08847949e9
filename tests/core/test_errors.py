"""The error table of the reference, row by row, and D1: what is an Exception and what is not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

import kassette.errors
from kassette import (
    AppendFailed,
    Complete,
    EventPendingError,
    FencedError,
    InternalError,
    JournalCorruptionError,
    KassetteError,
    MetadataMismatchError,
    PreconditionFailedError,
    Record,
    ReplayMismatchError,
    Resume,
    RunCancelledError,
    SessionClosedError,
    Start,
    StepSucceeded,
    StorageError,
    StreamTooLargeError,
    SuspendedError,
    SuspendError,
    Tail,
    TerminalRunError,
    UsageError,
    ValueRefusedError,
    VersionMismatchError,
    WaitForEvent,
    WriteContentionError,
    check_append,
    decode_line,
    is_precondition_failed_error,
    is_suspend_error,
)
from kassette.errors import naming_run, with_run_id

from .driving import RUN, Session, complete, journal, later, opened, start, step, suspend

ROWS: list[tuple[KassetteError, type[KassetteError], dict[str, object]]] = [
    (UsageError("m", run_id=RUN), KassetteError, {}),
    (TerminalRunError("complete", run_id=RUN), UsageError, {"terminal_state": "complete"}),
    (
        MetadataMismatchError({"a": 1}, None, run_id=RUN),
        UsageError,
        {"stored_metadata": {"a": 1}, "provided_metadata": None},
    ),
    (EventPendingError("ok", run_id=RUN), UsageError, {"waiting_for": "ok"}),
    (ValueRefusedError("m", run_id=RUN), UsageError, {}),
    (StreamTooLargeError("m", run_id=RUN), UsageError, {}),
    (SuspendError("ok", run_id=RUN), KassetteError, {"event_name": "ok"}),
    (SuspendedError("m", run_id=RUN), KassetteError, {}),
    (SessionClosedError("m", run_id=RUN), KassetteError, {}),
    (
        VersionMismatchError("v1", "v2", run_id=RUN),
        KassetteError,
        {"stored_version": "v1", "current_version": "v2"},
    ),
    (RunCancelledError("why", run_id=RUN), KassetteError, {"reason": "why"}),
    (
        ReplayMismatchError("a#2", "a", "b", run_id=RUN),
        KassetteError,
        {"step_id": "a#2", "expected_name": "a", "actual_name": "b"},
    ),
    (
        FencedError(1, 2, run_id=RUN),
        KassetteError,
        {"rejected_session": 1, "active_session": 2},
    ),
    (WriteContentionError("m", run_id=RUN), KassetteError, {}),
    (PreconditionFailedError("m", run_id=RUN), KassetteError, {}),
    (StorageError("m", run_id=RUN, rolled_back=True), KassetteError, {"rolled_back": True}),
    (JournalCorruptionError("m", line=3, run_id=RUN), KassetteError, {"line": 3}),
    (InternalError("m", run_id=RUN), KassetteError, {}),
]
rows = pytest.mark.parametrize(
    ("error", "base", "fields"), ROWS, ids=[type(row[0]).__name__ for row in ROWS]
)


@rows
def test_error_table_row(
    error: KassetteError, base: type[KassetteError], fields: dict[str, object]
) -> None:
    """A class would not be under its base, or a caller could not read the field it decides by."""
    assert isinstance(error, base)
    assert isinstance(error, UsageError) is (base is UsageError or type(error) is UsageError)
    assert {name: getattr(error, name) for name in fields} == fields
    assert error.run_id == RUN
    assert str(error)


@rows
def test_errors_survive_pickle_and_copy(
    error: KassetteError, base: type[KassetteError], fields: dict[str, object]
) -> None:
    """An error crossing a process boundary would lose its fields or fail to unpickle."""
    error.add_note("seen by a worker")
    again: KassetteError
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert again.__notes__ == ["seen by a worker"]
    del error.__notes__


@rows
def test_d1_except_exception_swallows_everything_but_a_suspension(
    error: KassetteError, base: type[KassetteError], fields: dict[str, object]
) -> None:
    """An agent loop's ``except Exception`` would swallow a suspension, or miss a real failure."""
    assert isinstance(error, Exception) is (type(error) is not SuspendError)


def test_d1_every_error_class_is_in_the_table() -> None:
    """A new error would escape ``except KassetteError`` or these tests."""
    defined = {
        each
        for each in vars(kassette.errors).values()
        if isinstance(each, type) and issubclass(each, BaseException)
    }
    assert defined == {type(row[0]) for row in ROWS} | {KassetteError}
    assert not issubclass(KassetteError, Exception)


def test_run_id_is_optional_and_set_once() -> None:
    """An error raised below the layer that knows the run would not name it, or would be renamed."""
    error = UsageError("m")
    assert error.run_id is None
    assert with_run_id(error, "a") is error
    assert with_run_id(error, "b").run_id == "a"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SuspendError("ok"), True),
        (BaseExceptionGroup("g", [SuspendError("ok")]), True),
        (
            BaseExceptionGroup("g", [ValueError(), BaseExceptionGroup("h", [SuspendError("ok")])]),
            True,
        ),
        (ExceptionGroup("g", [ValueError(), SuspendedError("m")]), False),
        (SuspendedError("m"), False),
        (ValueError(), False),
        (None, False),
    ],
)
def test_d1_is_suspend_error_looks_into_nested_groups(error: object, expected: bool) -> None:
    """A task group around ``ctx.suspend`` would hide the suspension from the code that asks."""
    assert is_suspend_error(error) is expected


def test_is_precondition_failed_error_knows_only_that_error() -> None:
    """The object-store append loop would retry what it must not, or give up what it may retry."""
    assert is_precondition_failed_error(PreconditionFailedError("m"))
    assert not is_precondition_failed_error(WriteContentionError("m"))
    assert not is_precondition_failed_error(None)


def test_journal_corruption_names_the_run_as_soon_as_it_is_known() -> None:
    """A damaged journal would be reported without its name or line."""
    error = JournalCorruptionError("not JSON", line=3)
    assert str(error).startswith("journal, line 3: not JSON.")
    assert "run" not in str(error).split(",", maxsplit=1)[0]
    assert "run 'run-1', line 3" in str(with_run_id(error, RUN))


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (TerminalRunError("error", run_id=RUN), "Fork"),
        (MetadataMismatchError(1, 2, run_id=RUN), "Omit it"),
        (EventPendingError("ok", run_id=RUN), "resume()"),
        (SuspendError("ok", run_id=RUN), "raise it again"),
        (VersionMismatchError("v1", "v2", run_id=RUN), "fork it"),
        (ReplayMismatchError("a", "a", "b", run_id=RUN), "fork it before"),
        (FencedError(1, 2, run_id=RUN), "Stop using this session"),
        (JournalCorruptionError("m", line=3), "restore"),
    ],
)
def test_messages_tell_what_to_do(error: KassetteError, fix: str) -> None:
    """The reader of the error would know what is wrong, but not what to do."""
    assert fix in str(error)


# --- raised by the core, where the core raises it --------------------------------------------


def _usage() -> None:
    opened().do(Record(""))


def _terminal() -> None:
    opened(journal(start(), complete()))


def _metadata() -> None:
    opened(journal(start(metadata=1)), metadata=2)


def _pending() -> None:
    opened(journal(start(), suspend("ok")))


def _suspend() -> None:
    opened().wait("ok")


def _suspended() -> None:
    session = opened()
    with pytest.raises(SuspendError):
        session.wait("ok")
    session.do(Complete())


def _closed() -> None:
    session = opened()
    session.do(Complete())
    session.do(Record("llm"))


def _version() -> None:
    opened(journal(start(version="v1")), version="v2")


def _cancelled() -> None:
    stored = journal(start(), suspend("ok", timeout="2026-01-31T12:00:01.000Z"))
    opened(stored, now=later(2))


def _replay() -> None:
    opened(journal(start(), step("llm", name="other"))).step("llm")


def _fenced_after_reload() -> None:
    stored = journal(start())
    session = Session(stored)
    stored.append(start(5).at(1))
    session.tell(Start(writer="w"))
    session.perform(session.tell(AppendFailed(start(2), FencedError(2, 5))))
    session.do(Record("llm"))


def _fenced_by_tail() -> None:
    check_append(Tail(3, 2), step("llm", session=1), run_id=RUN)


def _internal() -> None:
    opened().do(StepSucceeded("llm", 1))


@pytest.mark.parametrize(
    ("raiser", "kind"),
    [
        (_usage, UsageError),
        (_terminal, TerminalRunError),
        (_metadata, MetadataMismatchError),
        (_pending, EventPendingError),
        (_suspend, SuspendError),
        (_suspended, SuspendedError),
        (_closed, SessionClosedError),
        (_version, VersionMismatchError),
        (_cancelled, RunCancelledError),
        (_replay, ReplayMismatchError),
        (_fenced_after_reload, FencedError),
        (_fenced_by_tail, FencedError),
        (_internal, InternalError),
    ],
)
def test_error_table_raised_by_the_core_with_run_id(
    raiser: Callable[[], None], kind: type[KassetteError]
) -> None:
    """The core would raise another class than the table says, or not say for which run."""
    with pytest.raises(KassetteError) as caught:
        raiser()
    assert type(caught.value) is kind
    assert caught.value.run_id == RUN


def test_error_table_JournalCorruptionError_comes_from_the_codec() -> None:
    """Damage would surface as some parser's error."""
    with pytest.raises(JournalCorruptionError) as caught:
        decode_line(b"{", 6)
    assert caught.value.line == 7


def test_one_except_catches_every_kassette_throw() -> None:
    """``except KassetteError`` would not be enough to tell kassette's errors from one's own."""
    for command in (Record("#"), WaitForEvent("ok"), Resume("ok", 1), Start()):
        with pytest.raises(KassetteError):
            opened().do(command)


def test_naming_run_names_the_run_on_errors_that_have_none() -> None:
    """An error raised below the layer that knows the run would not say which run it is about."""
    with pytest.raises(UsageError) as caught, naming_run("run-1"):
        raise UsageError("no")
    assert caught.value.run_id == "run-1"
    with pytest.raises(UsageError) as caught, naming_run("run-1"):
        raise UsageError("no", run_id="another")
    assert caught.value.run_id == "another"
    with naming_run("run-1"):
        pass
