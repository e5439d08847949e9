"""The command line: what may be said; nothing is opened or looked up here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import NoReturn

from kassette_cli import manual

_COUNT_DIGITS = 18


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
        raise Misuse(f"say what to do: {', '.join(manual.VERBS)}; see kassette --help")
    if arguments.verb == "completion":
        return arguments
    if arguments.storage is None:
        arguments.storage = os.environ.get("KASSETTE_STORAGE") or None
    if arguments.storage is None:
        raise Misuse("which storage? Give --storage URL or set KASSETTE_STORAGE")
    return arguments


def _parser() -> _Parser:
    parser = _Parser(
        prog="kassette",
        description=manual.DESCRIPTION,
        epilog=manual.EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    _add_common(parser, storage=None, json=False)
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    add_verb = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs").add_parser

    _add_list(_add_verb(add_verb, "list"))
    _add_run(_add_verb(add_verb, "status"))
    dump = _add_verb(add_verb, "dump")
    _add_run(dump)
    dump.add_argument(
        "--offset", type=_count, default=0, metavar="N", help="from entry N on, counted from 0"
    )
    dump.add_argument(
        "--follow", action="store_true", help="go on with what is appended, until the run ends"
    )
    dump.add_argument("--full", action="store_true", help="cut no result short on a terminal")
    _add_run(_add_verb(add_verb, "timeline"))
    _add_run(_add_verb(add_verb, "steps"))
    diff = _add_verb(add_verb, "diff")
    diff.add_argument("run", metavar="RUN_A", help="one run's id")
    diff.add_argument("other", metavar="RUN_B", help="the other's")
    _add_fork(_add_verb(add_verb, "fork"))
    _add_verb(add_verb, "check")
    completion = _add_verb(add_verb, "completion")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    return parser


def _add_list(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("--limit", type=_count, metavar="N", help="at most N of them")
    listing.add_argument(
        "--status",
        type=_statuses,
        metavar="S[,S…]",
        help=f"only runs that are one of these: {', '.join(manual.STATUSES)}",
    )
    listing.add_argument(
        "--older-than",
        type=_age,
        metavar="AGE",
        help="only runs whose last entry is older: 45s, 30m, 12h, 30d or 2w",
    )
    listing.add_argument(
        "--ids", action="store_true", help="print bare run ids, one a line, for xargs"
    )


def _add_fork(fork: argparse.ArgumentParser) -> None:
    _add_run(fork)
    cut = fork.add_mutually_exclusive_group(required=True)
    cut.add_argument(
        "--from-offset", type=_count, metavar="N", help="keep the entries before offset N"
    )
    cut.add_argument("--from-step", metavar="ID", help="keep the entries before the step ID")
    fork.add_argument("--new-run-id", metavar="ID", help="the new run's id; a random one if absent")


def _add_verb(
    add_parser: Callable[..., argparse.ArgumentParser], name: str
) -> argparse.ArgumentParser:
    does, more = manual.VERBS[name]
    parser = add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.\n\n{more}".rstrip(),
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


def _statuses(text: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in manual.STATUSES:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(manual.STATUSES)}")
    return words


def _age(text: str) -> int:
    from kassette_cli.units import parse_age

    try:
        return parse_age(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an age; write 45s, 30m, 12h, 30d or 2w"
        ) from None
