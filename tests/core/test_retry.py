"""The retry schedule (D13): how often, after how long, and what is never tried again."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from kassette import FencedError, Retry, StorageError, SuspendError, UsageError


def _delays(retry: Retry, attempts: int) -> list[float | None]:
    return [retry.delay_after(attempt, ValueError()) for attempt in range(1, attempts + 1)]


def test_max_attempts_counts_the_first_one() -> None:
    """A step would be tried once more or once less than asked."""
    assert _delays(Retry(3), 4) == [1.0, 1.0, None, None]
    assert _delays(Retry(1), 1) == [None]


def test_the_delay_grows_by_the_rate_up_to_the_cap() -> None:
    """A service that is down would be hammered, or waited for without end."""
    retry = Retry(6, delay=0.5, backoff_rate=2, max_delay=3)
    assert _delays(retry, 6) == [0.5, 1.0, 2.0, 3.0, 3.0, None]
    assert _delays(Retry(3, delay=8, backoff_rate=0.5), 2) == [8, 4]
    assert _delays(Retry(3, delay=5, max_delay=2), 2) == [2, 2]


def test_a_delay_beyond_numbers_is_the_cap() -> None:
    """A long schedule would end in an OverflowError instead of a retry."""
    assert Retry(10_000, backoff_rate=10.0, max_delay=60).delay_after(5000, ValueError()) == 60


def test_only_errors_asked_for_are_tried_again() -> None:
    """A mistake in the code would be repeated as if it were a flaky call."""
    retry = Retry(3, retry_on=(ConnectionError, TimeoutError))
    assert retry.delay_after(1, ConnectionResetError()) == 1.0
    assert retry.delay_after(1, TimeoutError()) == 1.0
    assert retry.delay_after(1, ValueError()) is None


@pytest.mark.parametrize(
    "error", [SuspendError("ok"), FencedError(1, 2), StorageError("io"), UsageError("m")]
)
def test_kassettes_own_errors_are_never_tried_again(error: BaseException) -> None:
    """A suspension or a lost session would be repeated like a flaky call."""
    assert Retry(3, retry_on=(Exception, UsageError)).delay_after(1, error) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_d2_cancellation_is_not_tried_again(error: BaseException) -> None:
    """A process could not be stopped."""
    assert Retry(3).delay_after(1, error) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_attempts": True},
        {"max_attempts": 2.5},
        {"max_attempts": "3"},
        {"max_attempts": 3, "delay": -1},
        {"max_attempts": 3, "delay": nan},
        {"max_attempts": 3, "delay": "1"},
        {"max_attempts": 3, "backoff_rate": -1},
        {"max_attempts": 3, "backoff_rate": nan},
        {"max_attempts": 3, "max_delay": -1},
        {"max_attempts": 3, "max_delay": nan},
        {"max_attempts": 3, "max_delay": None},
    ],
)
def test_values_that_make_no_schedule_are_refused(fields: dict[str, Any]) -> None:
    """A mistyped schedule would be found out at the first failure, in the middle of a run."""
    with pytest.raises(UsageError):
        Retry(**fields)


durations = st.floats(min_value=0, allow_nan=False)


@example(5, 0.0, inf, 60.0, 2)
@example(5, inf, 0.0, inf, 2)
@given(st.integers(1, 100), durations, durations, durations, st.integers(1, 99))
def test_every_schedule_gives_a_delay_within_the_cap(
    attempts: int, delay: float, rate: float, cap: float, attempt: int
) -> None:
    """A delay would be negative, beyond the cap, or not a number (a sleep that never ends)."""
    retry = Retry(attempts, delay=delay, backoff_rate=rate, max_delay=cap)
    wait = retry.delay_after(attempt, ValueError())
    assert (wait is None) is (attempt >= attempts)
    assert wait is None or 0 <= wait <= cap


def test_no_delay_stays_no_delay() -> None:
    """A retry without delay would, after many attempts, wait for ever."""
    assert Retry(2000, delay=0, backoff_rate=10.0).delay_after(1999, ValueError()) == 0


def test_the_default_cap_is_none() -> None:
    """Long schedules would be cut short."""
    assert Retry(2).max_delay == inf
