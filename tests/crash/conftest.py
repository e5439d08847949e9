"""The fork server that the crash tests share, and the children of one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .processes import ForkServer, Processes, fork_server


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    with fork_server() as started:
        yield started


@pytest.fixture
def processes(server: ForkServer) -> Iterator[Processes]:
    """Start processes; whatever is left of them is killed when the test ends."""
    started = Processes(server)
    try:
        yield started
    finally:
        started.end()
