"""Replays a workflow from a journal file, in temporary storage; recording writes that file.

The journal is replayed without its terminal entry and without unanswered waits, so a run that has
ended, or waits, is recovered like one that crashed at that point. Every step in the journal is
replayed. Any other step fails the replay, unless the mode or the test allows it; the failure shows
where workflow and journal first diverge.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast, final, overload

from kassette import (
    UNSET,
    Entry,
    ReplayMismatchError,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
    Unset,
    UsageError,
    VersionMismatchError,
    decode_journal,
    encode_entry,
    is_run_id,
    is_terminal,
)
from kassette.errors import naming_run
from kassette_io import _clock
from kassette_io.results import Failed, RunResult, Suspended
from kassette_io.storages.memory import MemoryStorage
from kassette_io.testing.crashes import Survived, crash_everywhere
from kassette_io.testing.watching import AskedStep, Stubs, WorkflowOrFunction, call, watched
from kassette_io.workflows import Workflow

OutT = TypeVar("OutT")


class Mode(Enum):
    """What happens to steps that are not in the journal file, and to the file."""

    NONE = "none"
    """They fail the test; the file must exist and is never written."""
    ONCE = "once"
    """Without a file they run and the file is written; with a file, the same as NONE."""
    NEW = "new"
    """They run and are added to the file."""
    ALL = "all"
    """Nothing is replayed: every step runs, and the file is rewritten when the run has ended."""


@final
class JournalReplay:
    """The journal file ``path``, from which a test replays workflows.

    ``lines`` limits the replay to the file's first lines. The run id is the file's name without its
    suffix, or the name of its directory for a ``journal.jsonl``. After ``run``, ``storage`` has the
    resulting journal, and ``asked`` the ids of the steps that the workflow requested, in order,
    each with how it was answered: ``"replayed"``, ``"stubbed"`` or ``"ran"``.

    Raise UsageError for a file name that is not a run id.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode | str = Mode.NONE,
        lines: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.mode = Mode(mode)
        self.run_id = _run_id(self.path)
        self.storage = MemoryStorage()
        self.asked: dict[str, str] = {}
        self._lines = lines

    def __repr__(self) -> str:
        return f"<JournalReplay {str(self.path)!r} {self.mode.value}>"

    @overload
    async def run(
        self,
        workflow: Workflow[Any, OutT],
        input: object | Unset = UNSET,
        *,
        answers: Mapping[str, object] | None = None,
        stubs: Stubs | None = None,
        allow_live: Collection[str] = (),
        allow_unused: Collection[str] = (),
    ) -> RunResult[OutT]: ...

    @overload
    async def run(
        self,
        workflow: Callable[..., Awaitable[OutT]],
        input: object | Unset = UNSET,
        *,
        answers: Mapping[str, object] | None = None,
        stubs: Stubs | None = None,
        allow_live: Collection[str] = (),
        allow_unused: Collection[str] = (),
    ) -> RunResult[OutT]: ...

    async def run(
        self,
        workflow: Any,
        input: object | Unset = UNSET,
        *,
        answers: Mapping[str, object] | None = None,
        stubs: Stubs | None = None,
        allow_live: Collection[str] = (),
        allow_unused: Collection[str] = (),
    ) -> RunResult[Any]:
        """Replay ``workflow`` from the journal and return its result.

        ``input`` is required to record a run; in a replay it must be the journal's or be omitted. A
        wait without an event in the journal is resumed with its value in ``answers``; without one
        it ends the run as ``Suspended``. A step that is not in the journal is answered by its
        function in ``stubs``, or runs if ``allow_live`` names it; both match a step id, full name
        or name. Recorded steps that the workflow does not request are a failure too, unless
        ``allow_unused`` names them. Durable sleeps and retries do not wait; hooks are not called.

        Raise AssertionError that shows where workflow and journal diverge; UsageError if there is
        no journal to replay; VersionMismatchError if another version of the workflow recorded it;
        and what ``Workflow.start`` raises.
        """
        __tracebackhide__ = True
        recorded = self._read()
        replay = _Replay(self, recorded, stubs or {}, allow_live, allow_unused)
        self.storage, self.asked = replay.storage, replay.answered
        outcome = None
        try:
            outcome = await replay.run(workflow, input, answers or {})
        except ReplayMismatchError as error:
            replay.part_by_name(error)
        except (_Parted, BaseExceptionGroup):
            if replay.parted is None:
                raise
        except VersionMismatchError as error:
            error.args = (self._of_another_version(error),)
            raise
        finally:
            self._write(replay, whole=outcome is not None)
        replay.check(outcome)
        return cast("RunResult[Any]", outcome)

    def run_sync(
        self, workflow: Any, input: object | Unset = UNSET, *, backend: str = "asyncio", **how: Any
    ) -> RunResult[Any]:
        """Run as ``run`` does, in a new event loop, for tests that are not async."""
        __tracebackhide__ = True
        import anyio

        try:
            return anyio.run(partial(self.run, workflow, input, **how), backend=backend)
        except AssertionError as error:
            raise error.with_traceback(None) from error.__cause__

    async def crash_everywhere(
        self,
        workflow: WorkflowOrFunction,
        *,
        answers: Mapping[str, object] | None = None,
        stubs: Stubs | None = None,
        reset: Callable[[], object] | None = None,
        probe: Callable[[], object] | None = None,
        strict: bool = True,
    ) -> Survived:
        """Replay ``workflow``, then crash it everywhere, with the recorded results of its steps.

        Input and events come from the journal too; ``answers`` and ``stubs`` add what is missing
        there. No other function of a step is called.

        Raise what ``run`` and ``kassette_io.testing.crash_everywhere`` raise.
        """
        __tracebackhide__ = True
        await self.run(workflow, answers=answers, stubs=stubs)
        entries = await self.storage.read_all(self.run_id)
        first = cast("StartEntry", entries[0])
        recorded = [each for each in entries if isinstance(each, StepEntry)]
        events = [each for each in entries if isinstance(each, ResumeEntry)]
        return await crash_everywhere(
            workflow,
            UNSET if first.metadata_json is None else first.metadata,
            answers={each.event_name: each.value for each in events},
            stubs={each.step_id: _answering(each) for each in recorded},
            reset=reset,
            probe=probe,
            strict=strict,
        )

    def _of_another_version(self, error: VersionMismatchError) -> str:
        stored, current = error.stored_version, error.current_version
        return (
            f"{str(self.path)!r} was recorded by version {stored!r}, but the workflow in this test "
            f"is version {current!r} and cannot replay it. Record the journal again, which runs "
            "every step (pytest --kassette-mode=all); or, if the new code can replay the recorded "
            f"steps, change the version in the file's first line to {current!r}"
        )

    def _read(self) -> list[Entry] | None:
        """Return the journal's entries, or None to record a new journal."""
        if self.mode is Mode.ALL:
            return None
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            if self.mode is not Mode.NONE:
                return None
            raise UsageError(
                f"there is no journal {str(self.path)!r} to replay. Copy one to that path, or "
                "record one: pytest --kassette-mode=once"
            ) from None
        with naming_run(self.run_id):
            return decode_journal(_head(data, self._lines)).entries

    def _write(self, replay: _Replay, *, whole: bool) -> None:
        """Write what was recorded, even if the test fails: the results may have cost money."""
        partial_only = self._lines is not None or (self.mode is Mode.ALL and not whole)
        if not (replay.records and replay.grown) or partial_only:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.write_bytes(replay.storage.data[self.run_id])
        beside.replace(self.path)


