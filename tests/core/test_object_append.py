"""The append loop over an object store (D5, D6), rule by rule; no store, no event loop, no pause."""

from __future__ import annotations

import pytest

from kassette import (
    FencedError,
    InternalError,
    TerminalRunError,
    UsageError,
)
from kassette.object_append import (
    AppendCommand,
    Found,
    GetObject,
    NotFound,
    ObjectWriter,
    PutDone,
    PutObject,
    PutRefused,
    PutUnclear,
)

from .appending import (
    LOST,
    UNSETTLED,
    append,
    asked_to_put,
    body,
    complete,
    handle,
    knowing,
    offsets,
    refusal,
    start,
    step,
)

# --- one round trip (D6) -------------------------------------------------------------------


def test_d6_a_writer_that_knows_the_object_appends_with_one_put() -> None:
    """Every step of a run would cost a get besides its put."""
    writer = knowing(start(1))
    assert writer.known
    for number in (1, 2, 3):
        put = asked_to_put(handle(writer, append(step(1, f"s{number}"))))
        assert put.etag == f"e{number}"
        assert offsets(handle(writer, PutDone(f"e{number + 1}"))) == [number]
    assert put.body == body(start(1), step(1, "s1"), step(1, "s2"), step(1, "s3"))


def test_d6_a_writer_that_knows_nothing_reads_first_and_at_once() -> None:
    """It would overwrite a journal, or pause where nobody is in the way."""
    writer = ObjectWriter("run-1")
    assert not writer.known
    assert handle(writer, append(start(2))) == GetObject(0.0)
    put = asked_to_put(handle(writer, Found(body(start(1)), "e7")))
    assert put == PutObject(body(start(1), start(2)), "e7")


def test_d6_a_new_journal_is_put_on_condition_that_there_is_none() -> None:
    """Two first sessions would overwrite each other."""
    writer = ObjectWriter("run-1")
    handle(writer, append(start(1)))
    assert handle(writer, NotFound()) == PutObject(body(start(1)), None)


def test_d6_waiting_entries_go_out_together_with_offsets_of_their_own() -> None:
    """Branches that wait would each cost a put, or share an offset."""
    writer = knowing(start(1))
    put = asked_to_put(handle(writer, append(step(1, "a"), step(1, "b"), step(1, "c"))))
    assert put.body == body(start(1), step(1, "a"), step(1, "b"), step(1, "c"))
    assert offsets(handle(writer, PutDone("e2"))) == [1, 2, 3]


def test_d6_a_refused_entry_takes_no_offset_from_its_neighbours() -> None:
    """An old session's append would tear a hole into the journal of the new one."""
    writer = knowing(start(1), start(2))
    put = asked_to_put(handle(writer, append(step(2, "a"), step(1, "old"), step(2, "b"))))
    assert put.body == body(start(1), start(2), step(2, "a"), step(2, "b"))
    first, refused, last = offsets(handle(writer, PutDone("e2")))
    assert (first, last) == (2, 3)
    assert isinstance(refused, FencedError)
    assert asked_to_put(handle(writer, append(step(2, "c")))).body.startswith(put.body)


def test_d6_nothing_is_put_where_every_entry_is_refused() -> None:
    """A fenced writer would still cost requests, and rewrite the journal."""
    error = refusal(handle(knowing(start(2)), append(step(1, "old"))))
    assert isinstance(error, FencedError)
    assert (error.rejected_session, error.active_session) == (1, 2)


def test_d4_nothing_follows_a_terminal_entry() -> None:
    """A run that is over would go on."""
    writer = knowing(start(1))
    handle(writer, append(complete(1), step(1, "late")))
    done, late = offsets(handle(writer, PutDone("e2")))
    assert done == 1
    assert isinstance(late, TerminalRunError)
    assert isinstance(refusal(handle(writer, append(start(2)))), TerminalRunError)


def test_d11_a_torn_tail_is_not_carried_on() -> None:
    """An append that never happened would damage the line after it."""
    writer = ObjectWriter("run-1")
    writer.know(body(start(1)) + b'{"type":"st', "e1")
    assert asked_to_put(handle(writer, append(step(1, "a")))).body == body(start(1), step(1, "a"))


