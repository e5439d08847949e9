"""The table of verbs, found by listing ``kassette_cli.verbs``; no verb is named here."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, final

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from types import ModuleType

    from rich.console import Console, RenderableType

    from kassette_cli.storage import OpenStorage


_VERBS = "kassette_cli.verbs"


class View(Protocol):
    """Renders what a verb found."""

    def __call__(self, found: Any, arguments: Namespace, /) -> Iterable[Any]:
        """Return rich renderables."""
        ...


@final
class Verb:
    """A verb's module, with defaults for the names it does not define."""

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
        self.code_of: Callable[[Any], int] = said.get("exit_code", _success)
        self.exit_code = 0
        self.needs_storage = self.find is not None or self.stream_lines is not None

    def shown(
        self, arguments: Namespace, storage: OpenStorage | None, console: Console
    ) -> Generator[RenderableType, None, None]:
        """Run the verb and yield what ``console`` has to print."""
        if self.stream_view is not None:
            yield from self.stream_view(storage, arguments, console)
            return
        from kassette_cli.output.terminal import reading
        from kassette_cli.storage import perform

        assert storage is not None
        assert self.find_to_view is not None
        assert self.view is not None
        with nullcontext() if self.progress is None else reading(self.progress, console):
            found = perform(storage, self.find_to_view, arguments)
        self.exit_code = self.code_of(found)
        yield from self.view(found, arguments)

    def lines(
        self, arguments: Namespace, storage: OpenStorage | None, stdout: int
    ) -> Iterable[bytes]:
        """Run the verb and return the lines to print to the file descriptor ``stdout``."""
        if self.stream_lines is not None:
            streamed: Iterable[bytes] = self.stream_lines(storage, arguments, stdout)
            return streamed
        assert self.make_lines is not None
        found: object = None
        if storage is not None and self.find is not None:
            from kassette_cli.storage import perform

            found = perform(storage, self.find, arguments)
        self.exit_code = self.code_of(found)
        lines: Iterable[bytes] = self.make_lines(found, arguments)
        return lines


def names() -> list[str]:
    """Return the names of all verbs, in no particular order."""
    package = import_module(_VERBS)
    return [each for directory in package.__path__ for each in _names_in(directory)]


@cache
def _names_in(directory: str) -> list[str]:
    files = os.listdir(directory)  # noqa: PTH208 - pathlib is slow to import
    return [each[:-3] for each in files if each.endswith(".py") and not each.startswith("_")]


def load(name: str) -> Verb:
    """Return the verb of that name."""
    return Verb(name, import_module(f"{_VERBS}.{name}"))


def load_all(wanted: Iterable[str] | None = None) -> list[Verb]:
    """Return the verbs with these names, or all verbs, in the order of the help."""
    return sorted(map(load, names() if wanted is None else wanted), key=lambda verb: verb.place)


def _never(_: Namespace) -> bool:
    return False


def _success(_: object) -> int:
    return 0
