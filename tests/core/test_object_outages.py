"""The append loop over a store that refuses, breaks, loses an object or cuts a body off (D5)."""

from __future__ import annotations

import pytest

from kassette import (
    Entry,
    FencedError,
    JournalCorruptionError,
    StorageError,
    UsageError,
    WriteContentionError,
    decode_journal,
)
from kassette.object_append import (
    FIRST_PAUSE,
    MAX_ATTEMPTS,
    MAX_PAUSE,
    PATIENCE,
    AppendCommand,
    AppendEntries,
    Found,
    GetDenied,
    GetFailed,
    GetObject,
    NotFound,
    ObjectWriter,
    Outage,
    PutDenied,
    PutDone,
    PutObject,
    PutRefused,
    PutUnclear,
    Settled,
)

from .appending import (
    LOST,
    UNSETTLED,
    append,
    asked_to_put,
    body,
    handle,
    knowing,
    offsets,
    refusal,
    start,
    step,
)

# --- what the store refuses, loses or breaks -----------------------------------------------


def test_d5_a_deleted_journal_is_an_error_of_its_own_and_never_created_anew() -> None:
    """A run that an operator deleted would rise again, without its beginning."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, PutRefused())
    error = refusal(handle(writer, NotFound()))
    assert type(error) is StorageError
    assert "was deleted while its session was open" in str(error)
    assert not error.rolled_back


def test_d5_a_journal_made_anew_by_somebody_else_is_left_alone() -> None:
    """After delete and restart, the old session 1 would write into the new session 1's journal."""
    writer = knowing(start(1, "old"), step(1, "a"))
    handle(writer, append(step(1, "b")))
    handle(writer, PutRefused())
    error = refusal(handle(writer, Found(body(start(1, "new"), step(1, "a")), "n2")))
    assert type(error) is StorageError
    assert "deleted and recreated by another writer" in str(error)


def test_d5_the_budget_for_others_is_five_refused_puts_and_each_pause_is_double() -> None:
    """A writer that always loses would hold a session for ever, or hammer the store."""
    writer = knowing(start(1))
    effect = handle(writer, append(step(1, "a")))
    pauses: list[float] = []
    for turn in range(MAX_ATTEMPTS):
        asked_to_put(effect)
        look = handle(writer, PutRefused(), now=1000.0 * turn)
        assert isinstance(look, GetObject)
        pauses.append(look.pause)
        effect = handle(writer, Found(body(start(1)), "e1"), now=1000.0 * turn)
    error = refusal(effect)
    assert MAX_ATTEMPTS == 5
    assert isinstance(error, WriteContentionError)
    assert pauses == [FIRST_PAUSE * 2**n for n in range(MAX_ATTEMPTS)]
    assert error.__cause__ is None
    assert str(error) == (
        "run 'run-1': 5 conditional writes were refused, so another session is writing. Start "
        "the run again; its journal shows what was recorded"
    )
    assert handle(writer, append(step(1, "b"))) == GetObject(0.0)


def test_d5_an_outage_does_not_use_up_the_budget_for_others() -> None:
    """A session would be lost to a restart of the store that somebody else's write comes after."""
    writer = knowing(start(1))
    effect = handle(writer, append(step(1, "a")))
    for _ in range(3 * MAX_ATTEMPTS):
        asked_to_put(effect)
        handle(writer, PutUnclear(LOST))
        effect = handle(writer, Found(body(start(1)), "e1"))
    for _ in range(MAX_ATTEMPTS):
        asked_to_put(effect)
        handle(writer, PutRefused())
        effect = handle(writer, Found(body(start(1)), "e1"))
    error = refusal(effect)
    assert isinstance(error, WriteContentionError)
    assert error.__cause__ is LOST
    assert "TimeoutError('no answer')" in str(error)


def test_d5_the_patience_is_half_a_minute_where_nobody_says_otherwise() -> None:
    """The docs would promise more than a session has, or less."""
    assert PATIENCE == 30.0
    assert AppendEntries((start(1),)).patience == PATIENCE


