"""Hostile journals, from their bytes to the machine: documented errors, bounded memory, no hang."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest
from hypothesis import example, given, settings, strategies as st

from kassette import (
    Entry,
    Machine,
    Resume,
    Start,
    UsageError,
    decode_journal,
    decode_line,
    encode_entry,
)
from kassette.entries import MAX_SESSION
from kassette.values import decode_value, json_equal

from .driving import (
    NOW,
    RUN,
    STAMP,
    complete,
    error,
    journal,
    resume,
    start,
    step,
    suspend,
)
from .hostile import KNOWN, damaged, damages, entries, hostile_bytes
from .using import fork_at, read, use, written


@given(hostile_bytes)
def test_any_bytes_give_entries_that_can_be_used_or_corruption(data: bytes) -> None:
    """A damaged journal would raise some parser's error, or one that appears only in use."""
    found = read(data)
    if found is not None:
        use(found)


SOURCE = journal(
    start(metadata={"ticket": 7}, version="v1"),
    step("llm", {"text": "hü", "n": [1, 2.5, None]}),
    step("llm#2", ',"result":'),
    suspend("ok", timeout="2026-02-01T00:00:00.000Z"),
    start(2),
    resume("ok", {"by": "ann"}),
    step("x:send", session=2),
    suspend("more", session=2),
)


@settings(max_examples=150)
@given(damages, st.booleans(), st.sampled_from([[], [complete(2)], [error(session=2)]]))
@example([(8, 3, 6)], True, [])
def test_a_damaged_journal_is_opened_and_forked_or_refused(
    damage: list[tuple[int, int, int]], renumber: bool, ending: list[Entry]
) -> None:
    """Lines that were cut, doubled or swapped would crash a worker that only meant to recover."""
    found = read(damaged(written([*SOURCE, *ending]), damage, renumber=renumber))
    if found is not None:
        use(found)


@settings(max_examples=300)
@given(entries)
def test_every_entry_that_can_be_written_is_read_back(entry: Entry) -> None:
    """A journal of ours would be damaged from its birth, or say something else than was meant."""
    line = encode_entry(entry, 5)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    again = decode_line(line[:-1], 5)
    assert again == entry.at(5)
    assert encode_entry(again, 5) == line
    (quick,) = decode_journal(line, first_offset=5).entries
    assert quick == again


# --- sizes ----------------------------------------------------------------------------------------

HEAD = f'"session":1,"offset":0,"timestamp":"{STAMP}"'
MANY = 100_000


def _step(result: str) -> bytes:
    return f'{{"type":"step",{HEAD},"stepId":"a","name":"a","result":{result}}}\n'.encode()


