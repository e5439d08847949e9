"""``kassette debug``: what became of a run, why it stopped, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kassette_cli.output import pieces
from kassette_cli.output.escaping import on_one_line, visible
from kassette_cli.output.pasting import command_line
from kassette_cli.output.units import age, duration, size
from kassette_cli.parser import add_run

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from rich.console import RenderableType

    from kassette.evidence.deliveries import Delivery
    from kassette.evidence.diagnosis import Diagnosis, Lock, Retried
    from kassette.evidence.open_waits import OpenWait
    from kassette.evidence.sessions import Session
    from kassette.notes import Running
    from kassette_io.storages.protocol import Storage

PLACE = 13
SUMMARY = "explain what happened to a run, why it stopped, and what to do next"
DESCRIPTION = """\
Look here first. The verdict comes from the journal and, on a local disk, from the run's
lock file, which is read but never taken. The advice is safe to follow literally.

The exit code tells the verdict:
  0   done            the workflow returned
  10  waits           it waits for an event
  11  running         a process has it open
  20  left            its process is gone, and in no step that is known
  21  left-in-step    its process died in a step, which may have taken effect
  22  unsettled       whether a process has it open cannot be known from here
  23  late            a deadline has passed: the next start or resume cancels it
  24  failed          the workflow raised
  25  cancelled       it was cancelled
Nobody has to act on 0, 10 and 11."""
PROGRESS = "reading the journal"

EXIT_CODES = {
    "done": 0,
    "waits": 10,
    "running": 11,
    "left": 20,
    "left-in-step": 21,
    "unsettled": 22,
    "late": 23,
    "failed": 24,
    "cancelled": 25,
}
_HEADINGS = {
    "done": ("is done", "green"),
    "waits": ("waits for an event", "yellow"),
    "running": ("is running", "cyan"),
    "left": ("was left by its process", "bold red"),
    "left-in-step": ("was left in the middle of a step", "bold red"),
    "unsettled": ("is running, or was left", "cyan"),
    "late": ("is late", "bold red"),
    "failed": ("has failed", "bold red"),
    "cancelled": ("was cancelled", "magenta"),
}
_MOST = 5
"""How many items of a list are shown on a terminal; ``--json`` has all."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run."""
    add_run(parser)


async def find(storage: Storage, arguments: Namespace) -> Diagnosis:
    """Return the diagnosis of a run. Raise UsageError for an unknown run.

    The lock is read before and after the journal: a session that ends in between would otherwise
    look as if its process had left the run.
    """
    from kassette.evidence.diagnosis import diagnose
    from kassette_cli.storage import read_run

    run_id: str = arguments.run
    before = await _read_lock(storage, run_id)
    entries = await read_run(storage, run_id)
    after = await _read_lock(storage, run_id)
    lock = before if before is not None and before.held else after
    return diagnose(run_id, entries, now=datetime.now(UTC), lock=lock)


def exit_code(found: Diagnosis) -> int:
    """Return the exit code of a verdict."""
    return EXIT_CODES[found.verdict]


def lines(found: Diagnosis, arguments: Namespace) -> Iterable[bytes]:
    """Return the diagnosis as one object; its command is ready to paste."""
    from kassette_cli.output.json_lines import json_line

    said = found.to_json()
    said["next"]["command"] = _command(found, arguments.storage)
    return [json_line(said)]


def view(found: Diagnosis, arguments: Namespace) -> Iterable[RenderableType]:
    """Show the facts as a panel, and below it what to paste."""
    return shown(found, arguments.storage, now=datetime.now(UTC))


def shown(found: Diagnosis, url: str, *, now: datetime) -> Iterator[RenderableType]:
    """Show a run as ``view`` does, for the storage at ``url`` and the instant ``now``."""
    facts = pieces.Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, fact in _facts(found, now):
        facts.add_row(label, fact)
    heading, style = _HEADINGS[found.verdict]
    run = (on_one_line(found.run_id), "bold")
    title = pieces.Text.assemble(run, " ", (heading, style))
    yield pieces.Panel(facts, title=title, title_align="left", border_style=style)
    yield pieces.to_paste(str(found.next.call or _command(found, url)))
    for way in found.next.then:
        yield pieces.Text(f"if {on_one_line(way.condition)}:", style="dim")
        yield pieces.to_paste(f"  {way.call}")


def _command(found: Diagnosis, url: str) -> str | None:
    if found.next.command is None:
        return None
    verb, run_id, *options = found.next.command
    return command_line(url, verb, run_id, *options)


async def _read_lock(storage: Storage, run_id: str) -> Lock | None:
    from kassette_io.storages.local import LocalStorage

    if not isinstance(storage, LocalStorage):
        return None  # nothing is locked in an object store
    from anyio import to_thread

    from kassette_io.storages.lock_state import read_lock_state

    return await to_thread.run_sync(read_lock_state, f"{storage.directory}/{run_id}.lock")