def test_d5_an_outage_is_outlasted_for_as_long_as_the_patience_says() -> None:
    """A result that is paid for would be lost to a server's restart, or a session hang for ever."""
    writer = knowing(start(1))
    put = handle(writer, append(step(1, "a"), patience=30.0), now=100.0)
    for now, pause in ((110.0, 0.05), (120.0, 0.2), (139.0, 0.8)):
        assert handle(writer, PutUnclear(LOST), now=now) == GetObject(pause)
        assert isinstance(handle(writer, GetFailed(OSError("refused")), now=now), GetObject)
        assert handle(writer, Found(body(start(1)), "e1"), now=now) == put
    handle(writer, PutUnclear(LOST), now=140.0)
    cause = OSError("refused")
    error = refusal(handle(writer, GetFailed(cause), now=140.0))
    assert type(error) is StorageError
    assert not error.rolled_back
    assert error.__cause__ is cause
    assert str(error) == (
        "cannot append to the journal of run 'run-1': OSError('refused'); no usable response for "
        "30.0 s. The entry may have been written all the same: start the run again; its journal shows whether it was"
    )
    assert not writer.known


def test_d5_a_store_that_answers_reads_alone_is_an_outage_all_the_same() -> None:
    """A store that has gone read-only would be asked to write for ever."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a"), patience=30.0), now=0.0)
    handle(writer, PutUnclear(StorageError("503 of S3")), now=5.0)
    asked_to_put(handle(writer, Found(body(start(1)), "e1"), now=34.9))
    handle(writer, PutUnclear(StorageError("503 of S3")), now=35.0)
    error = refusal(handle(writer, Found(body(start(1)), "e1"), now=35.0))
    assert type(error) is StorageError
    assert str(error).startswith(
        "503 of S3; no usable response for 30.0 s. The entry may have been"
    )


def test_d5_a_put_without_an_answer_is_looked_for_however_short_the_patience() -> None:
    """A session would be lost although its put had landed and the store was there to say so."""
    writer = knowing(start(1))
    put = asked_to_put(handle(writer, append(step(1, "a"), patience=0.0)))
    assert isinstance(handle(writer, PutUnclear(LOST), now=50.0), GetObject)
    assert offsets(handle(writer, Found(put.body, "e2"), now=90.0)) == [1]
    handle(writer, append(step(1, "b"), patience=0.0), now=90.0)
    handle(writer, PutUnclear(LOST), now=90.0)
    assert type(refusal(handle(writer, Found(put.body, "e2"), now=90.0))) is StorageError


def test_d5_the_pauses_of_an_outage_grow_up_to_a_bound() -> None:
    """A store that comes back would be hammered, or found again minutes too late."""
    outage = Outage(30.0)
    assert not outage.is_over(7.0)
    pauses: list[float] = []
    for _ in range(1100):
        outage.fail(LOST, 7.0)
        pauses.append(outage.pause())
    assert (FIRST_PAUSE, MAX_PAUSE) == (0.05, 2.0), "as the docs say"
    assert pauses[:7] == [FIRST_PAUSE * 2**n for n in range(6)] + [MAX_PAUSE]
    assert set(pauses[6:]) == {MAX_PAUSE}
    assert (outage.is_over(36.9), outage.is_over(37.0)) == (False, True)
    assert str(outage.error("list", 36.5)).endswith("; no usable response for 29.5 s")


def test_d5_every_append_has_a_budget_of_its_own() -> None:
    """A long run over a shaky network would end in contention without any."""
    writer = knowing(start(1))
    for number in range(1, MAX_ATTEMPTS + 2):
        put = asked_to_put(handle(writer, append(step(1, f"s{number}")), now=20.0 * number))
        handle(writer, PutUnclear(LOST), now=20.0 * number)
        handle(writer, GetFailed(LOST), now=20.0 * number)
        handle(writer, Found(body(*decode_journal(put.body).entries[:-1]), f"e{number}"))
        handle(writer, PutRefused(), now=20.0 * number)
        assert offsets(handle(writer, Found(put.body, f"e{number + 1}"))) == [number]


def test_d5_a_clear_refusal_is_not_repeated_and_leaves_the_session_its_object() -> None:
    """A missing permission would be tried five times, or cost the session a get and its life."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a"), step(1, "b")))
    denied = StorageError("403", rolled_back=True)
    error = refusal(handle(writer, PutDenied(denied)))
    assert error is denied
    assert denied.rolled_back
    put = asked_to_put(handle(writer, append(step(1, "a"))))
    assert put == PutObject(body(start(1), step(1, "a")), "e1")


