"""The two ways a line is read: both keep a value's spelling, and the quick one is taken and right."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from kassette import JournalCorruptionError, decode_journal, decode_line, encode_entry
from kassette.entries import MAX_SESSION

from .driving import STAMP, step

VALUES: list[Any] = [None, 1, "plain", {"a": 1, "result": 2}, [{"a": 0, "result": {}}], "}", {}]


@pytest.mark.parametrize("session", [0, 1, MAX_SESSION])
def test_a_step_as_this_library_writes_it_is_read_the_quick_way(
    session: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a long run would take several times as long, and no other test would tell."""

    def refuse(line: bytes, offset: int) -> NoReturn:
        raise AssertionError(line)

    monkeypatch.setattr("kassette.codec.decode_line", refuse)
    steps = [step(f"s{n}", value, session=session) for n, value in enumerate(VALUES)]
    data = b"".join(map(encode_entry, steps, range(len(steps))))
    entries = decode_journal(data).entries
    assert entries == [each.at(n) for n, each in enumerate(steps)]


LINE = (
    b'{"type":"step","session":1,"offset":0,"timestamp":"%b","stepId":"a","name":"b","result":1}'
    % STAMP.encode()
)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b'"step"', b'"complete"'),
        (b'"step"', b'"suspend"'),
        (b'"step"', b"1"),
        (b'"session":1', b'"session":true'),
        (b'"session":1', b'"session":1.0'),
        (b'"session":1', b'"session":"1"'),
        (b'"session":1', b'"session":-1'),
        (b'"session":1', b'"session":9007199254740992'),
        (b'"offset":0', b'"offset":1'),
        (b'"offset":0', b'"offset":false'),
        (b'"offset":0', b'"offset":0.0'),
        (b'"offset":0', b'"x":0'),
        (b'"offset":0', b'"offset":0,"x":0'),
        (b'"a"', b"1"),
        (b'"a"', b"null"),
        (b'"b"', b"1"),
        (b'"b"', b"[]"),
        (b'"%b"' % STAMP.encode(), b"1"),
        (b'"result":1', b'"result":1}'),
        (b'"result":1', b'"result":1,"x":2'),
        (b'"result":1}', b'"result":1} '),
        (b'"result":1}', b'"result":1]'),
        (b'"result":1}', b'"result":12'),
        (b',"result":1', b""),
        (b'{"type"', b',"result":1}'),
    ],
)
def test_a_line_that_is_unlike_it_is_read_by_the_whole_parser(was: bytes, becomes: bytes) -> None:
    """Damage would be replayed as a result, or a run's end be taken for a step."""
    line = LINE.replace(was, becomes, 1)
    assert line != LINE
    try:
        whole = [decode_line(line, 0)]
    except JournalCorruptionError:
        with pytest.raises(JournalCorruptionError):
            decode_journal(line + b"\n")
    else:
        assert decode_journal(line + b"\n").entries == whole


HEAD = b'"session":1,"offset":0,"timestamp":"%b"' % STAMP.encode()
HOLDERS = {
    "result": b'{"type":"step",%b,"stepId":"a","name":"a","result":' % HEAD,
    "value": b'{"type":"resume",%b,"eventName":"ok","value":' % HEAD,
    "metadata": b'{"type":"start",%b,"metadata":' % HEAD,
}


@pytest.mark.parametrize("key", HOLDERS)
@pytest.mark.parametrize(
    "raw", [b"1.0", b"1e0", b"-0", b'"\\u00fc"', b"[1, 2]", b'{"a" : 1.50}', b'"\\ud800"', b"7"]
)
def test_a_value_keeps_its_spelling(key: str, raw: bytes) -> None:
    """A fork would not be its source byte for byte: ``1.0`` of another writer would become ``1``."""
    line = HOLDERS[key] + raw + b"}"
    for entry in (decode_line(line, 0), *decode_journal(line + b"\n").entries):
        assert getattr(entry, f"{key}_json") == raw
        assert encode_entry(entry, 0) == line + b"\n"