# --- a lost answer is not a lost race (D5) ---------------------------------------------------


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_an_unsettled_put_is_looked_for_in_the_journal(answer: AppendCommand) -> None:
    """A put that landed unheard would be written twice, or taken for a fence."""
    writer = knowing(start(1))
    put = asked_to_put(handle(writer, append(step(1, "a"), step(1, "b"))))
    assert isinstance(handle(writer, answer), GetObject)
    assert offsets(handle(writer, Found(put.body, "e2"))) == [1, 2]
    assert asked_to_put(handle(writer, append(step(1, "c")))).etag == "e2"


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_a_put_that_landed_is_found_below_what_others_wrote_since(answer: AppendCommand) -> None:
    """A session that was superseded after its put landed would report the step as lost."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, answer)
    found = Found(body(start(1), step(1, "a"), start(2)), "e3")
    assert offsets(handle(writer, found)) == [1]
    assert isinstance(refusal(handle(writer, append(step(1, "b")))), FencedError)


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_where_nothing_has_changed_the_identical_bytes_are_put_again(
    answer: AppendCommand,
) -> None:
    """The first put, if it lands after all, would not be recognised as the same."""
    writer = knowing(start(1))
    first = handle(writer, append(step(1, "a")))
    handle(writer, answer)
    assert handle(writer, Found(body(start(1)), "e1")) == first
    assert isinstance(handle(writer, PutRefused()), GetObject)
    landed_late = Found(body(start(1), step(1, "a")), "e2")
    assert offsets(handle(writer, landed_late)) == [1]


def test_d5_an_unsettled_first_start_is_put_again_while_there_is_no_object() -> None:
    """A run whose very first put got no answer could never begin."""
    writer = knowing(etag=None)
    first = handle(writer, append(start(1)))
    handle(writer, PutUnclear(LOST))
    assert handle(writer, NotFound()) == first
    handle(writer, PutRefused())
    assert offsets(handle(writer, Found(body(start(1)), "e1"))) == [0]


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_a_newer_session_in_the_journal_fences(answer: AppendCommand) -> None:
    """The older session would write on beside the newer one."""
    writer = knowing(start(1))
    handle(writer, append(step(1, "a")))
    handle(writer, answer)
    error = refusal(handle(writer, Found(body(start(1), start(2)), "e2")))
    assert isinstance(error, FencedError)
    assert error.active_session == 2


def test_d5_of_two_starters_with_one_number_the_token_tells_who_won() -> None:
    """Both racing sessions, or neither, would take themselves for the owner."""
    mine, theirs = start(2, "mine"), start(2, "theirs")
    writer = knowing(start(1))
    handle(writer, append(mine))
    handle(writer, PutRefused())
    error = refusal(handle(writer, Found(body(start(1), theirs), "e2")))
    assert isinstance(error, FencedError)
    writer = knowing(start(1))
    handle(writer, append(mine))
    handle(writer, PutRefused())
    assert offsets(handle(writer, Found(body(start(1), mine), "e2"))) == [1]


def test_d4_a_start_that_lost_to_an_older_sessions_step_follows_it() -> None:
    """The new session would be refused, or not learn from its offset that it has to reload."""
    writer = knowing(start(1))
    handle(writer, append(start(2)))
    handle(writer, PutRefused())
    put = asked_to_put(handle(writer, Found(body(start(1), step(1, "a")), "e2")))
    assert put == PutObject(body(start(1), step(1, "a"), start(2)), "e2")
    assert offsets(handle(writer, PutDone("e3"))) == [2]


# --- a whole journal in one put (D12) -------------------------------------------------------

FORK = (start(1), step(1, "a"), start(2))


def test_d12_a_new_journal_is_one_put_and_no_get() -> None:
    """A crash in the middle of a fork would leave half a journal."""
    writer = ObjectWriter("run-1")
    assert handle(writer, append(*FORK, create=True)) == PutObject(body(*FORK), None)
    assert offsets(handle(writer, PutDone("e1"))) == [0, 1, 2]


def test_d12_a_target_that_exists_is_left_alone() -> None:
    """A fork would replace another run's journal, or write behind it."""
    writer = ObjectWriter("run-1")
    handle(writer, append(*FORK, create=True))
    handle(writer, PutRefused())
    error = refusal(handle(writer, Found(body(start(1, "theirs")), "e1")))
    assert type(error) is UsageError
    assert "already has a journal" in str(error)


def test_d12_a_target_whose_session_is_open_here_keeps_it() -> None:
    """A fork into a live run would take the live session's knowledge of its object away."""
    writer = knowing(start(1))
    assert type(refusal(handle(writer, append(*FORK, create=True)))) is UsageError
    assert asked_to_put(handle(writer, append(step(1, "a")))).etag == "e1"


@pytest.mark.parametrize("answer", UNSETTLED)
def test_d5_a_fork_whose_answer_was_lost_is_not_refused_as_taken(answer: AppendCommand) -> None:
    """A fork would fail because it has succeeded."""
    writer = ObjectWriter("run-1")
    first = handle(writer, append(*FORK, create=True))
    handle(writer, answer)
    assert handle(writer, NotFound()) == first
    handle(writer, answer)
    assert offsets(handle(writer, Found(body(*FORK, step(2, "b")), "e2"))) == [0, 1, 2]


def test_a_report_of_something_that_was_not_asked_for_is_refused() -> None:
    """A driver's mistake would go unnoticed."""
    with pytest.raises(InternalError, match="not requested"):
        handle(knowing(start(1)), PutDone("e2"))
