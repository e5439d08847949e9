"""Values of declared types: how they are journaled, and how they are decoded again.

The rule: a step returns what is decoded from the journal, live and on replay. So a value is written
only if decoding it returns an equal value.

The declared type decides whether it is JSON's own, the structure, how each part is checked, and how
a recorded value is decoded. The value decides the variant of a union, which fields of a provider's
answer were received, and whether all of it comes back. Nothing else counts: the journal holds no
class names, so a type can be moved and renamed, and reading a journal runs no code.

Where to look:
- ``annotations``  resolves a function's annotations
- ``type_forms``   the forms of declared types
- ``json_types``   types that are JSON: checked, never converted, without pydantic
- ``shapes``, ``containers``  the structure of other types, including unions
- ``compiling``    builds these from a declared type
- ``models``       pydantic's part; ``numbers``, ints in the place of floats there
- ``answers``      the models that SDKs build
- ``sameness``     whether the decoded value is the same as the original
- ``given``        JSON in the place of a typed value, new or delivered again

A value is encoded as its type declares, decoded from these bytes, and compared. If that fails, the
same is tried with models encoded field by field. If that fails too and the value is JSON, it is
treated as the journal's form of the type, like a webhook's body, and decoded; the result is encoded
as above and must be the same JSON (``given``). Otherwise it is refused, before anything is written.

The cost: for a type that is JSON's own, one check of each declared part, and nothing for ``Any``.
For any other type, one encoding, one decoding and one comparison in Python per new value; the step
returns the decoded value, so it is not decoded twice. On replay, one decoding.

A recorded value that no longer fits is an error of the deployment and not of the workflow: it is
raised to the caller, and the run stays open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, final
from weakref import WeakKeyDictionary

from kassette import UsageError, ValueRefusedError
from kassette.values import decode_value, encode_value, json_equal
from kassette_io._values.annotations import annotation, awaited, plainly, written
from kassette_io._values.json_types import (
    Changed,
    Check,
    Misfit,
    NotJson,
    anything,
    is_json,
    json_check,
)
from kassette_io._values.type_forms import is_codec, spelled

if TYPE_CHECKING:
    from kassette_io._values.shapes import Reading

T = TypeVar("T")


class ValueCodec(Protocol[T]):
    """A custom encoding of values, for ``result_type``, ``events`` and ``Annotated``.

    ``to_json`` returns JSON for a value, and ``from_json`` the value again: of the same type, equal
    to the original if its class defines equality, and encoded as the same JSON. The codec decides
    what else has to be preserved. Whatever the methods raise becomes a ValueRefusedError with that
    error as its cause.
    """

    def to_json(self, value: T, /) -> Any:
        """Return the JSON to journal for ``value``."""
        ...

    def from_json(self, plain: Any, /) -> T:
        """Return the value for the journaled JSON ``plain``."""
        ...


class Kept(NamedTuple):
    """A value that may be journaled: as ``plain`` JSON, which comes back as ``value``."""

    plain: Any
    value: Any


@final
class TypedValue:
    """One declared type, returned by ``typed_value`` and ``annotated_value``."""

    def __init__(self, declared: Any, check: Check | None) -> None:
        self._declared = declared
        self._check = check
        if check is None:
            from kassette_io._values.compiling import shape_of

            self._shape = shape_of(declared)

    def keep(self, value: Any, what: str) -> Kept | None:
        """Return how to journal ``value``; None if its type is JSON, to journal it unchanged.

        Raise ValueRefusedError, naming ``what`` and the path, if it is not of the declared type or
        would not come back equal.
        """
        if self._check is None:
            return self._kept(value, what)
        try:
            self._check(value)
        except Exception as error:
            raise self._refusal(error, what) from _cause(error)
        return None

    def to_plain(self, value: Any, what: str) -> Any:
        """Return the JSON that is journaled for ``value``. Raise what ``keep`` raises."""
        kept = self.keep(value, what)
        return value if kept is None else kept.plain

    def rebuild(self, raw: bytes, what: str) -> Any:
        """Return the value decoded from the journal's text ``raw``.

        Raise ValueRefusedError, naming ``what`` and the path, if it is not of the declared type.
        """
        return self.rebuild_decoded(decode_value(raw), what)

    def rebuild_decoded(self, plain: Any, what: str) -> Any:
        """Decode as ``rebuild`` does, from JSON that has already been parsed."""
        try:
            if self._check is None:
                return self._shape.load(plain, _reading())
            self._check(plain)
        except Exception as error:
            found = _found(error)
            raise ValueRefusedError(
                f"{what} as journaled does not fit its declared type {self.name}: {found}. The run "
                "stays open. If the type has changed, restore the type that fits and start the run "
                "again; or rename the step, or change the workflow's version"
            ) from _cause(error)
        return plain

    def is_same(self, given: Any, recorded: bytes, what: str) -> bool:
        """Return whether ``given`` is the same value as the journal's text ``recorded``.

        Raise ValueRefusedError if one of them is not of the declared type.
        """
        kept, plain = self.keep(given, what), decode_value(recorded)
        if kept is None:
            return json_equal(plain, given)
        from kassette_io._values.given import made_alike
        from kassette_io._values.sameness import difference

        plain = made_alike(given, kept.plain, kept.value, plain)
        if json_equal(plain, kept.plain):
            return True
        return difference(kept.value, self.rebuild_decoded(plain, what), loosely=True) is None

    @property
    def name(self) -> str:
        """The declared type, as in source code."""
        return (
            type(self._declared).__name__ if is_codec(self._declared) else spelled(self._declared)
        )

    def _kept(self, value: Any, what: str) -> Kept:
        try:
            try:
                return self._as_its_type(value, what)
            except Changed:
                raise
            except Exception:
                if not is_json(value):
                    raise
            return self._as_journaled(value, what)
        except Exception as error:  # from a user's validator or serializer, or a misfit
            raise self._refusal(error, what) from _cause(error)

    def _as_journaled(self, plain: Any, what: str) -> Kept:
        """Decode ``plain`` as the journal's form of the type."""
        from kassette_io._values.given import check_read

        kept = self._as_its_type(self._shape.load(plain, _reading(given=True)), what)
        check_read(plain, kept.plain, kept.value)
        return kept

    def _as_its_type(self, value: Any, what: str) -> Kept:
        try:
            return self._round_trip(value, what, fieldwise=False)
        except Exception as error:
            first = error
        try:
            return self._round_trip(value, what, fieldwise=True)
        except Exception as second:
            told = second if _path(second) else first
            raise told from _cause(told)

    def _round_trip(self, value: Any, what: str, *, fieldwise: bool) -> Kept:
        from kassette_io._values.sameness import difference
        from kassette_io._values.shapes import Reading, Writing

        writing, reading = Writing(fieldwise=fieldwise), Reading()
        plain = self._shape.dump(value, writing)
        again = self._shape.load(decode_value(encode_value(plain, what)), reading)
        found = difference(value, again, trusted=(writing.trusted, reading.trusted))
        if found is not None:
            raise Changed(found[1], found[0])
        return Kept(plain, again)

    def _refusal(self, error: Exception, what: str) -> ValueRefusedError:
        if isinstance(error, ValueRefusedError):
            return error
        return ValueRefusedError(
            f"{what} does not fit its declared type {self.name}: {_found(error)}. "
            "Nothing was written"
        )


