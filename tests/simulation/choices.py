"""Where a schedule's choices come from: a seed, or a script to be followed; nothing is decided.

Every choice is a small number, and 0 always stands for what is dull: no switch, no fault, the first
of several. So a schedule is a list of numbers, and a shorter or duller list is a simpler schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


class Choices:
    """Gives numbers, and remembers the ones it gave."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken: list[int] = []

    def chance(self, probability: float) -> bool:
        """Tell whether something happens that is as likely as ``probability``."""
        raise NotImplementedError

    def below(self, bound: int) -> int:
        """Give a number from 0 to ``bound - 1``."""
        raise NotImplementedError


class Seeded(Choices):
    """Choices drawn from a seed."""

    __slots__ = ("_draw",)

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = Random(seed).random

    def chance(self, probability: float) -> bool:
        happens = self._draw() < probability
        self.taken.append(1 if happens else 0)
        return happens

    def below(self, bound: int) -> int:
        chosen = int(self._draw() * bound)
        self.taken.append(chosen)
        return chosen


class Scripted(Choices):
    """Choices read from a list; where it ends, all is dull."""

    __slots__ = ("_script",)

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__()
        self._script = script

    def chance(self, probability: float) -> bool:
        return self.below(2) == 1

    def below(self, bound: int) -> int:
        at = len(self.taken)
        chosen = self._script[at] % bound if at < len(self._script) else 0
        self.taken.append(chosen)
        return chosen
