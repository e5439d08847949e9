"""Values as JSON lines, the contract that programs read: compact, one object a line, UTF-8."""

from __future__ import annotations

import orjson

import kassette
from kassette.values import rewrite_value


def run_line(run_id: str) -> bytes:
    """Write ``{"runId":"…"}``."""
    return orjson.dumps({"runId": run_id}, option=orjson.OPT_APPEND_NEWLINE)


def entry_line(entry: kassette.Entry) -> bytes:
    """Write an entry that a storage gave as the line it is in the journal."""
    if entry.offset is None:
        raise kassette.InternalError(f"a storage gave an entry without its offset: {entry!r}")
    return kassette.encode_entry(entry, entry.offset)


def json_line(value: object) -> bytes:
    """Write a JSON value that is made of plain Python ones."""
    return rewrite_value(value) + b"\n"
