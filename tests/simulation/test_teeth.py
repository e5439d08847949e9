"""The simulator has to catch every broken variant of the real code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, caught_after

GUARANTEES = Path(__file__).parents[2] / "docs" / "guarantees.md"


def test_every_mutant_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """Broken, the simulator would let one of these bugs into a release.

    Prints for each how many schedules it took, from seed 0 on, and the promise that it broke.
    """
    rows = [(mutant, *caught_after(mutant)) for mutant in MUTANTS]
    with capsys.disabled():
        print()
        for mutant, schedules, promise in rows:
            print(f"{mutant.title:56} {schedules or 'missed':>7}  {promise}")
    assert [mutant.title for mutant, schedules, _ in rows if schedules is None] == []
    assert len(rows) >= 15


def test_the_guarantees_list_every_mutant() -> None:
    """Broken, the page claims that bugs are caught which nobody plants any more."""
    listed = re.findall(r"^\| ([^|]+) \| \d+ \| `\w+` \|$", GUARANTEES.read_text(), re.MULTILINE)
    assert listed == [mutant.title for mutant in MUTANTS]