def _facts(found: Diagnosis, now: datetime) -> Iterator[tuple[str, RenderableType]]:
    """Yield a label and a fact per row."""
    yield "what", pieces.Text(visible(found.what))
    yield "why", pieces.Text(visible(found.why))
    rows: list[tuple[str, list[str]]] = [
        ("in flight", [_running(each, now) for each in found.in_flight or ()]),
        ("waits for", [_wait(each, now) for each in found.waits]),
        ("delivered", [_delivery(each) for each in reversed(found.deliveries)]),
        ("attempts", [_retried(each) for each in found.retried]),
        (
            "longest",
            [_longest(each.step_id, each.seconds, each.measured) for each in found.longest],
        ),
        ("largest", [f"{step_id}, {size(count)}" for step_id, count in found.size.largest]),
        ("not asked for", [f"{each}, recorded: was it renamed?" for each in found.passed_over]),
        ("sessions", [_session(each) for each in reversed(found.sessions)]),
    ]
    for label, all_of_them in rows:
        for at, text in enumerate(all_of_them[:_MOST]):
            yield "" if at else label, pieces.Text(on_one_line(text))
        if len(all_of_them) > _MOST:
            more = f"… and {len(all_of_them) - _MOST} more, see --json"
            yield "", pieces.Text(more, style="dim")
    if found.source is not None:
        text = f"{found.source.run_id} before offset {found.source.from_offset}"
        yield "forked from", pieces.Text(on_one_line(text))
    entries = pieces.counted(found.size.entries, "entry", "entries")
    yield "journal", pieces.Text(f"{entries}, results {size(found.size.results)}")
    result = getattr(found.end, "result_json", None)
    if result is not None:
        yield "result", pieces.preview(result)
    yield "next", pieces.Text(on_one_line(found.next.say), style="bold")


def _running(step: Running, now: datetime) -> str:
    took = _since(step.started_at, now)
    attempt = "" if step.attempt is None else f", attempt {step.attempt}"
    error = "" if step.last_error is None else f" after {step.last_error}"
    return f"{step.step_id}{', for ' if took else ''}{took}{attempt}{error}"


def _wait(wait: OpenWait, now: datetime) -> str:
    branch = "" if wait.branch is None else f" in branch {wait.branch}"
    since = _since(wait.since, now)
    waited = f", for {since}" if since else ""
    passed = ", which has passed" if wait.late else ""
    until = "" if wait.deadline is None else f", until {pieces.moment(wait.deadline).plain}{passed}"
    question = f" ({wait.question})" if wait.question else ""
    return f"{wait.event}{question}{branch}{waited}{until}"


def _delivery(delivery: Delivery) -> str:
    by = "" if delivery.by is None else f" by {delivery.by}"
    at = pieces.moment(delivery.at).plain
    return f"{delivery.event}{by}, {at}, {delivery.outcome}"


def _retried(step: Retried) -> str:
    took = f", {duration(step.seconds)}" if step.seconds is not None else ""
    errors = "; ".join(f"{each.name}: {each.message}" for each in step.errors)
    failed = ", and failed" if step.failed else ""
    said = f" ({errors})" if errors else ""
    return f"{step.step_id}, {pieces.counted(step.attempts, 'attempt')}{failed}{took}{said}"


def _longest(step_id: str, seconds: float | None, measured: bool) -> str:
    most = "" if measured else "at most "
    return f"{step_id}, {most}{duration(seconds)}" if seconds is not None else step_id


def _session(session: Session) -> str:
    span, notes = session.span, session.notes
    if span.copied:
        return f"{span.session}  copied by a fork, {pieces.counted(span.steps, 'step')}"
    facts: Sequence[Any] = (
        pieces.moment(span.begin).plain,
        f"{pieces.counted(span.steps, 'step')}",
        {"suspend": "suspended", None: "no end"}.get(span.ending, span.ending),
        None if notes is None or notes.pid is None else f"pid {notes.pid} on {notes.host or '?'}",
        None if notes is None else notes.lib,
        None if notes is None else notes.code,
        f"CHANGED: {', '.join(session.changed)}" if session.changed else None,
        _found(session),
    )
    return f"{span.session}  {', '.join(str(each) for each in facts if each)}"


def _found(session: Session) -> str | None:
    """Return what the session found of the one before."""
    found = None if session.notes is None else session.notes.found
    if found is None:
        return None
    steps = ", ".join(each.step_id for each in found.running)
    torn = "" if found.torn is None else " and a torn line"
    return f"found session {found.session} left{f' in {steps}' if steps else ''}{torn}"


def _since(timestamp: str | None, now: datetime) -> str:
    """Return how long ago it was; empty if that cannot be told."""
    from kassette.timestamps import instant

    then = instant(timestamp)
    return "" if then is None or then > now else age((now - then).total_seconds())
