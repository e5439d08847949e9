"""D4's check of every append against a journal's tail, shared by all storages."""

from __future__ import annotations

import pytest

from kassette import (
    Entry,
    FencedError,
    KassetteError,
    Tail,
    TerminalRunError,
    UsageError,
    check_append,
)

from .driving import RUN, cancel, complete, error, journal, resume, start, step, suspend

OPEN = Tail(3, 2)


@pytest.mark.parametrize(
    ("tail", "entry"),
    [
        (Tail(), start(1)),
        (Tail(), start(0)),
        (Tail(), start(7)),
        (OPEN, start(3)),
        (OPEN, start(9)),
        (OPEN, step("llm", session=2)),
        (OPEN, suspend("ok", session=2)),
        (OPEN, resume("ok", session=2)),
        (OPEN, complete(2)),
        (OPEN, error(session=2)),
        (OPEN, cancel(2)),
    ],
)
def test_d4_what_may_follow(tail: Tail, entry: Entry) -> None:
    """A session in its right would be refused."""
    check_append(tail, entry, run_id=RUN)


@pytest.mark.parametrize(
    ("tail", "entry", "kind"),
    [
        (OPEN, start(2), FencedError),
        (OPEN, start(1), FencedError),
        (OPEN, step("llm", session=1), FencedError),
        (OPEN, complete(1), FencedError),
        (Tail(1, 0), start(0), FencedError),
        (Tail(3, 2, "complete"), step("llm", session=1), FencedError),
        (Tail(3, 2, "complete"), start(3), TerminalRunError),
        (Tail(3, 2, "error"), step("llm", session=2), TerminalRunError),
        (Tail(3, 2, "cancel"), complete(2), TerminalRunError),
        (Tail(3, 2, "cancel"), step("llm", session=3), TerminalRunError),
        (Tail(), step("llm"), UsageError),
        (Tail(), step("llm", session=0), UsageError),
        (OPEN, step("llm", session=3), UsageError),
    ],
)
def test_what_may_not_follow(tail: Tail, entry: Entry, kind: type[KassetteError]) -> None:
    """An old session, or one that was never opened, would write into another one's journal."""
    with pytest.raises(KassetteError) as caught:
        check_append(tail, entry, run_id=RUN)
    assert type(caught.value) is kind
    assert caught.value.run_id == RUN


def test_d4_the_refusals_say_who_is_in_the_way() -> None:
    """The loser of a race could not tell who won, or how the run ended."""
    with pytest.raises(FencedError) as fenced:
        check_append(Tail(9, 5), step("llm", session=3), run_id=RUN)
    assert (fenced.value.rejected_session, fenced.value.active_session) == (3, 5)
    with pytest.raises(TerminalRunError) as over:
        check_append(Tail(9, 5, "error"), start(6), run_id=RUN)
    assert over.value.terminal_state == "error"
    with pytest.raises(UsageError, match="session 6 has no start entry; open it with start"):
        check_append(Tail(9, 5), step("llm", session=6), run_id=RUN)


JOURNALS: list[list[Entry]] = [
    [],
    journal(start()),
    journal(start(), step("llm"), suspend("ok"), start(2), resume("ok")),
    journal(start(), step("llm"), complete()),
    journal(start(), suspend("ok"), start(4), cancel(4)),
    journal(start(3), step("stale", session=2), error(session=3), start(5)),
]


@pytest.mark.parametrize("entries", JOURNALS)
def test_a_tail_kept_entry_by_entry_is_the_tail_of_the_whole(entries: list[Entry]) -> None:
    """A storage that keeps the tail would decide otherwise than one that reads the journal."""
    kept = Tail()
    for entry in entries:
        kept = kept.then(entry)
    assert kept == Tail.of(entries)
    assert kept.count == len(entries)


def test_the_tail_of_a_journal() -> None:
    """The next append would be checked against the wrong session or end."""
    assert Tail.of([]) == Tail(0, 0, None)
    assert Tail.of(JOURNALS[2]) == Tail(5, 2, None)
    assert Tail.of(JOURNALS[3]) == Tail(3, 1, "complete")
    assert Tail.of(JOURNALS[5]) == Tail(4, 5, "error")
