"""Text from journals and arguments made safe to show: nothing in it may steer the terminal."""

from __future__ import annotations

import re

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROLS}]")
_UNSAFE_IN_LINE = re.compile(rf"[\t\n{_CONTROLS}]")


def visible(text: str) -> str:
    """Show control characters, bidirectional overrides and lone surrogates as escapes.

    Newlines and tabs stay.
    """
    return _UNSAFE.sub(_escape, text)


def on_one_line(text: str) -> str:
    """Do as ``visible``, for newlines and tabs as well."""
    return _UNSAFE_IN_LINE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
