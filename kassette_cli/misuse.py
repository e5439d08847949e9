"""The exceptions that parsing a command line raises: misuse, or a request for help."""

from __future__ import annotations


class Misuse(Exception):
    """The command line is wrong, whatever the storage contains."""


class HelpWanted(Exception):
    """The command line asks for help; the message is the help text."""
