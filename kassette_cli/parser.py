"""The command line: what may be said; nothing is opened or looked up here.

What a verb takes stands in its own file; here is what all of them share, and the help as a whole.
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
Look into the journals of durable runs, and fork them.

A run is what one call of a workflow does, over all of its crashes and sessions. Its
journal is an append-only file of JSON lines, and everything here is told from that
alone. Nothing but fork writes, and nothing runs a workflow: that is your program.
"""

EPILOG = """\
states:
  completed    it returned
  failed       it raised; the journal has message, type and traceback
  cancelled    it was cancelled, as when a deadline passed
  suspended    it waits for an event, and no process is needed meanwhile
  unsettled    it is running, or it crashed or was left: the journal cannot tell which.
               Starting it again is safe: a run that is open elsewhere refuses
  unreadable   its journal is damaged; a word for list, status and dump say what is wrong

output:
  JSON, one object a line, if it goes into a pipe or with --json; on a terminal, text
  for people. NO_COLOR turns off colours. An error is one line on standard error.

exit codes:
  0    done
  1    the storage or the run says no, or the output cannot be written
  2    the command line is wrong
  130  interrupted
  141  whoever read the output has gone, as in a pipe to head

environment:
  KASSETTE_STORAGE   the storage, where --storage does not name one
  NO_COLOR           no colours, whatever it is set to
  AWS_…              for s3:// as everywhere: profile, region, endpoint, credentials

examples:
  kassette --storage file:.kassette list --status failed,suspended
  kassette --storage file:.kassette status run-abc
  kassette --storage file:.kassette dump run-abc --offset 7 | jq 'select(.type == "step")'
  kassette --storage file:.kassette steps run-abc
  kassette --storage file:.kassette fork run-abc --from-step 'llm#3'
  kassette --storage file:.kassette diff run-abc run-def
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Knows its width without shutil, which argparse would import for every parser it makes."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = 0
        super().__init__(prog, width=(columns or 80) - 2)


class Parser(argparse.ArgumentParser):
    """Raises what it has to say, HelpWanted or Misuse."""

    def print_help(self, file: object = None) -> NoReturn:
        """Raise HelpWanted."""
        raise HelpWanted(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raise Misuse."""
        raise Misuse(f"{message}; see {self.prog} --help")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return ``verb``, ``storage``, ``json`` and what the verb takes; by default from ``sys.argv``.

    ``storage`` falls back to KASSETTE_STORAGE. Raises Misuse or HelpWanted. Only verbs whose names
    are said are imported, unless there is something to say about the command line.
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
        raise Misuse(f"say what to do: {every}; see kassette --help")
    (verb,) = (each for each in verbs if each.name == arguments.verb)
    if not verb.needs_storage:
        return arguments
    if arguments.storage is None:
        arguments.storage = os.environ.get("KASSETTE_STORAGE") or None
    if arguments.storage is None:
        raise Misuse("which storage? Give --storage URL or set KASSETTE_STORAGE")
    return arguments


def verb_parser(verb: Verb) -> Parser:
    """Return the parser of what stands behind a verb's name."""
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
    parser.add_argument("--version", action="store_true", help="print the version and leave")
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


def add_run(
    parser: argparse.ArgumentParser,
    name: str = "run",
    *,
    metavar: str = "RUN",
    help: str = "the run's id",
) -> None:
    """Add a run that has to be named."""
    parser.add_argument(name, metavar=metavar, help=help, action=RunId)


class RunId(argparse.Action):
    """Takes a run's id, which is checked once it is known that the command line can be read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the id, also as one of ``run_ids``."""
        setattr(namespace, self.dest, values)
        namespace.run_ids = (*getattr(namespace, "run_ids", ()), values)


def count(text: str) -> int:
    """Read a whole number of at least 0."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _COUNT_DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
