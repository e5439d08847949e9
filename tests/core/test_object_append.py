"""The append loop over an object store (D5, D6), rule by rule; no store, no event loop, no pause."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kassette import (
    CompleteEntry,
    Entry,
    FencedError,
    InternalError,
    JournalCorruptionError,
    KassetteError,
    StartEntry,
    StepEntry,
    StorageError,
    TerminalRunError,
    UsageError,
    WriteContentionError,
    encode_entry,
)
from kassette.object_append import (
    FIRST_PAUSE,
    MAX_ATTEMPTS,
    MAX_PAUSE,
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
LOST = TimeoutError("no answer")
UNSETTLED: list[AppendCommand] = [PutRefused(), PutUnclear(LOST)]


def start(session: int, writer: str = "me") -> StartEntry:
    return StartEntry(session=session, timestamp=STAMP, writer=writer)


def step(session: int, name: str) -> StepEntry:
    return StepEntry.of(session=session, timestamp=STAMP, step_id=name, name=name, result=name)


def complete(session: int) -> CompleteEntry:
    return CompleteEntry(session=session, timestamp=STAMP)


def body(*entries: Entry) -> bytes:
    return b"".join(map(encode_entry, entries, range(len(entries))))


def knowing(*entries: Entry, etag: str | None = "e1") -> ObjectWriter:
    writer = ObjectWriter("run-1")
    writer.know(body(*entries), etag)
    return writer


def append(*entries: Entry, create: bool = False) -> AppendEntries:
    return AppendEntries(entries, create)


def asked_to_put(effect: AppendEffect) -> PutObject:
    assert isinstance(effect, PutObject)
    return effect


def offsets(effect: AppendEffect) -> Sequence[int | KassetteError]:
    assert isinstance(effect, Settled)
    return effect.outcomes


def refusal(effect: AppendEffect) -> KassetteError:
    assert isinstance(effect, Settled)
    (error,) = set(effect.outcomes)
    assert isinstance(error, KassetteError)
    assert error.run_id == "run-1"
    return error


# --- one round trip (D6) -------------------------------------------------------------------


def test_d6_a_writer_that_knows_the_object_appends_with_one_put() -> None:
    """Every step of a run would cost a get besides its put."""
    writer = knowing(start(1))
    assert writer.known
    for number in (1, 2, 3):
        put = asked_to_put(writer.handle(append(step(1, f"s{number}"))))
        assert put.etag == f"e{number}"
        assert offsets(writer.handle(PutDone(f"e{number + 1}"))) == [number]
    assert put.body == body(start(1), step(1, "s1"), step(1, "s2"), step(1, "s3"))


def test_d6_a_writer_that_knows_nothing_reads_first_and_at_once() -> None:
    """It would overwrite a journal, or pause where nobody is in the way."""
    writer = ObjectWriter("run-1")
    assert not writer.known
    assert writer.handle(append(start(2))) == GetObject(0.0)
    put = asked_to_put(writer.handle(Found(body(start(1)), "e7")))
    assert put == PutObject(body(start(1), start(2)), "e7")


def test_d6_a_new_journal_is_put_on_condition_that_there_is_none() -> None:
    """Two first sessions would overwrite each other."""
    writer = ObjectWriter("run-1")
    writer.handle(append(start(1)))
    assert writer.handle(NotFound()) == PutObject(body(start(1)), None)


def test_d6_waiting_entries_go_out_together_with_offsets_of_their_own() -> None:
    """Branches that wait would each cost a put, or share an offset."""
    writer = knowing(start(1))
    put = asked_to_put(writer.handle(append(step(1, "a"), step(1, "b"), step(1, "c"))))
    assert put.body == body(start(1), step(1, "a"), step(1, "b"), step(1, "c"))
    assert offsets(writer.handle(PutDone("e2"))) == [1, 2, 3]


def test_d6_a_refused_entry_takes_no_offset_from_its_neighbours() -> None:
    """An old session's append would tear a hole into the journal of the new one."""
    writer = knowing(start(1), start(2))
    put = asked_to_put(writer.handle(append(step(2, "a"), step(1, "old"), step(2, "b"))))
    assert put.body == body(start(1), start(2), step(2, "a"), step(2, "b"))
    first, refused, last = offsets(writer.handle(PutDone("e2")))
    assert (first, last) == (2, 3)
    assert isinstance(refused, FencedError)
    assert asked_to_put(writer.handle(append(step(2, "c")))).body.startswith(put.body)


def test_d6_nothing_is_put_where_every_entry_is_refused() -> None:
    """A fenced writer would still cost requests, and rewrite the journal."""
    error = refusal(knowing(start(2)).handle(append(step(1, "old"))))
    assert isinstance(error, FencedError)
    assert (error.rejected_session, error.active_session) == (1, 2)


