"""The conformance suite on storages that lose, or rewrite, a part of what they are given."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from kassette import (
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
)
from tests.io.foreign import Changed, verdict

pytestmark = pytest.mark.anyio

WHOLE = "entries come back as they were appended, in order"
SPELT = "values come back as they were written, byte for byte"
KEPT = "any character comes back"
EPOCH = "1970-01-01T00:00:00.000Z"
KINDS: list[type[Entry]] = [
    StartEntry,
    StepEntry,
    SuspendEntry,
    ResumeEntry,
    CompleteEntry,
    ErrorEntry,
    CancelEntry,
]
FIELDS: list[tuple[type[Entry], str, object]] = [
    *((kind, "timestamp", EPOCH) for kind in KINDS),
    (StartEntry, "version", None),
    (StartEntry, "writer", None),
    (StartEntry, "workflow", None),
    (StartEntry, "source", None),
    (StartEntry, "metadata_json", None),
    (StepEntry, "step_id", "step"),
    (StepEntry, "name", "step"),
    (StepEntry, "result_json", b"null"),
    (StepEntry, "extra_json", b"{}"),
    (SuspendEntry, "reason", ""),
    (SuspendEntry, "waiting_for", "event"),
    (SuspendEntry, "timeout", None),
    (SuspendEntry, "more", False),
    (ResumeEntry, "event_name", "event"),
    (ResumeEntry, "value_json", b"null"),
    (ResumeEntry, "value_json", b"{}"),
    (ErrorEntry, "message", ""),
    (ErrorEntry, "name", None),
    (ErrorEntry, "stack", None),
    (CancelEntry, "reason", None),
]


@pytest.mark.parametrize(("kind", "field", "left"), FIELDS, ids=str)
async def test_no_field_of_any_entry_may_get_lost(
    kind: type[Entry], field: str, left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that a storage forgot would be missed in production, by whoever needs it first."""

    def lose(entry: Entry) -> Entry:
        return entry.replace(**{field: left}) if isinstance(entry, kind) else entry

    said = await verdict(WHOLE, Changed(lose), monkeypatch)
    appended, _, read = said.partition(" was appended, read_all returned ")
    assert appended.startswith(f"{kind.__name__}(")
    assert read.startswith(f"{kind.__name__}(")
    assert f"{field}={left!r}" not in appended
    assert f"{field}={left!r}" in read or left in (None, False, b"{}")


async def test_an_empty_text_is_not_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle reads an empty text as NULL, and whoever puts up with that writes something there."""

    def fill(entry: Entry) -> Entry:
        empty = isinstance(entry, SuspendEntry) and not entry.reason
        return entry.replace(reason="(null)") if empty else entry

    said = await verdict(WHOLE, Changed(fill), monkeypatch)
    assert "reason='', waiting_for=" in said
    assert "reason='(null)', waiting_for=" in said


def rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return JSON with all values inside of it changed, and itself."""
    if isinstance(value, dict):
        value = {key: rebuilt(each, change) for key, each in value.items()}
    elif isinstance(value, list):
        value = [rebuilt(each, change) for each in value]
    return change(value)


def words(value: Any) -> Any:
    return str(value) if type(value) is int else value


