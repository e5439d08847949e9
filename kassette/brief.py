"""How a value is quoted in a message: short, whatever it is, and never by raising."""

from __future__ import annotations

from reprlib import Repr

_BRIEF = Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


def brief(value: object) -> str:
    """Return the repr of ``value``, shortened; its type where that has none, like 10**5000."""
    try:
        return _BRIEF.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
