"""The retry schedule (D13): how often, after how long, and what is never tried again."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
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
        {"max_attempts": 2**63},
        {"max_attempts": -(10**5000)},
        {"max_attempts": 3, "delay": True},
        {"max_attempts": 3, "delay": 10**400},
        {"max_attempts": 3, "backoff_rate": 10**5000},
        {"max_attempts": 3, "max_delay": Decimal(3)},
    ],
)
def test_values_that_make_no_schedule_are_refused(fields: dict[str, Any]) -> None:
    """A mistyped schedule would be found out at the first failure, in the middle of a run."""
    with pytest.raises(UsageError, match=next(reversed(fields))):
        Retry(**fields)


def test_r9_whole_numbers_never_overflow() -> None:
    """The schedule's own OverflowError would take the place of the step's error, and fail the run."""
    retry = Retry(2000, delay=1, backoff_rate=2, max_delay=30)
    assert [retry.delay_after(each, ValueError()) for each in (1024, 1025, 1026, 1999)] == [30] * 4
    forever = Retry(2**63 - 1, delay=10**300, backoff_rate=10**300, max_delay=60)
    assert forever.delay_after(2**63 - 2, ValueError()) == 60
    assert forever.replace(delay=1, backoff_rate=0.5).delay_after(2**63 - 2, ValueError()) == 0


def _flaky(error: Exception) -> bool:
    return "again" in str(error)


class _Asked:
    def __call__(self, error: Exception) -> bool:
        return _flaky(error)


@pytest.mark.parametrize("retry_on", [_flaky, _Asked(), _Asked().__call__])
def test_r9_a_predicate_says_what_is_tried_again(retry_on: Any) -> None:
    """What is flaky is often known by an error's status, not by its type."""
    retry = Retry(3, retry_on=retry_on)
    assert retry.delay_after(1, ValueError("again")) == 1.0
    assert retry.delay_after(1, ValueError("never")) is None
    assert retry.delay_after(3, ValueError("again")) is None


def test_r9_a_predicate_is_not_asked_about_kassettes_errors_nor_exits() -> None:
    """A lost session or Ctrl-C would be tried again, because somebody's function says yes."""
    retry = Retry(3, retry_on=lambda _: True)
    for error in (StorageError("io"), SuspendError("ok"), KeyboardInterrupt()):
        assert retry.delay_after(1, error) is None


def test_r9_a_predicate_that_raises_gives_up_and_says_so() -> None:
    """A bug in the predicate would hide why the step failed."""
    error = ValueError("busy")
    retry = Retry(3, retry_on=lambda error: error.status == 429)  # type: ignore[attr-defined]
    assert retry.delay_after(1, error) is None
    assert ["AttributeError" in note for note in error.__notes__] == [True]


@pytest.mark.parametrize("kind", [tuple, list])
def test_r9_types_come_one_by_one_or_several_together(kind: Any) -> None:
    """A list of types would become a TypeError at the first failure, in the middle of a run."""
    several = Retry(3, retry_on=kind([ConnectionError, TimeoutError]))
    assert several == Retry(3, retry_on=(ConnectionError, TimeoutError))
    assert hash(several) == hash(Retry(3, retry_on=(ConnectionError, TimeoutError)))
    assert several.delay_after(1, TimeoutError()) == 1.0
    assert several.delay_after(1, ValueError()) is None
    one = Retry(3, retry_on=OSError)
    assert one.delay_after(1, ConnectionError()) == 1.0
    assert one.delay_after(1, ValueError()) is None
    assert Retry(3, retry_on=kind()).delay_after(1, ValueError()) is None


async def _asks(error: Exception) -> bool:
    return True


class _AsksLater:
    async def __call__(self, error: Exception) -> bool:
        return True


@pytest.mark.parametrize(
    "retry_on",
    [
        "ConnectionError",
        ["ConnectionError"],
        None,
        3,
        ConnectionError(),
        (ConnectionError, "TimeoutError"),
        [ConnectionError, _flaky],
        (ConnectionError, (TimeoutError,)),
        int,
        object,
        BaseException,
        (ConnectionError, KeyboardInterrupt),
        SuspendError,
        ConnectionError | TimeoutError,
        {ConnectionError: True},
        _asks,
        _AsksLater(),
        _AsksLater().__call__,
    ],
)
def test_r9_what_names_no_errors_is_refused(retry_on: Any) -> None:
    """The first failure would become a TypeError that fails the run."""
    with pytest.raises(UsageError, match="retry_on"):
        Retry(3, retry_on=retry_on)


class _BusyError(Exception):
    def __init__(self, retry_after: Any) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


class _Broken(Exception):
    @property
    def retry_after(self) -> float:
        raise RuntimeError


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (7, 7.0),
        (0.25, 0.25),
        (0, 0.0),
        (timedelta(seconds=9), 9.0),
        (3600, 20.0),
        (timedelta(days=1), 20.0),
        (10**30, 20.0),
    ],
)
def test_r9_an_error_says_how_long_to_wait_up_to_the_cap(asked: Any, waited: float) -> None:
    """A service that names its time would be hammered before it; or hold the run for hours."""
    retry = Retry(3, delay=2, max_delay=20)
    assert retry.delay_after(1, _BusyError(asked)) == waited
    assert Retry(3, delay=0, max_delay=20).delay_after(1, _BusyError(asked)) == waited
    assert retry.delay_after(3, _BusyError(asked)) is None


@pytest.mark.parametrize(
    "asked",
    [None, -1, nan, inf, 10**400, True, "7", timedelta(seconds=-1), lambda: 7, object()],
    ids=lambda asked: type(asked).__name__,
)
def test_r9_what_is_no_time_to_wait_leaves_the_schedule_alone(asked: Any) -> None:
    """Another library's attribute of this name would break the retry, or hide the step's error."""
    assert Retry(3, delay=2).delay_after(1, _BusyError(asked)) == 2
    assert Retry(3, delay=2).delay_after(1, _Broken()) == 2


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
