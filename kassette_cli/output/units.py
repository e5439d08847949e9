"""Durations, sizes and ages as text, and ages from text; no clock here."""

from __future__ import annotations

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE_DIGITS = 9
_KILO = 1000


def parse_age(text: str) -> int:
    """Parse ``30d``, ``12h``, ``45m``, ``10s`` or ``2w`` into seconds. Raise ValueError."""
    number, unit = text[:-1], text[-1:]
    if unit not in _AGES or not (number.isascii() and number.isdecimal()):
        raise ValueError(text)
    if len(number) > _AGE_DIGITS:
        raise ValueError(text)
    return int(number) * _AGES[unit]


def duration(seconds: float | None) -> str:
    """Format a duration with its two largest units: ``230 ms``, ``1.5 s``, ``3 min 20 s``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < _AGES["m"]:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for large, unit, small, subunit in (("d", "d", "h", "h"), ("h", "h", "m", "min")):
        if whole >= _AGES[large]:
            return _two(whole, _AGES[large], unit, _AGES[small], subunit)
    return _two(whole, _AGES["m"], "min", 1, "s")


def age(seconds: float | None) -> str:
    """Format an age with its largest unit, as ``--older-than`` accepts it: ``3d``, ``12h``."""
    if seconds is None:
        return ""
    largest = next((unit for unit in "dhm" if seconds >= _AGES[unit]), "s")
    return f"{int(seconds // _AGES[largest])}{largest}"


def size(count: int) -> str:
    """Format a number of bytes: ``812 B``, ``1.2 kB``, ``3.4 MB``."""
    if count < _KILO:
        return f"{count} B"
    value, unit = float(count), "B"
    for unit in ("kB", "MB", "GB"):  # noqa: B007 - the last one stays
        value /= _KILO
        if value < _KILO:
            break
    return f"{value:.1f} {unit}"


def _two(whole: int, large: int, unit: str, small: int, subunit: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {unit} {rest} {subunit}" if rest else f"{whole // large} {unit}"