def test_d4_nothing_follows_a_terminal_entry() -> None:
    """A run that is over would go on."""
    writer = knowing(start(1))
    writer.handle(append(complete(1), step(1, "late")))
    done, late = offsets(writer.handle(PutDone("e2")))
    assert done == 1
    assert isinstance(late, TerminalRunError)
    assert isinstance(refusal(writer.handle(append(start(2)))), TerminalRunError)


def test_d11_a_torn_tail_is_not_carried_on() -> None:
    """An append that never happened would damage the line after it."""
    writer = ObjectWriter("run-1")
    writer.know(body(start(1)) + b'{"type":"st', "e1")
    assert asked_to_put(writer.handle(append(step(1, "a")))).body == body(start(1), step(1, "a"))


# --- a lost answer is not a lost race (D5) ---------------------------------------------------


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_an_unsettled_put_is_looked_for_in_the_journal(answer: AppendCommand) -> None:
    """A put that landed unheard would be written twice, or taken for a fence."""
    writer = knowing(start(1))
    put = asked_to_put(writer.handle(append(step(1, "a"), step(1, "b"))))
    assert isinstance(writer.handle(answer), GetObject)
    assert offsets(writer.handle(Found(put.body, "e2"))) == [1, 2]
    assert asked_to_put(writer.handle(append(step(1, "c")))).etag == "e2"


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_a_put_that_landed_is_found_below_what_others_wrote_since(answer: AppendCommand) -> None:
    """A session that was superseded after its put landed would report the step as lost."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a")))
    writer.handle(answer)
    found = Found(body(start(1), step(1, "a"), start(2)), "e3")
    assert offsets(writer.handle(found)) == [1]
    assert isinstance(refusal(writer.handle(append(step(1, "b")))), FencedError)


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_where_nothing_has_changed_the_identical_bytes_are_put_again(
    answer: AppendCommand,
) -> None:
    """The first put, if it lands after all, would not be recognised as the same."""
    writer = knowing(start(1))
    first = writer.handle(append(step(1, "a")))
    writer.handle(answer)
    assert writer.handle(Found(body(start(1)), "e1")) == first
    assert isinstance(writer.handle(PutRefused()), GetObject)
    landed_late = Found(body(start(1), step(1, "a")), "e2")
    assert offsets(writer.handle(landed_late)) == [1]


def test_d5_an_unsettled_first_start_is_put_again_while_there_is_no_object() -> None:
    """A run whose very first put got no answer could never begin."""
    writer = knowing(etag=None)
    first = writer.handle(append(start(1)))
    writer.handle(PutUnclear(LOST))
    assert writer.handle(NotFound()) == first
    writer.handle(PutRefused())
    assert offsets(writer.handle(Found(body(start(1)), "e1"))) == [0]


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_a_newer_session_in_the_journal_fences(answer: AppendCommand) -> None:
    """The older session would write on beside the newer one."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a")))
    writer.handle(answer)
    error = refusal(writer.handle(Found(body(start(1), start(2)), "e2")))
    assert isinstance(error, FencedError)
    assert error.active_session == 2


def test_d5_of_two_starters_with_one_number_the_token_tells_who_won() -> None:
    """Both racing sessions, or neither, would take themselves for the owner."""
    mine, theirs = start(2, "mine"), start(2, "theirs")
    writer = knowing(start(1))
    writer.handle(append(mine))
    writer.handle(PutRefused())
    error = refusal(writer.handle(Found(body(start(1), theirs), "e2")))
    assert isinstance(error, FencedError)
    writer = knowing(start(1))
    writer.handle(append(mine))
    writer.handle(PutRefused())
    assert offsets(writer.handle(Found(body(start(1), mine), "e2"))) == [1]


def test_d4_a_start_that_lost_to_an_older_sessions_step_follows_it() -> None:
    """The new session would be refused, or not learn from its offset that it has to reload."""
    writer = knowing(start(1))
    writer.handle(append(start(2)))
    writer.handle(PutRefused())
    put = asked_to_put(writer.handle(Found(body(start(1), step(1, "a")), "e2")))
    assert put == PutObject(body(start(1), step(1, "a"), start(2)), "e2")
    assert offsets(writer.handle(PutDone("e3"))) == [2]


# --- what the store refuses, loses or breaks -----------------------------------------------


