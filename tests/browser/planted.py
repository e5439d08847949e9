"""Pages with one fault each, by which the checks show that they see; no checks here."""

from __future__ import annotations

from pathlib import Path

PAGE = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body>{}</body>'
LONG = "a_very_long_name_in_a_signature_" * 12

FAULTS = {
    "foreign": ('<img alt="" src="https://example.com/font.png">', "asks another host"),
    "console": ('<script>console.error("it broke")</script>', "logs an error: it broke"),
    "raising": ("<script>it_broke()</script>", "raises"),
    "missing": ('<img alt="" width="9" height="9" src="gone.png">', "is no picture"),
    "sideways": (f"<pre>{LONG}</pre>", "the page scrolls sideways"),
    "beyond": (f"<code>{LONG}</code>", "reaches beyond the screen"),
    "clipped": (f'<pre style="overflow: hidden">{LONG}</pre>', "is cut off"),
    "column": (f"<table><tr><td>a<td>{'word ' * 99}</table>", "is a column of"),
    "page": ('<a href="gone.html">there</a>', "links to no page"),
    "anchor": ('<a href="#gone">there</a>', "links to no anchor"),
}
"""The body of each page, and how the complaint begins that it must bring."""

SOUND = f'<p id="here"><a href="#here">a page</a><pre style="overflow: auto">{LONG}</pre>'
"""A page without a fault: what is too wide scrolls in a box of its own."""


def plant(directory: Path) -> None:
    """Write the pages."""
    for name, (body, _) in FAULTS.items():
        (directory / f"{name}.html").write_text(PAGE.format(body), "utf-8")
    (directory / "sound.html").write_text(PAGE.format(SOUND), "utf-8")
