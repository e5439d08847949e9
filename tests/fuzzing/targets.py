"""What the coverage-guided fuzzer hands its bytes to; a target raises only if a promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from kassette import JournalCorruptionError, UsageError, decode_journal, decode_line
from kassette.values import decode_value, json_equal, rewrite_value, settle_value
from tests.core.test_codec import DAMAGE, DATA, GOLDEN, HEAD
from tests.core.test_hostile_journals import SOURCE
from tests.core.test_reference_journals import LONE, REFERENCE
from tests.core.using import read, use, written

MANY = 16


def journal(data: bytes) -> None:
    """Any bytes are entries, with which everything goes well or is refused, or corruption."""
    stored = read(data)
    if stored is not None and len(stored) <= MANY:
        use(stored)


def line(data: bytes) -> None:
    """The quick way to read a step and the whole parser agree."""
    if b"\n" in data:
        return
    whole = quick = None
    with suppress(JournalCorruptionError):
        whole = decode_line(data, 0)
    with suppress(JournalCorruptionError):
        (quick,) = decode_journal(data + b"\n").entries
    assert quick == whole


def value(data: bytes) -> None:
    """What can be read can be written and read again, and is settled or refused."""
    try:
        found = decode_value(data)
    except ValueError:
        return
    assert json_equal(decode_value(rewrite_value(found)), found)
    try:
        raw, settled = settle_value(found)
    except UsageError:
        return
    assert json_equal(decode_value(raw), settled)
    assert json_equal(settled, found)


TARGETS: Mapping[str, Callable[[bytes], None]] = {"journal": journal, "line": line, "value": value}


def corpus(target: str) -> list[bytes]:
    """Give what the fuzzer begins with: the golden and the damaged journals of the tests."""
    golden = [template.replace(b"%b", HEAD) for template, _ in GOLDEN]
    journals = [DATA, REFERENCE, written(SOURCE), *golden]
    lines = [each for data in journals for each in data.splitlines()]
    lines += [*LONE, *(damage for damage, _ in DAMAGE)]
    match target:
        case "journal":
            return [*journals, *(each + b"\n" for each in lines)]
        case "line":
            return lines
        case _:
            return [each.partition(b',"result":')[2].removesuffix(b"}") or each for each in lines]
