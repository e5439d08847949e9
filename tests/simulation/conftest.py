"""Simulations run untraced: what coverage does to follow greenlets hangs now and then."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _untraced() -> Iterator[None]:
    """Stop what traces this thread, for a test."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)
