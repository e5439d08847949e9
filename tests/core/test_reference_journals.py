"""Journals as the reference writes them, or as people edit them: read, continued, written back."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from kassette import (
    Entry,
    JournalCorruptionError,
    ResumeEntry,
    StartEntry,
    StepEntry,
    decode_journal,
    decode_line,
    encode_entry,
    get_metadata,
    run_status,
)

from .driving import STAMP, opened, resumed, types

REFERENCE = rb"""
{"type":"start","session":1,"timestamp":"2026-01-31T12:00:00.000Z","metadata":{"ticket":7}}
{"type":"step","session":1,"timestamp":"2026-01-31T12:00:01.000Z","stepId":"llm","name":"llm","result":{"text":"hi"}}
{"type":"step","session":1,"timestamp":"2026-01-31T12:00:02.000Z","stepId":"llm#2","name":"llm","result":[1,2.50,"\u00fc"]}
{"type":"step","session":1,"timestamp":"2026-01-31T12:00:03.000Z","stepId":"notify","name":"notify"}
{"type":"suspend","session":1,"timestamp":"2026-01-31T12:00:04.000Z","reason":"Waiting for event: ok","waitingFor":"ok","timeout":"2026-02-01T00:00:00.000Z"}
{"type":"start","session":2,"timestamp":"2026-01-31T12:10:00.000Z"}
{"type":"resume","session":2,"timestamp":"2026-01-31T12:10:00.001Z","eventName":"ok","value":{"by":"ann"}}
""".lstrip()


def test_a_journal_without_offsets_and_writers_is_read_and_continued() -> None:
    """A run begun by the reference implementation could not be finished here."""
    stored = decode_journal(REFERENCE).entries
    assert [entry.offset for entry in stored] == list(range(7))
    assert get_metadata(stored) == {"ticket": 7}
    session = opened(stored, metadata={"ticket": 7})
    assert session.step("llm") == {"text": "hi"}
    assert session.step("llm") == [1, 2.5, "ü"]
    assert session.step("notify") is None
    assert session.wait("ok") == {"by": "ann"}
    assert session.ran == []
    session.step("new", 1)
    data = b"".join(encode_entry(entry, n) for n, entry in enumerate(stored))
    assert decode_journal(data).entries == stored
    assert stored[-1].session == 3


def test_a_step_without_a_result_returned_undefined() -> None:
    """JSON.stringify omits ``undefined``: every step of the reference that returns nothing is so."""
    line = b'{"type":"step","session":1,"offset":0,"timestamp":"t","stepId":"a","name":"a"}'
    entry = decode_line(line, 0)
    assert isinstance(entry, StepEntry)
    assert entry.result is None
    assert orjson.loads(encode_entry(entry, 0)).get("result") is None


def test_an_event_without_a_value_carried_undefined() -> None:
    """As above, for ``resume(…, undefined)``: the run would be unreadable from then on."""
    entry = decode_line(b'{"type":"resume","session":2,"timestamp":"t","eventName":"ok"}', 4)
    assert isinstance(entry, ResumeEntry)
    assert entry.value is None


SPELLINGS: list[Any] = [
    orjson.dumps,
    lambda members: json.dumps(members).encode(),
    lambda members: json.dumps(members, indent="\t").replace("\n", " ").encode(),
    lambda members: b" " + orjson.dumps(members) + b" \t",
    lambda members: orjson.dumps(members) + b"\r",
    lambda members: orjson.dumps(dict(reversed(members.items()))),
    lambda members: orjson.dumps(members, option=orjson.OPT_SORT_KEYS),
    lambda members: orjson.dumps(members).replace(b'"session":1', b'"session" : 1 '),
    lambda members: orjson.dumps({**members, "x": {"result": 9, "value": [1]}}),
    lambda members: orjson.dumps({"x": {"result": 9, "y": 1}, **members}),
    lambda members: orjson.dumps(members).replace(b',"result":', b', "result":', 1),
    lambda members: orjson.dumps(members).replace(b',"value":', b' ,"value" :', 1),
    lambda members: orjson.dumps(members).replace(b'"result"', b'"\\u0072esult"', 1),
    lambda members: orjson.dumps(members).replace(b'"value"', b'"val\\u0075e"', 1),
    lambda members: orjson.dumps(members).replace(b'"metadata"', b'"\\u006detadata"', 1),
    lambda members: orjson.dumps(members).replace(b',"metadata":', b',\t"metadata":', 1),
    lambda members: orjson.dumps(members)[:-1] + b',"timestamp":"%b"}' % STAMP.encode(),
    lambda members: orjson.dumps(members)[:-1] + b',"type":"%b"}' % members["type"].encode(),
]
PAYLOADS: list[object] = [
    None,
    1,
    "plain",
    {"x": 1, "result": 5, "value": 6, "metadata": 7},
    [{"a": 0, "result": {"b": 1, "result": [2]}}],
    {"a": {"b": 1, "value": 2, "metadata": 3}, "c": 4},
    ',"result":1}',
    {',"result":': ',"value":'},
    "}",
    {},
]
HOLDERS: list[tuple[dict[str, object], str]] = [
    ({"type": "step", "session": 1, "timestamp": STAMP, "stepId": "a", "name": "a"}, "result"),
    (
        {"type": "step", "session": 1, "offset": 0, "timestamp": STAMP, "stepId": "a", "name": "a"},
        "result",
    ),
    (
        {
            "type": "step",
            "session": 1,
            "offset": 0,
            "timestamp": STAMP,
            "stepId": "result",
            "name": "result",
        },
        "result",
    ),
    (
        {"type": "resume", "session": 1, "offset": 0, "timestamp": STAMP, "eventName": "value"},
        "value",
    ),
    ({"type": "start", "session": 1, "offset": 0, "timestamp": STAMP, "version": "v"}, "metadata"),
    (
        {
            "type": "start",
            "session": 1,
            "timestamp": STAMP,
            "source": {"runId": "r", "fromOffset": 1},
        },
        "metadata",
    ),
]


@pytest.mark.parametrize("spelling", range(len(SPELLINGS)))
def test_the_spelling_of_a_line_does_not_change_its_value(spelling: int) -> None:
    """A result would silently be a piece of itself: whitespace, key order, escapes, nested keys."""
    for holder, key in HOLDERS:
        for payload in PAYLOADS:
            members = {**holder, key: payload}
            line = SPELLINGS[spelling](members)
            assert orjson.loads(line).items() >= members.items()
            entry: Any = decode_line(line, 0)
            attribute = {
                "result": "result_json",
                "value": "value_json",
                "metadata": "metadata_json",
            }
            raw = getattr(entry, attribute[key])
            assert orjson.loads(raw) == payload, (line, raw)
            assert orjson.loads(encode_entry(entry, 0))[key] == payload


def test_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    """JSON.parse takes the last; another one here would be a second truth about one journal."""
    plain = (
        b'{"type":"step","session":1,"offset":0,"timestamp":"t","stepId":"a","name":"a","result":1'
    )
    for tail, result, name in (
        (b',"result":2}', 2, "a"),
        (b',"name":"b"}', 1, "b"),
        (b',"result":{"x":1,"result":5}}', {"x": 1, "result": 5}, "a"),
        (b',"result":2,"name":"b"}', 2, "b"),
        (b', "result" : [2] }', [2], "a"),
        (b', "result" :[2]}', [2], "a"),
        (b', "result" :{"y":2}}', {"y": 2}, "a"),
        (b',"r\\u0065sult":{"x":2}}', {"x": 2}, "a"),
        (b',"\\u0072esult":[3]}', [3], "a"),
        (b',"nam\\u0065":"a"}', 1, "a"),
    ):
        entry = decode_line(plain + tail, 0)
        assert isinstance(entry, StepEntry)
        assert (entry.result, entry.name) == (result, name)
    entry = decode_line(
        b'{"type":"start","session":1,"timestamp":"t","metadata":1,"timestamp":"u"}', 0
    )
    assert isinstance(entry, StartEntry)
    assert (entry.metadata, entry.timestamp) == (1, "u")


LONE = [
    b'{"type":"step","session":1,"offset":0,"timestamp":"t","stepId":"a","name":"a","result":"\\ud83d"}',
    b'{"type":"step","session":1,"offset":0,"timestamp":"t","result":["\\ud83d"],"stepId":"a","name":"a"}',
    b'{"type":"step","session":1,"offset":0,"timestamp":"t","stepId":"t\\ud83d","name":"t\\ud83d","result":1}',
    b'{"type":"resume","session":1,"offset":0,"timestamp":"t","eventName":"e\\udc00","value":"\\udc00"}',
    b'{"type":"start","session":1,"offset":0,"timestamp":"t","metadata":{"\\ud800":1}}',
    b'{"type":"error","session":1,"offset":0,"timestamp":"t","message":"cut \\ud83d","name":"E","stack":"\\ud83d"}',
    b'{"type":"suspend","session":1,"offset":0,"timestamp":"t","reason":"\\ud83d","waitingFor":"\\ud83d"}',
    b'{"type":"cancel","session":1,"offset":0,"timestamp":"t","reason":"\\ud83d"}',
    b'{"type":"complete","session":1,"offset":0,"timestamp":"t","x":"\\ud83d"}',
    b'{"type":"complete","session":1,"offset":0,"timestamp":"t","x\\ud83d":[1]}',
]


@pytest.mark.parametrize("line", LONE, ids=range(len(LONE)))
def test_lone_surrogate_escapes_are_read_and_written_back(line: bytes) -> None:
    """JavaScript cuts texts inside an emoji; such a journal could not be read, dumped or forked."""
    entry = decode_line(line, 0)
    written = encode_entry(entry, 0)
    assert json.loads(written) == json.loads(line)
    assert decode_line(written[:-1], 0) == entry


@pytest.mark.parametrize("depth", [10, 250, 300, 700, 900, 985, 990, 995, 1000, 1010, 1020])
@pytest.mark.parametrize("key", ["x", "result"])
def test_deeply_nested_values_are_read_or_are_corruption(depth: int, key: str) -> None:
    """A deep line would raise RecursionError, for which nobody is prepared."""
    nested = b"[" * depth + b"]" * depth
    members = {"x": b"0", "result": b"0", key: nested}
    line = (
        b'{"type":"step","session":1,"offset":0,"timestamp":"t","stepId":"a","name":"a",'
        b'"x":%b,"result":%b}' % (members["x"], members["result"])
    )
    try:
        entry = decode_line(line, 0)
    except JournalCorruptionError:
        assert depth > 900
        return
    assert encode_entry(entry, 0).count(b"[") == depth


def test_unknown_fields_of_every_type_survive() -> None:
    """A journal of a later version would lose what it knows more (D11)."""
    extra = {"x": {"y": [1, None]}, "tokens": 7, "type2": "t"}
    for line in REFERENCE.splitlines():
        members = {**orjson.loads(line), **extra}
        entry = decode_line(orjson.dumps(members), 0)
        assert entry.extra == extra
        assert orjson.loads(encode_entry(entry, 0)).items() >= members.items()


def test_null_for_an_optional_field_is_as_good_as_none() -> None:
    """A hand-written journal would be damaged by saying what it does not have."""
    line = (
        b'{"type":"start","session":1,"timestamp":"t","version":null,"source":null,"writer":null}'
    )
    entry = decode_line(line, 0)
    assert isinstance(entry, StartEntry)
    assert (entry.version, entry.source, entry.writer, entry.metadata_json) == (None,) * 4


def test_a_fork_written_by_the_reference_is_recovered() -> None:
    """A fork made there (input on the first start, source on the second) would start over."""
    lines = [
        {"type": "start", "session": 1, "timestamp": STAMP, "metadata": "in"},
        {"type": "step", "session": 1, "timestamp": STAMP, "stepId": "a", "name": "a", "result": 0},
        {
            "type": "start",
            "session": 2,
            "timestamp": STAMP,
            "source": {"runId": "src", "fromOffset": 3},
        },
    ]
    stored: list[Entry] = decode_journal(b"".join(orjson.dumps(x) + b"\n" for x in lines)).entries
    session = opened(stored)
    assert (session.machine.metadata, session.step("a", "live")) == ("in", 0)
    assert run_status(stored).status == "unsettled"


def test_a_suspended_reference_run_is_resumed() -> None:
    """An approval given here would not reach a run that was begun there."""
    stored = decode_journal(b"".join(REFERENCE.splitlines(keepends=True)[:5])).entries
    session = resumed(stored, "ok", "yes")
    assert types(stored)[5:] == ["start", "resume"]
    assert session.wait("ok") == "yes"
