r"""Journal lines: bytes to entries and back, distinguishing torn tails from damage; no files.

The format: one entry per line, compact JSON, ``\n`` at the end:

    {"type":"start","session":1,"offset":0,"timestamp":"2026-01-31T12:00:00.000Z","metadata":{"k":1}}
    {"type":"step","session":1,"offset":1,"timestamp":"…","stepId":"llm","name":"llm","result":"hi"}
    {"type":"suspend","session":1,"offset":2,"timestamp":"…","reason":"…","waitingFor":"approval"}
    {"type":"resume","session":2,"offset":4,"timestamp":"…","eventName":"approval","value":true}
    {"type":"complete","session":2,"offset":5,"timestamp":"…"}
    {"type":"error","session":2,"offset":5,"timestamp":"…","message":"…","name":"ValueError"}
    {"type":"cancel","session":2,"offset":5,"timestamp":"…","reason":"suspend_timeout_expired"}

Rules:
- ``offset``, if present, equals the line's position.
- A last line without ``\n`` is an append that never happened: readers skip it.
- Any other damage is a JournalCorruptionError with the line's number, counted from 1.
- ``session`` is at most ``MAX_SESSION``.
- A ``timeout`` is stored as written; ``timestamps`` interprets it.
- Unknown fields of known types are preserved. A type or field name never gets a second meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from reprlib import Repr
from types import MappingProxyType
from typing import Any, NoReturn, assert_never, cast, final

import orjson

from kassette.entries import (
    MAX_SESSION,
    CancelEntry,
    CompleteEntry,
    Entry,
    ErrorEntry,
    ForkSource,
    ResumeEntry,
    StartEntry,
    StepEntry,
    SuspendEntry,
)
from kassette.errors import JournalCorruptionError
from kassette.immutable import Immutable
from kassette.notes import is_begun_only
from kassette.values import decode_value, rewrite_value

_ENVELOPE = frozenset({"type", "session", "offset", "timestamp"})
_PLAIN_STEP_HEAD = len(_ENVELOPE) + len(("stepId", "name"))
_RESULT = b',"result":'
_BRACE = ord("}")
_STEP_ID = b',"stepId":'
_BEFORE_NOTES = re.compile(
    rb'\{"type":"step","session":[0-9]{1,16},"offset":[0-9]{1,16},"timestamp":"[^"\\]*",'
)
_AFTER_NOTES = re.compile(rb',"stepId":"[^"\\]*","name":"[^"\\]*"')
_BEFORE_BEGUN = len('{"startedAt":')
_BRIEF = Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80


@final
class Journal(Immutable, kw_only=True):
    """A decoded journal: its entries, and ``whole``, the number of bytes of its complete lines.

    Bytes past ``whole`` are a torn last line, which the next writer truncates.
    """

    entries: list[Entry]
    whole: int


def decode_journal(data: bytes, *, first_offset: int = 0) -> Journal:
    """Decode a journal, or the part of one that begins with entry ``first_offset``.

    Raise JournalCorruptionError for any damage except a torn last line.
    """
    entries: list[Entry] = []
    begin, offset = 0, first_offset
    while (end := data.find(b"\n", begin)) >= 0:
        step = _plain_step(data, begin, end, offset)
        entries.append(decode_line(data[begin:end], offset) if step is None else step)
        begin, offset = end + 1, offset + 1
    return Journal(entries=entries, whole=begin)


def decode_line(line: bytes, offset: int) -> Entry:
    """Decode the line at ``offset`` (counted from 0), passed without its newline.

    Raise JournalCorruptionError for a damaged line.
    """
    try:
        found = decode_value(line)
    except ValueError as error:
        _corrupt(offset, f"not JSON ({getattr(error, 'msg', error)})")
    if type(found) is not dict:
        _corrupt(offset, "not a JSON object")
    members = cast("dict[str, Any]", found)
    session = members.get("session")
    timestamp = members.get("timestamp")
    if type(session) is not int or not 0 <= session <= MAX_SESSION:
        _corrupt(offset, f"session is {_show(session)}, not a number from 0 to 2**53 - 1")
    if type(timestamp) is not str:
        _corrupt(offset, f"timestamp is {_show(timestamp)}, not text")
    position = members.get("offset", offset)
    if type(position) is not int or position != offset:
        _corrupt(offset, f"offset is {_show(position)}, expected {offset}")
    kind = members.get("type")
    build = _BUILDERS.get(kind) if type(kind) is str else None
    if build is None:
        _corrupt(offset, f"type is {_show(kind)}, not one of the seven entry types")
    try:
        return build(_Fields(members, line, offset))
    except RecursionError:
        _corrupt(offset, "nested too deeply")


def encode_entry(entry: Entry, offset: int) -> bytes:
    """Encode ``entry`` as the line at ``offset``, including the newline."""
    members: dict[str, Any] = {
        "type": entry.type,
        "session": entry.session,
        "offset": offset,
        "timestamp": entry.timestamp,
    }
    if is_begun_only(entry.extra_json):
        members["startedAt"] = orjson.Fragment(entry.extra_json[_BEFORE_BEGUN:-1])
    elif entry.extra_json != b"{}":
        members |= {key: _text(value) for key, value in entry.extra.items()}
    match entry:
        case StepEntry():
            members["stepId"] = entry.step_id
            members["name"] = entry.name
            members["result"] = orjson.Fragment(entry.result_json)
        case StartEntry():
            _put(members, version=entry.version, writer=entry.writer, workflow=entry.workflow)
            if entry.source is not None:
                members["source"] = {
                    "runId": entry.source.run_id,
                    "fromOffset": entry.source.from_offset,
                }
            if entry.metadata_json is not None:
                members["metadata"] = orjson.Fragment(entry.metadata_json)
        case SuspendEntry():
            _put(members, reason=entry.reason, waitingFor=entry.waiting_for, timeout=entry.timeout)
            if entry.more:
                members["more"] = True
        case ResumeEntry():
            members["eventName"] = entry.event_name
            members["value"] = orjson.Fragment(entry.value_json)
        case ErrorEntry():
            _put(members, message=entry.message, name=entry.name, stack=entry.stack)
        case CancelEntry():
            _put(members, reason=entry.reason)
        case CompleteEntry():
            if entry.result_json is not None:
                members["result"] = orjson.Fragment(entry.result_json)
        case _:
            assert_never(entry)
    try:
        return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return _encode_escaped(members)


def _encode_escaped(members: dict[str, Any]) -> bytes:
    """Encode a line with lone surrogates, as read from a journal written by JavaScript."""
    written = (rewrite_value(key) + b":" + rewrite_value(each) for key, each in members.items())
    return b"{" + b",".join(written) + b"}\n"


def _text(value: object) -> orjson.Fragment:
    return orjson.Fragment(rewrite_value(value))


def _put(members: dict[str, Any], **optional: str | None) -> None:
    members.update((key, value) for key, value in optional.items() if value is not None)


def _corrupt(offset: int, why: str) -> NoReturn:
    raise JournalCorruptionError(why, line=offset + 1)


def _show(value: object) -> str:
    """Quote the damaged part of a line, shortened, whatever its length and depth."""
    return _BRIEF.repr(value)


@final
class _Fields:
    """The members of one decoded line, taken with their types checked."""

    __slots__ = ("_line", "_members", "_offset", "_taken")

    def __init__(self, members: dict[str, Any], line: bytes, offset: int) -> None:
        self._members = members
        self._line = line
        self._offset = offset
        self._taken = set(_ENVELOPE)

    def envelope(self) -> dict[str, Any]:
        members = self._members
        unknown = members.keys() - self._taken
        return {
            "session": members["session"],
            "timestamp": members["timestamp"],
            "offset": self._offset,
            "extra_json": rewrite_value({key: members[key] for key in members if key in unknown})
            if unknown
            else b"{}",
        }

    def text(self, key: str) -> str:
        value = self.optional_text(key)
        if value is None:
            _corrupt(self._offset, f"{self._members['type']} entry without {key}")
        return value

    def optional_text(self, key: str) -> str | None:
        self._taken.add(key)
        value = self._members.get(key)
        if value is not None and type(value) is not str:
            _corrupt(self._offset, f"{key} is {_show(value)}, not text")
        return value

    def text_if_any(self, key: str) -> str | None:
        """Return the text; None for any other value, which another tool may have written."""
        value = self._members.get(key)
        if type(value) is not str:
            return None
        self._taken.add(key)
        return value

    def is_true(self, key: str) -> bool:
        """Return whether the value is ``true``; another tool may have written anything else."""
        found = self._members.get(key) is True
        if found:
            self._taken.add(key)
        return found

    def source(self) -> ForkSource | None:
        self._taken.add("source")
        match self._members.get("source"):
            case None:
                return None
            case {"runId": str(run_id), "fromOffset": int(from_offset)} if type(from_offset) is int:
                return ForkSource(run_id=run_id, from_offset=from_offset)
            case other:
                _corrupt(self._offset, f"source is {_show(other)}, not a run id and an offset")

    def payload(self, key: str) -> bytes:
        """Return a value as JSON text; JavaScript omits ``undefined``, which is null here."""
        raw = self.optional_payload(key)
        return b"null" if raw is None else raw

    def optional_payload(self, key: str) -> bytes | None:
        self._taken.add(key)
        if key not in self._members:
            return None
        return _slice(self._line, self._members, key) or rewrite_value(self._members[key])


def _plain_step(data: bytes, begin: int, end: int, offset: int) -> StepEntry | None:
    """Decode the line ``data[begin:end]`` if it is a step in this library's format, as most are.

    If the part before the first ``,"result":`` is an object once it is closed, and the part after
    it is a value once the last brace is removed, then the line is that object with that value as
    its last member; the parser itself proves both. Any other line, damaged or only unusual, is left
    to ``decode_line``.
    """
    cut = data.find(_RESULT, begin, end)
    if cut < 0 or data[end - 1] != _BRACE:
        return None
    result_json = data[cut + len(_RESULT) : end - 1]
    try:
        head = orjson.loads(data[begin:cut] + b"}")
        orjson.loads(result_json)
        position, session, timestamp = head["offset"], head["session"], head["timestamp"]
        step_id, name = head["stepId"], head["name"]
        if head["type"] != StepEntry.type:
            return None
        extra_json = b"{}"
        if len(head) != _PLAIN_STEP_HEAD:
            extra_json = _notes(data, begin, cut)
    except (ValueError, KeyError, TypeError):
        return None
    texts = type(step_id) is type(name) is type(timestamp) is str
    numbers = type(session) is type(position) is int
    if not texts or not numbers or not 0 <= session <= MAX_SESSION or position != offset:
        return None
    return StepEntry.of_fields(session, timestamp, offset, extra_json, step_id, name, result_json)


def _notes(data: bytes, begin: int, end: int) -> bytes:
    """Return the notes in the head of a step, which is an object once it is closed.

    Raise ValueError unless they are contiguous between the members of every entry and those of a
    step, and cannot contain such names themselves.
    """
    before = _BEFORE_NOTES.match(data, begin, end)
    behind = data.find(_STEP_ID, begin, end)
    if before is None or behind < before.end() or data.rfind(_STEP_ID, begin, end) != behind:
        raise ValueError("notes in another position")
    notes = data[before.end() : behind]
    if b"{" in notes or b"\\" in notes or not _AFTER_NOTES.fullmatch(data, behind, end):
        raise ValueError("notes that have to be decoded")
    return b"{" + notes + b"}"


def _slice(line: bytes, members: dict[str, Any], key: str) -> bytes | None:
    """Return the text of the value of ``key`` in the line, if that can be proved correct.

    That preserves the spelling of a value (``1.0`` or ``1e0``, escapes), which a fork copies.
    """
    marker = b',"%b":' % key.encode()
    if next(reversed(members)) != key or line.count(marker) != 1 or not line.endswith(b"}"):
        return None
    cut = line[line.index(marker) + len(marker) : -1]
    return cut if _reads_as(cut, members[key]) else None


def _reads_as(text: bytes, value: object) -> bool:
    try:
        return rewrite_value(decode_value(text)) == rewrite_value(value)
    except ValueError:
        return False


def _start(fields: _Fields) -> StartEntry:
    return StartEntry(
        version=fields.optional_text("version"),
        writer=fields.optional_text("writer"),
        workflow=fields.text_if_any("workflow"),
        source=fields.source(),
        metadata_json=fields.optional_payload("metadata"),
        **fields.envelope(),
    )


def _step(fields: _Fields) -> StepEntry:
    return StepEntry(
        step_id=fields.text("stepId"),
        name=fields.text("name"),
        result_json=fields.payload("result"),
        **fields.envelope(),
    )


def _suspend(fields: _Fields) -> SuspendEntry:
    return SuspendEntry(
        reason=fields.text("reason"),
        waiting_for=fields.text("waitingFor"),
        timeout=fields.optional_text("timeout"),
        more=fields.is_true("more"),
        **fields.envelope(),
    )


def _resume(fields: _Fields) -> ResumeEntry:
    return ResumeEntry(
        event_name=fields.text("eventName"),
        value_json=fields.payload("value"),
        **fields.envelope(),
    )


def _complete(fields: _Fields) -> CompleteEntry:
    return CompleteEntry(result_json=fields.optional_payload("result"), **fields.envelope())


def _error(fields: _Fields) -> ErrorEntry:
    return ErrorEntry(
        message=fields.text("message"),
        name=fields.optional_text("name"),
        stack=fields.optional_text("stack"),
        **fields.envelope(),
    )


def _cancel(fields: _Fields) -> CancelEntry:
    return CancelEntry(reason=fields.optional_text("reason"), **fields.envelope())


_BUILDERS: Mapping[str, Callable[[_Fields], Entry]] = MappingProxyType(
    {
        StartEntry.type: _start,
        StepEntry.type: _step,
        SuspendEntry.type: _suspend,
        ResumeEntry.type: _resume,
        CompleteEntry.type: _complete,
        ErrorEntry.type: _error,
        CancelEntry.type: _cancel,
    }
)
