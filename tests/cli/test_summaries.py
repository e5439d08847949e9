"""Runs in brief from the end of their files say what the whole of them says."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from kassette import (
    JournalCorruptionError,
    StorageError,
    SuspendedRun,
    Unsettled,
    decode_journal,
)
from kassette.evidence import summary
from kassette.evidence.summary import BLOCK, RunSummary, Wanted, summarise, summarise_ends
from kassette.timestamps import instant
from kassette_cli.verbs import list as listing
from kassette_cli.verbs.list import summarise_file

from .journals import COMPLETED, JOURNALS, START, SUSPEND, T2, long_journal

LONG = long_journal(300)
ENDINGS = {
    "step": "",
    "complete": f'{{"type":"complete","session":2,"offset":302,"timestamp":"{T2}"}}\n',
    "complete and more": f'{{"type":"complete","session":2,"offset":302,"timestamp":"{T2}","x":1}}\n',
    "cancel": f'{{"type":"cancel","session":2,"offset":302,"timestamp":"{T2}"}}\n',
    "resume": f'{{"type":"resume","session":2,"offset":302,"timestamp":"{T2}",'
    '"eventName":"approval","value":1}\n',
    "error": f'{{"type":"error","session":2,"offset":302,"timestamp":"{T2}","message":"no"}}\n',
    "suspend": f'{{"type":"suspend","session":2,"offset":302,"timestamp":"{T2}",'
    '"reason":"r","waitingFor":"approval"}\n',
    "suspend again": f'{{"type":"suspend","session":2,"offset":302,"timestamp":"{T2}",'
    f'"reason":"r","waitingFor":"approval","timeout":"{T2}"}}\n',
    "suspend and more": f'{{"type":"suspend","session":2,"offset":302,"timestamp":"{T2}",'
    '"reason":"r","waitingFor":"approval","more":true}\n',
}
START_302 = f'{{"type":"start","session":2,"offset":301,"timestamp":"{T2}"}}\n'


def whole(journal: str) -> RunSummary:
    return summarise("r", decode_journal(journal.encode("utf-8", "surrogatepass")).entries)


def of_file(directory: Path, journal: str) -> RunSummary:
    (directory / "r.jsonl").write_text(journal, encoding="utf-8")
    return summarise_file(str(directory), "r")


@pytest.mark.parametrize("run_id", sorted(JOURNALS.keys() - {"damaged"}))
def test_a_short_journal_is_told_as_it_is(tmp_path: Path, run_id: str) -> None:
    """The table would show another state than `status` does."""
    assert of_file(tmp_path, JOURNALS[run_id]) == whole(JOURNALS[run_id])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_long_journal_is_told_from_its_end(tmp_path: Path, ending: str) -> None:
    """A run of some megabytes would be told wrongly, or the table wait for all of it."""
    journal = LONG + START_302 + ENDINGS[ending]
    expected = whole(journal)
    found = of_file(tmp_path, journal)
    assert found.exact is False
    assert found.steps is not None
    assert expected.steps is not None
    assert expected.steps <= found.steps <= expected.steps + 1
    assert found.replace(exact=True, steps=expected.steps) == expected


@pytest.mark.parametrize("begins", [START, LONG + START_302])
def test_the_deadline_of_a_wait_is_left_to_status(tmp_path: Path, begins: str) -> None:
    """The deadline of the last wait would be told, which is not the one that is enforced."""
    found = of_file(tmp_path, begins + ENDINGS["suspend again"].replace('"offset":302,', ""))
    assert found.status == SuspendedRun(waiting_for="approval")
    assert found.waiting_for == "approval"


def test_a_run_without_entries_has_done_nothing() -> None:
    """A run that was never written would be listed with a session, or end the list."""
    assert summarise("r", []) == RunSummary(
        run_id="r", status=Unsettled(), steps=0, sessions=0, started=None, last_entry=None
    )


def test_only_the_end_of_a_long_journal_is_read(tmp_path: Path) -> None:
    """A list of large journals would take as long as reading them."""
    lines = LONG.splitlines(keepends=True)
    damaged_early = "".join((*lines[:5], "{damaged\n", *lines[6:]))
    assert of_file(tmp_path, damaged_early).word == "unsettled"


@pytest.mark.parametrize(
    "journal",
    [
        COMPLETED.replace('"offset":0,', "").replace('"offset":3,', ""),
        COMPLETED.replace('{"type":"start","session":1', '{"session":1,"type":"start"'),
        COMPLETED.replace('{"type":"step","session":1', '{"session":1,"type":"step"'),
        COMPLETED.replace("\n", "\r\n"),
        LONG.replace('{"type":"start","session":1', '{"session":1,"type":"start"'),
        f'{LONG}{START_302[:-2]},"x":"{"y" * BLOCK}"}}\n',
        LONG.removesuffix("\n"),
        START + START.replace('"offset":0', '"offset":1').replace('n":1', 'n":2'),
    ],
)
def test_a_journal_in_another_form_is_read_as_a_whole(tmp_path: Path, journal: str) -> None:
    """A journal of the TypeScript kassette would be told wrongly, or as damaged."""
    found = of_file(tmp_path, journal)
    expected = whole(journal)
    assert found.replace(exact=True, steps=expected.steps) == expected


@pytest.mark.parametrize(
    "journal",
    [
        JOURNALS["damaged"],
        COMPLETED + "{damaged\n",
        LONG + "{damaged\n",
        LONG + "\n" + START_302,
        COMPLETED.replace('"offset":3', '"offset":7'),
        START + SUSPEND.replace('"waitingFor":"approval"', '"waitingFor":7'),
    ],
)
def test_damage_is_told_as_damage(tmp_path: Path, journal: str) -> None:
    """A journal that nobody can go on with would be listed as if all was well."""
    found = of_file(tmp_path, journal)
    assert isinstance(found.status, JournalCorruptionError)
    assert "journal of run 'r', line " in str(found.status)
    assert found.word == "unreadable"


def test_what_cannot_be_read_is_told_as_that(tmp_path: Path) -> None:
    """One directory by the name of a journal would end the whole list."""
    (tmp_path / "r.jsonl").mkdir()
    assert isinstance(summarise_file(str(tmp_path), "r").status, StorageError)
    assert isinstance(summarise_file(str(tmp_path), "gone").status, StorageError)


@settings(max_examples=60)
@given(block=st.integers(100, 3000), cut=st.integers(0, 2000))
def test_wherever_the_block_begins(
    tmp_path_factory: pytest.TempPathFactory, block: int, cut: int
) -> None:
    """A line that is cut in two by the block's beginning would be taken for one, or for damage."""
    directory = tmp_path_factory.mktemp("block")
    journal = long_journal(6)
    end = f'{{"type":"complete","session":1,"offset":7,"timestamp":"{T2}"}}\n'
    text = (journal + end)[: len(journal + end) - cut]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "BLOCK", block)
        found = of_file(directory, text)
    expected = whole(text)
    assert found.replace(exact=True, steps=expected.steps) == expected


