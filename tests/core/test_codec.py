"""Journal lines written by this library: golden bytes, round trips, torn tails and damage."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given, strategies as st

from kassette import (
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    Journal,
    JournalCorruptionError,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    decode_journal,
    decode_line,
    encode_entry,
)

from .driving import STAMP, complete, start, step

HEAD = b'"session":3,"offset":7,"timestamp":"2026-01-31T12:00:00.000Z"'
BASE: dict[str, Any] = {"session": 3, "timestamp": STAMP, "offset": 7}

GOLDEN: list[tuple[bytes, Entry]] = [
    (b'{"type":"start",%b}\n', StartEntry(**BASE)),
    (
        b'{"type":"start",%b,"version":"v1","writer":"w","source":{"runId":"r","fromOffset":2},'
        b'"metadata":{"k":[1,null]}}\n',
        StartEntry(
            **BASE,
            version="v1",
            writer="w",
            source=ForkSource(run_id="r", from_offset=2),
            metadata_json=b'{"k":[1,null]}',
        ),
    ),
    (b'{"type":"start",%b,"metadata":null}\n', StartEntry(**BASE, metadata_json=b"null")),
    (
        b'{"type":"step",%b,"stepId":"x:llm#2","name":"x:llm","result":{"a":"\xc3\xbc"}}\n',
        StepEntry(**BASE, step_id="x:llm#2", name="x:llm", result_json='{"a":"ü"}'.encode()),
    ),
    (
        b'{"type":"step",%b,"stepId":"a","name":"a","result":null}\n',
        StepEntry(**BASE, step_id="a", name="a", result_json=b"null"),
    ),
    (
        b'{"type":"suspend",%b,"reason":"r","waitingFor":"ok","timeout":"2026-02-01T00:00:00.000Z"}\n',
        SuspendEntry(**BASE, reason="r", waiting_for="ok", timeout="2026-02-01T00:00:00.000Z"),
    ),
    (
        b'{"type":"suspend",%b,"reason":"r","waitingFor":"ok"}\n',
        SuspendEntry(**BASE, reason="r", waiting_for="ok"),
    ),
    (
        b'{"type":"resume",%b,"eventName":"ok","value":false}\n',
        ResumeEntry(**BASE, event_name="ok", value_json=b"false"),
    ),
    (b'{"type":"complete",%b}\n', CompleteEntry(**BASE)),
    (
        b'{"type":"error",%b,"message":"m","name":"N","stack":"a\\nb"}\n',
        ErrorEntry(**BASE, message="m", name="N", stack="a\nb"),
    ),
    (
        b'{"type":"suspend",%b,"reason":"","waitingFor":"a","more":true}\n',
        SuspendEntry(**BASE, reason="", waiting_for="a", more=True),
    ),
    (
        b'{"type":"suspend",%b,"more":"of it","reason":"","waitingFor":"a"}\n',
        SuspendEntry(**BASE, reason="", waiting_for="a", extra_json=b'{"more":"of it"}'),
    ),
    (b'{"type":"error",%b,"message":""}\n', ErrorEntry(**BASE, message="")),
    (
        b'{"type":"cancel",%b,"reason":"suspend_timeout_expired"}\n',
        CancelEntry(**BASE, reason="suspend_timeout_expired"),
    ),
    (b'{"type":"cancel",%b}\n', CancelEntry(**BASE)),
    (
        b'{"type":"step",%b,"x":{"y":1},"stepId":"a","name":"a","result":1}\n',
        StepEntry(**BASE, step_id="a", name="a", result_json=b"1", extra_json=b'{"x":{"y":1}}'),
    ),
    (
        b'{"type":"complete",%b,"x":[1],"y":"\\"}"}\n',
        CompleteEntry(**BASE, extra_json=b'{"x":[1],"y":"\\"}"}'),
    ),
]


@pytest.mark.parametrize(("template", "entry"), GOLDEN)
def test_d11_golden_lines_byte_for_byte(template: bytes, entry: Entry) -> None:
    """Journals of this version could not be read by the reference, or by the next version."""
    line = template.replace(b"%b", HEAD)
    assert encode_entry(entry, 7) == line
    assert decode_line(line[:-1], 7) == entry
    assert encode_entry(decode_line(line[:-1], 7), 7) == line


def test_golden_lines_hold_all_seven_types() -> None:
    """An entry type would have no golden line."""
    types = {"start", "step", "suspend", "resume", "complete", "error", "cancel"}
    assert {entry.type for _, entry in GOLDEN} == types


def test_an_entry_is_written_at_the_offset_storage_gives_it() -> None:
    """The offset would be the one of another journal, as in a fork."""
    assert b'"offset":2,' in encode_entry(step("a").at(9), 2)
    assert b'"offset":0,' in encode_entry(step("a"), 0)


# --- torn tails -----------------------------------------------------------------------------------

ENTRIES = [entry.at(n) for n, (_, entry) in enumerate(GOLDEN)]
DATA = b"".join(encode_entry(entry, n) for n, entry in enumerate(ENTRIES))


def test_d11_a_journal_cut_at_any_byte_keeps_the_entries_whose_newline_survived() -> None:
    """A crash in the middle of an append would make the journal unreadable, or invent an entry."""
    for cut in range(len(DATA) + 1):
        left = DATA[:cut]
        whole = left.rfind(b"\n") + 1
        expected = Journal(entries=ENTRIES[: left.count(b"\n")], whole=whole)
        assert decode_journal(left) == expected


@pytest.mark.parametrize("torn", [b"x", b"\0", b"\xff\xfe", b'{"type":"complete"', b"{}", b" "])
def test_d11_a_torn_tail_may_be_anything(torn: bytes) -> None:
    """What a disk leaves behind after a crash would be taken for damage."""
    assert decode_journal(DATA + torn) == Journal(entries=ENTRIES, whole=len(DATA))


def test_an_empty_journal_has_no_entries() -> None:
    """A new file would be damaged from its birth."""
    assert decode_journal(b"") == Journal(entries=[], whole=0)


def test_a_part_of_a_journal_is_read_at_its_offset() -> None:
    """Reading from the middle would take every offset for damage, or count lines wrongly."""
    lines = DATA.splitlines(keepends=True)
    assert decode_journal(b"".join(lines[4:]), first_offset=4).entries == ENTRIES[4:]
    with pytest.raises(JournalCorruptionError) as caught:
        decode_journal(lines[4] + b"{\n", first_offset=4)
    assert caught.value.line == 6


# --- damage -----------------------------------------------------------------------------------------

GOOD = {"type": "step", "session": 1, "timestamp": STAMP, "stepId": "a", "name": "a", "result": 1}


def _broken(**changes: object) -> bytes:
    return orjson.dumps({key: value for key, value in {**GOOD, **changes}.items() if value != "-"})


DAMAGE: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b" ", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff", "not JSON"),
    (b'{"a":"\xff\\u0041"}', "not JSON"),
    (b"\0" * 40, "not JSON"),
    (b'{"a":NaN}', "not JSON"),
    (b'{"a":"\\u0041","b":NaN}', "not JSON"),
    (b'{"a":"\\u0041","b":-Infinity}', "not JSON"),
    (b'{"a":"\\u00"}', "not JSON"),
    (b"[" * 2000, "not JSON"),
    (b'"\\u0041' + b"[" * 5000, "not JSON"),
    (b'["\\ud800",' + b"[" * 5000 + b"]" * 5001, "nested too deeply"),
    (orjson.dumps(GOOD) + b"{}", "not JSON"),
    (orjson.dumps(GOOD) + orjson.dumps(GOOD), "not JSON"),
    (b"[]", "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"{}", "session is None"),
    (_broken(session="-"), "session is None"),
    (_broken(session=True), "session is True"),
    (_broken(session=1.0), "session is 1.0"),
    (_broken(session="1"), "session is '1'"),
    (_broken(session=-1), "session is -1"),
    (_broken(timestamp="-"), "timestamp is None"),
    (_broken(timestamp=5), "timestamp is 5"),
    (_broken(offset=0), "offset is 0, expected 1"),
    (_broken(offset=2), "offset is 2, expected 1"),
    (_broken(offset="1"), "offset is '1'"),
    (_broken(offset=1.0), "offset is 1.0"),
    (_broken(offset=True), "offset is True"),
    (_broken(offset=None), "offset is None"),
    (_broken(type="-"), "type is None"),
    (_broken(type="Step"), "type is 'Step', not one of the seven"),
    (_broken(type=["step"]), "type is"),
    (_broken(stepId="-"), "step entry without stepId"),
    (_broken(stepId=None), "step entry without stepId"),
    (_broken(stepId=1), "stepId is 1, not text"),
    (_broken(name="-"), "step entry without name"),
    (_broken(name=["a"]), "name is"),
    (_broken(type="start", version=1), "version is 1, not text"),
    (_broken(type="start", writer={}), "writer is"),
    (_broken(type="start", source="run"), "source is 'run'"),
    (_broken(type="start", source={"runId": 1, "fromOffset": 1}), "source is"),
    (_broken(type="start", source={"runId": "r"}), "source is"),
    (_broken(type="start", source={"runId": "r", "fromOffset": "1"}), "source is"),
    (_broken(type="start", source={"runId": "r", "fromOffset": True}), "source is"),
    (_broken(type="start", source={"runId": "r", "fromOffset": False}), "source is"),
    (_broken(type="suspend", waitingFor="ok"), "suspend entry without reason"),
    (_broken(type="suspend", reason="r"), "suspend entry without waitingFor"),
    (_broken(type="suspend", reason="r", waitingFor="ok", timeout=5), "timeout is 5, not text"),
    (_broken(type="resume", value=1), "resume entry without eventName"),
    (_broken(type="error", name="N"), "error entry without message"),
    (_broken(type="error", message=1), "message is 1"),
    (_broken(type="error", message="m", stack=1), "stack is 1"),
    (_broken(type="cancel", reason=1), "reason is 1"),
]


@pytest.mark.parametrize(("line", "said"), DAMAGE)
def test_d11_damage_in_a_middle_line_names_the_line(line: bytes, said: str) -> None:
    """A damaged journal would be read as something else, or nobody be told where to look."""
    good = encode_entry(start(), 0)
    with pytest.raises(JournalCorruptionError) as caught:
        decode_journal(good + line + b"\n" + encode_entry(complete(), 2))
    assert caught.value.line == 2
    assert said in str(caught.value)
    assert "line 2" in str(caught.value)


def test_d11_a_lost_or_doubled_line_is_damage() -> None:
    """Entries that vanished from the middle would go unnoticed."""
    lines = DATA.splitlines(keepends=True)
    for damaged, line in ((lines[:2] + lines[3:], 3), (lines[:3] + lines[2:], 4)):
        with pytest.raises(JournalCorruptionError) as caught:
            decode_journal(b"".join(damaged))
        assert caught.value.line == line


# --- any value, any bytes ---------------------------------------------------------------------------

texts = st.text()
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from([',"result":', '"result":', ',"value":1}', "}", '"']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            texts | st.sampled_from(["result", "value", "metadata", "type"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def _round_trip(entry: Entry) -> None:
    line = encode_entry(entry, 5)
    assert line.count(b"\n") == 1
    again = decode_line(line[:-1], 5)
    assert again == entry.at(5)
    assert encode_entry(again, 5) == line


@given(json_values, texts, texts)
@example({"a": 1, "result": {"result": 2}}, "a", "a")
@example([',"result":'], ',"result":', "result")
def test_any_value_of_a_step_survives(value: object, step_id: str, name: str) -> None:
    """A recorded result would come back as something else."""
    entry = StepEntry.of(session=1, timestamp=STAMP, step_id=step_id, name=name, result=value)
    _round_trip(entry)
    again = decode_line(encode_entry(entry, 5)[:-1], 5)
    assert isinstance(again, StepEntry)
    assert orjson.dumps(again.result) == orjson.dumps(value)


@given(json_values, texts)
def test_any_payload_of_an_event_survives(value: object, event: str) -> None:
    """An approval would come back as something else."""
    _round_trip(ResumeEntry.of(session=1, timestamp=STAMP, event_name=event, value=value))


@given(json_values, texts, st.none() | texts)
def test_any_metadata_and_extra_field_survives(
    value: object, key: str, version: str | None
) -> None:
    """A run's input, or a field of a later version, would be lost or changed."""
    known = {"type", "session", "offset", "timestamp", "version", "writer", "source", "metadata"}
    extra = {} if key in known else {key: value}
    entry = StartEntry(
        session=1,
        timestamp=STAMP,
        version=version,
        metadata_json=orjson.dumps(value),
        extra_json=orjson.dumps(extra),
    )
    line = encode_entry(entry, 5)
    assert decode_line(line[:-1], 5) == entry.at(5)
    assert orjson.loads(line).items() >= extra.items()


