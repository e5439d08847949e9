"""D3: which values may be journaled, what the refusal says, and that live equals replay."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
from collections import OrderedDict, defaultdict, namedtuple
from datetime import date, datetime
from decimal import Decimal
from math import inf, nan
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, strategies as st

from kassette import ResumeEntry, StepEntry, UsageError
from kassette.values import (
    decode_value,
    encode_value,
    json_equal,
    rewrite_value,
    settle_value,
    writable_text,
)

from .driving import STAMP

Point = namedtuple("Point", "x y")
Plain = enum.Enum("Plain", "RED")


class Colour(enum.StrEnum):
    """A text in other clothes."""

    RED = "red"


class Level(enum.IntEnum):
    """A number in other clothes."""

    LOW = 1


class Text(str):
    """A text in other clothes."""

    __slots__ = ()


class Hiding(dict[str, object]):
    """A dict that does not show what it holds."""

    def items(self) -> Any:
        """Show nothing."""
        return ()


@dataclasses.dataclass
class Data:
    """A value that orjson would quietly turn into an object."""

    x: int = 1


class Lookalike:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def _fragment(text: bytes) -> object:
    fragment: Any = getattr(orjson, "Fragment")  # noqa: B009 - its stubs lack it
    return fragment(text)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _cycle(kind: type) -> Any:
    value: Any = kind()
    if isinstance(value, dict):
        value["self"] = [value]
    else:
        value.append({"self": value})
    return value


UNWRITABLE: list[tuple[object, str]] = [
    (nan, "v is nan, which JSON does not support"),
    ({"a": [1, inf]}, "v['a'][1] is inf"),
    ([-inf], "v[0] is -inf"),
    (2**64, "v is an integer beyond 64 bits"),
    ({"a": -(2**63) - 1}, "v['a'] is an integer beyond 64 bits"),
    ({1: 2}, "v has the key 1; JSON keys are strings"),
    ([{"a": {None: 1}}], "v[0]['a'] has the key None"),
    ({True: 1}, "v has the key True"),
    ({("a",): 1}, "v has the key ('a',)"),
    ("\ud800", "v contains a lone surrogate"),
    (["ok", {"k": "a\udfff"}], "v[1]['k'] contains a lone surrogate"),
    ({"\ud800": 1}, r"v, key '\ud800' contains a lone"),
    (_cycle(list), "v[0]['self'] contains itself"),
    (_cycle(dict), "v['self'][0] contains itself"),
    ({1, 2}, "v is a builtins.set"),
    (frozenset(), "v is a builtins.frozenset"),
    (b"x", "v is a builtins.bytes"),
    (bytearray(), "v is a builtins.bytearray"),
    (memoryview(b""), "v is a builtins.memoryview"),
    (object(), "v is a builtins.object"),
    (1j, "v is a builtins.complex"),
    (range(3), "v is a builtins.range"),
    (iter(()), "v is a builtins.tuple_iterator"),
    (datetime(2026, 1, 1), "v is a datetime.datetime"),  # noqa: DTZ001
    ([date(2026, 1, 1)], "v[0] is a datetime.date"),
    (UUID(int=1), "v is a uuid.UUID"),
    (Decimal(1), "v is a decimal.Decimal"),
    (Data(), "Data, which JSON does not support"),
    ({"d": [Data()]}, "v['d'][0] is a"),
    (Plain.RED, "Plain, which JSON does not support"),
    (Point(1, 2), "Point, which JSON does not support"),
    (ValueError("x"), "v is a builtins.ValueError"),
    (print, "v is a builtins.builtin_function_or_method"),
    (int, "v is a builtins.type"),
    (Lookalike(), "Lookalike, which JSON does not support"),
    ([_fragment(b"1")], "v[0] is a orjson.Fragment"),
    (_fragment(b"not json"), "v is a orjson.Fragment"),
    ({Colour.RED: 1}, "v has the key"),
    ([{Text("k"): 1}], "v[0] has the key"),
]


@pytest.mark.parametrize(("value", "said"), UNWRITABLE, ids=[said[:40] for _, said in UNWRITABLE])
def test_unwritable_values_are_refused_with_the_path(value: object, said: str) -> None:
    """A value would come back as another one after a crash, or nobody would know which part."""
    with pytest.raises(UsageError) as caught:
        encode_value(value, "v")
    assert said in str(caught.value)
    assert "Nothing was written" in str(caught.value)


def test_d3_what_only_the_encoder_refuses_is_a_usage_error_too() -> None:
    """An odd type would raise the encoder's own TypeError."""
    with pytest.raises(UsageError, match="the result of step 'a' cannot be written as JSON"):
        encode_value([Hiding(a={1})], "the result of step 'a'")