def test_sessions_are_told_by_the_number_of_the_newest(tmp_path: Path) -> None:
    """A fork, whose sessions do not begin at 1, would be said to have had fewer than it says itself."""
    journal = START + START.replace('"session":1', '"session":4').replace(
        '"offset":0', '"offset":1'
    )
    assert whole(journal).sessions == 4
    assert of_file(tmp_path, journal).sessions == 4


def short(steps: int, ending: str) -> str:
    """Give a journal of one block that ends with ``ending``."""
    lines = [START]
    for offset in range(1, steps + 1):
        lines.append(
            f'{{"type":"step","session":1,"offset":{offset},"timestamp":"{T2}",'
            f'"stepId":"s#{offset}","name":"s","result":{offset}}}\n'
        )
    return "".join(lines) + ending.replace('"offset":302', f'"offset":{steps + 1}')


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Let no journal be read as a whole; give the lines that are decoded, one at a time."""
    lines: list[bytes] = []

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it reads the whole journal")

    def decode_line(data: bytes, *, first_offset: int) -> object:
        assert data.count(b"\n") == 1
        lines.append(data)
        return decode_journal(data, first_offset=first_offset)

    monkeypatch.setattr(listing, "open", refuse, raising=False)
    monkeypatch.setattr(summary, "decode_journal", decode_line)
    return lines


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("steps", [0, 1, 2, 29, 30, 31, 32, 33, 40])
def test_what_this_library_writes_is_told_without_decoding_it(
    tmp_path: Path, decoded: list[bytes], steps: int, ending: str
) -> None:
    """A table of ten thousand short runs would take as long as parsing them."""
    journal = short(steps, ENDINGS[ending].replace('"session":2', '"session":1'))
    found = of_file(tmp_path, journal)
    expected = whole(journal)
    assert found == expected
    assert found.steps == steps
    assert len(decoded) == (ending not in ("step", "complete", "resume"))


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize("torn", ["", '{"type":"step","session":3,"offs'])
@pytest.mark.parametrize("starts", [1, 2, 3])
@pytest.mark.parametrize("ending", ["step", "suspend", "suspend and more"])
def test_starts_that_did_nothing_change_no_state(
    tmp_path: Path, ending: str, starts: int, torn: str
) -> None:
    """A run that waits would be told to be running, because somebody has looked after it in vain."""
    lines = [short(3, ENDINGS[ending].replace('"session":2', '"session":1'))]
    for session in range(2, 2 + starts):
        offset = "".join(lines).count("\n")
        lines.append(
            f'{{"type":"start","session":{session},"offset":{offset},"timestamp":"{T2}"}}\n'
        )
    journal = "".join(lines)
    assert of_file(tmp_path, journal + torn) == whole(journal)
    only_starts = START + START.replace('"session":1,"offset":0', '"session":2,"offset":1')
    assert of_file(tmp_path, only_starts + torn) == whole(only_starts)


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_long_journal_has_at_most_as_many_steps_as_entries(tmp_path: Path, ending: str) -> None:
    """The figure that is said to be the most there can be would be too small, or far too large."""
    found = of_file(tmp_path, LONG + ENDINGS[ending].replace("302", "301").replace('n":2', 'n":1'))
    assert found.exact is False
    assert found.sessions == 1
    # every entry but the starts and the end may be a step; waits and events are not known of
    assert found.steps == 300 + (ending.startswith("suspend") or ending == "resume")


def test_a_run_is_old_once_it_is_older(tmp_path: Path) -> None:
    """A run whose last entry is of this very instant would be older than 0s at one time only."""
    summary = of_file(tmp_path, COMPLETED)
    last = instant(summary.last_entry)
    assert last is not None
    assert summary not in Wanted(before=last)
    assert summary in Wanted(before=last + timedelta(microseconds=1))
    assert summary in Wanted()
    assert "r" not in Wanted()


def test_a_table_of_many_runs_keeps_no_file_open(tmp_path: Path) -> None:
    """A list of more runs than a process may have files would end in the middle."""
    opened = len(os.listdir("/dev/fd"))
    for journal in (*JOURNALS.values(), LONG):
        of_file(tmp_path, journal)
    assert len(os.listdir("/dev/fd")) == opened


HEAD = START.encode().ljust(BLOCK, b" ")
"""The first block of a journal that has another one."""
END = ENDINGS["complete"].encode()


def test_a_last_block_of_starts_alone_does_not_tell_the_state() -> None:
    """A long run whose last sessions did nothing would be told by a line that was cut in two."""
    assert summarise_ends("r", HEAD, b"the rest of a step\n" + START_302.encode()) is None


def test_what_a_last_block_begins_with_is_no_line() -> None:
    """A result that ends as an entry does would be told as the state of its run."""
    assert summarise_ends("r", HEAD, END) is None
    assert summarise_ends("r", HEAD, ENDINGS["resume"].encode() + START_302.encode()) is None


@pytest.mark.parametrize("after", ["", START_302])
def test_a_last_block_may_begin_with_the_end_of_a_line(after: str) -> None:
    """A list would read some long journals as a whole, for where their lines happen to be cut."""
    found = summarise_ends("r", HEAD, b"\n" + ENDINGS["resume"].encode() + after.encode())
    assert found is not None
    assert found.word == "unsettled"
