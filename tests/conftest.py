"""What all tests share: the event loops that async tests run under, and that Ctrl-C is heeded."""

import signal

import pytest


def pytest_configure() -> None:
    """Have the processes that tests start heed SIGINT, even where a shell's job ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
