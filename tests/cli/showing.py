"""What a terminal is shown of findings that tests make: each verb's view, with its arguments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime

from rich.console import RenderableType

from kassette import Entry
from kassette.evidence.diagnosis import Lock, diagnose
from kassette.evidence.difference import Comparison
from kassette.evidence.fork_points import ForkPoint
from kassette.evidence.pending import pending as pending_waits
from kassette.evidence.spans import Span
from kassette_cli.storage import Unreadable
from kassette_cli.verbs import (
    debug as debug_verb,
    diff,
    fork,
    pending as pending_verb,
    status as status_verb,
    steps as steps_verb,
    timeline as timeline_verb,
)
from kassette_cli.verbs.status import RunReport


def status(report: RunReport, url: str, *, now: datetime) -> Sequence[RenderableType]:
    return [*status_verb.shown(report, url, now=now)]


def debug(
    run_id: str, entries: Sequence[Entry], url: str, *, now: datetime, lock: Lock | None
) -> Sequence[RenderableType]:
    found = diagnose(run_id, entries, now=now, lock=lock)
    return [*debug_verb.shown(found, url, now=now)]


def pending(
    runs: dict[str, Sequence[Entry] | Unreadable], url: str, *, now: datetime
) -> Sequence[RenderableType]:
    found: list[pending_verb.Found] = []
    for run_id, entries in runs.items():
        if isinstance(entries, Exception):
            found.append((run_id, entries))
        else:
            found.extend(pending_waits(run_id, entries, now))
    return [*pending_verb.shown(found, url, now=now)]


def steps(points: Sequence[ForkPoint], run: str, url: str) -> Sequence[RenderableType]:
    return [*steps_verb.view(points, Namespace(run=run, storage=url))]


def timeline(spans: Sequence[Span]) -> Sequence[RenderableType]:
    return [*timeline_verb.view(spans, Namespace())]


def difference(found: Comparison, a: str, b: str) -> Sequence[RenderableType]:
    return [*diff.view(found, Namespace(run=a, other=b))]


def forked(source: str, new_run_id: str) -> Sequence[RenderableType]:
    return [*fork.view(new_run_id, Namespace(run=source))]
