"""Public text is plain English: no made-up words, no numbers of notes that readers do not have."""

import re
from pathlib import Path

import pytest

from tests.docs.words import AVOID, found, prose

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "skills/kassette/SKILL.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_uses_the_field_s_words(page: Path) -> None:
    """A reader would meet words that only this project knows, or a number of an internal note."""
    text = page.read_text("utf-8")
    assert [
        f"{page.name}:{each.line}: {each.word} -> {each.instead}" for each in found(prose(text))
    ] == []


def test_no_test_that_a_page_names_has_a_number_in_its_name() -> None:
    """The page of guarantees would send its reader to a note that nobody outside has."""
    named = [each for page in PAGES for each in re.findall(r"::(\w+)", page.read_text("utf-8"))]
    assert len(named) > 50
    assert [each for each in named if re.search(r"_d\d+_", each)] == []


def test_words_are_found_where_a_line_breaks_and_code_is_left_alone() -> None:
    """A phrase that goes over two lines would be let through, or a name in code be refused."""
    page = "It goes\non, says `goes on`.\n\n```text\ngoes on\n```\n\nSee (D13), [x](kept.md) and d4_x.\n"
    assert [(each.line, each.word) for each in found(prose(page))] == [
        (1, "goes\non"),
        (8, "D13"),
        (8, "d4_"),
    ]
    assert found("Cloudflare R2 and a workflow that depends on dated notes") == []


@pytest.mark.parametrize("pattern", AVOID)
def test_every_word_to_avoid_has_something_instead(pattern: str) -> None:
    """Somebody would be told not to use a word, and not what to write."""
    assert AVOID[pattern].strip()
