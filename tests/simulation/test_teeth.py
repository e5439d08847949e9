"""The simulator has to catch every broken variant of the real code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, caught_after, row

PAGE = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text("utf-8")


NEARBY = 1000
"""So many schedules before the one that catches a bug are tried."""


def documented(mutant: Mutant) -> int:
    """Return after how many schedules the page says that a bug is caught."""
    (found,) = re.findall(rf"^\| {re.escape(mutant.title)} \| (\d+) \|", PAGE, re.MULTILINE)
    return int(found)


RARE = [mutant for mutant in MUTANTS if documented(mutant) > NEARBY]


def check_caught(mutant: Mutant, first: int) -> None:
    schedules, promise = caught_after(mutant, first=first)
    assert schedules is not None
    assert row(mutant, schedules, promise) in PAGE.splitlines()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    """Broken, the simulator would let this bug into a release, or the guarantees tell old figures.

    `python -m tests.simulation --teeth` prints the table.
    """
    check_caught(mutant, max(0, documented(mutant) - NEARBY))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", RARE, ids=lambda mutant: mutant.title)
def test_a_rare_mutant_is_not_caught_before(mutant: Mutant) -> None:
    """Broken, the guarantees tell that a bug is rarer than it is."""
    check_caught(mutant, 0)


def test_the_guarantees_list_every_mutant() -> None:
    """Broken, the page claims that bugs are caught which nobody plants any more."""
    listed = re.findall(r"^\| ([^|]+) \| \d+ \| `\w+` \|$", PAGE, re.MULTILINE)
    assert listed == [mutant.title for mutant in MUTANTS]
    assert len(listed) >= 15
