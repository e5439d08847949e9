"""Declared types that are JSON: checked without pydantic, and never converted.

Rules:
- A value of such a type is journaled and read unchanged; the type only accepts or rejects it. A
  bool is not an int, an int counts as a float and stays an int, text is not a number, and a tuple
  is not a list.
- ``Any``, ``object`` and a type variable accept any JSON; ``dict`` and ``list`` hold any JSON.
- A TypedDict is a dict: undeclared keys are refused, and so are missing required ones.
  ``Iterable``, ``Sequence`` and ``Collection`` mean lists: an iterator can be read only once.
- pydantic checks constraints (``Annotated[int, Field(gt=0)]``) separately from the type, and must
  return the value unchanged.
- ``NotJson`` means that values of a type have to be encoded and decoded, which ``shapes`` does.
"""

from __future__ import annotations

import types
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    LiteralString,
    NoReturn,
    Union,
    cast,
    get_args,
    get_origin,
)

from kassette_io._values.type_forms import (
    is_annotated,
    is_anything,
    is_codec,
    is_dict,
    is_hashable,
    is_list,
    is_read_by_pydantic,
    is_typed_dict,
    spelled,
    typed_dict_fields,
    unwrap,
)

Check = Callable[[Any], None]
"""A function that raises Misfit for a value that is not of the type."""

LISTS: Final = frozenset({list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable})
DICTS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
_SAYS_NOTHING: Final = frozenset({"Strict", "Discriminator"})
_CONVERTING: Final = frozenset(
    {"pydantic.functional_validators", "pydantic.functional_serializers"}
)


