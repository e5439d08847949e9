"""The words of ``kassette --help``; nothing is parsed here, and nothing imported."""

from __future__ import annotations

STATUSES = ("completed", "failed", "cancelled", "suspended", "unsettled", "unreadable")
"""The words for what a run is: the five states, and a journal that cannot be read."""

VERBS = {
    "list": (
        "give the id of every run",
        "On a terminal, a table. --status and --older-than choose runs; both read no more than\n"
        "the end of each journal in a file. --ids makes it a pipe, as for retention:\n\n"
        "  kassette list --status completed --older-than 30d --ids |\n"
        "    xargs -I{} rm -- .kassette/{}.jsonl\n\n"
        "A run without entries has no age, so --older-than leaves it out.",
    ),
    "status": (
        "tell what a run is doing, from its journal alone",
        "On a terminal, also why, what it waits for and until when, and what to do next.",
    ),
    "dump": (
        "give the entries of a run's journal",
        "In a pipe, the lines as the journal has them. A damaged file is given up to the damage,\n"
        "and then refused. --follow ends with the run, or when it is interrupted.",
    ),
    "timeline": (
        "tell who took how long: sessions, steps, events, and the gaps between",
        "A journal says when something ended. A step's time is counted from the entry before it,\n"
        "so of steps that ran beside one another it is the most that each can have taken.",
    ),
    "steps": (
        "give every point where a run can be forked, with the command to do it",
        "A fork replays what lies before the cut and does anew what follows, effects included.",
    ),
    "diff": (
        "tell where two runs part, by structure and by result",
        "Steps and events are found by their ids. One object for each difference, and one that\n"
        "sums up. Differences are no failure: the exit code is 0.",
    ),
    "fork": (
        "begin a new run with the first entries of another",
        "The only verb that writes. The old run is only read.",
    ),
    "check": ("prove that an object store keeps what journals rely on", ""),
    "completion": (
        "print a script that completes commands in a shell",
        '  eval "$(kassette completion bash)"            in ~/.bashrc\n'
        '  eval "$(kassette completion zsh)"             in ~/.zshrc, after compinit\n'
        "  kassette completion fish | source             in ~/.config/fish/config.fish",
    ),
}
"""What each verb does: in a line, and in more."""

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