def test_d5_a_deleted_journal_is_an_error_of_its_own_and_never_created_anew() -> None:
    """A run that an operator deleted would rise again, without its beginning."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a")))
    writer.handle(PutRefused())
    error = refusal(writer.handle(NotFound()))
    assert type(error) is StorageError
    assert "was deleted while its session was open" in str(error)
    assert not error.rolled_back


def test_d5_a_journal_made_anew_by_somebody_else_is_left_alone() -> None:
    """After delete and restart, the old session 1 would write into the new session 1's journal."""
    writer = knowing(start(1, "old"), step(1, "a"))
    writer.handle(append(step(1, "b")))
    writer.handle(PutRefused())
    error = refusal(writer.handle(Found(body(start(1, "new"), step(1, "a")), "n2")))
    assert type(error) is StorageError
    assert "deleted and made anew by somebody else" in str(error)


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_the_budget_is_five_puts_and_each_pause_is_double(answer: AppendCommand) -> None:
    """A store that never answers would hold a session for ever, or be hammered."""
    writer = knowing(start(1))
    effect = writer.handle(append(step(1, "a")))
    pauses: list[float] = []
    for _ in range(MAX_ATTEMPTS):
        asked_to_put(effect)
        look = writer.handle(answer)
        assert isinstance(look, GetObject)
        pauses.append(look.pause)
        effect = writer.handle(Found(body(start(1)), "e1"))
    error = refusal(effect)
    assert MAX_ATTEMPTS == 5
    assert isinstance(error, WriteContentionError)
    assert pauses == [FIRST_PAUSE * 2**n for n in range(MAX_ATTEMPTS)]
    assert pauses[-1] <= MAX_PAUSE
    assert error.__cause__ is (LOST if isinstance(answer, PutUnclear) else None)
    assert ("no answer" in str(error)) == isinstance(answer, PutUnclear)
    assert writer.handle(append(step(1, "b"))) == GetObject(0.0)


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (OSError("gone"), "(last: OSError('gone'))"),
        (StorageError("503 of S3"), "(last: 503 of S3)"),
    ],
)
def test_contention_says_what_went_wrong_last(cause: Exception, said: str) -> None:
    """An operator would read of rivals where the network was down."""
    writer = knowing(start(1))
    effect = writer.handle(append(step(1, "a")))
    for _ in range(MAX_ATTEMPTS):
        asked_to_put(effect)
        writer.handle(PutUnclear(cause))
        effect = writer.handle(Found(body(start(1)), "e1"))
    assert said in str(refusal(effect))


def test_d5_every_append_has_a_budget_of_its_own() -> None:
    """A long run over a shaky network would end in contention without any."""
    writer = knowing(start(1))
    for number in range(1, MAX_ATTEMPTS + 2):
        put = asked_to_put(writer.handle(append(step(1, f"s{number}"))))
        writer.handle(PutUnclear(LOST))
        assert offsets(writer.handle(Found(put.body, f"e{number + 1}"))) == [number]


def test_d5_a_clear_refusal_is_not_repeated_and_leaves_the_session_its_object() -> None:
    """A missing permission would be tried five times, or cost the session a get and its life."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a"), step(1, "b")))
    denied = StorageError("403", rolled_back=True)
    error = refusal(writer.handle(PutDenied(denied)))
    assert error is denied
    assert denied.rolled_back
    put = asked_to_put(writer.handle(append(step(1, "a"))))
    assert put == PutObject(body(start(1), step(1, "a")), "e1")


def test_d5_a_clear_refusal_after_an_open_put_promises_nothing() -> None:
    """A session would go on in the belief that a step is unrecorded, and then it lands."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a")))
    writer.handle(PutUnclear(LOST))
    asked_to_put(writer.handle(Found(body(start(1)), "e1")))
    denied = StorageError("403", rolled_back=True)
    error = refusal(writer.handle(PutDenied(denied)))
    assert isinstance(error, StorageError)
    assert not error.rolled_back
    assert "may still land" in str(error)
    assert error.__cause__ is denied


def test_d5_a_clear_refusal_is_certain_again_once_the_object_has_changed() -> None:
    """A put under a condition that cannot come true again would be feared for ever."""
    writer = knowing(start(1))
    writer.handle(append(start(2)))
    writer.handle(PutUnclear(LOST))
    asked_to_put(writer.handle(Found(body(start(1), step(1, "a")), "e2")))
    denied = StorageError("403", rolled_back=True)
    assert refusal(writer.handle(PutDenied(denied))) is denied


def test_d5_an_append_that_landed_leaves_no_doubt_to_the_next() -> None:
    """A refusal that is certain would cost the session: nobody would believe it."""
    writer = knowing(start(1))
    asked_to_put(writer.handle(append(step(1, "a"))))
    writer.handle(PutUnclear(LOST))
    asked_to_put(writer.handle(Found(body(start(1)), "e1")))
    assert writer.handle(PutDone("e2")) == Settled([1])
    asked_to_put(writer.handle(append(step(1, "b"))))
    denied = StorageError("no", rolled_back=True)
    assert writer.handle(PutDenied(denied)) == Settled([denied])


