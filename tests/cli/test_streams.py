"""Dumps of journals that are long, and of journals that still grow."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kassette import Entry, JournalCorruptionError, KassetteError, StepEntry, StorageError
from kassette_cli import journals
from kassette_cli.main import INTERRUPTED, READER_GONE
from kassette_io import LocalStorage, RemoteStorage
from kassette_io.storages.object_store import GetObjectResult

from .journals import COMPLETED, START, T1, T2, long_journal
from .processes import Terminal, run, started

MEASURED = (
    sys.executable,
    "-c",
    "import sys; from kassette_cli.main import main; code = main(sys.argv[1:]); "
    "status = open('/proc/self/status').read(); "
    "print(status.split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(code)",
)
COMPLETE_2 = f'{{"type":"complete","session":1,"offset":2,"timestamp":"{T2}"}}\n'
STEP_1 = (
    f'{{"type":"step","session":1,"offset":1,"timestamp":"{T1}","stepId":"s","name":"s",'
    '"result":1}\n'
)


def peak_kilobytes(url: str, run_id: str, *, out: Path) -> int:
    shell = ("sh", "-c", f'exec "$@" > {out}', "sh", *MEASURED)
    outcome = run("--storage", url, "dump", run_id, command=shell)
    assert outcome.code == 0
    return int(outcome.err)


def test_the_memory_of_a_dump_does_not_grow_with_the_journal(
    store: Path, url: str, tmp_path: Path
) -> None:
    """A journal of a gigabyte could not be archived on the machine that wrote it."""
    short, long = long_journal(1000), long_journal(60_000)
    (store / "short.jsonl").write_text(short, encoding="utf-8")
    (store / "long.jsonl").write_text(long, encoding="utf-8")
    needed = peak_kilobytes(url, "short", out=tmp_path / "short")
    more = peak_kilobytes(url, "long", out=tmp_path / "long") - needed
    assert (tmp_path / "long").read_text(encoding="utf-8") == long
    assert more < 16_000 < len(long) // 1024


@pytest.mark.parametrize("piece", [1, 7, 100, 10_000])
def test_wherever_a_piece_ends(
    store: Path, url: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that lies across two pieces would be torn, lost or doubled."""
    monkeypatch.setattr(journals, "_PIECE", piece)
    journal = long_journal(3)
    (store / "r.jsonl").write_text(journal + '{"type":"st', encoding="utf-8")
    found = list(journals.stream_run(LocalStorage(store), "r", 0))
    assert [entry.offset for entry in found] == [0, 1, 2, 3]
    assert [entry.offset for entry in journals.stream_run(LocalStorage(store), "r", 2)] == [2, 3]
    assert [entry.type for entry in found] == ["start", "step", "step", "step"]


