"""The seven kinds of journal entry as immutable values, complete at birth; no bytes of a line here.

Values that callers put into the journal (a step's result, an event's payload, metadata) are held as
the JSON text they are written as and decoded anew on every access. So an entry cannot be changed
through what it hands out, two sessions never share an object, and a long journal costs the memory
of its text alone.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self, TypeAlias, TypeGuard, cast, final

from kassette.immutable import Immutable
from kassette.values import decode_value, encode_value, json_equal


@final
class Unset:
    """The type of UNSET, which says that an optional value was not given (None is a value)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""Says that an optional value was not given; None is a value."""


MAX_SESSION: Final = 2**53 - 1
"""The highest session number: the last that every reader of JSON keeps exact."""


class BaseEntry(Immutable, kw_only=True):
    """What every entry has.

    ``session`` is the number of the session that wrote it, ``timestamp`` the ISO 8601 UTC instant,
    ``offset`` its position in the journal counted from 0 (None until storage assigned one), and
    ``extra_json`` an object of all other fields, kept as they were found: notes for people (see
    ``kassette.notes``), and what this version does not know.
    """

    type: ClassVar[str]

    session: int
    timestamp: str
    offset: int | None = None
    extra_json: bytes = b"{}"

    @property
    def extra(self) -> dict[str, Any]:
        """The fields that replay has no use for, decoded anew."""
        return cast("dict[str, Any]", decode_value(self.extra_json))

    def at(self, offset: int) -> Self:
        """Give the same entry at ``offset``."""
        return self.replace(offset=offset)

    def in_session(self, session: int) -> Self:
        """Give the same entry as written by ``session``, not yet at an offset."""
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
    """Where a forked run came from: the entries of ``run_id`` before offset ``from_offset``."""

    run_id: str
    from_offset: int


@final
class StartEntry(BaseEntry, kw_only=True):
    """A session begins.

    ``version`` is present where the caller gave one, ``metadata_json`` on the first entry of a run
    that has metadata, ``source`` on the session that continues a fork. ``writer`` is a token unique
    to the session: it tells two writers of the same session number apart (D5). ``workflow`` names
    the workflow that the session runs, where one does.
    """

    type: ClassVar[str] = "start"

    version: str | None = None
    writer: str | None = None
    workflow: str | None = None
    source: ForkSource | None = None
    metadata_json: bytes | None = None

    @property
    def metadata(self) -> Any:
        """The caller's metadata, decoded anew; None where there is none (see ``metadata_json``)."""
        return None if self.metadata_json is None else decode_value(self.metadata_json)


@final
class StepEntry(BaseEntry, kw_only=True):
    """A step's result; ``step_id`` is the full name with its number, ``name`` the name without."""

    type: ClassVar[str] = "step"

    step_id: str
    name: str
    result_json: bytes

    @classmethod
    def of(
        cls, *, session: int, timestamp: str, step_id: str, name: str, result: object
    ) -> StepEntry:
        """Record a value. Raises UsageError, naming the step, if JSON cannot hold it (D3)."""
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
        """The recorded value, decoded anew."""
        return decode_value(self.result_json)


@final
class SuspendEntry(BaseEntry, kw_only=True):
    """The session waits for event ``waiting_for``, until ``timeout`` (ISO 8601) if there is one.

    ``more`` says that it waits for further events, whose entries follow: without them the
    suspension is not whole, and the run not suspended.
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
        """Record a payload. Raises UsageError, naming the event, if JSON cannot hold it (D3)."""
        return cls(
            session=session,
            timestamp=timestamp,
            event_name=event_name,
            value_json=encode_value(value, f"the value of event {event_name!r}"),
            extra_json=notes,
        )

    @property
    def value(self) -> Any:
        """The payload, decoded anew."""
        return decode_value(self.value_json)


@final
class CompleteEntry(BaseEntry, kw_only=True):
    """Terminal: the workflow returned; ``result_json`` is what, where that is on record."""

    type: ClassVar[str] = "complete"

    result_json: bytes | None = None

    @property
    def result(self) -> Any:
        """What the workflow returned, decoded anew; None where it is not on record."""
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
"""The reason of a cancel entry that a passed deadline wrote."""


def is_terminal(entry: Entry) -> TypeGuard[TerminalEntry]:
    """Tell whether ``entry`` ends a run: complete, error or cancel."""
    return isinstance(entry, (CompleteEntry, ErrorEntry, CancelEntry))
