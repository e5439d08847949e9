"""The site shows what lies outside of ``docs/`` as well, and links lead there; for MkDocs.

Diagrams and terminals are pictures from ``docs/pictures/``: a reader's browser asks no other host.
"""

from __future__ import annotations

import re
from pathlib import Path
from runpy import run_path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "SECURITY.md": "security.md",
    "examples/triage.py": "triage.md",
    "skills/kassette/SKILL.md": "agents.md",
}
"""Files of the repository, and the pages that they become."""

VIEWS = {
    "list": "Every run, its status, and what it waits for",
    "status": "What became of a run, and the command to continue",
    "timeline": "How long each session, step and wait took",
    "steps": "Every point to fork at, with the command",
    "dump": "The journal, entry by entry",
    "diff": "Where the fork and its source diverge",
}
"""The views that ``<!-- views -->`` stands for, in this order, with what each shows."""

SCALE = 0.6
"""How large diagrams are shown: their text is as large as the text of a table then."""

_LINK = re.compile(r"(?<=\]\()(?:\.\./|docs/)?([^)#:]+)(?=[)#])")

_FILE = re.compile(r"<!-- file: (\S+) -->\s*^```(\w+)$", re.MULTILINE)

_CODE = re.compile(r"`[^`\n]+`")

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)

_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)

_HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)

_TAG = re.compile(r"<[^>]+>")

_WIDTH = re.compile(r'viewBox="\S+ \S+ ([\d.]+)')

_diagrams = run_path(str(ROOT / "docs" / "diagrams.py"))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text("utf-8")
        if source.endswith(".py"):
            text = f"# {source}\n\n````python\n{text}````\n"
        elif not source.endswith(".md"):
            text = f"# {source}\n\n````text\n{text}````\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Turn links between files of the repository into links between pages, and draw pictures.

    The first page has room for words and a terminal side by side, and no contents. A bar in the
    code of a table's cell has a backslash for GitHub, which MkDocs would show.
    """
    if page is not None and page.is_homepage:
        page.meta["hide"] = ["toc"]
    markdown = _CODE.sub(lambda code: code[0].replace(r"\|", "|"), markdown)
    markdown = _LINK.sub(lambda link: OUTSIDE.get(link[1], link[1]), markdown)
    markdown = _FILE.sub(r'```\2 title="\1"', markdown)
    markdown = markdown.replace("<!-- views -->", "\n\n".join(map(_view, VIEWS)))
    return str(_diagrams["FENCE"].sub(_diagram, markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Tell each cell of a table its column's heading: on a phone a row is shown as a list."""
    return _TABLE.sub(lambda table: _labelled(table[0]), html)


def _labelled(table: str) -> str:
    headings = [_TAG.sub("", heading).strip() for heading in _HEAD.findall(table)]

    def label(row: re.Match[str]) -> str:
        labels = iter(headings)
        return re.sub(r"<td\b", lambda _: f'<td data-label="{next(labels, "")}"', row[0])

    return _ROW.sub(label, table)


def _view(verb: str) -> str:
    return f"{VIEWS[verb]}:\n\n{_scrolling(f'kassette {verb} on a terminal', f'{verb}.svg')}"


def _diagram(block: re.Match[str]) -> str:
    """Return the picture of a diagram, which opens in full size."""
    picture: Path = _diagrams["picture_of"](block[1])
    if not picture.exists():
        raise FileNotFoundError(f"{picture} is missing: draw it with nox -s pictures")
    found = _WIDTH.search(picture.read_text("utf-8"))
    assert found is not None, picture
    width = f'{{ width="{float(found[1]) * SCALE:.0f}" }}'
    return _scrolling("a diagram; open it in full size", picture.name, "diagram", width)


def _scrolling(alt: str, name: str, kind: str = "terminal", attributes: str = "") -> str:
    """Return a picture that scrolls where it is wider than the screen, and a link to it."""
    picture = f"pictures/{name}"
    shown = f"[![{alt}]({picture}){attributes}]({picture})"
    return f'<div class="scroll {kind}" markdown>\n\n{shown}\n\n</div>'