def _answering(entry: StepEntry) -> Callable[..., Any]:
    return lambda *_: entry.result


def _run_id(path: Path) -> str:
    name = path.parent.name if path.name == "journal.jsonl" else path.name.removesuffix(".jsonl")
    if not is_run_id(name):
        raise UsageError(f"{str(path)!r}: {name!r} is not a run id; name the file after a run")
    return name


def _head(data: bytes, lines: int | None) -> bytes:
    return data if lines is None else b"".join(data.splitlines(keepends=True)[:lines])


def _seed(run_id: str, recorded: list[Entry]) -> dict[str, bytes]:
    """Return a journal on which a session can be opened: neither ended nor waiting."""
    answered = {each.event_name for each in recorded if isinstance(each, ResumeEntry)}
    kept = [
        each
        for each in recorded
        if not is_terminal(each)
        and not (isinstance(each, SuspendEntry) and each.waiting_for not in answered)
    ]
    return {run_id: b"".join(map(encode_entry, kept, range(len(kept))))} if kept else {}


class _Parted(BaseException):
    """Workflow and journal have diverged; no ``except Exception`` of the workflow hides it."""


@final
class _Replay:
    """One ``run`` of a ``JournalReplay``: answers its steps, and finds where it diverges.

    The workflow's name is not checked: a test may try code that was renamed.
    """

    def __init__(
        self,
        journal: JournalReplay,
        recorded: list[Entry] | None,
        stubs: Stubs,
        allow_live: Collection[str],
        allow_unused: Collection[str],
    ) -> None:
        self.records = recorded is None or journal.mode is Mode.NEW
        self.grown = False
        self.parted: str | None = None
        self.answered: dict[str, str] = {}
        self.storage = MemoryStorage(_seed(journal.run_id, recorded or []))
        self._journal = journal
        self._end = len(recorded or [])
        starts = (each.workflow for each in recorded or [] if isinstance(each, StartEntry))
        self._began = next((name for name in starts if name is not None), None)
        self._steps: dict[str, StepEntry] = {}
        for entry in recorded or []:
            if isinstance(entry, StepEntry):
                self._steps.setdefault(entry.step_id, entry)
        self._stubs = stubs
        self._allow_live = allow_live
        self._allow_unused = allow_unused

    async def run(
        self, workflow: Any, input: object | Unset, answers: Mapping[str, object]
    ) -> RunResult[Any]:
        flow = watched(workflow, self.storage, self, name=self._began)
        run_id = self._journal.run_id
        outcome = await flow.start(cast("Any", input), run_id=run_id)
        while isinstance(outcome, Suspended) and outcome.event in answers:
            self.grown = True
            outcome = await flow.resume(run_id, outcome.event, answers[outcome.event])
        return outcome

    def now(self) -> datetime:
        """See ``Observer.now``."""
        return _clock.now()

    def asked(self, step: AskedStep) -> None:
        """See ``Observer.asked``."""
        self.answered.setdefault(step.step_id, "replayed")

    async def call(self, step: AskedStep, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """See ``Observer.call``."""
        stub = step.among(self._stubs)
        allowed = self.records or step.is_sleep or step.among(self._allow_live) is not None
        if self.parted is not None or (stub is None and not allowed):
            del self.answered[step.step_id]
            self._part_at(step, args)
            raise _Parted
        self.grown = True
        self.answered[step.step_id] = "ran" if stub is None else "stubbed"
        return await call(fn if stub is None else self._stubs[stub], args)

    # --- where they part -------------------------------------------------------------------

    def _unused(self) -> list[StepEntry]:
        return [
            each
            for each in self._steps.values()
            if each.step_id not in self.answered
            and not {each.step_id, each.name}.intersection(self._allow_unused)
        ]

    def _part_at(self, step: AskedStep, args: tuple[Any, ...]) -> None:
        if self.parted is not None:
            return
        unused = self._unused()
        branch = step.full_name.removesuffix(step.name)
        beside = [each for each in unused if each.name.startswith(branch)]
        self.parted = self._report(
            next(iter(beside or unused), None),
            f"step {step.step_id!r}, with the arguments {_folded(args)}",
            f"Allow it to run with allow_live=[{step.step_id!r}], answer it with "
            f"stubs={{{step.step_id!r}: …}}, or record it: pytest --kassette-mode=new",
        )

    def part_by_name(self, error: ReplayMismatchError) -> None:
        """Record that the journal has a step of another name where this one was requested."""
        entry = self._steps.get(error.step_id)
        asked = f"step {error.step_id!r} under the name {error.actual_name!r}"
        self.parted = self._report(entry, asked, "The workflow's shape has changed.")

    def check(self, outcome: RunResult[Any] | None) -> None:
        """Raise AssertionError if workflow and journal have diverged."""
        __tracebackhide__ = True
        cause = outcome.error if isinstance(outcome, Failed) else None
        unused = self._unused()
        if self.parted is None and unused:
            names = [each.step_id for each in unused]
            self.parted = self._report(
                unused[0],
                f"nothing more; the workflow ended with {_folded(outcome)}",
                f"If this is intended, pass allow_unused={names}",
            )
        if self.parted is not None:
            raise AssertionError(self.parted) from cause

    def _report(self, entry: StepEntry | None, asked: str, remedy: str) -> str:
        if entry is None:
            offset, recorded = self._end, "nothing; the journal ends here"
        else:
            offset = cast("int", entry.offset)
            recorded = f"step {entry.step_id!r} -> {_folded(entry.result)}"
        lines = [
            f"the workflow and {str(self._journal.path)!r} diverge at offset {offset}",
            f"  recorded:   {recorded}",
            f"  requested:  {asked}",
            "  before it:",
        ]
        for step_id, how in self.answered.items():
            before = self._steps.get(step_id)
            place = "         -" if before is None else f"offset {before.offset:3}"
            lines.append(f"    {place}  {step_id!r} {how}")
        lines += [
            f"  unused:     offset {each.offset}  {each.step_id!r}"
            for each in self._unused()
            if each is not entry
        ]
        return "\n".join([*lines, remedy])


def _folded(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}… ({len(text)} characters)"


_WIDTH: Final = 160
