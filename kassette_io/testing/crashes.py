"""``crash_everywhere``: crashes a workflow at every point, recovers it, and compares the outcome.

Each crash is tried in a run of its own, in one of two ways:

- *killed*: from then on nothing the session does reaches the journal, as if the process were dead;
- *cancelled*: the workflow is cancelled by its event loop, and the journal stays open.

The points are: after every entry; before a step's function is called; in it, at its first
``await``; and after it, before its result is journaled. ``trial`` has the sessions and the points.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

from kassette import UNSET, Unset
from kassette.immutable import Immutable
from kassette_io.testing.trial import Crash, Ending, Trial
from kassette_io.testing.watching import Stubs, WorkflowOrFunction


@final
class Survived(Immutable):
    """The result of a successful ``crash_everywhere``.

    ``outcome`` is the result of the uninterrupted run, and ``crashes`` describes each crash tried.
    """

    outcome: Any
    crashes: tuple[str, ...]


async def crash_everywhere(
    workflow: WorkflowOrFunction,
    input: object | Unset = UNSET,
    *,
    answers: Mapping[str, object] | None = None,
    stubs: Stubs | None = None,
    reset: Callable[[], object] | None = None,
    probe: Callable[[], object] | None = None,
    strict: bool = True,
) -> Survived:
    """Run ``workflow`` without a crash, then once for every point where it can crash, and compare.

    Each run has a fresh journal in memory. After its crash it is started again with the same input,
    as a dispatcher would, or, if it waits for an event, resumed with the value for that event in
    ``answers``, in their order; a wait without an answer ends the run. Each run must match the
    uninterrupted one: the outcome (compared with ``==``), each recorded step and its result, the
    events, and what ``probe`` returns. The function of a recorded step may be called one more time,
    because a step in flight runs again. With ``strict``, each branch must also request its steps in
    the same order and with the same arguments, as far as those are JSON: that detects a clock or a
    random number outside of a step even if it does no harm this time.

    ``stubs`` are called instead of the functions of the steps they name (by step id, full name or
    name). ``reset`` is called before every run, to reset the systems that steps act on, and
    ``probe`` after it, to read their state. Both may be sync or async. Durable sleeps and retries
    do not wait, and the workflow's hooks are not called. The number of runs is about six times the
    number of steps.

    Raise AssertionError for the first difference; it says where the run was crashed, what differs,
    and what each session did. Raise UsageError for an object that is not a workflow.
    """
    answers = {} if answers is None else answers
    world = _World(workflow, input, answers, stubs or {}, reset, probe, strict)
    calm = await world.run(None, None)
    again = await world.run(calm, None)
    _compare("two uninterrupted runs already differ", calm, again)
    crashes = [Crash(under, point) for point in calm.trial.points for under in point.kind.crashes]
    for crash in crashes:
        crashed = await world.run(calm, crash)
        _compare(f"{crash}, then recovered", calm, crashed)
    return Survived(calm.ending.outcome, tuple(map(str, crashes)))


@final
class _Run(Immutable):
    trial: Trial
    ending: Ending
    seen: Any


@final
class _World(Immutable):
    workflow: WorkflowOrFunction
    input: object
    answers: Mapping[str, object]
    stubs: Stubs
    reset: Callable[[], object] | None
    probe: Callable[[], object] | None
    strict: bool

    async def run(self, calm: _Run | None, crash: Crash | None) -> _Run:
        await _call(self.reset)
        orders = calm.trial if calm is not None and self.strict else None
        trial = Trial(self.workflow, self.input, self.answers, self.stubs, crash, orders)
        ending = await trial.run()
        return _Run(trial, ending, await _call(self.probe))


async def _call(hook: Callable[[], object] | None) -> object:
    result = None if hook is None else hook()
    return await result if inspect.isawaitable(result) else result


def _compare(what: str, calm: _Run, other: _Run) -> None:
    found = [*_differences(calm, other)]
    if not found:
        return
    first, *rest = found
    lines = [f"{what}: {first}"]
    if rest:
        lines += ["also:", *(f"  - {each}" for each in rest[:_SHOWN])]
    if other.trial.swallowed:
        lines.append(
            "The workflow swallowed its cancellation and continued: an `except BaseException` or "
            "`except CancelledError` does not raise it again."
        )
    if other.trial.crash is None:
        lines.append(
            "The workflow is not deterministic: read clocks, random numbers and external systems "
            "only inside of steps, stub the steps whose results vary (stubs=), and reset external "
            "systems before each run (reset=)."
        )
    lines += ["What the sessions did:", *(f"  {each}" for each in other.trial.story())]
    raise AssertionError("\n".join(lines)) from other.ending.error


_SHOWN: Final = 5


def _differences(calm: _Run, other: _Run) -> Sequence[str]:
    found: list[str] = []
    trial = other.trial
    if trial.astray is not None:
        found.append(trial.astray)
    found += _recorded(calm.trial.recorded, trial.recorded)
    found += _recorded(calm.trial.events, trial.events)
    if not calm.ending.same(other.ending):
        found.append(f"it ended with {other.ending}; uninterrupted with {calm.ending}")
    for step_id, usual in calm.trial.calls.items():
        recorded = f"step {step_id!r}" in calm.trial.recorded  # what fails runs in every session
        times = trial.calls.get(step_id, usual)
        if recorded and times > usual + (trial.crash is not None):
            found.append(
                f"the function of step {step_id!r} was called {times} times, "
                f"uninterrupted {usual}; a crash may add one"
            )
    if calm.seen != other.seen:
        found.append(f"the probe returned {other.seen!r}; uninterrupted {calm.seen!r}")
    if trial.crash is not None and not trial.crashed:
        found.append("the run never reached this point, but the uninterrupted run did")
    return found


def _recorded(calm: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for what, value in calm.items():
        if what not in other:
            found.append(f"{what} is missing from the journal")
        elif other[what] != value:
            found.append(f"{what} is journaled as {other[what]!r}; uninterrupted as {value!r}")
    found += [
        f"{what} is in the journal; uninterrupted it is not" for what in other if what not in calm
    ]
    return found