def test_d3_refusals_say_what_to_do() -> None:
    """The author would know what is wrong, but not how to put it right."""
    for value, fix in ((Data(), "result_type"), (2**64, "use a string"), (nan, "use None")):
        with pytest.raises(UsageError, match=fix):
            encode_value(value)


@pytest.mark.parametrize("depth", [1, 250, 253, 254])
def test_d3_nesting_of_254_levels_is_written(depth: int) -> None:
    """A deep but legal result would be refused."""
    assert decode_value(encode_value(_nested(depth))) == _nested(depth)


@pytest.mark.parametrize("depth", [255, 256, 500, 5000])
def test_d3_nesting_beyond_254_levels_is_refused(depth: int) -> None:
    """A result would be written that some parser of the journal cannot read."""
    with pytest.raises(UsageError, match="nested deeper than 254 levels") as caught:
        encode_value(_nested(depth), "v")
    assert len(str(caught.value)) < 500


PLAIN_CLOTHES: list[tuple[object, object]] = [
    ((1, (2,)), [1, [2]]),
    ((None, True, "", {}), [None, True, "", {}]),
    ((2**64 - 1, -(2**63), 1e300), [2**64 - 1, -(2**63), 1e300]),
    ({"a": (1,)}, {"a": [1]}),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Colour.RED, "red"),
    ([Level.LOW], [1]),
    (Text("x"), "x"),
    ({"a": Text("x")}, {"a": "x"}),
    ([Colour.RED, (1,)], ["red", [1]]),
]


@pytest.mark.parametrize(("value", "plain"), PLAIN_CLOTHES)
def test_d3_plain_values_in_other_clothes_come_back_plain_at_once(
    value: object, plain: object
) -> None:
    """A tuple would be a tuple now and a list after a crash."""
    entry = StepEntry.of(session=1, timestamp=STAMP, step_id="a", name="a", result=value)
    assert entry.result == plain
    assert type(entry.result) is type(plain)
    assert orjson.loads(entry.result_json) == plain


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        1,
        -(2**63),
        2**64 - 1,
        0.0,
        -0.0,
        1.0,
        1e-300,
        1e300,
        "",
        "🙂\0\n",
        [],
        {},
    ],
)
def test_d3_the_edges_of_json_come_back_as_they_are(value: object) -> None:
    """A legal value would be refused, or come back as another type."""
    again = decode_value(encode_value(value))
    assert type(again) is type(value)
    assert repr(again) == repr(value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_live_equals_replay_for_any_json_value(value: object) -> None:
    """Some value would change on its way through the journal."""
    raw = encode_value(value)
    again = decode_value(raw)
    assert repr(again) == repr(value)
    assert encode_value(again) == raw == rewrite_value(again)
    assert json_equal(again, value)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.uuids()
    | st.decimals()
    | st.sampled_from([Colour.RED, Level.LOW, Plain.RED, Data(), Point(1, 2), Text("x")]),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=10,
)


@given(anything)
def test_anything_is_refused_or_comes_back_stable(value: object) -> None:
    """A value would be written that is not what replay gives, or raise what is no kassette error."""
    try:
        raw = encode_value(value)
    except UsageError:
        return
    assert encode_value(decode_value(raw)) == raw
    assert b"NaN" not in raw


