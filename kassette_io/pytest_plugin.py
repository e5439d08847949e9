"""The pytest plugin: tests that replay a journal file; imported by pytest, so it imports nothing.

    @pytest.mark.kassette("journals/run-1.jsonl")
    async def test_answer(kassette_journal):
        assert (await kassette_journal.run(answer)).status == "success"

``--kassette-mode`` is ``none`` (replay only), ``once``, ``new`` or ``all``: see
``kassette_io.testing.Mode``. Switch the plugin off with ``-p no:kassette``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kassette_io.testing import JournalReplay

_HELP = (
    "what to do about steps that the journal of a test does not hold: none, they fail the test; "
    "once, they run where there is no journal file, which is then written; new, they run, and the "
    "file is written with them; all, every step runs, and the file is written anew"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--kassette-mode``."""
    parser.getgroup("kassette").addoption(
        "--kassette-mode", choices=("none", "once", "new", "all"), default="none", help=_HELP
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "kassette(path, *, lines=None): the journal file that the fixture kassette_journal "
        "replays, relative to the file of the test; with lines, the first lines of it",
    )


@pytest.fixture
def kassette_journal(request: pytest.FixtureRequest) -> JournalReplay:
    """Give the journal that the test's marker ``kassette`` names, to replay workflows from."""
    from kassette_io.testing import JournalReplay

    marker = request.node.get_closest_marker("kassette")
    if marker is None or len(marker.args) != 1 or not marker.kwargs.keys() <= {"lines"}:
        pytest.fail(
            "kassette_journal needs to know its journal: "
            '@pytest.mark.kassette("journals/run-1.jsonl"), or with lines=8 the first lines of it',
            pytrace=False,
        )
    return JournalReplay(
        request.path.parent / marker.args[0],
        mode=str(request.config.getoption("--kassette-mode")),
        **marker.kwargs,
    )
