"""The pytest plugin for replaying journal files; imported by pytest, so it imports nothing itself.

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
    "what to do with steps that are not in a test's journal: none, fail the test; once, run them "
    "and write the file if there is no file; new, run them and add them to the file; all, run "
    "every step and rewrite the file"
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
        "replays, relative to the test's file; with lines, only its first lines",
    )


@pytest.fixture
def kassette_journal(request: pytest.FixtureRequest) -> JournalReplay:
    """Return the journal named by the test's marker ``kassette``, to replay workflows from."""
    from kassette_io.testing import JournalReplay

    marker = request.node.get_closest_marker("kassette")
    if marker is None or len(marker.args) != 1 or not marker.kwargs.keys() <= {"lines"}:
        pytest.fail(
            "kassette_journal needs the marker that names its journal: "
            '@pytest.mark.kassette("journals/run-1.jsonl"); lines=8 limits it to the first 8 lines',
            pytrace=False,
        )
    return JournalReplay(
        request.path.parent / marker.args[0],
        mode=str(request.config.getoption("--kassette-mode")),
        **marker.kwargs,
    )