LONG: dict[str, bytes] = {
    "brackets": _step("[" * MANY),
    "closed brackets": _step("[" * MANY + "]" * MANY),
    "braces": _step('{"a":' * MANY + "1" + "}" * MANY),
    "brackets for the lenient parser": _step('["\\ud800",' + "[" * MANY + "]" * MANY + "]"),
    "digits": _step("9" * MANY),
    "digits for the lenient parser": _step('["\\ud800",' + "9" * MANY + "]"),
    "a fraction": _step("0." + "1" * MANY),
    "an exponent": _step("1e-" + "9" * MANY),
    "result after result": _step('1,"result":' * MANY + "1"),
    "results in a text": _step('"' + ',\\"result\\":' * MANY + '"'),
    "surrogates": _step('"' + "\\ud800" * MANY + '"'),
    "an open text": _step('"' + "\\ud800" * MANY)[:-2] + b"\n",
    "backslashes": _step('"' + "\\\\" * MANY + '\\ud800"'),
    "keys": _step("{" + ",".join(f'"{n}\\ud800":{n}' for n in range(MANY // 10)) + "}"),
    "one key": _step("{" + ",".join('"a\\ud800":1' for _ in range(MANY // 10)) + "}"),
    "unknown fields": _step("1" + "".join(f',"x{n}":{n}' for n in range(MANY // 10))),
    "zeros": b"\0" * MANY + b"\n",
    "empty lines": b"\n" * MANY,
    "no line": b"x" * MANY,
    "a long type": _step("1").replace(b'"step"', b'"%b"' % (b"x" * MANY)),
    "a long session": _step("1").replace(b":1,", b':"%b",' % (b"x" * MANY), 1),
    "a long timestamp": _step("1").replace(b'"%b"' % STAMP.encode(), b"[%b1]" % (b"1," * MANY)),
    "a long name": _step("1").replace(b'"name":"a"', b'"name":[%b1]' % (b"1," * MANY)),
    "a long offset": _step("1").replace(b'"offset":0', b'"offset":"%b"' % (b"0" * MANY)),
    "a long source": f'{{"type":"start",{HEAD},"source":["{"x" * MANY}"]}}\n'.encode(),
    "a long timeout": (
        f'{{"type":"suspend",{HEAD},"reason":"","waitingFor":"","timeout":"{"2" * MANY}"}}\n'
    ).encode(),
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_monstrous_line_costs_memory_in_proportion_and_a_short_message(data: bytes) -> None:
    """One forged line would take a worker's memory, or bury its log under a megabyte."""
    tracemalloc.start()
    try:
        read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60 * len(data) + 100_000


@pytest.mark.parametrize("depth", [900, 960, 980, 985, 990, 995, 1000, 1010, 1019])
@pytest.mark.parametrize("key", ["type", "session", "offset", "timestamp", "name", "source"])
@pytest.mark.parametrize("first", ["1", '"\\ud800"'])
def test_a_deep_value_in_the_place_of_a_plain_one_is_corruption(
    depth: int, key: str, first: str
) -> None:
    """To quote the value would raise RecursionError, for which nobody is prepared."""
    members = {"type": '"step"', "session": "1", "timestamp": '"t"', "stepId": '"a"', "name": '"a"'}
    members |= {"type": '"start"'} if key == "source" else {}
    members[key] = f"[{first}," + "[" * depth + "]" * depth + "]"
    line = "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}\n"
    assert read(line.encode()) is None


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digits",
    [
        "0",
        "-0",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
        "-18446744073709551615",
        "9" * 300,
        "-" + "9" * 300,
    ],
)
def test_both_parsers_read_the_same_number(digits: str) -> None:
    """One half of an emoji in a line would turn a double in it into an integer of any length."""
    _, lenient = decode_value(f'["\\ud800",{digits}]'.encode())
    strict = orjson.loads(digits)
    assert (type(lenient), lenient) == (type(strict), strict)
    assert json_equal(lenient, strict)


@pytest.mark.parametrize("digits", ["9" * 400, "-" + "9" * 400, "9" * 5000, "1e999", "-1e999"])
def test_neither_parser_reads_a_number_beyond_a_double(digits: str) -> None:
    """Such a number would come back as infinity, which cannot be written again."""
    for line in (digits, f'["\\ud800",{digits}]'):
        with pytest.raises(ValueError, match=r"beyond the range|infinity"):
            decode_value(line.encode())


@pytest.mark.parametrize("session", [0, 1, MAX_SESSION])
def test_a_session_number_up_to_the_last_exact_one_is_read(session: int) -> None:
    """A journal that other implementations can read would be refused here."""
    for line in (encode_entry(start(session), 0), encode_entry(step("a", session=session), 0)):
        (entry,) = decode_journal(line).entries
        assert entry.session == session


@pytest.mark.parametrize("session", [MAX_SESSION + 1, 2**64 - 1, 2**64, 10**30])
@pytest.mark.parametrize("extra", ["", ',"x":"\\ud800"'])
def test_a_session_number_beyond_it_is_corruption(session: int, extra: str) -> None:
    """The next session would write a number that no reader takes, and so destroy the journal."""
    for line in (_step(f"1{extra}"), f'{{"type":"complete",{HEAD}{extra}}}\n'.encode()):
        assert read(line) is not None
        assert read(line.replace(b'"session":1', b'"session":%d' % session)) is None


def test_a_run_without_session_numbers_left_opens_no_session() -> None:
    """As above, one number earlier: the line would be written by us."""
    stored = journal(start(MAX_SESSION))
    for command in (Start(), Resume("ok", 1)):
        with pytest.raises(UsageError, match="used up its session numbers"):
            Machine(RUN, stored).handle(command, now=NOW)
    Machine(RUN, journal(start(MAX_SESSION - 1))).handle(Start(), now=NOW)
    fork_at(stored, from_offset=1)


def test_hostile_entries_are_of_all_seven_types() -> None:
    """A type would go untried."""
    assert set(KNOWN) == {"start", "step", "suspend", "resume", "complete", "error", "cancel"}
