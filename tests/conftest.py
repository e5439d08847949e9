"""What all tests share: event loops, Ctrl-C that is heeded, and Hypothesis without a clock."""

import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "kassette",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # the machine may be busy with something else
    derandomize=True,
    database=None,
)
settings.load_profile("kassette")


def pytest_configure() -> None:
    """Have the processes that tests start heed SIGINT, even where a shell's job ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