@given(st.binary() | st.lists(st.sampled_from([*DATA.splitlines(), b"{", b"\xff"])).map(b"\n".join))
@example(b'{"\\u0041":1e999}\n')
@example(b"[" * 999 + b"]" * 999 + b"\n")
def test_any_bytes_give_entries_or_corruption(data: bytes) -> None:
    """A damaged journal would raise some parser's error, for which nobody is prepared."""
    try:
        found = decode_journal(data)
    except JournalCorruptionError as error:
        damaged = error.line
    else:
        assert len(found.entries) == data.count(b"\n")
        assert found.whole == data.rfind(b"\n") + 1
        return
    assert 1 <= damaged <= data.count(b"\n")


@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
def test_one_changed_byte_gives_entries_or_corruption(position: int, byte: int) -> None:
    """A flipped bit would raise some parser's error, now or when the value is asked for."""
    data = bytearray(DATA)
    data[position] = byte
    try:
        entries = decode_journal(bytes(data)).entries
    except JournalCorruptionError:
        return
    again = b"".join(encode_entry(entry, n) for n, entry in enumerate(entries))
    assert decode_journal(again).entries == entries


PIECES = st.sampled_from(
    [
        b'"type":"step"',
        b'"session":1',
        b'"session":true',
        b'"offset":0',
        b'"offset":9',
        b'"timestamp":"2026-01-31T12:00:00.000Z"',
        b'"stepId":"a"',
        b'"stepId":"a,\\"result\\":1"',
        b'"name":"a"',
        b'"name":null',
        b'"result":{"x":1,"result":2}',
        b'"result":[{"result":1},"\\ud800"]',
        b'"result":"}"',
        b'"result":1.0',
        b'"result" :2',
        b'"result":',
        b'"extra":{"a":1,"result":3}',
        b"}",
        b"{",
    ]
)


@given(
    st.lists(PIECES, min_size=6, max_size=9),
    st.sampled_from([b",", b", "]),
    st.sampled_from([b"}", b" }", b"}}", b"} ", b""]),
)
@example(
    [
        b'"type":"step"',
        b'"session":1',
        b'"offset":0',
        b'"timestamp":"t"',
        b'"stepId":"a"',
        b'"name":"a"',
        b'"result":1',
        b'"result":2',
    ],
    b",",
    b"}",
)
def test_the_quick_way_to_read_a_step_reads_what_the_whole_parser_does(
    members: list[bytes], comma: bytes, end: bytes
) -> None:
    """A line cut in the wrong place would replay a result that nobody recorded."""
    line = b"{" + comma.join(members) + end

    def read(by: Any) -> Any:
        try:
            return by()
        except JournalCorruptionError:
            return None

    whole = read(lambda: decode_line(line, 0))
    quick = read(lambda: decode_journal(line + b"\n").entries[0])
    assert quick == whole
