"""What people are shown is made of: parts of rich, loaded when the first is used, and our own.

Rules:
- The width is the console's: nothing is measured, cut or padded by hand.
- What is to be pasted stands on a line of its own, without a frame, and is never folded.
- A run id and a step id are never shortened, so that they can be copied.
- Text from journals goes through ``visible`` or ``on_one_line`` and is never parsed as markup.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kassette._lazy import lazy_names
from kassette_cli.output.escaping import on_one_line, visible
from kassette_cli.output.units import size

if TYPE_CHECKING:
    from rich.bar import Bar as Bar
    from rich.cells import chop_cells as chop_cells
    from rich.console import Group as Group, RenderableType
    from rich.panel import Panel as Panel
    from rich.rule import Rule as Rule
    from rich.segment import Segment as Segment
    from rich.style import Style as Style
    from rich.table import Table as Table
    from rich.text import Text as Text

__getattr__ = lazy_names(
    __name__,
    {
        "rich.bar": "Bar",
        "rich.cells": "chop_cells",
        "rich.console": "Group",
        "rich.panel": "Panel",
        "rich.rule": "Rule",
        "rich.segment": "Segment",
        "rich.style": "Style",
        "rich.table": "Table",
        "rich.text": "Text",
    },
)

STATUS_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "suspended": "yellow",
    "unsettled": "cyan",
    "unreadable": "bold red",
}
_PREVIEW = 800
_PREVIEW_LINES = 16
"""How much of a value is shown: characters and lines."""


def moment(timestamp: str | None) -> Text:
    """Show a journal's timestamp in UTC, to the second; as it stands if it is none."""
    from datetime import UTC

    from rich.text import Text

    from kassette.timestamps import parse_timestamp

    if timestamp is None:
        return Text("")
    try:
        instant = parse_timestamp(timestamp).astimezone(UTC)
    except (ValueError, OverflowError):
        return Text(on_one_line(timestamp))
    return Text(f"{instant:%Y-%m-%d %H:%M:%S}")


def to_paste(command: str) -> Group:
    """Show a command on one line, however long: a folded one could not be copied.

    In a group, as a console that prints a text by itself forgets how that is to be folded.
    """
    from rich.console import Group
    from rich.text import Text

    return Group(Text(on_one_line(command), style="bold", no_wrap=True, overflow="ignore"))


def value(decoded: Any) -> Text:
    """Show a JSON value, indented and coloured."""
    return _highlighted(json.dumps(decoded, indent=2, ensure_ascii=False))


def preview(value_json: bytes, *, full: bool = False) -> RenderableType:
    """Show a JSON value as ``value`` does, and cut short what would fill the screen."""
    from rich.console import Group
    from rich.text import Text

    from kassette.values import decode_value

    text = json.dumps(decode_value(value_json), indent=2, ensure_ascii=False)
    if full or (len(text) <= _PREVIEW and text.count("\n") < _PREVIEW_LINES):
        return _highlighted(text)
    kept = "\n".join(text[:_PREVIEW].split("\n", _PREVIEW_LINES)[:_PREVIEW_LINES])
    note = Text(f"… cut short, it is {size(len(value_json))}; dump --full shows it", style="dim")
    return Group(_highlighted(kept), note)


def counted(number: int | str, noun: str) -> str:
    """Write a number of things: ``1 step``, ``2 steps``."""
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"


def _highlighted(text: str) -> Text:
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    return JSONHighlighter()(Text(visible(text)))