def cents(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def bits(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def nothing_missing(value: Any) -> Any:
    return [each for each in value if each is not None] if isinstance(value, list) else value


def one_line(value: Any) -> Any:
    return value.replace("\n", " ") if isinstance(value, str) else value


@pytest.mark.parametrize("change", [words, cents, bits, nothing_missing, one_line])
async def test_no_kind_of_value_inside_of_a_result_may_change(
    change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's result would come back as what the storage's own types make of it."""

    def store(entry: Entry) -> Entry:
        if not isinstance(entry, StepEntry):
            return entry
        return entry.replace(result_json=orjson.dumps(rebuilt(entry.result, change)))

    said = await verdict(WHOLE, Changed(store), monkeypatch)
    assert re.match(
        r"StepEntry\(.*step_id='nested'.* was appended, read_all returned StepEntry", said
    )


def spelling(old: bytes, new: bytes) -> Changed:
    def rewrite(entry: Entry) -> Entry:
        if not isinstance(entry, StepEntry):
            return entry
        return entry.replace(result_json=re.sub(old, new, entry.result_json))

    return Changed(rewrite)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (rb"(?<=\[)1\.0", b"1"),
        (rb"1E\+3", b"1e+3"),
        (rb"-0\.0", b"0.0"),
        (rb"\b0\.10\b", b"0.1"),
        (rb"e308", b"e+308"),
        (rb"\b18446744073709551615\b", b"-1"),
        (rb'"10":1,"9":2', b'"9":2,"10":1'),
        (rb"\\/", b"/"),
    ],
    ids=[
        "whole numbers inside of others",
        "exponents",
        "negative zero",
        "zeros at the end",
        "JavaScript's exponents",
        "unsigned numbers",
        "keys that are numbers",
        "slashes",
    ],
)
async def test_no_value_may_be_spelt_anew(
    old: bytes, new: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest of a result, or a signature in it, would not fit what a replay gives."""
    said = await verdict(SPELT, spelling(old, new), monkeypatch)
    appended, _, read = said.partition(" was appended, read_all returned ")
    assert appended.startswith("StepEntry(")
    assert read.startswith("StepEntry(")
    assert appended != read


@pytest.mark.parametrize("character", "\0\x01\x1f\x7f\x85\u2028\ufeff\uffff\U0010ffff", ids=ascii)
async def test_no_character_may_get_lost(character: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for an event of such a name would never end."""

    def drop(entry: Entry) -> Entry:
        if not isinstance(entry, SuspendEntry):
            return entry
        return entry.replace(waiting_for=entry.waiting_for.replace(character, ""))

    said = await verdict(KEPT, Changed(drop), monkeypatch)
    assert said.startswith("SuspendEntry(")
    assert "waiting_for='ab'" in said.partition(" was appended, read_all returned ")[2]


def plain(value: Any) -> Any:
    return value.replace("\0", "") if isinstance(value, str) else value


def in_lists(value: Any) -> Any:
    return [plain(each) for each in value] if isinstance(value, list) else value


def in_keys(value: Any) -> Any:
    return {plain(key): each for key, each in value.items()} if isinstance(value, dict) else value


def in_members(value: Any) -> Any:
    return {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else value


TEXTS: list[tuple[type[Entry], str, Callable[[Any], Any]]] = [
    (StartEntry, "version", plain),
    (StartEntry, "metadata_json", in_keys),
    (StartEntry, "metadata_json", in_members),
    (StepEntry, "step_id", plain),
    (StepEntry, "name", plain),
    (StepEntry, "result_json", in_lists),
    (StepEntry, "result_json", in_keys),
    (StepEntry, "result_json", in_members),
    (SuspendEntry, "reason", plain),
    (ResumeEntry, "event_name", plain),
    (ResumeEntry, "value_json", plain),
    (ErrorEntry, "message", plain),
    (ErrorEntry, "name", plain),
    (ErrorEntry, "stack", plain),
]


@pytest.mark.parametrize(("kind", "field", "change"), TEXTS)
async def test_a_character_may_get_lost_nowhere(
    kind: type[Entry],
    field: str,
    change: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database with a column that ends at NUL would cut one kind of text only."""

    def cut(entry: Entry) -> Entry:
        if not isinstance(entry, kind):
            return entry
        old = getattr(entry, field)
        if isinstance(old, bytes):
            return entry.replace(**{field: orjson.dumps(rebuilt(orjson.loads(old), change))})
        return entry.replace(**{field: change(old)})

    said = await verdict(KEPT, Changed(cut), monkeypatch)
    assert said.startswith(f"{kind.__name__}(")