def test_a_torn_line_that_is_written_over_is_no_line(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a torn line and half of what took its place would make one that nobody wrote."""
    path = store / "r.jsonl"
    path.write_text(START + STEP_1[:60] + "x" * 200, encoding="utf-8")
    monkeypatch.setattr(journals, "_PIECE", len(START) + 20)
    entries = journals.stream_run(LocalStorage(store), "r", 0)
    assert next(entries).type == "start"
    os.truncate(path, len(START))
    append(store, STEP_1 + COMPLETE_2)()
    assert list(entries) == []


PATIENCE = 100
"""How often a test may wait for something when nothing happens any more."""


class Pauses:
    """What is done instead of waiting: one thing after the other, and then nothing for long."""

    def __init__(self, *happening: Callable[[], object]) -> None:
        self.taken: list[float] = []
        self._happening = [*happening]

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        assert len(self.taken) < PATIENCE, "it waits for ever"
        if self._happening:
            self._happening.pop(0)()


def follow(store: Path, pauses: Pauses, offset: int = 0) -> Iterator[list[Entry]]:
    return journals.follow_run(LocalStorage(store), "r", offset, pauses)


def append(store: Path, text: str) -> Callable[[], object]:
    def write() -> None:
        with (store / "r.jsonl").open("a", encoding="utf-8") as file:
            file.write(text)

    return write


def test_what_is_appended_is_given_as_it_comes(store: Path) -> None:
    """Whoever watches a run would see nothing until it is over, or half a line."""
    append(store, START)()
    pauses = Pauses(
        append(store, STEP_1[:20]), append(store, STEP_1[20:]), append(store, COMPLETE_2)
    )
    found = [[entry.type for entry in batch] for batch in follow(store, pauses)]
    assert found == [["start"], ["step"], ["complete"]]
    assert len(pauses.taken) == 3


def test_following_begins_at_an_offset(store: Path) -> None:
    """A watcher that was interrupted would have to read everything again."""
    append(store, START + STEP_1)()
    pauses = Pauses(append(store, COMPLETE_2))
    found = [[entry.offset for entry in batch] for batch in follow(store, pauses, 2)]
    assert [offset for batch in found for offset in batch] == [2]


def test_following_an_ended_run_does_not_wait(store: Path) -> None:
    """A script would hang on a run that is over."""
    append(store, COMPLETED)()
    pauses = Pauses()
    assert len(list(follow(store, pauses))) == 1
    assert pauses.taken == []


def test_pauses_grow_while_nothing_comes(store: Path) -> None:
    """Following a run that waits for a week would burn a core for a week."""
    append(store, START)()
    nothing = (lambda: None,) * 30
    pauses = Pauses(*nothing, append(store, STEP_1), *nothing, append(store, COMPLETE_2))
    list(follow(store, pauses))
    shortest, longest = journals.PAUSE["local"]
    first, second = pauses.taken[:31], pauses.taken[31:]
    for pause in (first, second):
        assert pause[0] == shortest
        assert pause == sorted(pause)
        assert all(later <= 2 * earlier for earlier, later in pairwise(pause))
        assert pause[-1] == longest


@pytest.mark.parametrize("disturb", ["delete", "replace", "cut"])
def test_a_journal_that_is_taken_away_ends_it(store: Path, disturb: str) -> None:
    """A watcher would wait for ever, or show two runs as one."""
    path = store / "r.jsonl"
    append(store, START + STEP_1)()

    def meddle() -> None:
        if disturb == "cut":
            os.truncate(path, len(START))
            return
        kept = path.rename(store / "moved")
        if disturb == "replace":
            path.write_bytes(kept.read_bytes() * 2)

    with pytest.raises(StorageError, match="while being read"):
        list(follow(store, Pauses(meddle)))


class Object:
    """An object store with one journal, whose versions follow one another, one for each get."""

    def __init__(self, *versions: str) -> None:
        self._versions = [*versions]
        self.closed = 0

    async def get_object(self, key: str) -> GetObjectResult | None:
        assert key == "r/journal.jsonl"
        text = self._versions.pop(0) if len(self._versions) > 1 else self._versions[0]
        return GetObjectResult(text.encode(), "etag")

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        raise AssertionError("nothing is written here")

    async def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        yield "r"

    async def aclose(self) -> None:
        self.closed += 1


def test_an_object_is_followed_as_well() -> None:
    """`--follow` on s3:// would end at once, give entries twice, or never close its client."""
    store = Object(START, START, START + STEP_1, START + STEP_1 + COMPLETE_2)
    pauses = Pauses()
    found = list(journals.follow_run(RemoteStorage(store), "r", 0, pauses))
    assert [[entry.type for entry in batch] for batch in found] == [
        ["start"],
        ["step"],
        ["complete"],
    ]
    shortest = journals.PAUSE["remote"][0]
    assert pauses.taken[0] == shortest
    assert pauses.taken[1] > shortest
    assert store.closed == 1


def test_an_object_that_shrinks_ends_it() -> None:
    """A bucket that was emptied and filled again would be followed as the same run."""
    store = Object(START + STEP_1, START)
    with pytest.raises(KassetteError, match="replaced"):
        list(journals.follow_run(RemoteStorage(store), "r", 0, Pauses()))
    assert store.closed == 1


def test_a_step_that_is_followed_is_whole(store: Path) -> None:
    """What is followed would be something else than what is dumped."""
    append(store, START + STEP_1 + COMPLETE_2)()
    (batch,) = follow(store, Pauses())
    assert isinstance(batch[1], StepEntry)
    assert batch[1].result == 1
    assert batch == list(journals.stream_run(LocalStorage(store), "r", 0))


def test_a_pipe_is_given_each_entry_at_once(store: Path, url: str) -> None:
    """`dump --follow | jq` would show nothing until some kilobytes have gathered."""
    append(store, START)()
    with started("--storage", url, "dump", "r", "--follow") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == START.encode()
        append(store, STEP_1)()
        assert process.stdout.readline() == STEP_1.encode()
        append(store, COMPLETE_2)()
        assert process.stdout.read() == COMPLETE_2.encode()
        assert process.wait() == 0
        assert process.stderr.read() == b""


def test_following_ends_with_its_reader(store: Path, url: str) -> None:
    """`dump --follow | head -1` would leave a process behind that watches for nobody."""
    append(store, START)()
    with started("--storage", url, "dump", "r", "--follow") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == START.encode()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == READER_GONE


def test_an_interrupt_ends_following(store: Path, url: str) -> None:
    """Ctrl-C, the only way to stop watching a run that waits, would print a traceback."""
    append(store, START)()
    call = ("--storage", url, "dump", "r", "--follow")
    with started(*call) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == START.encode()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait() == INTERRUPTED
    terminal = Terminal(*call)
    terminal.read_until(b"start")
    terminal.process.send_signal(signal.SIGINT)
    outcome = terminal.close()
    assert (outcome.code, outcome.err) == (INTERRUPTED, b"")


def test_a_terminal_follows_as_well(store: Path, url: str) -> None:
    """Somebody at a terminal would have to read JSON to watch a run."""
    append(store, START)()
    terminal = Terminal("--storage", url, "dump", "r", "--follow")
    terminal.read_until(b"start")
    append(store, STEP_1 + COMPLETE_2)()
    outcome = terminal.close()
    assert outcome.code == 0
    assert b"complete" in outcome.out


@pytest.mark.parametrize("piece", [1, 100, 2100, 2300, 10_000])
def test_wherever_reading_begins(store: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--offset` would be off by as much as was read before."""
    (store / "r.jsonl").write_text(long_journal(7), encoding="utf-8")
    whole = list(journals.stream_run(LocalStorage(store), "r", 0))
    monkeypatch.setattr(journals, "_PIECE", piece)
    for offset in range(10):
        assert list(journals.stream_run(LocalStorage(store), "r", offset)) == whole[offset:]


def test_no_read_is_longer_than_a_piece(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of a gigabyte would be in memory as a whole."""
    lengths: list[int] = []

    def pread(fd: int, length: int, position: int, pread: Any = os.pread) -> Any:
        lengths.append(length)
        return pread(fd, length, position)

    (store / "r.jsonl").write_text(long_journal(7), encoding="utf-8")
    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(journals, "_PIECE", 3000)
    assert len(list(journals.stream_run(LocalStorage(store), "r", 0))) == 8
    assert max(lengths) == 3000


@pytest.mark.parametrize("piece", [1, 700, 2100, 10_000])
@pytest.mark.parametrize("damaged", [1, 2, 5])
def test_what_is_before_the_damage_is_given_wherever_it_is(
    store: Path, piece: int, damaged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged journal could not be saved up to where it is whole; or an entry would be made up."""
    lines = long_journal(7).splitlines(keepends=True)
    lines[damaged] = "{damaged\n"
    (store / "r.jsonl").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(journals, "_PIECE", piece)
    found: list[Entry] = []
    with pytest.raises(JournalCorruptionError, match=f"journal of run 'r', line {damaged + 1}"):
        for entry in journals.stream_run(LocalStorage(store), "r", 0):
            found.append(entry)
    assert [entry.offset for entry in found] == list(range(damaged))


def test_following_keeps_no_file_open(store: Path) -> None:
    """A run that is watched for an hour would use up every descriptor there is."""
    append(store, START)()
    nothing = (lambda: None,) * 20
    counted: list[int] = []

    def count() -> None:
        counted.append(len(os.listdir("/dev/fd")))

    list(follow(store, Pauses(count, *nothing, count, append(store, STEP_1 + COMPLETE_2))))
    assert counted[0] == counted[1]


def test_a_journal_that_can_no_longer_be_opened_ends_it(store: Path) -> None:
    """A disk that fails under a watcher would end in a traceback."""
    append(store, START)()
    path = store / "r.jsonl"

    def meddle() -> None:
        path.unlink()
        path.symlink_to(path)

    with pytest.raises(StorageError, match="symbolic links"):
        list(follow(store, Pauses(meddle)))


def test_a_disk_that_fails_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk would be called a bug of kassette."""
    append(store, START)()

    def fail(fd: int, length: int, position: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageError, match=r"cannot read journal .*r\.jsonl: Input/output error"):
        list(journals.stream_run(LocalStorage(store), "r", 0))


def test_a_journal_that_is_cut_off_while_it_is_read(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump would never end, waiting for bytes that are gone."""
    append(store, START + STEP_1)()
    reads: list[int] = []

    def pread(fd: int, length: int, position: int, pread: Any = os.pread) -> Any:
        reads.append(position)
        if len(reads) == 3:
            os.truncate(store / "r.jsonl", 0)
        assert len(reads) < PATIENCE, "it reads for ever"
        return pread(fd, length, position)

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(journals, "_PIECE", len(START))
    with pytest.raises(StorageError, match="truncated while being read"):
        list(journals.stream_run(LocalStorage(store), "r", 0))