class Misfit(Exception):
    """A part of a value does not match its declared type; ``path`` names the part.

    ``is_meant`` means that the value's tags say that this variant of a union is the right one.
    """

    def __init__(self, why: str, path: str = "", *, is_meant: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.path = path
        self.is_meant = is_meant

    def inside(self, step: str) -> Misfit:
        """Prepend ``step`` to the path and return the same error."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        return f"{self.path or 'it'} {self.why}"


class Changed(Misfit):
    """A value matches the type, but would not come back equal."""


class inside:
    """Context manager that prepends a step to the path of a misfit."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Misfit):
            error.inside(self._step)


class NotJson(Exception):
    """The type is not one of JSON's own."""


def anything(value: Any) -> None:
    """Accept any value; one that JSON cannot represent is found when it is written."""


def json_check(declared: Any) -> Check:
    """Return the check for values of ``declared``. Raise NotJson for a type that is not JSON."""
    return _Builder().check(declared)


class _Builder:
    """Compiles one declared type; ``_begun`` resolves types that contain themselves."""

    def __init__(self) -> None:
        self._begun: dict[Any, list[Check]] = {}

    def check(self, declared: Any) -> Check:
        simple = _SIMPLE.get(declared) if is_hashable(declared) else None
        if simple is not None:
            return simple
        unwrapped = unwrap(declared)
        if unwrapped is not declared:
            return self._once(declared, lambda: self.check(unwrapped))
        if is_anything(declared):
            return anything
        origin, arguments = get_origin(declared) or declared, get_args(declared)
        if is_typed_dict(origin):
            return self._once(declared, lambda: self._typed_dict(declared))
        if origin is Literal:
            return _literal(arguments)
        if origin in (Union, types.UnionType):
            return _union([self.check(each) for each in arguments], declared)
        if is_annotated(declared):
            return self._annotated(declared)
        if is_hashable(origin) and origin in LISTS:
            return _list(self.check(arguments[0]) if arguments else anything)
        if is_hashable(origin) and origin in DICTS:
            if not arguments:
                return _dict(anything, anything)
            return _dict(self._key(arguments[0]), self.check(arguments[1]))
        raise NotJson

    def _key(self, declared: Any) -> Check:
        """Return the check for keys, which are always text in JSON."""
        check, declared = self.check(declared), unwrap(declared)
        if check is anything or check is _text:
            return anything
        if get_origin(declared) is Literal and all(type(e) is str for e in get_args(declared)):
            return check
        raise NotJson

    def _once(self, declared: Any, build: Callable[[], Check]) -> Check:
        """Build the check of a type that may contain itself."""
        key = id(get_origin(declared) or declared), repr(declared)
        begun = self._begun.get(key)
        if begun is not None:
            return lambda value: begun[0](value)  # noqa: PLW0108 - it is not there yet
        built: list[Check] = []
        self._begun[key] = built
        built.append(build())
        return built[0]

    def _typed_dict(self, declared: Any) -> Check:
        fields, extra = typed_dict_fields(declared)
        checks = {key: self.check(each) for key, (each, _) in fields.items()}
        more = None if extra is None else self.check(extra)
        keys = Keys(declared, fields, more is not None)

        def check(value: Any) -> None:
            keys.check(value)
            for key, each in value.items():
                try:
                    (checks.get(key) or more or anything)(each)
                except Misfit as misfit:
                    raise keys.inside(misfit, key, value) from misfit.__cause__

        return check

    def _annotated(self, declared: Any) -> Check:
        base, *extras = get_args(declared)
        if any(map(is_codec, extras)):
            raise NotJson
        said = [each for each in extras if is_read_by_pydantic(each)]
        rules = constraints(said)
        if get_origin(base) not in LISTS - {list} and len(rules) < len(said):
            raise NotJson  # the rest converts
        constraint = constraint_of([each for some in rules for each in some])
        return _constrained(self.check(base), constraint)


def is_json(value: Any) -> bool:
    """Return whether ``value`` consists of exactly JSON's own types, not of subclasses."""
    kind = cast("Any", type(value))
    if is_dict(value):
        return all(type(key) is str and is_json(each) for key, each in value.items())
    if is_list(value):
        return all(map(is_json, value))
    return value is None or kind in (str, int, float, bool)


# --- checks -------------------------------------------------------------------------------


def refuse(value: object, expected: str) -> NoReturn:
    """Raise Misfit for a value of another kind than declared."""
    raise Misfit(f"is {described(value)}, but {expected} is declared")


def described(value: object) -> str:
    """Describe a value in a few words."""
    kind = type(value)
    if value is None or kind is bool:
        return repr(value)
    if kind in (str, int, float):
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "…'"
        return f"{'the text' if kind is str else 'the number'} {shown}"
    once = ", which can be read only once" if isinstance(value, abc.Iterator) else ""
    if kind.__module__ != "builtins":
        return f"a {kind.__module__}.{kind.__qualname__}{once}"
    named = {"dict": "an object (dict)", "list": "a list"}
    return named.get(kind.__name__, f"a {kind.__name__}{once}")


def _text(value: Any) -> None:
    if type(value) is not str:
        refuse(value, "str")


def _whole(value: Any) -> None:
    if type(value) is not int:
        refuse(value, "int")


def _number(value: Any) -> None:
    if type(value) is not float and type(value) is not int:
        refuse(value, "float")


def _yes_or_no(value: Any) -> None:
    if type(value) is not bool:
        refuse(value, "bool")


def _nothing(value: Any) -> None:
    if value is not None:
        refuse(value, "None")


_SCALARS: Final[dict[Check, tuple[type, ...]]] = {
    _text: (str,),
    _whole: (int,),
    _number: (float, int),
    _yes_or_no: (bool,),
    _nothing: (type(None),),
}


def _literal(allowed: tuple[Any, ...]) -> Check:
    if not all(type(each) in (str, int, bool, type(None)) for each in allowed):
        raise NotJson
    known = frozenset((cast("Any", type(each)), each) for each in allowed)

    def check(value: Any) -> None:
        if type(value) not in (str, int, bool, type(None)) or (type(value), value) not in known:
            refuse(value, " or ".join(map(repr, allowed)))

    return check


def _list(item: Check) -> Check:
    def check(value: Any) -> None:
        if not is_list(value):
            refuse(value, "a list")
        if item is anything:
            return
        place = 0
        try:
            for each in value:
                item(each)
                place += 1
        except Misfit as misfit:
            raise misfit.inside(f"[{place}]") from misfit.__cause__

    return check


def _dict(names: Check, item: Check) -> Check:
    def check(value: Any) -> None:
        if not is_dict(value):
            refuse(value, "a dict")
        if item is anything and names is anything:
            return
        for key, each in value.items():
            try:
                names(key)
                item(each)
            except Misfit as misfit:
                raise misfit.inside(f"[{key!r}]") from misfit.__cause__

    return check


class Keys:
    """The keys of a TypedDict, and the values that identify a dict as one of that type."""

    def __init__(self, declared: Any, fields: Mapping[str, tuple[Any, bool]], more: bool) -> None:
        self._name = spelled(declared)
        self._known = fields.keys()
        self._required = frozenset(key for key, (_, required) in fields.items() if required)
        self._more = more
        self._tags = {
            key: get_args(kind) for key, (kind, _) in fields.items() if get_origin(kind) is Literal
        }

    def check(self, value: Any) -> None:
        """Check that ``value`` is a dict with these keys."""
        if not is_dict(value):
            refuse(value, self._name)
        keys = value.keys()
        if not keys >= self._required:
            missing = ", ".join(map(repr, sorted(self._required - keys)))
            raise self._misfit(f"lacks {missing}, which {self._name} requires", value)
        if not self._more and not keys <= self._known:
            surplus = next(key for key in keys if key not in self._known)
            raise self._misfit(
                f"has the key {surplus!r}, which {self._name} does not declare", value
            )

    def inside(self, misfit: Misfit, key: str, value: dict[Any, Any]) -> Misfit:
        """Prepend ``key`` to the misfit's path and return the same error."""
        if self._tags:
            misfit.is_meant = self._marks(value)
        return misfit.inside(f"[{key!r}]")

    def _misfit(self, why: str, value: dict[Any, Any]) -> Misfit:
        return Misfit(why, is_meant=self._marks(value))

    def _marks(self, value: dict[Any, Any]) -> bool:
        found = [value[key] in tags for key, tags in self._tags.items() if key in value]
        return bool(found) and all(found)


def _union(variants: list[Check], declared: Any) -> Check:
    if anything in variants:
        return anything
    scalars = frozenset(kind for each in variants for kind in _SCALARS.get(each, ()))
    rest = [each for each in variants if each not in _SCALARS]
    expected = spelled(declared)

    def check(value: Any) -> None:
        if type(value) in scalars:
            return
        nearest: Misfit | None = None
        for each in rest:
            try:
                each(value)
            except Misfit as misfit:
                nearest = nearer(nearest, misfit)
            else:
                return
        if nearest is None or not (nearest.path or nearest.is_meant):
            refuse(value, expected)
        raise nearest

    return check


def nearer(one: Misfit | None, other: Misfit) -> Misfit:
    """Return the misfit of the intended variant: by its tags, or by the longer path."""
    if one is None or (other.is_meant and not one.is_meant):
        return other
    if one.is_meant and not other.is_meant:
        return one
    return other if other.path.count("[") > one.path.count("[") else one


def constraints(said: Sequence[Any]) -> list[list[Any]]:
    """Return the constraints in each of the extras; an empty list for one that converts.

    A description, an alias or a discriminator is not a constraint, and JSON is always strict.
    """
    rules: list[list[Any]] = []
    for each in said:
        package = type(each).__module__.partition(".")[0]
        if type(each).__module__ in _CONVERTING or package not in ("pydantic", "annotated_types"):
            continue
        demands = each.metadata if type(each).__name__ == "FieldInfo" else [each]
        rules.append([rule for rule in demands if type(rule).__name__ not in _SAYS_NOTHING])
    return rules


def constraint_of(rules: Sequence[Any]) -> Check | None:
    """Return a check by pydantic of ``rules``, for a value of any type; None without rules.

    pydantic does not check the type itself: it would turn lists into iterators and copy TypedDicts.
    """
    if not rules:
        return None
    from pydantic import TypeAdapter, ValidationError

    adapter: Any = TypeAdapter(Annotated[(Any, *rules)])

    def check(value: Any) -> None:
        if value is None:  # of an optional; the rules are for the other type
            return
        try:
            if adapter.validate_python(value) == value:
                return
        except ValidationError as error:
            raise Misfit(f"violates a constraint: {error.errors()[0]['msg']}") from error
        except Exception as error:
            raise Misfit(f"violates a constraint: {error}") from error
        raise Misfit("would be changed by its own constraints")

    return check


def _constrained(base: Check, constraint: Check | None) -> Check:
    if constraint is None:
        return base

    def check(value: Any) -> None:
        base(value)
        constraint(value)

    return check


_SIMPLE: Final[dict[Any, Check]] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: _yes_or_no,
    None: _nothing,
    type(None): _nothing,
    LiteralString: _text,
    Any: anything,
    object: anything,
}
