"""Values of declared types: what the journal holds of them, and how they come back.

The rule (D3): what a step gives is rebuilt from what the journal holds, live and replayed. So a
value is written only if what will be rebuilt is the value that was given (D3.1).

What is decided from the declared type: whether it is JSON's own, the structure, which part is
judged by what, and how a recorded value is read. What is decided from the value: the variant of a
union, which fields of a provider's answer were received, and whether all of it comes back. Nothing
else: the journal holds no class names, so a type can be moved and renamed, and a journal runs no
code.

Where to look:
- ``annotations``  what a function's annotation says (D3.6)
- ``type_forms``   the forms that declared types come in
- ``json_types``   types that are JSON: checked, never converted, no pydantic (D3.1b, D3.2)
- ``shapes``, ``containers``  the structure of the others, unions among them
- ``compiling``    which of them a declared type is made of
- ``models``       pydantic's part; ``numbers``, ints that stand for floats there
- ``answers``      the models that SDKs build (D3.3)
- ``sameness``     whether what was rebuilt is what was given (D3.1)
- ``given``        JSON in the place of a typed value, new and delivered again (D3.1, D3.5)

A value is written as its type says, read back from these bytes, and compared. If that fails, once
more with models written field by field. If that fails and the value is JSON, it is taken for the
journal's form of the type, as a webhook's body is, and read; what that gives is written as above,
and has to be the JSON that was given (``given``). Or it is refused, before anything is written.

What it costs: of a type that is JSON's own, a look at each part that the type names, and nothing
for ``Any``. Of any other type, one writing, one reading and one comparison in Python for each new
value; the value that was read is the one that the step gives, so it is not read twice. On replay,
one reading.

A recorded value that no longer fits is an error of the deploy and not of the workflow: it goes to
the caller, and the run stays open (D3.4).
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
    """A way of one's own to keep values: for ``result_type``, ``events`` and ``Annotated``.

    ``to_json`` gives JSON for a value, ``from_json`` the value again: of the same type, equal to it
    if it has an equality, and written as the same JSON. What else counts as content is the codec's
    to say. Whatever they raise becomes a ValueRefusedError with its cause.
    """

    def to_json(self, value: T, /) -> Any:
        """Return what the journal shall hold of ``value``: JSON."""
        ...

    def from_json(self, plain: Any, /) -> T:
        """Return the value that ``plain``, as it was journaled, stands for."""
        ...


class Kept(NamedTuple):
    """A value that may be journaled: as ``plain`` JSON, which comes back as ``value``."""

    plain: Any
    value: Any


@final
class TypedValue:
    """One declared type. Made by ``typed_value`` and ``annotated_value``."""

    def __init__(self, declared: Any, check: Check | None) -> None:
        self._declared = declared
        self._check = check
        if check is None:
            from kassette_io._values.compiling import shape_of

            self._shape = shape_of(declared)

    def keep(self, value: Any, what: str) -> Kept | None:
        """Return how ``value`` is kept; None if it is JSON of a type that is, to be kept as it is.

        Raises ValueRefusedError, naming ``what`` and the path, if it is not of the declared type or
        would not come back as it is.
        """
        if self._check is None:
            return self._kept(value, what)
        try:
            self._check(value)
        except Exception as error:
            raise self._refusal(error, what) from _cause(error)
        return None

    def to_plain(self, value: Any, what: str) -> Any:
        """Return the JSON that ``value`` is kept as. Raises as ``keep`` does."""
        kept = self.keep(value, what)
        return value if kept is None else kept.plain

    def rebuild(self, raw: bytes, what: str) -> Any:
        """Return the value that the journal's text ``raw`` stands for.

        Raises ValueRefusedError, naming ``what`` and the path, if it is not of the declared type.
        """
        return self.rebuild_decoded(decode_value(raw), what)

    def rebuild_decoded(self, plain: Any, what: str) -> Any:
        """Do as ``rebuild`` for what the journal's text decodes to."""
        try:
            if self._check is None:
                return self._shape.load(plain, _reading())
            self._check(plain)
        except Exception as error:
            found = _found(error)
            raise ValueRefusedError(
                f"{what} as journaled does not fit its declared type {self.name}: {found}. The run "
                "stays open. If the type has changed, go back to the one that fits and start it "
                "again; or rename the step or bump the version"
            ) from _cause(error)
        return plain

    def is_same(self, given: Any, recorded: bytes, what: str) -> bool:
        """Tell whether ``given`` is what the journal's text ``recorded`` stands for (D3.5).

        Raises ValueRefusedError if one of them is not of the declared type.
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
        """The declared type, as its reader knows it."""
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
        except Exception as error:  # of a user's validator or serializer, or a misfit
            raise self._refusal(error, what) from _cause(error)

    def _as_journaled(self, plain: Any, what: str) -> Kept:
        """Take ``plain`` for the journal's form of the type."""
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
    """Return the adapter of a type or codec named by the caller; None for any JSON.

    Raises UsageError without pydantic installed, or for a type that cannot be rebuilt from JSON.
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
            f"{declared!r} cannot be rebuilt from JSON: {error}. Name a type that can, or pass a "
            "codec, an object with to_json and from_json"
        ) from error


def annotated_value(function: Callable[..., object], name: str) -> TypedValue | None:
    """Return the adapter of parameter ``name`` (or ``"return"``) as ``function`` annotates it.

    None where it is any JSON, or where it cannot be resolved or rebuilt: an annotation is written
    for people and type checkers first, so one that says nothing here is no mistake.
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
    """Remember the adapter of an annotation that is text and names JSON's own types alone."""
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
        # Unions that differ in their order are equal, and are not the same here.
        return _remembered(declared, repr(declared))
    except TypeError:  # what cannot be hashed is compiled each time, and reports its own errors
        return _compiled(declared)


def _compiled(declared: Any) -> TypedValue | None:
    try:
        check = json_check(declared)
    except NotJson:
        return TypedValue(declared, None)
    return None if check is anything else TypedValue(declared, check)


@functools.lru_cache(maxsize=1024)
def _remembered(declared: Any, spelling: str) -> TypedValue | None:
    """Remember a compiled type. Bounded: types may be made while a program runs."""
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