def test_d5_a_clear_refusal_after_an_open_put_promises_nothing() -> None:
    """A session would go on in the belief that a step is unrecorded, and then it lands."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, PutUnclear(LOST))
    asked_to_put(handle(writer, Found(body(start(1)), "e1")))
    denied = StorageError("403", rolled_back=True)
    error = refusal(handle(writer, PutDenied(denied)))
    assert isinstance(error, StorageError)
    assert not error.rolled_back
    assert "may still succeed" in str(error)
    assert error.__cause__ is denied


def test_d5_what_is_not_certain_anyway_is_told_as_it_is() -> None:
    """An operator would read of a doubt that is nothing new, in place of what the store said."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, PutUnclear(LOST))
    said = StorageError("the store is in maintenance")
    assert refusal(handle(writer, GetDenied(said))) is said


def test_d5_a_clear_refusal_is_certain_again_once_the_object_has_changed() -> None:
    """A put under a condition that cannot come true again would be feared for ever."""
    writer = knowing(start(1))
    handle(writer, append(start(2)))
    handle(writer, PutUnclear(LOST))
    asked_to_put(handle(writer, Found(body(start(1), step(1, "a")), "e2")))
    denied = StorageError("403", rolled_back=True)
    assert refusal(handle(writer, PutDenied(denied))) is denied


def test_d5_an_append_that_landed_leaves_no_doubt_to_the_next() -> None:
    """A refusal that is certain would cost the session: nobody would believe it."""
    writer = knowing(start(1))
    asked_to_put(handle(writer, append(step(1, "a"))))
    handle(writer, PutUnclear(LOST))
    asked_to_put(handle(writer, Found(body(start(1)), "e1")))
    assert handle(writer, PutDone("e2")) == Settled([1])
    asked_to_put(handle(writer, append(step(1, "b"))))
    denied = StorageError("no", rolled_back=True)
    assert handle(writer, PutDenied(denied)) == Settled([denied])


def test_an_error_of_ours_that_is_none_of_storage_is_kept_where_a_put_may_still_land() -> None:
    """The caller would see an AttributeError in place of what the client said."""
    writer = knowing(start(1))
    asked_to_put(handle(writer, append(step(1, "a"))))
    handle(writer, PutUnclear(LOST))
    said = UsageError("the client is closed")
    assert handle(writer, GetDenied(said)) == Settled([said])


def test_d5_after_a_deletion_a_new_run_begins_at_offset_0() -> None:
    """The new journal would begin in the middle, and be damaged from its birth."""
    writer = knowing(start(1))
    asked_to_put(handle(writer, append(step(1, "a"))))
    handle(writer, PutUnclear(LOST))
    assert isinstance(handle(writer, NotFound()), Settled)
    assert not writer.known
    assert handle(writer, append(start(1, "again"))) == GetObject()
    put = asked_to_put(handle(writer, NotFound()))
    assert put == PutObject(body(start(1, "again")), None)
    assert handle(writer, PutDone("e1")) == Settled([0])
    assert writer.known


def test_a_read_that_is_refused_ends_the_append_and_what_was_known() -> None:
    """A session would wait for a permission that nobody gives, and then not know its journal."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, PutUnclear(LOST))
    denied = StorageError("403: access denied", rolled_back=True)
    error = refusal(handle(writer, GetDenied(denied)))
    assert type(error) is StorageError
    assert error.__cause__ is denied
    assert not error.rolled_back
    assert "access denied" in str(error)
    assert not writer.known


def test_an_error_without_words_is_named() -> None:
    """The line that tells why a run stopped would end in a colon and nothing."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a"), patience=0.0))
    handle(writer, PutUnclear(TimeoutError()))
    assert "TimeoutError" in str(refusal(handle(writer, GetFailed(TimeoutError()))))


