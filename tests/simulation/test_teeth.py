"""The simulator has to catch every broken variant of the real code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, caught_after, row

GUARANTEES = Path(__file__).parents[2] / "docs" / "guarantees.md"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_every_mutant_is_caught(mutant: Mutant) -> None:
    """Broken, the simulator would let this bug into a release, or the guarantees tell old figures.

    `python -m tests.simulation --teeth` prints the table.
    """
    schedules, promise = caught_after(mutant)
    assert schedules is not None
    assert row(mutant, schedules, promise) in GUARANTEES.read_text().splitlines()


def test_the_guarantees_list_every_mutant() -> None:
    """Broken, the page claims that bugs are caught which nobody plants any more."""
    listed = re.findall(r"^\| ([^|]+) \| \d+ \| `\w+` \|$", GUARANTEES.read_text(), re.MULTILINE)
    assert listed == [mutant.title for mutant in MUTANTS]
    assert len(listed) >= 15
