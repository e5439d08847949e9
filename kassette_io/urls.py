"""Storage by URL, as the command line and configuration files name it."""

from __future__ import annotations

from kassette import UsageError
from kassette_io.local_storage import LocalStorage


def open_storage(url: str) -> LocalStorage:
    """Give the storage at ``url``: ``file:<path>``, relative or absolute.

    Use it with ``async with``. Raises UsageError for any other URL.
    """
    scheme, colon, path = url.partition(":")
    if not colon or scheme != "file" or not path:
        raise UsageError(f"{url!r} names no storage. Use file:<path>, for example file:.kassette")
    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise UsageError(f"{url!r}: a file URL with two slashes names a host; use file:<path>")
    return LocalStorage(path)
