"""Storages by URL, for the command line and configuration files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kassette import UsageError

if TYPE_CHECKING:
    from kassette_io.storages.local import LocalStorage
    from kassette_io.storages.remote import RemoteStorage


def open_storage(url: str) -> LocalStorage | RemoteStorage:
    """Return the storage at ``url``: ``file:<path>`` or ``s3://<bucket>[/<prefix>]``.

    A path may be relative or absolute. For S3, region, endpoint and credentials are configured as
    usual for AWS SDKs. Use the storage with ``async with``. Raise UsageError for any other URL.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "file" and colon and rest:
        return _open_directory(url, rest)
    if scheme == "s3" and rest.startswith("//"):
        return _open_bucket(url, rest.removeprefix("//"))
    raise UsageError(
        f"{url!r} is not a storage URL. Use file:<path>, for example file:.kassette, "
        "or s3://<bucket>[/<prefix>]"
    )


def _open_directory(url: str, path: str) -> LocalStorage:
    from kassette_io.storages.local import LocalStorage

    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise UsageError(f"{url!r}: two slashes in a file URL name a host; use file:<path>")
    return LocalStorage(path)


def _open_bucket(url: str, rest: str) -> RemoteStorage:
    from kassette_io.storages.remote import RemoteStorage
    from kassette_io.storages.s3 import S3ObjectStoreClient

    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise UsageError(f"{url!r} has no bucket name; use s3://<bucket>[/<prefix>]")
    return RemoteStorage(S3ObjectStoreClient(bucket), prefix=prefix)
