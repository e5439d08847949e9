"""Entries and the other immutable values: complete at birth, never changed, compared by value."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar
from unittest.mock import ANY

import pytest

from kassette import (
    UNSET,
    Append,
    Close,
    Entry,
    ForkSource,
    JournalCorruptionError,
    Record,
    Retry,
    Start,
    StartEntry,
    StepEntry,
    Tail,
    Unset,
    UsageError,
    WaitForEvent,
    decode_line,
)
from kassette.immutable import Immutable

from .driving import STAMP, cancel, complete, error, resume, start, step, suspend

ENTRIES: list[Entry] = [
    start(metadata=[1], source=ForkSource(run_id="r", from_offset=1)),
    step("llm", {"a": 1}),
    suspend("ok"),
    resume("ok", 0),
    complete(),
    error(),
    cancel(),
]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.type))


@every_entry
def test_entries_cannot_be_changed(entry: Any) -> None:
    """A recorded entry would change under everybody who holds it."""
    with pytest.raises(AttributeError, match="immutable"):
        entry.session = 9
    with pytest.raises(AttributeError, match="immutable"):
        entry.unknown = 9
    with pytest.raises(AttributeError, match="immutable"):
        del entry.session
    assert entry.session == (2 if entry.type == "resume" else 1)


@every_entry
def test_entries_survive_copy_and_pickle(entry: Entry) -> None:
    """Entries could not be sent to another process."""
    again: Entry
    for again in (copy.copy(entry), copy.deepcopy(entry), pickle.loads(pickle.dumps(entry))):
        assert again == entry
        assert hash(again) == hash(entry)
        assert repr(again) == repr(entry)


@every_entry
def test_an_entry_at_an_offset_or_in_a_session_is_otherwise_the_same(entry: Entry) -> None:
    """A fork would change more than where an entry stands."""
    moved = entry.at(7)
    assert (moved.offset, entry.offset) == (7, None)
    assert moved != entry
    assert moved.replace(offset=None) == entry
    elsewhere = moved.in_session(5)
    assert (elsewhere.session, elsewhere.offset) == (5, None)
    assert elsewhere.replace(session=entry.session) == entry


def test_entries_are_compared_by_value_not_by_spelling() -> None:
    """An entry read back from a journal of another writer would count as another one."""
    spaced = step("llm", {"a": 1}).replace(result_json=b'{ "a": 1 }')
    assert spaced == step("llm", {"a": 1})
    assert hash(spaced) == hash(step("llm", {"a": 1}))
    assert step("llm", 1) != step("llm", 2)
    assert step("llm", 1) != step("llm", 1, session=2)
    assert complete() != cancel()
    assert complete() != "complete"


@pytest.mark.parametrize(
    ("one", "other"), [(True, 1), (False, 0), ([True], [1]), ({"a": 0}, {"a": False})]
)
def test_entries_with_true_and_one_differ(one: object, other: object) -> None:
    """A recorded ``true`` would count as the same entry as ``1``."""
    assert step("llm", one) != step("llm", other)
    assert start(metadata=one) != start(metadata=other)


def test_metadata_of_none_is_not_no_metadata() -> None:
    """An input of None would be taken for no input."""
    assert (start(metadata=None).metadata, start().metadata) == (None, None)
    assert start(metadata=None) != start()
    assert start() != start(metadata=None)


def test_entries_and_other_values_leave_comparing_to_what_knows_how() -> None:
    """An entry could not be compared with a stand-in that equals everything, such as `mock.ANY`."""
    assert complete() == ANY
    assert Record("llm") == ANY
    assert (complete() == 1, Record("llm") == 1) == (False, False)


@pytest.mark.parametrize(
    "other",
    [
        start().at(1),
        step("llm"),
        step("llm", session=2).at(1),
        step("llm").at(2),
        step("llm").at(1).replace(timestamp="2026-01-31T12:00:01.000Z"),
    ],
    ids=["type", "session", "no offset", "offset", "timestamp"],
)
def test_entries_that_differ_in_what_they_all_have_hash_apart(other: Entry) -> None:
    """A set of a run's entries would be as slow as a list."""
    assert hash(step("llm").at(1)) != hash(other)


