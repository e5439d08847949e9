"""The verbs: a file for each, and everything about that verb in it. Here is how they are found.

Every module of this package is a verb of its name. It has, in this order:

- ``PLACE``          where it stands in the help, between which others
- ``SUMMARY``, ``DESCRIPTION``  its words: in a line, and in more
- ``add_arguments(parser)``  what it takes
- ``async find(storage, arguments)``  the answer, as a value
- ``lines(found, arguments)``  that value as JSON lines, each of which ends in a newline
- ``view(found, arguments)``  that value as rich renderables

It may have more:

- ``find_to_view``   finds what ``view`` is given, where that is more than ``lines`` needs
- ``PROGRESS``       what a terminal says while something is found, if that takes a moment
- ``stream_lines(storage, arguments, stdout)``, ``stream_view(storage, arguments, console)``  in
  place of the three: for an answer that comes bit by bit
- ``prints_lines(arguments)``  whether lines are wanted on a terminal as well
- ``is_live(arguments)``  whether each line is written as soon as it is there
- ``WRITES``         whether it writes to the storage
- ``OFFERED``        what a shell offers behind an option of it

A verb that finds nothing, as it has neither ``find`` nor ``stream_lines``, needs no storage.

Start-up time is part of the product: a call imports its own verb and no other, and a verb's module
imports at its top what ``--help`` needs, and nothing that knows event loops or rich.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, final

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from types import ModuleType

    from kassette_cli.storage import OpenStorage


class View(Protocol):
    """Shows what was found."""

    def __call__(self, found: Any, arguments: Namespace, /) -> Iterable[Any]:
        """Return rich renderables."""
        ...


@final
class Verb:
    """A verb's module, with what it does not say filled in."""

    def __init__(self, name: str, module: ModuleType) -> None:
        said: Mapping[str, Any] = vars(module)
        self.name = name
        self.place: int = said["PLACE"]
        self.summary: str = said["SUMMARY"]
        self.description: str = said["DESCRIPTION"]
        self.add_arguments: Callable[[ArgumentParser], None] = said["add_arguments"]
        self.find = said.get("find")
        self.find_to_view = said.get("find_to_view", self.find)
        self.make_lines = said.get("lines")
        self.view: View | None = said.get("view")
        self.progress: str | None = said.get("PROGRESS")
        self.stream_lines = said.get("stream_lines")
        self.stream_view = said.get("stream_view")
        self.prints_lines: Callable[[Namespace], bool] = said.get("prints_lines", _never)
        self.is_live: Callable[[Namespace], bool] = said.get("is_live", _never)
        self.writes: bool = said.get("WRITES", False)
        self.offered: Mapping[str, Sequence[str]] = said.get("OFFERED", {})
        self.needs_storage = self.find is not None or self.stream_lines is not None

    def lines(
        self, arguments: Namespace, storage: OpenStorage | None, stdout: int
    ) -> Iterable[bytes]:
        """Do what the arguments ask, and return what is to be printed; ``stdout`` is where."""
        if self.stream_lines is not None:
            streamed: Iterable[bytes] = self.stream_lines(storage, arguments, stdout)
            return streamed
        assert self.make_lines is not None
        found: object = None
        if storage is not None and self.find is not None:
            from kassette_cli.storage import perform

            found = perform(storage, self.find, arguments)
        lines: Iterable[bytes] = self.make_lines(found, arguments)
        return lines


def names() -> list[str]:
    """Return the names of all verbs, in no order."""
    return [each for directory in __path__ for each in _names_in(directory)]


@cache
def _names_in(directory: str) -> list[str]:
    files = os.listdir(directory)  # noqa: PTH208 - pathlib is slow to import
    return [each[:-3] for each in files if each.endswith(".py") and not each.startswith("_")]


def load(name: str) -> Verb:
    """Return the verb of that name."""
    return Verb(name, import_module(f"{__name__}.{name}"))


def load_all(wanted: Iterable[str] | None = None) -> list[Verb]:
    """Return the verbs of these names, or all there are, in the order of the help."""
    return sorted(map(load, names() if wanted is None else wanted), key=lambda verb: verb.place)


def _never(_: Namespace) -> bool:
    return False
