"""One parallel block: runs its branches and collects their results and errors.

Rules:
- A failed or suspended branch does not cancel its siblings, whose work may have cost money.
- The error of the first failed branch, in the order of the keys, is raised, with the others as
  notes. An error that made the session unusable comes first, then a mistake in using the run, which
  also takes precedence over a suspension, because otherwise it would stay hidden until an answer
  arrives.
- A branch that ends with a cancellation although the block was not cancelled has failed.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast, final

from kassette import UsageError
from kassette.brief import brief
from kassette_io.run import Run
from kassette_io.settling import cut_short, is_mistake, without_suspension


@final
class Block:
    """The results and errors of the branches of one parallel block of ``run``, by key."""

    __slots__ = ("errors", "results", "run", "suspended")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.results: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {}
        self.suspended: set[str] = set()

    async def perform(self, key: str, branch: Callable[[], Awaitable[Any]]) -> None:
        """Run the branch ``key``; raise only what is not its own outcome (a cancellation)."""
        try:
            running = branch()
            if not inspect.isawaitable(running):
                raise UsageError(
                    f"branch {key!r} returned {brief(running)}, not an awaitable; declare it with "
                    "`async def`",
                    run_id=self.run.run_id,
                )
            self.results[key] = await running
        except BaseException as error:
            if not self._ends(key, error):
                raise

    def _ends(self, key: str, error: BaseException) -> bool:
        rest = without_suspension(error, self.run.run_id)
        if rest is None:
            self.suspended.add(key)
        elif isinstance(rest, Exception):
            self.errors[key] = rest
        else:
            return False
        return True

    def note_missing(self, keys: tuple[str, ...]) -> None:
        """Record as failed the branches that ended with neither a result nor an error."""
        for key in keys:
            if not (key in self.results or key in self.errors or key in self.suspended):
                self.errors[key] = cut_short(f"branch {key!r}")

    @property
    def has_mistake(self) -> bool:
        """Whether a branch has made a mistake in using the run."""
        return any(is_mistake(error, self.run.run_id) for error in self.errors.values())

    def failure(self, keys: tuple[str, ...]) -> Exception | None:
        """Return the error to raise for the block, the others as notes; None if none failed."""
        failed = [key for key in keys if key in self.errors]
        if not failed:
            return None
        first = _first(failed, self.errors, self.run)
        for key in failed:
            if key != first:
                self.errors[first].add_note(f"branch {key!r} failed as well: {self.errors[key]!r}")
        return self.errors[first]

    def forget(self) -> None:
        """Drop the errors, whose tracebacks refer back to this object, to break the cycle."""
        self.results, self.errors = {}, {}


def check_branches(branches: object) -> None:
    """Raise UsageError unless ``branches`` maps keys to functions."""
    if not isinstance(branches, Mapping):
        raise UsageError(
            f"parallel got {brief(branches)}; pass a dict of branch keys and async functions"
        )
    for key, fn in cast("Mapping[object, object]", branches).items():
        if callable(fn):
            continue
        if inspect.iscoroutine(fn):
            fn.close()
            raise UsageError(
                f"branch {brief(key)} is a coroutine; pass the async function, which is called "
                "with the branch's own context"
            )
        raise UsageError(f"branch {brief(key)} is {brief(fn)}, which is not a function")


def _first(failed: list[str], errors: Mapping[str, Exception], run: Run) -> str:
    for key in failed:
        if errors[key] is run.lost_to:
            return key
    return next((key for key in failed if is_mistake(errors[key], run.run_id)), failed[0])
