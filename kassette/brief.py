"""Quotes a value in a message: always short, and never raising."""

from __future__ import annotations

from reprlib import Repr

_BRIEF = Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


def brief(value: object) -> str:
    """Return the shortened repr of ``value``, or its type if repr fails, as for 10**5000."""
    try:
        return _BRIEF.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
