"""When a failed attempt is tried again, and after how long; no waiting happens here.

Rules (D13, R9):
- Only what ``retry_on`` names is tried again, and never kassette's own errors: a suspension or a
  lost session is not a flaky call.
- An error that says how long to wait, in an attribute ``retry_after`` (seconds or a timedelta), is
  believed instead of the schedule, up to ``max_delay``. Anything else there is not for us.
- Whatever is wrong with a predicate or an error's attributes, the step's own error is what the
  caller gets. A predicate that raises gives up, and a note on the error says why.
- What makes no schedule is refused when the schedule is made, not at the first failure.
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
"""Which errors are tried again: a type, some types, or a function that says so of an error."""

_MOST_ATTEMPTS = 2**63 - 1


@final
class Retry(Immutable):
    """A retry schedule; every duration is in seconds.

    ``max_attempts`` counts the first attempt. The wait after attempt *n* is
    ``delay * backoff_rate ** (n - 1)``, at most ``max_delay``; where the error has a
    ``retry_after`` (seconds or a timedelta) it is that, at most ``max_delay``.

    Only errors that ``retry_on`` names are tried again: a type, a tuple or list of types, or a
    function of the error that returns whether to (not an async one). Never kassette's own. If that
    function raises, the step fails with its own error.

    Rule (D13): all attempts belong to one ``record()``; nothing is journaled before one succeeds.
    Raises UsageError for values that make no schedule.
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
                f"max_attempts is a whole number of 1 to 2**63 - 1, not {brief(attempts)}"
            )
        for name in ("delay", "backoff_rate", "max_delay"):
            value: object = getattr(self, name)
            if _number(value) is None:
                raise UsageError(f"{name} is a number of at least 0, not {brief(value)}")
        retry_on: object = self.retry_on
        if isinstance(retry_on, list):
            object.__setattr__(self, "retry_on", tuple(cast("list[object]", retry_on)))
        _check_retry_on(self.retry_on)

    def delay_after(self, attempt: int, error: BaseException) -> float | None:
        """Return the seconds to wait after failed attempt ``attempt`` (from 1); None: give up."""
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
            error.add_note(f"not tried again: retry_on raised {brief(trouble)} when asked")
            return False


def _number(value: object) -> float | None:
    """Return a number of at least 0 that a float can hold, infinity too; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number >= 0 else None


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds that ``error`` asks to wait; None where it asks for nothing sensible."""
    try:
        asked: object = getattr(error, "retry_after", None)
    except Exception:  # a property of somebody's error; the error itself matters more
        return None
    seconds = _number(asked.total_seconds() if isinstance(asked, timedelta) else asked)
    return seconds if seconds is not None and isfinite(seconds) else None


def _check_retry_on(retry_on: object) -> None:
    if all(isinstance(each, type) and issubclass(each, Exception) for each in _each(retry_on)):
        return
    if not callable(retry_on) or isinstance(retry_on, type):
        raise UsageError(
            "retry_on is an Exception type, a tuple or list of them, or a function of an error "
            f"that returns a bool, not {brief(retry_on)}"
        )
    from inspect import iscoroutinefunction  # slow to import, and predicates are rare

    if iscoroutinefunction(retry_on) or iscoroutinefunction(getattr(retry_on, "__call__", None)):  # noqa: B004
        raise UsageError(
            f"retry_on is asked between two attempts and cannot be async, as {brief(retry_on)} is"
        )


def _each(value: object) -> tuple[object, ...]:
    return cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
