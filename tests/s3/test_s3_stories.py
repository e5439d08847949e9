"""The tests of runs and workflows that take any storage, unchanged, on S3: one writer at a time."""

from importlib import import_module
from inspect import signature
from types import ModuleType

from tests.io import test_io_workflow

pytestmark = test_io_workflow.pytestmark


def takes_any_storage(module: ModuleType) -> dict[str, object]:
    """Give the tests of ``module`` that ask for a world of storage."""
    tests = {name: each for name, each in vars(module).items() if name.startswith("test_")}
    return {
        name: each
        for name, each in tests.items()
        if not {"world", "lockless"}.isdisjoint(signature(each).parameters)
    }


for name in (
    "test_io_cancelling",
    "test_io_error_table",
    "test_io_forking",
    "test_io_losing",
    "test_io_numbering",
    "test_io_parallel",
    "test_io_retrying",
    "test_io_sessions",
    "test_io_suspension",
    "test_io_values",
    "test_io_workflow",
):
    globals().update(takes_any_storage(import_module(f"tests.io.{name}")))
