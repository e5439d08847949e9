"""Draws the diagrams of the pages as SVG, so that the site needs no script from another host.

``python docs/diagrams.py MERMAID`` draws each ``mermaid`` block into ``docs/pictures/``, under a
name made of its text; ``MERMAID`` is the path of a ``mermaid.min.js``. It needs Playwright and a
Chromium, and ``nox -s pictures`` brings all of them. ``site_hooks.py`` puts the pictures into the
pages; a block that changed has none, and a test says so.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHROMIUM = "/usr/bin/chromium"
SETTINGS = {
    "startOnLoad": False,
    "theme": "neutral",
    "deterministicIds": True,
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False},
    "fontFamily": "system-ui, sans-serif",
}


def picture_of(source: str) -> Path:
    """Return where the picture of a diagram is, or belongs."""
    return PICTURES / f"diagram-{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def diagrams() -> dict[Path, str]:
    """Return the pictures that the pages need, and what each is drawn from."""
    return {
        picture_of(source): source
        for page in sorted(DOCS.glob("*.md"))
        for source in FENCE.findall(page.read_text("utf-8"))
    }


def draw(mermaid: Path) -> None:
    """Draw what is missing, and remove the pictures of diagrams that are gone."""
    from importlib import import_module

    wanted = diagrams()
    for stale in set(PICTURES.glob("diagram-*.svg")) - set(wanted):
        stale.unlink()
    with import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(path=str(mermaid))
        for path, source in wanted.items():
            svg = page.evaluate(
                "async ([settings, id, source]) => {"
                " mermaid.initialize(settings);"
                " return (await mermaid.render(id, source)).svg; }",
                [SETTINGS, path.stem, source],
            )
            path.write_text(f"{svg}\n", "utf-8")
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
