"""What a command line can be beside a command: a misuse, or a wish for help."""

from __future__ import annotations


class Misuse(Exception):
    """The command line is wrong, whatever the storage holds."""


class HelpWanted(Exception):
    """The command line asks for the help that this holds."""
