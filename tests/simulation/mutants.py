"""Deliberately broken variants of the real code, to be caught by the simulator; text for text.

A mutant takes the source of one function, replaces a piece of it, and puts what that compiles to
in the function's place. A piece that is not there (any more) is an error: the mutant has to follow
the code.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from kassette import forking, object_append, replay
from kassette.machine import Machine
from kassette.object_append import ObjectWriter
from kassette.steps import Steps
from kassette.waits import Waits
from kassette_io import lifecycle
from kassette_io.calling import Flight
from kassette_io.storages import local_journal, run_lock
from kassette_io.storages.local_journal import LocalJournal
from kassette_io.storages.run_lock import RunLock
from tests.simulation import invariants
from tests.simulation.choices import Seeded
from tests.simulation.running import run_schedule
from tests.simulation.wiring import wired


class Mutant(NamedTuple):
    """``old`` in function ``name`` of each of ``owners`` becomes ``new``; shown on disk or not."""

    title: str
    local: bool
    owners: tuple[Any, ...]
    name: str
    old: str
    new: str


ON_STORE = False
ON_DISK = True

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "no fencing check",
        ON_STORE,
        (object_append, local_journal),
        "check_append",
        "if tail.count and (",
        "if False and (",
    ),
    Mutant(
        "a terminal entry may be followed",
        ON_STORE,
        (object_append, local_journal),
        "check_append",
        "if tail.terminal is not None:",
        "if False:",
    ),
    Mutant(
        "no new read on an offset mismatch",
        ON_STORE,
        (Machine,),
        "_appended",
        "if command.offset != self._recorded.count:",
        "if False:",
    ),
    Mutant(
        "a 412 is taken for a lost race",
        ON_STORE,
        (ObjectWriter,),
        "handle",
        "                self._may_land = True\n",
        "                self._may_land = True\n"
        "                if isinstance(command, PutRefused):\n"
        "                    from kassette import FencedError\n"
        "                    return self._lose(FencedError(0, 0))\n",
    ),
    Mutant(
        "a lost answer is taken for success",
        ON_STORE,
        (ObjectWriter,),
        "handle",
        "                    self._outage.fail(command.error, now)\n",
        "                    return self._landed('unknown')\n",
    ),
    Mutant(
        "a lost answer is taken for nothing written",
        ON_STORE,
        (ObjectWriter,),
        "handle",
        "                    self._outage.fail(command.error, now)\n",
        "                    return self._refuse(StorageError('timeout', rolled_back=True))\n",
    ),
    Mutant(
        "what landed is not recognised",
        ON_STORE,
        (ObjectWriter,),
        "_found",
        "body.startswith(self._sent)",
        "False",
    ),
    Mutant(
        "the new ETag with the old body",
        ON_STORE,
        (ObjectWriter,),
        "_found",
        "self.know(body, etag)",
        "self._known, self._etag = True, etag",
    ),
    Mutant(
        "a refusal vouches for earlier puts",
        ON_STORE,
        (ObjectWriter,),
        "_doubt",
        "if not (",
        "if True or not (",
    ),
    Mutant(
        "sessions without a token of their own",
        ON_STORE,
        (lifecycle,),
        "_token",
        "",
        "",
    ),
    Mutant(
        "a session number is used again",
        ON_STORE,
        (Machine,),
        "__init__",
        "self._recorded.session + 1",
        "max(self._recorded.session, 1)",
    ),
    Mutant(
        "the first payload does not win",
        ON_STORE,
        (Machine,),
        "_after_start",
        "opening.event_name not in self._recorded.resumes",
        "True",
    ),
    Mutant(
        "suspend is written before the siblings finish",
        ON_STORE,
        (Machine,),
        "_is_busy",
        "return self._in_function or self.in_flight",
        "return False",
    ),
    Mutant(
        "a suspension is whole with the first of its waits",
        ON_STORE,
        (Waits,),
        "entries",
        "more=wait is not waits[-1]",
        "more=False",
    ),
    Mutant(
        "the session is released before its waits are written",
        ON_DISK,
        (Machine,),
        "_suspend",
        "[*map(Append, entries), Release()]",
        "[Release(), *map(Append, entries)]",
    ),
    Mutant(
        "a suspended branch may continue",
        ON_STORE,
        (Machine,),
        "_record",
        "if self._state is not State.ACTIVE and",
        "if False and",
    ),
    Mutant(
        "replay goes by position",
        ON_STORE,
        (Steps,),
        "record",
        "self._recorded.steps.get(step_id)",
        "dict(enumerate(self._recorded.steps.values()))"
        ".get(sum(each.count for each in self._names.values()))",
    ),
    Mutant(
        "recorded steps run again",
        ON_STORE,
        (Steps,),
        "record",
        "if entry is not None:",
        "if False:",
    ),
    Mutant(
        "a failed step keeps its number",
        ON_STORE,
        (Steps,),
        "fail",
        "name.count -= 1",
        "break",
    ),
    Mutant(
        "a step that was not written stays in flight",
        ON_DISK,
        (Steps,),
        "fail",
        "step = self._open.pop(step_id, None)",
        "step = self._open[step_id] if self._open[step_id].returned else "
        "self._open.pop(step_id, None)\n        if step is not None and step.returned:\n"
        "            return",
    ),
    Mutant(
        "waits are written while the function runs",
        ON_STORE,
        (Machine,),
        "_is_busy",
        "self._in_function or self.in_flight",
        "self.in_flight",
    ),
    Mutant(
        "what a cancelled tool has in flight is not held",
        ON_STORE,
        (Flight,),
        "hold",
        "self.held = True",
        "pass",
    ),
    Mutant(
        "only waits that are new are written",
        ON_STORE,
        (Waits,),
        "_to_write",
        "return unwritten or self._waits[-1:]",
        "return unwritten",
    ),
    Mutant(
        "a start hides a suspension",
        ON_STORE,
        (replay, invariants),
        "run_status",
        "                continue\n",
        "                return Unsettled()\n",
    ),
    Mutant(
        "a fork copies the entry at its cut",
        ON_STORE,
        (forking, lifecycle),
        "plan_fork",
        "source[:cut]",
        "source[: cut + 1]",
    ),
    Mutant(
        "fsync is dropped",
        ON_DISK,
        (LocalJournal,),
        "_write",
        "os.fsync(self._fd)",
        "pass",
    ),
    Mutant(
        "the directory is not synced",
        ON_DISK,
        (LocalJournal,),
        "_write",
        "if created:",
        "if False:",
    ),
    Mutant(
        "what a dead process left is not synced",
        ON_DISK,
        (LocalJournal,),
        "_take_lock",
        "if not lock.left_over:",
        "if True:",
    ),
    Mutant(
        "what a dead process left is synced, but not written again",
        ON_DISK,
        (LocalJournal,),
        "_take_lock",
        "_write_again(self._path)",
        "_sync(self._path)",
    ),
    Mutant(
        "a failed fsync is tried again",
        ON_DISK,
        (LocalJournal,),
        "_write",
        "            with suppress(OSError):\n                _truncate(self._fd, size)\n",
        "            os.fsync(self._fd)\n            return None\n",
    ),
    Mutant(
        "a fork is not synced",
        ON_DISK,
        (LocalJournal,),
        "create",
        "os.fsync(fd)",
        "pass",
    ),
    Mutant(
        "a torn line is not cut off",
        ON_DISK,
        (LocalJournal,),
        "_learn",
        "if journal.whole < len(data):",
        "if False:",
    ),
    Mutant(
        "a short write is not rolled back",
        ON_DISK,
        (LocalJournal,),
        "_roll_back",
        "_truncate(self._fd, size)",
        "pass",
    ),
    Mutant(
        "a roll-back is not synced",
        ON_DISK,
        (LocalJournal,),
        "_roll_back",
        "_truncate(self._fd, size)",
        "os.ftruncate(self._fd, size)",
    ),
    Mutant(
        "no lock",
        ON_DISK,
        (run_lock,),
        "_try_flock",
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
    ),
    Mutant(
        "the lock is taken without looking whose file it is",
        ON_DISK,
        (RunLock,),
        "take",
        "if refused is None and _names(path, found := os.fstat(fd)):",
        "if refused is None and (found := os.fstat(fd)):",
    ),
    Mutant(
        "the lock file is removed after releasing the lock",
        ON_DISK,
        (RunLock,),
        "release",
        "        with suppress(OSError):\n",
        "        _close(self._fd)\n        with suppress(OSError):\n",
    ),
)
"""A name for each, and where it shows."""


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Have the real code be the mutant."""
    replaced = [(owner, mutant.name, owner.__dict__[mutant.name]) for owner in mutant.owners]
    if mutant.owners[0] is lifecycle and mutant.name == "_token":
        broken: Any = _same_token
    else:
        broken = _broken(mutant)
    handlers = Machine._HANDLERS
    try:
        for owner, name, _ in replaced:
            setattr(owner, name, broken)
        before = replaced[0][2]
        Machine._HANDLERS = MappingProxyType(
            {key: broken if each is before else each for key, each in handlers.items()}
        )
        yield
    finally:
        Machine._HANDLERS = handlers
        for owner, name, value in replaced:
            setattr(owner, name, value)


