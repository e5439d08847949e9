"""A support desk that survives a kill: classify tickets, ask a person about severe ones, reply.

    python examples/triage.py                    process examples/tickets.jsonl
    python examples/triage.py my-tickets.jsonl   or tickets of your own
    python examples/triage.py --approve RUN_ID   approve the reply to a severe ticket
    python examples/triage.py --demo             watch it being killed and recovered

Each ticket is one run of the workflow below, and each finished step is in the run's journal. Run
the program again after a kill: it recovers each run and repeats no finished step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, assert_never
from urllib.parse import quote

import aiofiles
import anyio

from kassette_io import (
    Context,
    EventPendingError,
    Failed,
    KassetteError,
    LocalStorage,
    RunResult,
    StorageError,
    Success,
    Suspended,
    TerminalRunError,
    Workflow,
    workflow,
)

T = TypeVar("T")

TICKETS = Path(__file__).with_name("tickets.jsonl")
DRAFTS = ("summary", "answer", "actions")
THREE_DAYS = 3 * 24 * 60 * 60.0


# --- the workflow: what this example is about ----------------------------------------------------


@dataclass(frozen=True)
class Ticket:
    """What a customer wrote; the input of a run."""

    id: str
    customer: str
    subject: str
    body: str

    @property
    def run_id(self) -> str:
        """The run id derives from the ticket, so a second delivery finds the same run."""
        return "ticket-" + quote(self.id, safe="").replace("~", "%7E").replace("%", "+")


@dataclass(frozen=True)
class Triage:
    """How the model classifies a ticket; the result of a step."""

    category: str
    severity: str


@dataclass(frozen=True)
class Verdict:
    """A person's decision on a severe ticket; the payload of an event."""

    approved: bool


def triage_workflow(desk: Desk, storage: LocalStorage) -> Workflow[Ticket, str]:
    """Create the workflow for a storage and a desk."""

    @workflow(storage=storage, version="triage-1", events={"approval": Verdict})
    async def triage(ctx: Context, ticket: Ticket) -> str:
        sorted_as = await desk.step(ctx, "classify", desk.model.classify, ticket)
        desk.say(f" {sorted_as.category}/{sorted_as.severity} ")

        if sorted_as.severity == "severe":
            verdict: Verdict = await ctx.suspend(
                "approval", timeout=THREE_DAYS, reason=f"severe: {ticket.subject}"
            )
            if not verdict.approved:
                return "denied, left to a person"

        async def draft(kind: str, branch: Context) -> str:
            return await desk.step(
                branch, "draft", desk.model.draft, kind, ticket, sorted_as, label=kind
            )

        parts = await ctx.parallel({kind: partial(draft, kind) for kind in DRAFTS})
        reply = "\n\n".join(parts[kind] for kind in DRAFTS)
        return await desk.step(ctx, "reply", desk.outbox.send, ticket, reply)

    return triage


# --- what the steps call -------------------------------------------------------------------------


Called = Callable[[Ticket, str], None]
"""Called for every call that a step makes, whether or not its result is recorded."""


class OfflineModel:
    """Stands in for a language model: a pure function of the text that yields tokens."""

    def __init__(self, token_delay: float, called: Called, stall: str | None = None) -> None:
        self._token_delay = token_delay
        self._called = called
        self._stall = stall

    async def classify(self, ticket: Ticket) -> Triage:
        self._called(ticket, "classify")
        text = f"{ticket.subject} {ticket.body}".lower()
        hits = {name: len(re.findall(words, text)) for name, words in CATEGORIES.items()}
        category = max(hits, key=lambda name: hits[name])
        if re.search(SEVERE, text):
            severity = "severe"
        else:
            severity = "low" if category in ("idea", "praise") else "normal"
        answer = Triage(category if hits[category] else "other", severity)
        async for _ in self._tokens(json.dumps(vars(answer))):
            pass
        return answer

    async def draft(self, kind: str, ticket: Ticket, sorted_as: Triage) -> str:
        self._called(ticket, kind)
        text = WORDING[kind].format(
            name=ticket.customer.partition(" (")[0],
            subject=ticket.subject,
            advice=ADVICE[sorted_as.category],
            hours={"severe": 1, "normal": 24, "low": 72}[sorted_as.severity],
        )
        tokens: list[str] = []
        async for token in self._tokens(text):
            tokens.append(token)
            if (ticket.id, kind) == (self._stall, "answer"):
                await anyio.sleep_forever()
        return "".join(tokens)

    async def _tokens(self, text: str) -> AsyncIterator[str]:
        for token in re.findall(r"\S+\s*", text):
            await anyio.sleep(self._token_delay)
            yield token