def test_what_names_the_value_in_the_message() -> None:
    """A refused payload would be reported as some step's."""
    with pytest.raises(UsageError, match=r"the value of event 'ok'\['a'\] is nan"):
        ResumeEntry.of(session=1, timestamp=STAMP, event_name="ok", value={"a": nan})
    with pytest.raises(UsageError, match="the result of step 's#2' is nan"):
        StepEntry.of(session=1, timestamp=STAMP, step_id="s#2", name="s", result=nan)
    for write in (encode_value, settle_value):
        with pytest.raises(UsageError, match=r"^value is nan"):
            write(nan)


def test_d3_what_claims_to_equal_its_written_form_is_refused_all_the_same() -> None:
    """An object would be journaled that comes back as a dict, because it says it is one."""

    @dataclasses.dataclass(eq=False)
    class Sly:
        a: int = 1

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(UsageError, match="Sly, which JSON does not support"):
        encode_value(Sly())


# --- decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'"\\ud83d"', "\ud83d"),
        (b'{"a":["\\udc00"],"b":1}', {"a": ["\udc00"], "b": 1}),
        (b'"\\ud83d\\ude42"', "🙂"),
        (b" [1 , 2.0] ", [1, 2.0]),
        (b'["\\ud800",1.5,-2e3,18446744073709551616]', ["\ud800", 1.5, -2000.0, 2**64]),
    ],
)
def test_decode_reads_what_json_allows(raw: bytes, value: object) -> None:
    """A journal that JavaScript wrote could not be read."""
    assert decode_value(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"NaN",
        b'["\\ud800",NaN]',
        b'["\\ud800",Infinity]',
        b'["\\ud800",1e999]',
        b'["\\ud800",-1e999]',
        b"[1e999]",
        b'"\\ud8"',
        b'"\xff\\ud800"',
        b'["\\ud800","\t"]',
        b'["\\ud800",]',
        b'["\\ud800"' + b"[" * 3000,
        b'["\\ud800",' + b"[" * 3000 + b"]" * 3001,
        b"[" * 3000 + b"]" * 3000,
    ],
)
def test_decode_refuses_what_is_not_json_with_value_error(raw: bytes) -> None:
    """Damage would pass as a value that cannot be written again, or raise something else."""
    with pytest.raises(ValueError, match=r"."):
        decode_value(raw)


def test_rewrite_writes_whatever_decode_gave() -> None:
    """A fork of a journal with half an emoji in it would fail."""
    for raw in (
        b'["\\ud83d"]',
        b'{"\\ud83d":1}',
        b'["\\ud83d",18446744073709551616]',
        b'[1,{"a":null}]',
    ):
        assert decode_value(rewrite_value(decode_value(raw))) == decode_value(raw)
    assert rewrite_value({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()
    assert rewrite_value(["\ud83d", 1]) == b'["\\ud83d",1]'


# --- comparing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        (True, True, True),
        (None, None, True),
        (None, False, False),
        (None, 0, False),
        ("1", 1, False),
        ("", None, False),
        ([], {}, False),
        ([1, 2], [1, 2.0], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([True], [1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": {"b": [0]}}, {"a": {"b": [False]}}, False),
    ],
)
def test_json_equal(left: object, right: object, equal: bool) -> None:
    """Recovery would be refused for the same input, or accepted for another."""
    assert json_equal(left, right) is equal
    assert json_equal(right, left) is equal


def test_writable_text_changes_only_what_utf8_cannot_write() -> None:
    """An error message would be lost, or mangled without need."""
    assert writable_text("plain ü 🙂\n") == "plain ü 🙂\n"
    assert writable_text("a\ud83d\udfff") == "a\\ud83d\\udfff"


def test_d3_a_value_too_deep_for_the_stack_at_hand_is_refused_not_a_crash() -> None:
    """A legal result at the bottom of a deep stack would raise what nobody is prepared for."""
    value: object = (float("nan"),)
    for _ in range(200):
        value = [value]

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 120)
    try:
        with pytest.raises(UsageError, match="available stack"):
            encode_value(value, "v")
    finally:
        sys.setrecursionlimit(limit)
