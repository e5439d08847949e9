"""Values as JSON lines, the contract that programs read: compact, one object per line, UTF-8."""

from __future__ import annotations

import orjson

import kassette
from kassette.values import rewrite_value


def run_line(run_id: str) -> bytes:
    """Encode ``{"runId":"…"}``."""
    return orjson.dumps({"runId": run_id}, option=orjson.OPT_APPEND_NEWLINE)


def entry_line(entry: kassette.Entry) -> bytes:
    """Encode an entry that a storage returned as the line it is in the journal."""
    if entry.offset is None:
        raise kassette.InternalError(f"a storage returned an entry without an offset: {entry!r}")
    return kassette.encode_entry(entry, entry.offset)


def json_line(value: object) -> bytes:
    """Encode a JSON value that is made of plain Python objects."""
    return rewrite_value(value) + b"\n"