CATEGORIES = {
    "outage": r"\b503\b|\bis down\b|\boffline\b|\bstopped entirely\b|\bdisappeared\b",
    "security": r"\bleak\b|\bphishing\b|\bhacked\b|\bpassword|\bsso\b|\blocked out\b|\blog in\b",
    "billing": r"invoice|\bfacture|\brefund|\bcharge|\bpayment|\bseats\b|\bcredit|\bplan\b",
    "bug": r"\berror|\bcrash|\bwrong\b|\bslow\b|\bignores\b|\bmangles\b|\btimes\b|\bshows\b",
    "how-to": r"\bhow\b|\bis there a way\b|\bcan i\b|\bquestion\b|\bwhich one\b|\bwhere do\b",
    "idea": r"\bwould be great\b|\bwish list\b|\bplease add\b|\bcould there be\b|\btheme\b",
    "praise": r"\bthanks\b|\bthank you\b|\bsaved my\b",
}
SEVERE = r"production is down|data leak|\bphishing\b|tasks have disappeared|checkout is offline"
ADVICE = {
    "outage": "our on-call engineer has the traces of the last hour and is looking at them",
    "security": "we have locked the sessions concerned and are reading the access log",
    "billing": "we have compared your invoices with the payments we received",
    "bug": "we could follow your steps, and the fix is planned for the next release",
    "how-to": "the page 'Tips and limits' in the manual shows it with pictures",
    "idea": "we have put it on the list that we plan from, with your reason",
    "praise": "we have passed it on, and it made somebody's day",
    "other": "a colleague who knows this part well will read it",
}
WORDING = {
    "summary": "Dear {name}, thank you for writing about “{subject}”; we see why that matters.",
    "answer": "As to the matter itself: {advice}.",
    "actions": "What happens next: 1. we keep this ticket open; 2. you hear from us within "
    "{hours} h; 3. you tell us if we got it wrong.",
}


class Outbox:
    """Replies that were sent, one JSON line each; stands in for a mail service.

    A step that was in flight at a crash runs again, so ``send`` first checks whether the reply was
    sent. That is enough, because only one process at a time has a run open. It survives a kill, but
    not a power cut, since nothing here is fsynced. With a real mail service, pass the run id as the
    idempotency key.
    """

    def __init__(self, path: Path, files: Files, called: Called) -> None:
        self._path = path
        self._files = files
        self._called = called

    async def send(self, ticket: Ticket, text: str) -> str:
        self._called(ticket, "reply")
        await anyio.Path(self._path.parent).mkdir(parents=True, exist_ok=True)
        try:
            before = await self._files.read(self._path)
        except FileNotFoundError:
            before = ""
        if any(_run_of(line) == ticket.run_id for line in before.splitlines()):
            return "replied (sent before the crash)"
        line = json.dumps({"run": ticket.run_id, "to": ticket.customer, "text": text})
        torn = before != "" and not before.endswith("\n")
        await self._files.append(self._path, "\n" * torn + line + "\n")
        return "replied"


def _run_of(line: str) -> str | None:
    try:
        return str(json.loads(line)["run"])
    except (ValueError, KeyError, TypeError):
        return None  # cut off by a crash during an append: that reply was not sent


class Files:
    """File IO that does not block the event loop: aiofiles on asyncio, anyio on trio."""

    def __init__(self, backend: str) -> None:
        self._on_trio = backend == "trio"

    async def read(self, path: Path) -> str:
        if self._on_trio:
            return await anyio.Path(path).read_text("utf-8-sig")
        async with aiofiles.open(path, encoding="utf-8-sig") as file:
            return await file.read()

    async def append(self, path: Path, text: str) -> None:
        if self._on_trio:
            async with await anyio.open_file(path, "a", encoding="utf-8") as anyio_file:
                await anyio_file.write(text)
        else:
            async with aiofiles.open(path, "a", encoding="utf-8") as file:
                await file.write(text)


