"""Draws what a terminal shows as SVG for the pages: ``python docs/pictures.py``.

The picture of the first page is of real runs of README.md's program: of one that is killed with
SIGKILL in its second step, and of the next. Those of the command are its views of
``pictures/journals/``. The tests draw all of them again, and compare what they say.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

from rich.console import Console, RenderableType  # noqa: TID253 - a script that draws with it
from rich.terminal_theme import TerminalTheme  # noqa: TID253
from rich.text import Text  # noqa: TID253

from kassette import decode_journal
from kassette.evidence.difference import compare
from kassette.evidence.fork_points import fork_points
from kassette.evidence.spans import timeline
from kassette_cli.verbs import (
    diff,
    dump,
    list as list_verb,
    status,
    steps as steps_verb,
    timeline as timeline_verb,
)

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).with_name("pictures")
JOURNALS = PICTURES / "journals"
NOW = datetime(2026, 1, 31, 16, tzinfo=UTC)
URL = "file:journals"
RUN, FORK = "refund-7", "refund-7b"
VIEWS = {
    "list": "list",
    "status": f"status {RUN}",
    "dump": f"dump {RUN}",
    "timeline": f"timeline {RUN}",
    "steps": f"steps {RUN}",
    "diff": f"diff {RUN} {FORK}",
}
"""The verbs that are shown, and what is typed for each."""

PROGRAM = r"<!-- file: answer\.py -->\s*```python\n(.*?\n)```\n"
RUNS = (
    (" --crash", "", -signal.SIGKILL),
    ("", "# the model is not asked again", 0),
    ("", "# a job that is delivered twice", 0),
)
"""The flags of each run of the program, a remark on it, and how it has to end."""

COMMAND = 26
"""How wide a command is shown, so that the remarks stand in a column."""

THEME = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [
        (110, 118, 129),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (230, 237, 243),
    ],
)

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; \
font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own format without its fonts, which come from another host."""


def draw(name: str, shown: Iterable[RenderableType], *, width: int, title: str) -> str:
    """Return what a terminal of ``width`` columns shows, as SVG."""
    console = Console(
        file=io.StringIO(),
        width=width,
        record=True,
        force_terminal=True,
        color_system="truecolor",
        markup=False,
        emoji=False,
        highlight=False,
        _environ={},
    )
    for each in shown:
        console.print(each, crop=False)
    svg = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id=f"t-{name}")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def text_of(svg: str) -> str:
    """Return the text of a picture, line by line: the same whatever rich makes of its looks."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(
        r'<text class="[\w-]+-r\d+"[^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg
    ):
        lines.setdefault(float(y), []).append((float(x), unescape(text)))
    found = ("".join(text for _, text in sorted(lines[y])) for y in sorted(lines))
    return "\n".join(line.replace("\xa0", " ").rstrip() for line in found)


def view(verb: str) -> Iterator[RenderableType]:
    """Show what the command shows on a terminal."""
    yield Text(f"$ kassette {VIEWS[verb]}", style="bold")
    entries, forked = (
        decode_journal((JOURNALS / f"{run}.jsonl").read_bytes()).entries for run in (RUN, FORK)
    )
    match verb:
        case "list":
            runs = sorted(path.stem for path in JOURNALS.glob("*.jsonl"))
            table = list_verb.Listing(runs, Console(width=90), now=NOW)
            yield table.header()
            yield table.rows(list_verb.summarise_file(str(JOURNALS), each) for each in runs)
            yield from table.footer()
        case "status":
            yield from status.shown(status.RunReport(run_id=RUN, entries=entries), URL, now=NOW)
        case "dump":
            yield from dump.journal(entries)
        case "timeline":
            yield from timeline_verb.view(list(timeline(entries)), Namespace())
        case "steps":
            yield from steps_verb.view(fork_points(entries), Namespace(run=RUN, storage=URL))
        case _:
            yield from diff.view(compare(entries, forked), Namespace(run=RUN, other=FORK))


def crash_and_recover() -> Iterator[RenderableType]:
    """Run README.md's program, which kills itself as it is told to, and run it again."""
    (program,) = re.findall(PROGRAM, (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as place:
        Path(place, "answer.py").write_text(program, "utf-8")
        for flags, said, returned in RUNS:
            yield Text.assemble(
                (f"$ python answer.py{flags}".ljust(COMMAND), "bold"), (said, "dim italic")
            )
            done = subprocess.run(
                [sys.executable, "answer.py", *flags.split()],
                cwd=place,
                env=environment,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                check=False,
            )
            assert done.returncode == returned, done
            for line in done.stdout.splitlines():
                yield Text(line, style="green" if line.startswith("Success") else "")
            if returned:
                yield Text("Killed", style="bold red")


def pictures() -> Iterator[tuple[Path, str]]:
    """Draw every picture; yield where it belongs, and the picture."""
    yield (
        PICTURES / "crash.svg",
        draw("crash", crash_and_recover(), width=60, title="killed, and started again"),
    )
    for verb in VIEWS:
        yield PICTURES / f"{verb}.svg", draw(verb, view(verb), width=90, title=f"kassette {verb}")


if __name__ == "__main__":
    for path, svg in pictures():
        path.write_text(svg, "utf-8")