def _same_token() -> str:
    return "w"


def _broken(mutant: Mutant) -> Any:
    found = mutant.owners[0].__dict__[mutant.name]
    function = getattr(found, "__func__", found)
    source = inspect.getsource(function)
    if source.count(mutant.old) != 1:
        raise LookupError(f"{mutant.title}: {mutant.old!r} is in {mutant.name} not exactly once")
    text = textwrap.dedent(source.replace(mutant.old, mutant.new))
    flags = __future__.annotations.compiler_flag
    code = compile(text, f"<{mutant.title}>", "exec", flags=flags, dont_inherit=True)
    made: dict[str, Any] = {}
    exec(code, function.__globals__, made)
    return made[mutant.name]


def caught_after(
    mutant: Mutant, *, first: int = 0, at_most: int = 20_000
) -> tuple[int | None, str]:
    """Return the number of schedules, from seed 0 on, that it took, and the promise broken.

    Those before ``first`` are not tried.
    """
    with wired(), planted(mutant):
        for seed in range(first, at_most):
            failure = run_schedule(Seeded(seed), local=mutant.local)
            if failure is not None:
                return seed + 1, failure.violation.name
    return None, ""


def row(mutant: Mutant, schedules: int | None, promise: str) -> str:
    """Give the mutant's row of the table in docs/guarantees.md."""
    return f"| {mutant.title} | {schedules or 'missed'} | `{promise}` |"
