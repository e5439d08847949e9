"""How storages are recognised, named and opened; what they promise is in ``test_conformance``."""

from __future__ import annotations

from pathlib import Path

import pytest

from kassette_io import (
    LocalStorage,
    MemoryStorage,
    Storage,
    UsageError,
    open_storage,
)
from kassette_io.storages.protocol import as_session_storage
from tests.io.storages import ThreeMethods


def test_a_storage_is_known_by_its_methods() -> None:
    """If it fails, a session storage is wrapped once more and loses its atomic fork and its lock."""
    complete = MemoryStorage()
    assert as_session_storage(complete) is complete
    foreign = as_session_storage(ThreeMethods())
    assert as_session_storage(foreign) is foreign
    assert isinstance(foreign, Storage)


@pytest.mark.parametrize("nothing", [None, "file:.kassette", Path(), object()])
def test_what_is_no_storage_is_refused(nothing: object) -> None:
    """If it fails, a path handed over instead of a storage fails late, deep inside."""
    with pytest.raises(UsageError, match="is not a storage: it needs append, read_all"):
        as_session_storage(nothing)  # type: ignore[arg-type]


def test_a_storage_says_what_it_is(tmp_path: Path) -> None:
    """If it fails, a log line about a storage does not say where it is."""
    assert repr(LocalStorage(tmp_path)) == f"LocalStorage({str(tmp_path)!r})"


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("file:journals", "{cwd}/journals"),
        ("file:./a/../b", "{cwd}/b"),
        ("file:/abs", "/abs"),
        ("file:///abs", "/abs"),
        ("file:with space#?", "{cwd}/with space#?"),
    ],
)
def test_a_file_url_names_a_directory(
    url: str, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it fails, journals are looked for in another place than they were written to."""
    monkeypatch.chdir(tmp_path)
    opened = open_storage(url)
    assert isinstance(opened, LocalStorage)
    assert opened.directory == directory.format(cwd=tmp_path)


@pytest.mark.parametrize(
    "url", ["", "file", "file:", "journals", "http://x", "FILE:x", "file://host/x", "s3:", ":x"]
)
def test_what_names_no_storage_is_refused(url: str) -> None:
    """If it fails, a typing error in a URL makes an empty storage somewhere."""
    with pytest.raises(UsageError, match=r"is not a storage URL|name a host"):
        open_storage(url)
