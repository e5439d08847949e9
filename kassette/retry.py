"""When a failed attempt is tried again, and after how long; no waiting happens here."""

from __future__ import annotations

from math import inf, isnan
from typing import final

from kassette.errors import KassetteError, UsageError
from kassette.immutable import Immutable


@final
class Retry(Immutable):
    """A retry schedule; every duration is in seconds.

    ``max_attempts`` counts the first attempt. The wait after attempt *n* is
    ``delay * backoff_rate ** (n - 1)``, at most ``max_delay``. Only errors in ``retry_on`` are
    tried again, and never kassette's own: a suspension or a lost session is not a flaky call.

    Rule (D13): all attempts belong to one ``record()``; nothing is journaled before one succeeds.
    Raises UsageError for values that make no schedule.
    """

    max_attempts: int
    delay: float = 1.0
    backoff_rate: float = 1.0
    max_delay: float = inf
    retry_on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise UsageError(f"max_attempts is at least 1, not {self.max_attempts!r}")
        for name in ("delay", "backoff_rate", "max_delay"):
            value: object = getattr(self, name)
            if not isinstance(value, (int, float)) or not value >= 0:
                raise UsageError(f"{name} is a number of at least 0, not {value!r}")

    def delay_after(self, attempt: int, error: BaseException) -> float | None:
        """Give the seconds to wait after failed attempt ``attempt`` (from 1); None: give up."""
        if attempt >= self.max_attempts or isinstance(error, KassetteError):
            return None
        if not isinstance(error, self.retry_on):
            return None
        if self.delay == 0:
            return 0.0
        try:
            delay = self.delay * self.backoff_rate ** (attempt - 1)
        except OverflowError:
            return self.max_delay
        return min(self.delay if isnan(delay) else delay, self.max_delay)
