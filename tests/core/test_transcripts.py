"""The stories in ``transcripts/``: commands and what they lead to, compared line by line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .transcript import run, stories

REWRITE = os.environ.get("KASSETTE_REWRITE_TRANSCRIPTS") == "1"


@pytest.mark.parametrize("story", list(stories()), ids=lambda path: str(path.stem))
def test_transcript(story: Path) -> None:
    """The machine would tell another story; KASSETTE_REWRITE_TRANSCRIPTS=1 writes it down."""
    told = run(story.read_text("utf-8"))
    if REWRITE:
        story.write_text(told, "utf-8")
    assert told == story.read_text("utf-8")


def test_there_are_stories() -> None:
    """An empty folder would pass."""
    assert len(list(stories())) >= 6