def test_an_error_of_ours_that_is_none_of_storage_is_kept_where_a_put_may_still_land() -> None:
    """The caller would see an AttributeError in place of what the client said."""
    writer = knowing(start(1))
    asked_to_put(writer.handle(append(step(1, "a"))))
    writer.handle(PutUnclear(LOST))
    said = UsageError("the client is closed")
    assert writer.handle(GetFailed(said)) == Settled([said])


def test_d5_after_a_deletion_a_new_run_begins_at_offset_0() -> None:
    """The new journal would begin in the middle, and be damaged from its birth."""
    writer = knowing(start(1))
    asked_to_put(writer.handle(append(step(1, "a"))))
    writer.handle(PutUnclear(LOST))
    assert isinstance(writer.handle(NotFound()), Settled)
    assert not writer.known
    assert writer.handle(append(start(1, "again"))) == GetObject()
    put = asked_to_put(writer.handle(NotFound()))
    assert put == PutObject(body(start(1, "again")), None)
    assert writer.handle(PutDone("e1")) == Settled([0])
    assert writer.known


def test_a_read_that_fails_ends_the_append_and_what_was_known() -> None:
    """A session would go on without knowing what its journal holds."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a")))
    writer.handle(PutUnclear(LOST))
    cause = OSError("unreachable")
    error = refusal(writer.handle(GetFailed(cause)))
    assert type(error) is StorageError
    assert error.__cause__ is cause
    assert not error.rolled_back
    assert "unreachable" in str(error)
    assert not writer.known


def test_an_error_without_words_is_named() -> None:
    """The line that tells why a run stopped would end in a colon and nothing."""
    writer = knowing(start(1))
    writer.handle(append(step(1, "a")))
    writer.handle(PutUnclear(TimeoutError()))
    assert "TimeoutError" in str(refusal(writer.handle(GetFailed(TimeoutError()))))


def test_a_read_that_fails_with_an_error_of_ours_keeps_it() -> None:
    """What the client says of bucket and credentials would be buried."""
    writer = ObjectWriter("run-1")
    writer.handle(append(start(1)))
    given = StorageError("no such bucket")
    assert refusal(writer.handle(GetFailed(given))) is given


def test_a_damaged_journal_is_refused_with_its_run_and_line() -> None:
    """An entry would be appended to a journal that cannot be read."""
    damaged = body(start(1)) + b"nonsense\n"
    writer = ObjectWriter("run-1")
    writer.handle(append(start(2)))
    error = refusal(writer.handle(Found(damaged, "e1")))
    assert isinstance(error, JournalCorruptionError)
    assert error.line == 2
    with pytest.raises(JournalCorruptionError) as caught:
        writer.know(damaged, "e1")
    assert caught.value.run_id == "run-1"
    assert not writer.known


# --- a whole journal in one put (D12) -------------------------------------------------------

FORK = (start(1), step(1, "a"), start(2))


def test_d12_a_new_journal_is_one_put_and_no_get() -> None:
    """A crash in the middle of a fork would leave half a journal."""
    writer = ObjectWriter("run-1")
    assert writer.handle(append(*FORK, create=True)) == PutObject(body(*FORK), None)
    assert offsets(writer.handle(PutDone("e1"))) == [0, 1, 2]


def test_d12_a_target_that_exists_is_left_alone() -> None:
    """A fork would replace another run's journal, or write behind it."""
    writer = ObjectWriter("run-1")
    writer.handle(append(*FORK, create=True))
    writer.handle(PutRefused())
    error = refusal(writer.handle(Found(body(start(1, "theirs")), "e1")))
    assert type(error) is UsageError
    assert "has a journal already" in str(error)


def test_d12_a_target_whose_session_is_open_here_keeps_it() -> None:
    """A fork into a live run would take the live session's knowledge of its object away."""
    writer = knowing(start(1))
    assert type(refusal(writer.handle(append(*FORK, create=True)))) is UsageError
    assert asked_to_put(writer.handle(append(step(1, "a")))).etag == "e1"


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_a_fork_whose_answer_was_lost_is_not_refused_as_taken(answer: AppendCommand) -> None:
    """A fork would fail because it has succeeded."""
    writer = ObjectWriter("run-1")
    first = writer.handle(append(*FORK, create=True))
    writer.handle(answer)
    assert writer.handle(NotFound()) == first
    writer.handle(answer)
    assert offsets(writer.handle(Found(body(*FORK, step(2, "b")), "e2"))) == [0, 1, 2]


def test_a_report_of_something_that_was_not_asked_for_is_refused() -> None:
    """A driver's mistake would go unnoticed."""
    with pytest.raises(InternalError, match="not asked for"):
        knowing(start(1)).handle(PutDone("e2"))
