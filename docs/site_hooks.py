"""The site shows what lies outside of ``docs/`` as well, and links lead there; for MkDocs."""

from __future__ import annotations

import re
from pathlib import Path
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

_LINK = re.compile(r"(?<=\]\()(?:\.\./|docs/)?([^)#:]+)(?=[)#])")

_CODE = re.compile(r"`[^`\n]+`")


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


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links between files of the repository into links between pages.

    A bar in the code of a table's cell has a backslash for GitHub, which MkDocs would show.
    """
    markdown = _CODE.sub(lambda code: code[0].replace(r"\|", "|"), markdown)
    return _LINK.sub(lambda link: OUTSIDE.get(link[1], link[1]), markdown)