def test_a_first_read_that_fails_says_so_and_what_the_client_said() -> None:
    """What the client says of bucket and endpoint would be buried, or a write be suspected."""
    writer = ObjectWriter("run-1")
    handle(writer, append(start(1), patience=5.0))
    given = StorageError("nothing listens at http://x:1")
    assert handle(writer, GetFailed(given), now=1.0) == GetObject(FIRST_PAUSE)
    error = refusal(handle(writer, GetFailed(given), now=6.0))
    assert str(error) == "nothing listens at http://x:1; no usable response for 5.0 s"
    assert error.__cause__ is given
    handle(writer, append(start(1), patience=0.0))
    error = refusal(handle(writer, GetFailed(OSError("gone")), now=7.0))
    assert str(error) == (
        "cannot read the journal of run 'run-1': OSError('gone'); no usable response for 0.0 s"
    )


def test_what_an_append_has_sent_is_not_taken_for_what_the_next_one_has() -> None:
    """A step would be told that it is recorded where only the one before it is."""
    writer = knowing(start(1))
    put = asked_to_put(handle(writer, append(step(1, "a"), patience=0.0)))
    handle(writer, PutUnclear(LOST))
    assert isinstance(handle(writer, GetFailed(LOST)), Settled)
    handle(writer, append(step(1, "b"), patience=0.0))
    again = asked_to_put(handle(writer, Found(put.body, "e2")))
    assert again == PutObject(body(start(1), step(1, "a"), step(1, "b")), "e2")
    assert offsets(handle(writer, PutDone("e3"))) == [2]


# --- bodies that were cut off ---------------------------------------------------------------


@pytest.mark.parametrize("answer", UNSETTLED)
@pytest.mark.parametrize("etag", ["e1", "e2"])
def test_a_body_that_ends_within_what_is_known_is_asked_for_again(
    answer: AppendCommand, etag: str
) -> None:
    """An acknowledged entry would be overwritten under the etag of the whole object."""
    known: list[Entry] = [start(1), step(1, "a"), step(1, "b")]
    writer = knowing(*known)
    first = handle(writer, append(step(1, "c")))
    handle(writer, answer)
    for cut in (0, len(body(*known[:2])), len(body(*known)) - 1):
        assert isinstance(handle(writer, Found(body(*known)[:cut], etag)), GetObject)
    assert handle(writer, Found(body(*known), "e1")) == first


@pytest.mark.parametrize("answer", UNSETTLED)
def test_a_body_that_ends_within_what_was_put_is_asked_for_again(answer: AppendCommand) -> None:
    """What landed would be written a second time, behind the part of it that was seen."""
    writer = knowing(start(1))
    put = asked_to_put(handle(writer, append(step(1, "a"), step(1, "b"))))
    handle(writer, answer)
    for cut in (len(body(start(1), step(1, "a"))), len(put.body) - 1):
        assert isinstance(handle(writer, Found(put.body[:cut], "e2")), GetObject)
    assert offsets(handle(writer, Found(put.body, "e2"))) == [1, 2]


def test_a_journal_that_stays_shorter_than_it_was_is_not_written() -> None:
    """An older copy that was restored under a session would be taken for the whole journal."""
    writer = knowing(start(1), step(1, "a"))
    handle(writer, append(step(1, "b"), patience=30.0))
    handle(writer, PutRefused())
    shorter = Found(body(start(1)), "e9")
    assert isinstance(handle(writer, shorter, now=10.0), GetObject)
    error = refusal(handle(writer, shorter, now=40.0))
    assert type(error) is StorageError
    acknowledged = len(body(start(1), step(1, "a")))
    assert f"{len(shorter.body)} bytes" in str(error)
    assert f"had {acknowledged} before" in str(error)


def test_what_is_known_and_no_more_under_another_etag_was_cut_off() -> None:
    """What a rival had written would be overwritten under the etag of its own version."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, PutRefused())
    assert isinstance(handle(writer, Found(body(start(1)), "e2")), GetObject)
    error = refusal(handle(writer, Found(body(start(1), start(2)), "e2")))
    assert isinstance(error, FencedError)


def test_a_damaged_journal_is_refused_with_its_run_and_line() -> None:
    """An entry would be appended to a journal that cannot be read."""
    damaged = body(start(1)) + b"nonsense\n"
    writer = ObjectWriter("run-1")
    handle(writer, append(start(2)))
    error = refusal(handle(writer, Found(damaged, "e1")))
    assert isinstance(error, JournalCorruptionError)
    assert error.line == 2
    with pytest.raises(JournalCorruptionError) as caught:
        writer.know(damaged, "e1")
    assert caught.value.run_id == "run-1"
    assert not writer.known
