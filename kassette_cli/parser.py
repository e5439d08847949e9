"""The command line's grammar and help; nothing is opened or looked up here.

A verb declares its arguments in its own file; this module has what all verbs share.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from kassette_cli.misuse import HelpWanted, Misuse
from kassette_cli.table import Verb, load_all, names

_COUNT_DIGITS = 18

DESCRIPTION = """\
Inspect the journals of durable runs, and fork them.

A run is one call of a workflow, across all of its crashes and sessions. Its journal
is an append-only JSON Lines file, and everything printed here comes from that file
alone. Only fork and check write, and no verb runs a workflow: your program does that.
"""

EPILOG = """\
states:
  completed    the workflow returned
  failed       the workflow raised; the journal has the message, type and traceback
  cancelled    the run was cancelled, for example because a deadline passed
  suspended    the run is waiting for an event; no process is needed meanwhile
  unsettled    running, crashed or abandoned: the journal cannot tell which. Starting it
               again never runs a recorded step twice: on a local disk a run that is
               still open is refused; on object storage the new session takes over
  unreadable   the journal cannot be read; only list has this state, and status and
               dump report the error

output:
  JSON, one object per line, in a pipe or with --json; on a terminal, formatted text.
  An error is one line on standard error.

exit codes:
  0    success
  1    the storage or the run refuses, or the output cannot be written
  2    the command line is wrong
  10…  debug only: the verdict, see kassette debug --help
  130  interrupted
  141  the reader closed the pipe (e.g. head)

environment:
  KASSETTE_STORAGE   the storage to use if --storage is absent
  NO_COLOR           disables colours, whatever its value
  AWS_…              the usual variables for s3://: profile, region, endpoint, credentials

examples:
  kassette --storage file:.kassette list --status failed,suspended
  kassette --storage file:.kassette debug run-abc
  kassette --storage file:.kassette pending
  kassette --storage file:.kassette dump run-abc --offset 7 | jq 'select(.type == "step")'
  kassette --storage file:.kassette steps run-abc
  kassette --storage file:.kassette fork run-abc --from-step 'llm#3'
  kassette --storage file:.kassette diff run-abc run-def
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """A formatter that finds its width without shutil, which is slow to import."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = 0
        super().__init__(prog, width=(columns or 80) - 2)


class Parser(argparse.ArgumentParser):
    """A parser that raises HelpWanted or Misuse where argparse would print and exit."""

    def print_help(self, file: object = None) -> NoReturn:
        """Raise HelpWanted."""
        raise HelpWanted(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raise Misuse."""
        raise Misuse(f"{message}; see {self.prog} --help")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return ``verb``, ``storage``, ``json`` and the verb's own arguments.

    ``argv`` defaults to ``sys.argv``, ``storage`` to KASSETTE_STORAGE. Raise Misuse or HelpWanted.
    Only verbs named in ``argv`` are imported, except for help and for an error message.
    """
    said = sys.argv[1:] if argv is None else argv
    known = frozenset(names())
    verbs = load_all(known.intersection(said))
    try:
        arguments = _parse(said, verbs)
    except (HelpWanted, Misuse):
        verbs = load_all(known)
        arguments = _parse(said, verbs)
    if arguments.version:
        return arguments
    if arguments.verb is None:
        every = ", ".join(each.name for each in load_all(known))
        raise Misuse(f"no verb given; choose one of {every}; see kassette --help")
    (verb,) = (each for each in verbs if each.name == arguments.verb)
    if not verb.needs_storage:
        return arguments
    if arguments.storage is None:
        arguments.storage = os.environ.get("KASSETTE_STORAGE") or None
    if arguments.storage is None:
        raise Misuse("no storage given; pass --storage URL or set KASSETTE_STORAGE")
    return arguments


def verb_parser(verb: Verb) -> Parser:
    """Return the parser for the arguments after a verb's name."""
    parser = Parser(f"kassette {verb.name}", **_looks(verb))
    _fill(parser, verb)
    return parser


def _parse(argv: Sequence[str], verbs: Sequence[Verb]) -> argparse.Namespace:
    parser = Parser(
        prog="kassette",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    add_common(parser, storage=None, json=False)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    add_parser = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs").add_parser
    for verb in verbs:
        _fill(add_parser(verb.name, help=verb.summary, **_looks(verb)), verb)
    return parser.parse_args(argv)


def _looks(verb: Verb) -> dict[str, Any]:
    summary = verb.summary
    return {
        "description": f"{summary[0].upper()}{summary[1:]}.\n\n{verb.description}".rstrip(),
        "formatter_class": _Formatter,
        "allow_abbrev": False,
    }


def _fill(parser: argparse.ArgumentParser, verb: Verb) -> None:
    add_common(parser, storage=argparse.SUPPRESS, json=argparse.SUPPRESS)
    verb.add_arguments(parser)


def add_common(parser: argparse.ArgumentParser, *, storage: str | None, json: str | bool) -> None:
    """Add the options that may come before or after the verb."""
    parser.add_argument(
        "--storage",
        default=storage,
        metavar="URL",
        help="file:<path> or s3://<bucket>[/<prefix>]; defaults to KASSETTE_STORAGE",
    )
    parser.add_argument(
        "--json", action="store_true", default=json, help="print JSON even on a terminal"
    )


def add_run(
    parser: argparse.ArgumentParser,
    name: str = "run",
    *,
    metavar: str = "RUN",
    help: str = "the run's id",
) -> None:
    """Add a required run id."""
    parser.add_argument(name, metavar=metavar, help=help, action=RunId)


class RunId(argparse.Action):
    """Stores a run id, to be checked after the whole command line has been parsed."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the id under its own name and append it to ``run_ids``."""
        setattr(namespace, self.dest, values)
        namespace.run_ids = (*getattr(namespace, "run_ids", ()), values)


def count(text: str) -> int:
    """Parse a non-negative whole number."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _COUNT_DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or greater")
    return int(text)