# --- the desk: runs the tickets and reports progress ---------------------------------------------


class Desk:
    """Counts and prints which steps replay and which run live; reports it to the demonstration."""

    def __init__(self, options: argparse.Namespace) -> None:
        files = Files(options.backend)
        self.files = files
        self.model = OfflineModel(options.token_delay, self._called, options.stall)
        self.outbox = Outbox(options.storage / "outbox" / "replies.jsonl", files, self._called)
        self.counts: Counter[str] = Counter()
        self.waiting: list[str] = []
        self.failed: list[str] = []
        self._report_fd: int | None = options.report

    def say(self, text: str, end: str = "") -> None:
        print(text, end=end, flush=True)

    async def step(
        self,
        ctx: Context,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        label: str | None = None,
    ) -> T:
        """Run ``ctx.step`` and show whether it was replayed."""
        replayed: list[T] = []
        result = await ctx.step(name, fn, *args, on_replay=replayed.append)
        shown = label or name
        self.counts["replayed" if replayed else "live"] += 1
        self.say(f" {shown}{'○' if replayed else '●'}")
        self._report("replayed" if replayed else "recorded", ctx.run_id, shown)
        return result

    async def deliver(self, triage: Workflow[Ticket, str], ticket: Ticket) -> None:
        """Start or recover a ticket's run. A job queue may deliver the ticket twice."""
        self.say(f"{ticket.id:<10}")
        try:
            await self._finish(ticket.run_id, triage.start(ticket, run_id=ticket.run_id))
        except StorageError:
            raise  # a full or missing disk affects every ticket
        except KassetteError as error:
            self._fail(str(error))

    async def approve(self, triage: Workflow[Ticket, str], run_id: str, verdict: Verdict) -> None:
        """Resume a waiting run with a person's verdict. The first verdict wins."""
        self.say(f"{run_id:<10}")
        await self._finish(run_id, triage.resume(run_id, "approval", verdict))

    def sum_up(self, again: Sequence[str]) -> int:
        """Print a summary and return the exit code."""
        counts = self.counts
        print(
            f"\nsteps: {counts['replayed']} replayed (○), {counts['live']} ran live (●); "
            f"tickets: {counts['finished']} finished now, {counts['before']} before, "
            f"{len(self.waiting)} waiting for approval, {len(self.failed)} failed"
        )
        for why in self.failed:
            print(f"  {why}")
        if self.waiting:
            print("approve with (or add --deny):")
        for run_id in self.waiting:
            print(f"  {shlex.join([*again, '--approve', run_id])}")
        return 1 if self.failed else 0

    async def _finish(self, run_id: str, attempt: Awaitable[RunResult[str]]) -> None:
        try:
            result = await attempt
        except EventPendingError:
            result = Suspended("approval", run_id)
        except TerminalRunError as over:
            if over.terminal_state != "complete":
                raise
            self.counts["before"] += 1
            self.say(" already complete", end="\n")
            return
        match result:
            case Success(result=text):
                self.counts["finished"] += 1
                self.say(f"  {text}", end="\n")
            case Suspended():
                self.waiting.append(run_id)
                self.say("  waits for approval", end="\n")
            case Failed(error=error):
                self._fail(f"run {run_id!r} failed: {error!r}")
            case _:
                assert_never(result)

    def _fail(self, why: str) -> None:
        self.failed.append(why)
        self.say("  failed, see below", end="\n")

    def _called(self, ticket: Ticket, step: str) -> None:
        self._report("called", ticket.run_id, step)

    def _report(self, what: str, run_id: str, step: str) -> None:
        if self._report_fd is not None:
            os.write(self._report_fd, json.dumps([what, run_id, step]).encode() + b"\n")


class BadTicketsError(Exception):
    """The tickets file is invalid; the message is for the person who wrote it."""


