"""Kills ``triage.py`` half-way, restarts it, and verifies from outside that no step ran twice.

Run it with ``python examples/triage.py --demo``. It does not depend on timing: the program reports
its steps over a pipe, and one call of its model never returns, so the kill always hits the same
spot.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import anyio

from kassette_io import LocalStorage, StepEntry

PROGRAM = Path(__file__).with_name("triage.py")
TICKETS = Path(__file__).with_name("tickets.jsonl")
FIRST = 6
STEPS = ("classify", "summary:draft", "answer:draft", "actions:draft", "reply")


class Report(NamedTuple):
    """An event of a step: its function was "called", or it was "recorded" or "replayed"."""

    what: str
    run_id: str
    step: str


class Demo:
    """One demonstration, with journals in ``storage``."""

    def __init__(self, backend: str, storage: Path) -> None:
        self.backend = backend
        self.storage = storage
        tickets = [json.loads(line) for line in TICKETS.read_text("utf-8").splitlines()][:FIRST]
        self.runs = [f"ticket-{ticket['id']}" for ticket in tickets]
        self.severe = self.runs[2]
        self.victim = self.runs[3]
        self.stalled = tickets[3]["id"]

    def run(self) -> int:
        print(f"1. Process {FIRST} tickets (● ran live, ○ replayed from the journal)\n")
        first = self.child("--limit", str(FIRST), "--stall", self.stalled, killed=True)
        before = self.journals()
        print(
            f"\n\n   SIGKILL while it waits for the model's answer. The journal of {self.victim}:\n"
        )
        for line in before[self.victim].decode().splitlines():
            print(f"   {line if len(line) <= 96 else line[:95] + '…'}")

        print("\n2. Run the same command again\n")
        later = self.child("--limit", str(FIRST))

        print(f"\n3. Approve the severe ticket: triage.py --approve {self.severe}\n")
        later += self.child("--approve", self.severe)

        print("\n4. Check the journals and the calls that the steps made\n")
        claims = self.claims(first, later, before)
        for claim, holds in claims.items():
            print(f"   {'ok   ' if holds else 'WRONG'} {claim}")
        return 0 if all(claims.values()) else 1

    def child(self, *arguments: str, killed: bool = False) -> list[Report]:
        """Run the program to its end, or kill it once all but the stalled answer is recorded."""
        reading, writing = os.pipe()
        common = ["--storage", str(self.storage), "--backend", self.backend]
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *common, "--report", str(writing), *arguments],
            pass_fds=[writing],
        )
        os.close(writing)
        awaited = {
            Report("called", self.victim, "answer"),
            Report("recorded", self.victim, "summary"),
            Report("recorded", self.victim, "actions"),
        }
        reports: list[Report] = []
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                reports.append(Report(*json.loads(line)))
                awaited.discard(reports[-1])
                if killed and not awaited:
                    process.kill()
        code = process.wait()
        if code != (-signal.SIGKILL if killed else 0):
            raise SystemExit(f"triage_demo: the program exited with {code}, which was not expected")
        return reports

    def claims(
        self, first: list[Report], later: list[Report], before: dict[str, bytes]
    ) -> dict[str, bool]:
        recorded = {each[1:] for each in first if each.what == "recorded"}
        called = Counter(each[1:] for each in later if each.what == "called")
        again = sum(called[each] for each in recorded)
        after = self.journals()
        steps = anyio.run(self.recorded_steps)
        replies = (self.storage / "outbox" / "replies.jsonl").read_text("utf-8").splitlines()
        sent = sorted(json.loads(line)["run"] for line in replies)
        return {
            f"of {len(recorded)} steps recorded before the kill, {again} ran again": again == 0,
            "the step in flight at the kill was not recorded, and ran again once": called[
                self.victim, "answer"
            ]
            == 1,
            "the entries written before the kill are unchanged": all(
                after[run_id].startswith(data) for run_id, data in before.items()
            ),
            f"each of {len(steps)} runs recorded each of its {len(STEPS)} steps once": steps
            == {run_id: sorted(STEPS) for run_id in self.runs},
            f"{len(sent)} customers got one reply each": sent == sorted(self.runs),
        }

    def journals(self) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in self.storage.glob("*.jsonl")}

    async def recorded_steps(self) -> dict[str, list[str]]:
        async with LocalStorage(self.storage) as storage:
            return {
                run_id: sorted(
                    entry.step_id
                    for entry in await storage.read_all(run_id)
                    if isinstance(entry, StepEntry)
                )
                async for run_id in storage.list_runs()
            }


def main(backend: str, directory: str | None = None) -> int:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the children print too
    if directory is not None:
        return Demo(backend, Path(directory)).run()
    with tempfile.TemporaryDirectory(prefix="triage-") as temporary:
        return Demo(backend, Path(temporary)).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
