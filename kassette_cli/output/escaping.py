"""Escapes text from journals and arguments, so that nothing in it controls the terminal."""

from __future__ import annotations

import re

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROLS}]")
_UNSAFE_IN_LINE = re.compile(rf"[\t\n{_CONTROLS}]")


def visible(text: str) -> str:
    """Escape control characters, bidirectional overrides and lone surrogates.

    Newlines and tabs are unchanged.
    """
    return _UNSAFE.sub(_escape, text)


def on_one_line(text: str) -> str:
    """Escape as ``visible`` does, and newlines and tabs as well."""
    return _UNSAFE_IN_LINE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
