"""The command over an object store, in process: an S3 server is tests/s3's."""

from __future__ import annotations

import io
import select
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rich.console import Console

from kassette import StorageError
from kassette_cli import storage as asking
from kassette_cli.parser import parse_arguments
from kassette_cli.table import load
from kassette_cli.verbs import dump, list as listing
from kassette_io import GetObjectResult, RemoteStorage
from tests.io.object_stores import Client, Store

from .journals import COMPLETED, DAMAGED, FAILED, STATUS_LINES, SUSPENDED

MANY = 2 * asking.TOGETHER + 3
"""More runs than are read at a time, and a rest."""


def said(store: Store, *arguments: str) -> str:
    """Give what the command prints into a pipe."""
    parsed: Namespace = parse_arguments(["--storage", "s3://b", *arguments])
    return b"".join(load(parsed.verb).lines(parsed, RemoteStorage(Client(store)), 1)).decode()


@pytest.fixture
def store() -> Store:
    """Give a store of many runs: every third has failed, every third waits, one is damaged."""
    store = Store()
    for number in range(MANY):
        journal = (COMPLETED, FAILED, SUSPENDED)[number % 3]
        store.write(f"run-{number:02}/journal.jsonl", journal.encode())
    store.write("run-07/journal.jsonl", DAMAGED.encode())
    return store


def listed(numbers: list[int]) -> str:
    return "".join(f'{{"runId":"run-{number:02}"}}\n' for number in numbers)


@pytest.mark.parametrize(
    ("status", "rest"), [("completed", 0), ("failed", 1), ("suspended", 2), ("unreadable", None)]
)
def test_every_run_is_looked_at_once_however_many_there_are(
    store: Store, status: str, rest: int | None
) -> None:
    """Runs would be missing from a retention job, or be told the state of their neighbours."""
    numbers = [n for n in range(MANY) if n % 3 == rest and n != 7] if rest is not None else [7]
    assert said(store, "list", "--status", status) == listed(numbers)


def test_a_limit_counts_what_is_wanted(store: Store) -> None:
    """`--limit` would count runs of other states, and read on when it has enough."""
    assert said(store, "list", "--status", "failed", "--limit", "2") == listed([1, 4])
    assert said(store, "list", "--limit", "2") == listed([0, 1])


def test_dump_and_status_tell_of_an_object(store: Store) -> None:
    """`s3://` would be read in another form than `file:`."""
    assert said(store, "dump", "run-00") == COMPLETED
    assert said(store, "dump", "run-00", "--follow", "--offset", "1") == "".join(
        COMPLETED.splitlines(keepends=True)[1:]
    )
    assert said(store, "status", "run-01") == STATUS_LINES["failed"]


def test_check_says_so_only_where_the_store_keeps_its_promises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deployment would go on over a store that loses journals."""
    store = Store()
    assert said(store, "check") == '{"ok":true}\n'
    monkeypatch.setattr(store, "holds", lambda key, etag: True)
    with pytest.raises(StorageError):
        said(store, "check")


def test_following_waits_in_seconds_and_ends_with_its_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`--follow` would ask a thousand times too often, or go on for a reader that has gone."""
    news: list[tuple[int, int]] = []
    asked: list[object] = []

    def poll(milliseconds: float) -> list[tuple[int, int]]:
        asked.append(milliseconds)
        return news

    fake = SimpleNamespace(
        register=lambda fd, wanted: asked.append((fd, wanted)),
        poll=poll,
    )
    polls = SimpleNamespace(poll=lambda: fake, POLLERR=select.POLLERR)
    monkeypatch.setattr(dump, "select", polls)
    wait: Callable[[float], None] = dump._while_read(7)
    wait(0.5)
    wait(10)
    assert asked == [(7, 0), 500, 10_000]
    news.append((7, select.POLLERR | select.POLLHUP))
    with pytest.raises(BrokenPipeError):
        wait(1)


def test_the_client_is_closed_when_a_verb_is_done(store: Store) -> None:
    """Every call would end with a complaint of aiohttp about a session that was left open."""
    closed: list[str] = []

    class Closing(Client):
        async def aclose(self) -> None:
            closed.append("closed")

    for call in (("status", "run-01"), ("list",), ("dump", "run-01"), ("diff", "run-01", "run-02")):
        arguments = parse_arguments(["--storage", "s3://b", *call])
        assert list(load(arguments.verb).lines(arguments, RemoteStorage(Closing(store)), 1))
        assert closed.pop() == "closed"
        assert closed == []


def test_an_object_that_cannot_be_read_is_one_line_of_the_list(store: Store) -> None:
    """One object without permission would hide every other run."""

    class Denying(Client):
        async def get_object(self, key: str) -> GetObjectResult | None:
            if key.startswith("run-20"):
                raise StorageError("403")
            return await super().get_object(key)

    runs = [f"run-{number:02}" for number in range(MANY)]
    found = {
        each.run_id: each.word
        for each in listing.summaries(RemoteStorage(Denying(store), patience=0), runs)
    }
    assert {run_id for run_id, word in found.items() if word == "unreadable"} == {
        "run-07",
        "run-20",
    }
    assert list(found) == runs


def test_check_on_a_terminal_checks_as_well(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody at a terminal would be told that all is well, whatever the store does."""
    arguments = parse_arguments(["--storage", "s3://b", "check"])
    console = Console(file=io.StringIO())

    def answers() -> list[object]:
        return list(load(arguments.verb).shown(arguments, RemoteStorage(Client(store)), console))

    assert answers() == ["ok: conditional writes are enforced, and a read returns the last write"]
    monkeypatch.setattr(store, "holds", lambda key, etag: True)
    with pytest.raises(StorageError):
        answers()
