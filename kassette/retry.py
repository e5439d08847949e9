"""When a failed attempt is retried, and after how long; no waiting happens here.

Rules:
- Only errors that ``retry_on`` names are retried, and never kassette's own: a suspension or a lost
  session is not a transient failure.
- If the error has an attribute ``retry_after`` (seconds or a timedelta), that is the delay instead
  of the schedule's, up to ``max_delay``. Any other value of it is ignored.
- Whatever is wrong with a predicate or an error's attributes, the caller gets the step's own error.
  If a predicate raises, there is no retry, and a note on the error says why.
- An invalid schedule is refused when it is created, not at the first failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from math import inf, isfinite, isnan
from typing import TypeAlias, cast, final

from kassette.brief import brief
from kassette.errors import KassetteError, UsageError
from kassette.immutable import Immutable

RetryOn: TypeAlias = type[Exception] | Sequence[type[Exception]] | Callable[[Exception], bool]
"""Which errors are retried: a type, several types, or a predicate on the error."""

_MOST_ATTEMPTS = 2**63 - 1


@final
class Retry(Immutable):
    """A retry schedule with exponential backoff; every duration is in seconds.

    ``max_attempts`` includes the first attempt. The delay after attempt *n* is
    ``delay * backoff_rate ** (n - 1)``, at most ``max_delay``. If the error has an attribute
    ``retry_after`` (seconds or a timedelta), the delay is that, at most ``max_delay``.

    ``retry_on`` is an exception type, a tuple or list of types, or a sync function that takes the
    error and returns whether to retry. kassette's own errors are never retried. If the function
    raises, the step fails with its own error.

    All attempts belong to one step; nothing is journaled before one of them succeeds. Raise
    UsageError for invalid values.
    """

    max_attempts: int
    delay: float = 1.0
    backoff_rate: float = 1.0
    max_delay: float = inf
    retry_on: RetryOn = (Exception,)

    def __post_init__(self) -> None:
        attempts: object = self.max_attempts
        if type(attempts) is not int or not 1 <= attempts <= _MOST_ATTEMPTS:
            raise UsageError(
                f"max_attempts must be a whole number from 1 to 2**63 - 1, not {brief(attempts)}"
            )
        for name in ("delay", "backoff_rate", "max_delay"):
            value: object = getattr(self, name)
            if _number(value) is None:
                raise UsageError(f"{name} must be a number, 0 or greater, not {brief(value)}")
        retry_on: object = self.retry_on
        if isinstance(retry_on, list):
            object.__setattr__(self, "retry_on", tuple(cast("list[object]", retry_on)))
        _check_retry_on(self.retry_on)

    def delay_after(self, attempt: int, error: BaseException) -> float | None:
        """Return the delay in seconds after failed attempt ``attempt`` (from 1), or None."""
        if attempt >= self.max_attempts or not self._is_for(error):
            return None
        asked = _retry_after(error)
        return min(self._scheduled(attempt) if asked is None else asked, self.max_delay)

    def _scheduled(self, attempt: int) -> float:
        delay = float(self.delay)
        if delay == 0:
            return 0.0
        try:
            scheduled = delay * float(self.backoff_rate) ** (attempt - 1)
        except OverflowError:
            return inf
        return delay if isnan(scheduled) else scheduled

    def _is_for(self, error: BaseException) -> bool:
        if not isinstance(error, Exception) or isinstance(error, KassetteError):
            return False
        retry_on: object = self.retry_on
        if isinstance(retry_on, (tuple, type)):
            return isinstance(error, cast("tuple[type[Exception], ...]", retry_on))
        try:
            return bool(cast("Callable[[Exception], bool]", retry_on)(error))
        except Exception as trouble:
            error.add_note(f"not retried: retry_on raised {brief(trouble)}")
            return False


def _number(value: object) -> float | None:
    """Return a non-negative number as a float, infinity included; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number >= 0 else None


def _retry_after(error: BaseException) -> float | None:
    """Return the delay in seconds that ``error`` requests; None without a valid one."""
    try:
        asked: object = getattr(error, "retry_after", None)
    except Exception:  # a property of the error raises; the error itself matters more
        return None
    seconds = _number(asked.total_seconds() if isinstance(asked, timedelta) else asked)
    return seconds if seconds is not None and isfinite(seconds) else None


def _check_retry_on(retry_on: object) -> None:
    if all(isinstance(each, type) and issubclass(each, Exception) for each in _each(retry_on)):
        return
    if not callable(retry_on) or isinstance(retry_on, type):
        raise UsageError(
            "retry_on must be an Exception type, a tuple or list of them, or a function that takes "
            f"the error and returns a bool, not {brief(retry_on)}"
        )
    from inspect import iscoroutinefunction  # slow to import, and predicates are rare

    if iscoroutinefunction(retry_on) or iscoroutinefunction(getattr(retry_on, "__call__", None)):  # noqa: B004
        raise UsageError(f"retry_on must be a sync function, but {brief(retry_on)} is async")


def _each(value: object) -> tuple[object, ...]:
    return cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
