"""Hostile journals: bytes that a disk, a person or an enemy may hand over; nothing is judged here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import strategies as st

from kassette import (
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
)
from kassette.entries import MAX_SESSION

from .driving import STAMP

# --- entries that may be written ------------------------------------------------------------------

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from([',"result":', '"result":', ',"value":1}', "}", '"', "\\u"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            texts | st.sampled_from(["result", "value", "metadata", "type"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
payloads = json_values.map(orjson.dumps)
KNOWN = {
    "start": {"version", "writer", "source", "metadata"},
    "step": {"stepId", "name", "result"},
    "suspend": {"reason", "waitingFor", "timeout"},
    "resume": {"eventName", "value"},
    "complete": set[str](),
    "error": {"message", "name", "stack"},
    "cancel": {"reason"},
}
ENVELOPE = {"type", "session", "offset", "timestamp"}


def _of(made: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    own = KNOWN[made.type] | ENVELOPE
    names = (texts | st.sampled_from(["tokens", "stepId", "value"])).filter(lambda n: n not in own)
    return st.builds(
        made,
        session=st.integers(0, MAX_SESSION),
        timestamp=st.just(STAMP) | texts,
        offset=st.none(),
        extra_json=st.dictionaries(names, json_values, max_size=2).map(orjson.dumps),
        **fields,
    )


sources = st.builds(ForkSource, run_id=texts, from_offset=st.integers(-(2**63), 2**64 - 1))
entries: st.SearchStrategy[Entry] = st.one_of(
    _of(
        StartEntry,
        version=st.none() | texts,
        writer=st.none() | texts,
        source=st.none() | sources,
        metadata_json=st.none() | payloads,
    ),
    _of(StepEntry, step_id=texts, name=texts, result_json=payloads),
    _of(
        SuspendEntry,
        reason=texts,
        waiting_for=texts,
        timeout=st.none() | st.just(STAMP) | st.datetimes().map(lambda at: at.isoformat()),
    ),
    _of(ResumeEntry, event_name=texts, value_json=payloads),
    _of(CompleteEntry),
    _of(ErrorEntry, message=texts, name=st.none() | texts, stack=st.none() | texts),
    _of(CancelEntry, reason=st.none() | texts),
)

# --- bytes ----------------------------------------------------------------------------------------

FRAGMENTS = [
    *(b'"type":"%b"' % kind.encode() for kind in KNOWN),
    b'"session":1',
    b'"session":0',
    b'"session":9007199254740991',
    b'"session":9007199254740992',
    b'"session":18446744073709551615',
    b'"session":99999999999999999999',
    b'"offset":0',
    b'"offset":99999999999999999999',
    b'"timestamp":"2026-01-31T12:00:00.000Z"',
    b'"timestamp":"\\ud800"',
    b'"stepId":"a"',
    b'"name":"a"',
    b'"result":1e999',
    b'"result":-0.0',
    b'"result":' + b"9" * 400,
    b'"result":["\\ud800",' + b"9" * 400 + b"]",
    b'"result":["\\ud800",1e999,NaN]',
    b'"result":["\\ud800",99999999999999999999]',
    b'"result":{"a":1,"a":2}',
    b'"result":' + b"[" * 300 + b"]" * 300,
    b'"result":' + b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b'"reason":"r"',
    b'"waitingFor":"ok"',
    b'"timeout":"2026-01-31T12:00:00.000Z"',
    b'"timeout":"0001-01-01T00:00:00+23:59"',
    b'"timeout":"9999-12-31T23:59:59-23:59"',
    b'"eventName":"ok"',
    b'"value":"\\udc00\\ud800"',
    b'"source":{"runId":"r","fromOffset":99999999999999999999}',
    b'"source":{"runId":"\\ud800","fromOffset":-1}',
    b'"metadata":"\xff"',
    b'"metadata":"\\u0000"',
    b'"message":"m"',
    b'"\\ud800":1',
    b'"type":' + b"[" * 1000 + b"]" * 1000,
    b'"session":' + b"[" * 1010 + b"]" * 1010,
    b'"timestamp":["\\ud800",' + b"[" * 960 + b"]" * 961,
    b"\0",
    b"\xef\xbb\xbf",
]
_objects = st.lists(st.sampled_from(FRAGMENTS), min_size=3, max_size=9).map(
    lambda members: b"{" + b",".join(members) + b"}"
)
_noise = st.sampled_from(
    [b"", b"\xef\xbb\xbf", b"\0" * 8, b"\xff", b"\xed\xa0\x80", b"[" * 5000, b"{}", b"null", b"\r"]
)
_ends = st.sampled_from(
    [b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b"", b"\0\n", b" \n", b"\n\xef\xbb\xbf"]
)
hostile_bytes = st.binary() | st.lists(
    st.builds(lambda line, end: line + end, _objects | _noise, _ends), max_size=5
).map(b"".join)

Mutation = Callable[[bytes, int, int], bytes]


def _lines(change: Callable[[list[bytes], int, int], None]) -> Mutation:
    def mutate(data: bytes, one: int, other: int) -> bytes:
        lines = data.splitlines(keepends=True)
        if lines:
            change(lines, one % len(lines), other % len(lines))
        return b"".join(lines)

    return mutate


def _swap(lines: list[bytes], one: int, other: int) -> None:
    lines[one], lines[other] = lines[other], lines[one]


def _spliced(lines: list[bytes], one: int, other: int) -> None:
    half = len(lines[other]) // 2
    lines[one] = lines[one][: len(lines[one]) // 2] + lines[other][half:]


def _at(data: bytes, where: int) -> int:
    return where % (len(data) + 1)


MUTATIONS: list[Mutation] = [
    lambda data, one, other: data[: _at(data, one)],
    lambda data, one, other: data[_at(data, one) :],
    lambda data, one, other: data[: _at(data, one)] + bytes([other % 256]) + data[_at(data, one) :],
    lambda data, one, other: data[: _at(data, one)] + data[_at(data, one) + 1 + other % 40 :],
    lambda data, one, other: (
        data[: _at(data, one)] + bytes([other % 256]) + data[_at(data, one) + 1 :]
    ),
    lambda data, one, other: data[: _at(data, one)] + data[: _at(data, other)],
    lambda data, one, other: data + data[_at(data, one) : _at(data, other)],
    _lines(lambda lines, one, other: lines.__delitem__(one)),
    _lines(lambda lines, one, other: lines.insert(other, lines[one])),
    _lines(_swap),
    _lines(_spliced),
]
"""What becomes of a journal: cut, flipped, doubled, swapped, spliced; at two places."""

places = st.integers(0, 1 << 16)
damages = st.lists(st.tuples(st.sampled_from(range(len(MUTATIONS))), places, places), max_size=4)


def damaged(data: bytes, damage: list[tuple[int, int, int]], *, renumber: bool) -> bytes:
    """Apply mutations; with ``renumber`` the lines lose their offsets, so that order may change."""
    if renumber:
        lines = data.splitlines()
        data = b"".join(orjson.dumps(_without_offset(line)) + b"\n" for line in lines)
    for which, one, other in damage:
        data = MUTATIONS[which](data, one, other)
    return data


def _without_offset(line: bytes) -> dict[str, Any]:
    members: dict[str, Any] = orjson.loads(line)
    members.pop("offset", None)
    return members
