"""Words that public text avoids, and what it says instead: for pages, help, errors, docstrings.

Each entry of ``AVOID`` is a regular expression, matched without regard to case at the borders of
words, and the field's own words for what it stood for. ``INTERNAL`` finds numbers of design notes
that readers do not have. ``found`` looks for both; ``prose`` takes the code out of a page before.
"""

import re
from typing import NamedTuple

AVOID = {
    # words that this project made up, where the field has its own
    r"go(?:es|ing)? on|went on|gone on": "continue, resume, proceed",
    r"kept|keeps? (?:conditions|promises|rules)": "recorded, stored, honoured",
    r"settl(?:e[sd]?|ing)": "record the outcome, finish, end",
    r"park(?:s|ed|ing)?": "dead-letter, move to the dead-letter queue",
    r"tak(?:es?|en|ing) back|took back": "roll back, undo",
    r"in company": "concurrently, alongside other tasks",
    r"in peace": "without interruption",
    r"has no place|have no place": "is not expected, is not allowed here",
    r"(?:same|other) turns": "the same branches, other branches (deterministic)",
    r"to the side": "to a temporary file",
    r"heard? out|hears out": "wait for it to finish",
    r"lets? go of|letting go|let go": "release, close",
    r"look(?:s|ing)? on": "observe",
    r"takes? (?:it|them|a run|the run) up|taken up|taking up": "recover, continue",
    r"has teeth|teeth": "detects bugs",
    r"the house": "the project",
    # turns that no native engineer writes
    r"anew": "again, from scratch",
    r"shall": "should, must",
    r"mend(?:s|ed|ing)?": "fix",
    r"brought about|bring about": "caused",
    r"beside one another|beside each other": "concurrently",
    r"for good": "permanently",
    r"with your eyes": "human-readable",
    r"of other origin": "written by another tool",
    r"thrown? away": "discard",
    r"belongs into": "run it in",
    r"come by": "(say what does not happen)",
    r"in silence": "silently",
    r"as ever": "as usual",
    r"who took how long": "how long each session, step and wait took",
    r"wants? to be|ask(?:s|ed)? of you": "requires",
    r"in the way(?! that| of| in)": "should be deleted",
    r"does anew|do anew|done anew|do(?:es)? (?:it )?over": "re-run, repeat",
}

INTERNAL = r"(?<!Cloudflare )\b[DR]\d{1,2}\b|\bd\d{1,2}_"
"""``D13``, ``R2`` and the ``d4_`` of a test's name. Cloudflare's R2 is a product."""

_WORDS = re.compile(
    "|".join(f"(?P<_{at}>\\b(?:{each})\\b)" for at, each in enumerate(AVOID)).replace(" ", r"\s+"),
    re.IGNORECASE,
)
_INTERNAL = re.compile(INTERNAL)
_INSTEAD = list(AVOID.values())

_CODE = re.compile(
    r"^```.*?^```$|<!--.*?-->|`[^`]+`|(?<=\]\()[^)\s]+(?=\))|https://\S+",
    re.MULTILINE | re.DOTALL,
)
"""What a page holds besides prose: blocks, comments, inline code and the targets of links."""


class Offence(NamedTuple):
    """A word to avoid: its line from 1, the word, and what to write instead."""

    line: int
    word: str
    instead: str


def found(text: str) -> list[Offence]:
    """Return the words to avoid in a text, in the order of the text."""
    offences = [
        (match.start(), match[0], _INSTEAD[int((match.lastgroup or "_0")[1:])])
        for match in _WORDS.finditer(text)
    ]
    offences += [(m.start(), m[0], "say the rule") for m in _INTERNAL.finditer(text)]
    return [Offence(text.count("\n", 0, at) + 1, *rest) for at, *rest in sorted(offences)]


def prose(markdown: str) -> str:
    """Return a page with its code blanked out, so that lines stay where they are."""
    return _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), markdown)
