"""Building blocks of the terminal views: parts of rich, loaded on first use, and our own.

Rules:
- The width is the console's: nothing is measured, cut or padded by hand.
- A command to paste is on a line of its own, without a frame, and is never wrapped.
- A run id or step id is never shortened, so that it can be copied.
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
"""How much of a value a preview shows, in characters and in lines."""


def moment(timestamp: str | None) -> Text:
    """Show a journal's timestamp in UTC, to the second; unchanged if it is not a timestamp."""
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
    """Show a command on one line, however long: a wrapped one could not be copied.

    It is in a group because a console ignores the overflow mode of a text printed by itself.
    """
    from rich.console import Group
    from rich.text import Text

    return Group(Text(on_one_line(command), style="bold", no_wrap=True, overflow="ignore"))


def value(decoded: Any) -> Text:
    """Show a JSON value, indented and coloured."""
    return _highlighted(json.dumps(decoded, indent=2, ensure_ascii=False))


def preview(value_json: bytes, *, full: bool = False) -> RenderableType:
    """Show a JSON value as ``value`` does, shortened to about a screen unless ``full``."""
    from rich.console import Group
    from rich.text import Text

    from kassette.values import decode_value

    text = json.dumps(decode_value(value_json), indent=2, ensure_ascii=False)
    if full or (len(text) <= _PREVIEW and text.count("\n") < _PREVIEW_LINES):
        return _highlighted(text)
    kept = "\n".join(text[:_PREVIEW].split("\n", _PREVIEW_LINES)[:_PREVIEW_LINES])
    note = Text(f"… shortened ({size(len(value_json))}); dump --full shows it all", style="dim")
    return Group(_highlighted(kept), note)


def counted(number: int | str, noun: str, plural: str | None = None) -> str:
    """Format a number of things: ``1 step``, ``2 steps``; ``plural`` defaults to noun plus s."""
    return f"{number} {noun if str(number) == '1' else plural or f'{noun}s'}"


def _highlighted(text: str) -> Text:
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    return JSONHighlighter()(Text(visible(text)))
