"""Which names are allowed, and how a step's full name is built; no counting, no state.

Rules:
- Run ids become file names and object keys: 1-200 characters of ``A-Z a-z 0-9 . _ - : @ +``, not
  starting with a dot.
- Step names are non-empty and contain no ``#``, which separates the occurrence number.
- Branch keys contain neither ``#`` nor ``:``, which separates the keys of a branch path.
- Every name can be encoded as UTF-8.
- A name of a class derived from ``str``, such as a ``(str, Enum)`` member, counts as its text.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from kassette.errors import UsageError

BranchPath: TypeAlias = tuple[str, ...]
"""The keys of the parallel branches around a call, outermost first; ``()`` outside of any."""

_RUN_ID = re.compile(r"[A-Za-z0-9_\-:@+][A-Za-z0-9._\-:@+]{0,199}")


def plain_text(text: str) -> str:
    """Return the text of an instance of ``str`` or of a class derived from it."""
    return text if type(text) is str else str.__str__(text)


def check_run_id(run_id: object) -> str:
    """Return ``run_id`` if it is valid, otherwise raise UsageError.

    A run id has 1 to 200 of the characters ``A-Z a-z 0-9 . _ - : @ +`` and does not start with a
    dot.
    """
    if not isinstance(run_id, str) or _RUN_ID.fullmatch(run_id) is None:
        raise UsageError(
            f"{run_id!r} is not a valid run id: use 1 to 200 of the characters "
            "A-Z a-z 0-9 . _ - : @ + and do not begin with a dot"
        )
    return plain_text(run_id)


def is_run_id(text: str) -> bool:
    """Return whether ``text`` is a valid run id, as in ``check_run_id``."""
    return _RUN_ID.fullmatch(text) is not None


def _check_text(kind: str, name: object, forbidden: str) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"{kind} must be a non-empty string, not {name!r}")
    for character in forbidden:
        if character in name:
            raise UsageError(f"{kind} must not contain {character!r}, which is reserved: {name!r}")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{kind} contains a lone surrogate and cannot be written: {name!r}"
            ) from None
    return plain_text(name)


def check_step_name(name: object) -> str:
    """Return ``name`` if it is a valid step name, otherwise raise UsageError."""
    return _check_text("a step name", name, "#")


def check_branch_key(key: object) -> str:
    """Return ``key`` if it is a valid branch key, otherwise raise UsageError."""
    return _check_text("a branch key", key, "#:")


def check_event_name(name: object) -> str:
    """Return ``name`` if it is a valid event name, otherwise raise UsageError."""
    return _check_text("an event name", name, "")


def check_label(kind: str, text: object) -> str:
    """Return ``text`` if it can be journaled as ``kind``, otherwise raise UsageError."""
    return _check_text(kind, text, "")


def full_step_name(path: BranchPath, name: str) -> str:
    """Join a branch path and a step name: ``("x", "y"), "search"`` is ``x:y:search``."""
    return ":".join((*path, name)) if path else name
