"""kassette commands as text to paste into a shell; nothing is run here."""

from __future__ import annotations

from shlex import quote


def command_line(url: str, verb: str, run_id: str, *options: str) -> str:
    """Format ``kassette --storage URL VERB RUN OPTIONS``, quoted for a shell.

    A run id that looks like an option comes last, after ``--``.
    """
    words = (run_id, *options) if not run_id.startswith("-") else (*options, "--", run_id)
    return " ".join(map(quote, ("kassette", "--storage", url, verb, *words)))
