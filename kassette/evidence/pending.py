"""Who is asked for what: the open waits of a run, each with what answers it; entries in.

Rules:
- A run that is over waits for nothing.
- The answer of a suspended run is the workflow's ``resume``. If the deadline of any of its waits
  has passed, every ``resume`` cancels the run, and a fork is the answer to all of its waits.
- A run that is not suspended is running or was left. A ``resume`` might repeat a step, so the
  answer is to look at the run first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, final

from kassette.entries import Entry, StartEntry, is_terminal
from kassette.evidence.advice import Advice, Calls, after_deadline, while_waiting
from kassette.evidence.open_waits import OpenWait, describe_waits
from kassette.immutable import Immutable
from kassette.status import SuspendedRun, run_status


@final
class Pending(Immutable, kw_only=True):
    """An open wait of a run, and the call or command that answers it."""

    run_id: str
    wait: OpenWait
    answer: Advice

    def to_json(self) -> dict[str, Any]:
        """Return the form that programs read; the answer is last."""
        said = self.answer.to_json()
        return {
            "runId": self.run_id,
            **self.wait.to_json(),
            "call": said["call"],
            "command": said["command"],
        }


def pending(run_id: str, entries: Sequence[Entry], now: datetime) -> Iterator[Pending]:
    """Yield the open waits of the run with these entries, as they stand at the instant ``now``."""
    if any(map(is_terminal, entries)):
        return
    names = (each.workflow for each in entries if isinstance(each, StartEntry))
    calls = Calls(run_id, next((each for each in names if each is not None), None))
    waits = describe_waits(entries, now)
    late = next((each for each in waits if each.late), None)
    for wait in waits:
        if not isinstance(run_status(entries), SuspendedRun):
            answer = Advice(say="the run is not suspended", command=("debug", run_id))
        elif late is not None:
            answer = after_deadline(calls, entries, late)
        else:
            answer = while_waiting(calls, wait)
        yield Pending(run_id=run_id, wait=wait, answer=answer)
