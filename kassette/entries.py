"""The seven kinds of journal entry as immutable values; their encoding is in ``codec``.

Values from callers (a step's result, an event's payload, metadata) are stored as their JSON text
and decoded on every access. So an entry cannot be changed through a value that it returns, two
sessions never share an object, and a long journal only takes the memory of its text.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self, TypeAlias, TypeGuard, cast, final

from kassette.immutable import Immutable
from kassette.values import decode_value, encode_value, json_equal


@final
class Unset:
    """The type of UNSET, which means that an optional value was not given (None is a value)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""Means that an optional value was not given; None is a value."""


MAX_SESSION: Final = 2**53 - 1
"""The highest session number: the largest integer that every JSON parser reads exactly."""


class BaseEntry(Immutable, kw_only=True):
    """The fields that every entry has.

    ``session`` is the number of the session that wrote it, ``timestamp`` its ISO 8601 UTC instant,
    ``offset`` its position in the journal, counted from 0 (None until a storage has assigned it).
    ``extra_json`` is a JSON object of all other fields, unchanged: notes for people (see
    ``kassette.notes``), and fields that this version does not know.
    """

    type: ClassVar[str]

    session: int
    timestamp: str
    offset: int | None = None
    extra_json: bytes = b"{}"

    @property
    def extra(self) -> dict[str, Any]:
        """The fields that replay does not need, as a new dict."""
        return cast("dict[str, Any]", decode_value(self.extra_json))

    def at(self, offset: int) -> Self:
        """Return the same entry at ``offset``."""
        return self.replace(offset=offset)

    def in_session(self, session: int) -> Self:
        """Return the same entry as written by ``session``, without an offset."""
        return self.replace(session=session, offset=None)

    def _equals(self, other: Self) -> bool:
        for mine, theirs in zip(self._values(), other._values(), strict=True):
            if isinstance(mine, bytes) and isinstance(theirs, bytes):
                if mine != theirs and not json_equal(decode_value(mine), decode_value(theirs)):
                    return False
            elif mine != theirs:
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._equals(other)

    def __hash__(self) -> int:
        return hash((self.type, self.session, self.timestamp, self.offset))


@final
class ForkSource(Immutable, kw_only=True):
    """The source of a forked run: the entries of ``run_id`` before offset ``from_offset``."""

    run_id: str
    from_offset: int


@final
class StartEntry(BaseEntry, kw_only=True):
    """A session begins.

    ``version`` is the one that the caller passed, ``metadata_json`` is on the first entry of a run
    that has metadata, and ``source`` on the session that continues a fork; otherwise they are None.
    ``writer`` is a token unique to the session, which distinguishes two writers of the same session
    number. ``workflow`` is the name of the workflow, if the session runs one.
    """

    type: ClassVar[str] = "start"

    version: str | None = None
    writer: str | None = None
    workflow: str | None = None
    source: ForkSource | None = None
    metadata_json: bytes | None = None

    @property
    def metadata(self) -> Any:
        """The caller's metadata, as a new object; None if there is none (see ``metadata_json``)."""
        return None if self.metadata_json is None else decode_value(self.metadata_json)


@final
class StepEntry(BaseEntry, kw_only=True):
    """A step's result; ``step_id`` is the full name with its number, ``name`` without it."""

    type: ClassVar[str] = "step"

    step_id: str
    name: str
    result_json: bytes

    @classmethod
    def of(
        cls, *, session: int, timestamp: str, step_id: str, name: str, result: object
    ) -> StepEntry:
        """Return the entry for ``result``. Raise UsageError, naming the step, if it is not JSON."""
        result_json = encode_value(result, f"the result of step {step_id!r}")
        return cls(
            session=session,
            timestamp=timestamp,
            step_id=step_id,
            name=name,
            result_json=result_json,
        )

    @property
    def result(self) -> Any:
        """The recorded value, as a new object."""
        return decode_value(self.result_json)


@final
class SuspendEntry(BaseEntry, kw_only=True):
    """The session waits for event ``waiting_for``, until ``timeout`` (ISO 8601) if there is one.

    ``more`` means that it waits for further events, whose entries follow: without them the
    suspension is incomplete, and the run is not suspended.
    """

    type: ClassVar[str] = "suspend"

    reason: str
    waiting_for: str
    timeout: str | None = None
    more: bool = False


@final
class ResumeEntry(BaseEntry, kw_only=True):
    """Event ``event_name`` arrived with a payload."""

    type: ClassVar[str] = "resume"

    event_name: str
    value_json: bytes

    @classmethod
    def of(
        cls,
        *,
        session: int,
        timestamp: str,
        event_name: str,
        value: object,
        notes: bytes = b"{}",
    ) -> ResumeEntry:
        """Return the entry for ``value``. Raise UsageError, naming the event, if it is not JSON."""
        return cls(
            session=session,
            timestamp=timestamp,
            event_name=event_name,
            value_json=encode_value(value, f"the value of event {event_name!r}"),
            extra_json=notes,
        )

    @property
    def value(self) -> Any:
        """The payload, as a new object."""
        return decode_value(self.value_json)


@final
class CompleteEntry(BaseEntry, kw_only=True):
    """Terminal: the workflow returned; ``result_json`` is its result, if that is recorded."""

    type: ClassVar[str] = "complete"

    result_json: bytes | None = None

    @property
    def result(self) -> Any:
        """The workflow's result, as a new object; None if it is not recorded."""
        return None if self.result_json is None else decode_value(self.result_json)


@final
class ErrorEntry(BaseEntry, kw_only=True):
    """Terminal: the workflow raised; ``name`` is the exception's type, ``stack`` its traceback."""

    type: ClassVar[str] = "error"

    message: str
    name: str | None = None
    stack: str | None = None


@final
class CancelEntry(BaseEntry, kw_only=True):
    """Terminal: the run was cancelled."""

    type: ClassVar[str] = "cancel"

    reason: str | None = None


TerminalEntry: TypeAlias = CompleteEntry | ErrorEntry | CancelEntry
"""The entries that end a run."""
Entry: TypeAlias = (
    StartEntry | StepEntry | SuspendEntry | ResumeEntry | CompleteEntry | ErrorEntry | CancelEntry
)
"""Any journal entry."""

SUSPEND_TIMEOUT_EXPIRED: Final = "suspend_timeout_expired"
"""The reason in the cancel entry of a run whose deadline has passed."""


def is_terminal(entry: Entry) -> TypeGuard[TerminalEntry]:
    """Return whether ``entry`` ends a run: complete, error or cancel."""
    return isinstance(entry, (CompleteEntry, ErrorEntry, CancelEntry))
