"""What a terminal is shown of findings that tests make: each verb's view, with its arguments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime

from rich.console import RenderableType

from kassette.evidence.difference import Comparison
from kassette.evidence.fork_points import ForkPoint
from kassette.evidence.spans import Span
from kassette_cli.verbs import (
    diff,
    fork,
    status as status_verb,
    steps as steps_verb,
    timeline as timeline_verb,
)
from kassette_cli.verbs.status import RunReport


def status(report: RunReport, url: str, *, now: datetime) -> Sequence[RenderableType]:
    return [*status_verb.shown(report, url, now=now)]


def steps(points: Sequence[ForkPoint], run: str, url: str) -> Sequence[RenderableType]:
    return [*steps_verb.view(points, Namespace(run=run, storage=url))]


def timeline(spans: Sequence[Span]) -> Sequence[RenderableType]:
    return [*timeline_verb.view(spans, Namespace())]


def difference(found: Comparison, a: str, b: str) -> Sequence[RenderableType]:
    return [*diff.view(found, Namespace(run=a, other=b))]


def forked(source: str, new_run_id: str) -> Sequence[RenderableType]:
    return [*fork.view(new_run_id, Namespace(run=source))]