def typed_value(declared: Any) -> TypedValue | None:
    """Return the adapter for a type or codec passed by the caller; None for any JSON.

    Raise UsageError if pydantic is needed and missing, or if the type cannot be decoded from JSON.
    """
    try:
        return _typed_value(declared)
    except ImportError as error:
        raise UsageError(
            f"{declared!r} needs pydantic to be rebuilt from JSON: "
            "pip install 'kassette-py[pydantic]'"
        ) from error
    except Exception as error:  # pydantic raises several unrelated classes for a bad type
        raise UsageError(
            f"{declared!r} cannot be rebuilt from JSON: {error}. Use another type, or pass a "
            "codec, an object with to_json and from_json"
        ) from error


def annotated_value(function: Callable[..., object], name: str) -> TypedValue | None:
    """Return the adapter for parameter ``name`` (or ``"return"``) as ``function`` annotates it.

    Return None for any JSON, and for a type that cannot be resolved or decoded: annotations are for
    people and type checkers first, so one that is useless here is not an error.
    """
    source, raw = written(function, name)
    if raw is Any:
        return None
    if isinstance(raw, str):
        plain = _of_plain_text(raw)
        if plain is not None:
            return plain[0]
    known = _ANNOTATED.setdefault(source, {})
    found = known.get(name)
    if found is None or found[0] is not raw:
        found = known[name] = raw, _of_annotation(source, name)
    return found[1]


_Adapters = dict[str, tuple[object, TypedValue | None]]
_ANNOTATED: WeakKeyDictionary[object, _Adapters] = WeakKeyDictionary()


@functools.lru_cache(maxsize=1024)
def _of_plain_text(text: str) -> tuple[TypedValue | None] | None:
    """Return the cached adapter for a text annotation that names only JSON's own types."""
    plain = plainly(text)
    return None if plain is None else (_typed_value(plain[0]),)


def _of_annotation(function: Callable[..., object], name: str) -> TypedValue | None:
    declared = annotation(function, name)
    if name == "return":
        declared = awaited(declared)
    try:
        return _typed_value(declared)
    except Exception:
        return None


def _typed_value(declared: Any) -> TypedValue | None:
    if is_codec(declared):
        return TypedValue(declared, None)
    try:
        if type(declared) is type:
            return _remembered(declared, "")
        # Unions that differ only in their order are equal, but not the same here.
        return _remembered(declared, repr(declared))
    except TypeError:  # an unhashable type is compiled each time, and reports its own errors
        return _compiled(declared)


def _compiled(declared: Any) -> TypedValue | None:
    try:
        check = json_check(declared)
    except NotJson:
        return TypedValue(declared, None)
    return None if check is anything else TypedValue(declared, check)


@functools.lru_cache(maxsize=1024)
def _remembered(declared: Any, spelling: str) -> TypedValue | None:
    """Return a compiled type from a bounded cache: types may be created while a program runs."""
    return _compiled(declared)


def _reading(*, given: bool = False) -> Reading:
    from kassette_io._values.shapes import Reading

    return Reading(given=given)


def _path(error: Exception) -> str:
    return error.path if isinstance(error, Misfit) else ""


def _found(error: Exception) -> str:
    if isinstance(error, (Misfit, ValueRefusedError)):
        return str(error)
    from kassette_io._values.shapes import said

    return said(error)


def _cause(error: Exception) -> BaseException:
    return error.__cause__ if isinstance(error, Misfit) and error.__cause__ else error
