"""The command line: what may be said; nothing is opened or looked up here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import NoReturn

_COUNT_DIGITS = 18
_EXAMPLES = """\
examples:
  kassette --storage file:.kassette list
  kassette --storage file:.kassette status run-abc
  kassette --storage file:.kassette dump run-abc --offset 7 | jq 'select(.type == "step")'
  kassette --storage file:.kassette fork run-abc --from-step 'llm#3'

The output is JSON, one object a line, unless it goes to a terminal.
Exit codes: 0 done, 1 the storage or the run says no, 2 the command line is wrong.
"""


class Misuse(Exception):
    """The command line is wrong, whatever the storage holds."""


class HelpWanted(Exception):
    """The command line asks for the help that this holds."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows its width without shutil, which argparse would import for every parser it makes."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = 0
        super().__init__(prog, width=(columns or 80) - 2)


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: object = None) -> NoReturn:
        raise HelpWanted(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise Misuse(f"{message}; see {self.prog} --help")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Give ``verb``, ``storage``, ``json`` and what the verb takes; ``argv`` None is the process's.

    ``storage`` falls back to KASSETTE_STORAGE. Raises Misuse or HelpWanted.
    """
    arguments = _parser().parse_args(argv)
    if arguments.version:
        return arguments
    if arguments.verb is None:
        raise Misuse("say what to do: list, status, dump, fork or check; see kassette --help")
    if arguments.storage is None:
        arguments.storage = os.environ.get("KASSETTE_STORAGE") or None
    if arguments.storage is None:
        raise Misuse("which storage? Give --storage URL or set KASSETTE_STORAGE")
    return arguments


def _parser() -> _Parser:
    parser = _Parser(
        prog="kassette",
        description="Look into the journals of durable runs, and fork them.",
        epilog=_EXAMPLES,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    _add_common(parser, storage=None, json=False)
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    add_verb = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs").add_parser

    listing = _add_verb(add_verb, "list", "give the id of every run")
    listing.add_argument("--limit", type=_count, metavar="N", help="at most N of them")

    status = _add_verb(add_verb, "status", "tell what a run is doing, from its journal alone")
    _add_run(status)

    dump = _add_verb(add_verb, "dump", "give the entries of a run's journal")
    _add_run(dump)
    dump.add_argument(
        "--offset", type=_count, default=0, metavar="N", help="from entry N on, counted from 0"
    )

    fork = _add_verb(add_verb, "fork", "begin a new run with the first entries of another")
    _add_run(fork)
    cut = fork.add_mutually_exclusive_group(required=True)
    cut.add_argument(
        "--from-offset", type=_count, metavar="N", help="keep the entries before offset N"
    )
    cut.add_argument("--from-step", metavar="ID", help="keep the entries before the step ID")
    fork.add_argument("--new-run-id", metavar="ID", help="the new run's id; a random one if absent")

    _add_verb(add_verb, "check", "prove that an object store keeps what journals rely on")
    return parser


def _add_verb(
    add_parser: Callable[..., argparse.ArgumentParser], name: str, does: str
) -> argparse.ArgumentParser:
    parser = add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    _add_common(parser, storage=argparse.SUPPRESS, json=argparse.SUPPRESS)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, storage: str | None, json: str | bool) -> None:
    """Add what may stand before the verb as well as after it."""
    parser.add_argument(
        "--storage",
        default=storage,
        metavar="URL",
        help="file:<path> or s3://<bucket>[/<prefix>]; KASSETTE_STORAGE is used if it is absent",
    )
    parser.add_argument(
        "--json", action="store_true", default=json, help="print JSON on a terminal, too"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's id")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _COUNT_DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