async def load_tickets(files: Files, path: Path) -> list[Ticket]:
    """Read a tickets file: one JSON object per line with id, customer, subject and body."""
    try:
        text = await files.read(path)
    except UnicodeDecodeError as error:
        raise BadTicketsError(f"{path} is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise BadTicketsError(f"{path} cannot be read: {error.strerror}") from error
    tickets: dict[str, Ticket] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                ticket = _ticket(json.loads(line))
            except json.JSONDecodeError as error:
                why = f"not JSON ({error.msg} at column {error.colno})"
                raise BadTicketsError(f"{path}, line {number}: {why}") from error
            except (ValueError, RecursionError) as error:
                raise BadTicketsError(f"{path}, line {number}: {error}") from error
            if tickets.setdefault(ticket.id, ticket) is not ticket:
                raise BadTicketsError(f"{path}, line {number}: a second ticket {ticket.id!r}")
    if not tickets:
        raise BadTicketsError(f"{path} contains no ticket")
    return list(tickets.values())


def _ticket(found: object) -> Ticket:
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    for key in ("id", "customer", "subject", "body"):
        if not isinstance(found.get(key), str) or not found[key].strip():
            raise ValueError(f"{key!r} is missing, empty or not text")
        found[key].encode()  # half a surrogate pair is a ValueError as well
    ticket = Ticket(found["id"], found["customer"], found["subject"], found["body"])
    if len(ticket.run_id) > 200:
        raise ValueError("'id' is too long to name a run")
    return ticket


# --- the command line ----------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tickets", nargs="?", type=Path, help="a tickets file of your own")
    parser.add_argument("--storage", type=Path, help="where journals live (.kassette/triage)")
    parser.add_argument("--approve", metavar="RUN_ID", help="approve a run that waits for it")
    parser.add_argument("--deny", action="store_true", help="with --approve: decline instead")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N tickets only")
    parser.add_argument("--token-delay", type=float, default=0.002, metavar="SECONDS")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--demo", action="store_true", help="be killed half-way and recover")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stall", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.deny and not options.approve:
        parser.error("--deny goes with --approve RUN_ID")
    if options.approve and options.tickets:
        parser.error("--approve takes no tickets file: the run's journal has its ticket")
    if options.limit is not None and options.limit < 1:
        parser.error("--limit is at least 1")
    if not 0 <= options.token_delay < 60:
        parser.error("--token-delay is between 0 and 60 seconds")
    if options.demo and (options.tickets or options.approve or options.limit):
        parser.error("--demo brings its own tickets; it goes with --storage and --backend")
    if options.demo and options.storage and options.storage.exists():
        parser.error(f"--demo needs a new directory, and {options.storage} exists")
    return options


async def run(options: argparse.Namespace) -> int:
    desk = Desk(options)
    async with LocalStorage(options.storage) as storage:
        triage = triage_workflow(desk, storage)
        if options.approve:
            await desk.approve(triage, options.approve, Verdict(approved=not options.deny))
        else:
            tickets = await load_tickets(desk.files, options.tickets or TICKETS)
            for ticket in tickets[: options.limit]:
                await desk.deliver(triage, ticket)
    return desk.sum_up(["python", sys.argv[0], "--storage", str(options.storage)])


def demonstrate(options: argparse.Namespace) -> NoReturn:
    """Become the process that runs and kills this program."""
    demo = [sys.executable, str(Path(__file__).with_name("triage_demo.py")), options.backend]
    os.execv(sys.executable, [*demo, *([str(options.storage)] if options.storage else [])])


def main(arguments: Sequence[str] | None = None) -> int:
    # Printing to a closed pipe (`| head`) then ends the process instead of raising inside a
    # workflow: to a run, a kill is a crash that it recovers from, an exception is its failure.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    options = parse(arguments)
    try:
        if options.demo:
            demonstrate(options)
        options.storage = options.storage or Path(".kassette", "triage")
        return anyio.run(run, options, backend=options.backend)
    except BadTicketsError as error:
        print(f"triage: {error}", file=sys.stderr)
        return 2
    except (KassetteError, OSError) as error:
        print(f"\ntriage: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ntriage: interrupted; run it again to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
