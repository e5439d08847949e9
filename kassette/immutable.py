"""Immutable values: declared like dataclasses, but without generating code.

Why not ``dataclasses``: defining a frozen one with slots takes 0.7 ms, and the core has about
forty; that was half of the import time of kassette. Type checkers see dataclasses (PEP 681), and at
run time a value has slots, equality by type and fields, a hash, a repr, positional patterns for
``match``, and survives ``copy`` and ``pickle``.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

_REQUIRED = object()


class _ImmutableType(type):
    __fields__: tuple[str, ...]
    __field_defaults__: tuple[Any, ...]
    __setters__: tuple[Any, ...]
    __checked__: bool

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        kw_only: bool = False,
    ) -> _ImmutableType:
        annotations: dict[str, str] = namespace.get("__annotations__", {})
        own = [field for field, kind in annotations.items() if not kind.startswith("ClassVar")]
        defaults = [namespace.pop(field, _REQUIRED) for field in own]
        namespace["__slots__"] = tuple(own)
        inherited = next((base for base in bases if isinstance(base, _ImmutableType)), None)
        fields = (*(inherited.__fields__ if inherited else ()), *own)
        namespace["__match_args__"] = () if kw_only else fields
        cls = super().__new__(mcls, name, bases, namespace)
        cls.__fields__ = fields
        cls.__field_defaults__ = (*(inherited.__field_defaults__ if inherited else ()), *defaults)
        cls.__setters__ = tuple(getattr(cls, field).__set__ for field in fields)
        cls.__checked__ = hasattr(cls, "__post_init__")
        return cls


@dataclass_transform(frozen_default=True)
class Immutable(metaclass=_ImmutableType):
    """The base of every immutable value; ``kw_only=True`` in the class line as for dataclasses."""

    __fields__: ClassVar[tuple[str, ...]]
    __field_defaults__: ClassVar[tuple[Any, ...]]
    __setters__: ClassVar[tuple[Any, ...]]
    __checked__: ClassVar[bool]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        if kwargs or len(args) != len(cls.__fields__):
            args = _arrange(cls, args, kwargs)
        for assign, value in zip(cls.__setters__, args):  # noqa: B905 - checked above
            assign(self, value)
        if cls.__checked__:
            self.__post_init__()  # type: ignore[attr-defined]

    @classmethod
    def of_fields(cls, *values: Any) -> Self:
        """Create a value from all of its fields in order, without checks, for speed."""
        made = cls.__new__(cls)
        for assign, value in zip(cls.__setters__, values, strict=True):
            assign(made, value)
        return made

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        values = zip(self.__fields__, self._values(), strict=True)
        return type(self)(**{**dict(values), **changes})

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, field) for field in self.__fields__])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable; see replace()")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__fields__)
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _build, (type(self), self._values())


def _build(cls: type[Immutable], values: tuple[Any, ...]) -> Immutable:
    return cls.of_fields(*values)


def _arrange(
    cls: type[Immutable], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Return arguments and defaults in the order of the fields, or raise TypeError."""
    fields = cls.__fields__
    if len(args) > len(fields):
        raise TypeError(f"{cls.__name__} takes {len(fields)} values, {len(args)} were given")
    taken = len(args)
    values = [*args]
    used = 0
    for field, default in zip(fields[taken:], cls.__field_defaults__[taken:], strict=True):
        value = kwargs.get(field, _REQUIRED)
        if value is _REQUIRED:
            if default is _REQUIRED:
                raise TypeError(f"{cls.__name__} needs {field}")
            value = default
        else:
            used += 1
        values.append(value)
    if used != len(kwargs):
        unknown = [name for name in kwargs if name not in fields[taken:]]
        raise TypeError(f"{cls.__name__} takes no {', '.join(unknown)}, or takes it once only")
    return tuple(values)
