"""The storage that the command's tests look into."""

from pathlib import Path

import pytest

from .journals import JOURNALS


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a directory that holds every journal of ``journals``, and files that are none."""
    directory = tmp_path / "store"
    directory.mkdir()
    for run_id, journal in JOURNALS.items():
        (directory / f"{run_id}.jsonl").write_text(journal, encoding="utf-8")
    (directory / "README.md").write_text("no journal", encoding="utf-8")
    (directory / ".hidden.jsonl").write_text("no run id", encoding="utf-8")
    return directory


@pytest.fixture
def url(store: Path) -> str:
    """Give the URL of ``store``."""
    return f"file:{store}"