def test_values_that_differ_hash_apart() -> None:
    """A set of effects would be as slow as a list."""

    class Other(Immutable):
        pass

    values = [Tail(1, 2), Tail(1, 3), Retry(3), Close(), Other()]
    assert len({hash(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("text", "session"),
    [("9007199254740991", 2**53 - 1), ("9007199254740992", None), ("18014398509481984", None)],
)
def test_d4_a_session_number_is_one_that_every_reader_keeps(text: str, session: int | None) -> None:
    """JavaScript would read another session's number, and fence the wrong one."""
    line = f'{{"type":"complete","offset":0,"session":{text},"timestamp":"{STAMP}"}}'.encode()
    if session is not None:
        assert decode_line(line, 0).session == session
        return
    with pytest.raises(JournalCorruptionError, match="session"):
        decode_line(line, 0)


def test_unset_says_so_and_is_no_value() -> None:
    """A command without metadata would look like one with."""
    assert repr(UNSET) == "UNSET"
    assert isinstance(UNSET, Unset)
    assert Start().metadata is UNSET
    assert isinstance(pickle.loads(pickle.dumps(Start())).metadata, Unset)


# --- the machinery of immutable values ----------------------------------------------------------------


def test_values_take_fields_by_position_and_by_name() -> None:
    """A command would be given its fields in another order."""
    assert Record("llm") == Record(name="llm") == Record("llm", ()) == Record("llm", path=())
    wait = WaitForEvent("ok", 5, path=("x",))
    assert (wait.event_name, wait.timeout, wait.reason, wait.path) == ("ok", 5, None, ("x",))
    assert repr(Tail(1, 2)) == "Tail(count=1, session=2, terminal=None)"
    assert repr(Close()) == "Close()"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Record, "needs name"),
        (lambda: Tail(1, 2, None, 3), "takes 3 values, 4 were given"),  # type: ignore[call-arg]
        (lambda: Record("a", nme="b"), "takes no nme"),  # type: ignore[call-arg]
        (lambda: Record("a", name="b"), "takes no name, or takes it once only"),  # type: ignore[misc]
        (lambda: Record("a", (), path=()), "takes no path, or takes it once only"),  # type: ignore[misc]
        (lambda: StepEntry(session=1, timestamp=STAMP), "needs step_id"),  # type: ignore[call-arg]
        (lambda: complete().replace(nonsense=1), "takes no nonsense"),
        (lambda: Close(*[1]), "takes 0 values, 1 were given"),
    ],
)
def test_values_are_complete_and_correct_at_birth(make: Any, said: str) -> None:
    """A mistyped field would be lost, and found missing much later."""
    with pytest.raises(TypeError, match=said):
        make()


def test_of_fields_takes_every_field() -> None:
    """The fast way to make a value would leave one half made."""
    assert Tail.of_fields(3, 2, None) == Tail(3, 2)
    with pytest.raises(ValueError, match="zip"):
        Tail.of_fields(3, 2)


def test_values_of_different_types_differ() -> None:
    """Two effects with the same fields would be one."""
    assert Append(complete()) != complete()
    assert Close() != Unset()
    assert Tail(1, 2) != (1, 2, None)
    assert len({Tail(), Tail(), Tail(0, 0), Tail(1)}) == 2


def test_values_can_be_matched() -> None:
    """``match`` in a driver would not see the fields."""
    match Record("llm", ("x",)):
        case Record(name, path):
            assert (name, path) == ("llm", ("x",))
    assert Record.__match_args__ == ("name", "path", "caller", "interchangeable", "aside")
    assert StartEntry.__match_args__ == ()


def test_a_check_at_birth_also_guards_replace_and_defaults_are_inherited() -> None:
    """A value that was refused at birth could be reached by a detour."""
    with pytest.raises(UsageError):
        Retry(3).replace(delay=-1.0)

    class Base(Immutable):
        a: int
        b: int = 2

    class Derived(Base):
        c: int = 3

    assert repr(Derived(1)).endswith("Derived(a=1, b=2, c=3)")
    assert Derived(1) != Base(1)
    assert not hasattr(Derived(1), "__dict__")


def test_a_value_is_declared_by_its_annotations() -> None:
    """Whoever declares a value would find a constant among its fields, or no field to match."""

    class Mixin:
        __slots__ = ()

    class Point(Mixin, Immutable):
        kind: ClassVar[str] = "point"
        x: int
        y: int = 0

    class Named(Point, kw_only=True):
        name: str = ""

        def __post_init__(self) -> None:
            if not self.name.islower():
                raise UsageError("a name is in lower case")

    assert Point(1).kind == "point"
    assert repr(Point(1)).endswith("Point(x=1, y=0)")
    assert [each.__match_args__ for each in (Point, Named)] == [("x", "y"), ()]
    assert repr(Named(x=1, name="a")).endswith("Named(x=1, y=0, name='a')")
    with pytest.raises(UsageError, match="lower case"):
        Named(x=1, name="A")
