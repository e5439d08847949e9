"""Each call to the system fails in turn, in every way it can, and the run gets over it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, final

import pytest
from anyio import create_task_group, to_thread

from kassette import StorageError, UsageError
from kassette_io import LocalStorage, Run, fork, start

from .faults import EveryCall, Fault, fails, then_fails
from .journals import Journal

pytestmark = pytest.mark.anyio

RUN = "run"
COPY = "copy"
FEWEST = 80
"""So many calls there are at least in the story; fewer would mean that they are not seen."""

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "EINTR")


def short(real: Callable[..., Any], *args: Any) -> Any:
    """Write or read half of what was asked."""
    if isinstance(args[-1], bytes):
        return real(*args[:-1], args[-1][: len(args[-1]) // 2])
    return real(*args[:-1], args[-1] // 2)


def ways(call: str) -> dict[str, Fault]:
    """Give every fault of ``call``: what is opened has not failed, what is closed is closed."""
    refusing = then_fails if call == "close" else fails
    found = {name: refusing(getattr(errno, name)) for name in ERRORS}
    if call not in {"open", "close"}:
        found["EIO, but done"] = then_fails(errno.EIO)
    if call in {"write", "read"}:
        found["short"] = short
    return found


@final
class Story:
    """Two sessions of a run and one of its copy; keeps what it was told, and the errors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.storage = LocalStorage(directory)
        self.told: dict[str, list[str]] = {RUN: [], COPY: []}
        self.errors: list[StorageError] = []

    async def tell(self) -> None:
        """Go through the story. A session whose entry was taken back goes on, any other is over."""
        await self._session(start(self.storage, RUN, metadata="input"), ["a", "b"])
        await self._session(start(self.storage, RUN), ["c"])
        await self._session(fork(self.storage, COPY, source=RUN, from_offset=2), ["d"])

    async def _session(self, opening: Awaitable[Run], names: list[str]) -> None:
        try:
            run = await opening
        except StorageError as error:
            self.errors.append(error)
            return
        except UsageError:
            assert not self.told[RUN], "the source of the copy has no line 2"
            return
        self.told[run.run_id].append(f"start {run.session}")
        async with run:
            for name in names:
                if run.lost_to is None:
                    await self._record(run, name)

    async def _record(self, run: Run, name: str) -> None:
        try:
            assert await run.record(name, name.upper) == name.upper()
        except StorageError as error:
            self.errors.append(error)
            assert error.rolled_back == (run.lost_to is None)
            if error.rolled_back:
                assert f'"name":"{name}"' not in (self.directory / f"{RUN}.jsonl").read_text()
                assert await run.record(f"{name}'", name.upper) == name.upper()
                self.told[run.run_id].append(f"{name}'")
        else:
            self.told[run.run_id].append(name)

    async def recover(self) -> None:
        """Go on with both runs: all that was told is there, and nothing is in the way."""
        for run_id, told in self.told.items():
            path = self.directory / f"{run_id}.jsonl"
            found = Journal.read(path)
            found.check_order()
            outline = [each.get("name", f"start {each['session']}") for each in found.entries]
            assert [each for each in outline if each in told] == told
            recorded = {each["name"]: each["result"] for each in found.entries if "name" in each}
            assert all(result == name[0].upper() for name, result in recorded.items())
            run = await start(self.storage, run_id)
            async with run:
                for name, result in recorded.items():
                    assert await run.record(name, lambda: "again") == result
                await run.complete()
            after = Journal.read(path)
            assert (after.torn, after.entries[-1]["type"]) == (b"", "complete")
            assert after.whole.startswith(found.whole)
        assert {each.name for each in self.directory.iterdir()} == {"run.jsonl", "copy.jsonl"}


def open_below(directory: Path) -> list[str]:
    """Give the descriptors of this process that are open on anything below ``directory``."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{each}")
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found


async def calls_of_the_story(directory: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        every = EveryCall(patch)
        story = Story(directory)
        await story.tell()
        assert story.errors == []
    assert story.told == {RUN: ["start 1", "a", "b", "start 2", "c"], COPY: ["start 2", "d"]}
    return every.made


async def test_every_call_fails_in_every_way(tmp_path: Path) -> None:
    """Broken, one bad moment of the disk loses what was told, or leaves a lock or a descriptor.

    The caller has a StorageError, or it went well all the same. The storage that met the fault
    goes on with the run at the next start.
    """
    calls = await calls_of_the_story(tmp_path / "calm")
    assert len(calls) > FEWEST
    tried = failed = 0
    for number, call in enumerate(calls):
        for way, fault in ways(call).items():
            directory = tmp_path / f"{number} {way}"
            story = Story(directory)
            with pytest.MonkeyPatch.context() as patch:
                every = EveryCall(patch)
                every.number, every.fault = number, fault
                await story.tell()
                assert len(every.made) > number
                assert open_below(directory) == [], f"{call} {number}: {way}"
                assert len(story.errors) <= 1
                for error in story.errors:
                    assert isinstance(error.__cause__, OSError)
                    assert error.run_id in {RUN, COPY}
                every.number = None
                try:
                    await story.recover()
                except BaseException as error:
                    error.add_note(f"{call} {number}: {way}")
                    raise
                assert open_below(directory) == []
            tried += 1
            failed += len(story.errors)
    print(f"{len(calls)} calls, {tried} faults, {failed} errors")
    assert failed > tried / 4


async def test_every_fsync_is_slow(tmp_path: Path) -> None:
    """Broken, a disk that hangs stops the event loop or other runs, or somebody is told too early.

    While an ``fsync`` hangs, another run of the same storage begins, records and ends.
    """
    calls = await calls_of_the_story(tmp_path / "calm")
    slow = [number for number, call in enumerate(calls) if call == "fsync"]
    for number in slow:
        story = Story(tmp_path / str(number))
        busy, free = threading.Event(), threading.Event()

        def wait(*_: Any, busy: threading.Event = busy, free: threading.Event = free) -> None:
            busy.set()
            free.wait()

        with pytest.MonkeyPatch.context() as patch:
            every = EveryCall(patch)
            every.number, every.fault = number, wait
            try:
                async with create_task_group() as group:
                    group.start_soon(story.tell)
                    await to_thread.run_sync(busy.wait)
                    told = {run_id: list(told) for run_id, told in story.told.items()}
                    async with await start(story.storage, "other") as run:
                        await run.record("step", int)
                        await run.complete()
                    assert story.told == told
                    free.set()
            finally:
                free.set()
        assert story.errors == []
        assert story.told == {RUN: ["start 1", "a", "b", "start 2", "c"], COPY: ["start 2", "d"]}
        (story.directory / "other.jsonl").unlink()
        await story.recover()
    assert len(slow) > 10
