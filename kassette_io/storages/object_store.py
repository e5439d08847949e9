"""The client interface that an object store needs for journals; no implementation lives here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, final, runtime_checkable

from kassette.immutable import Immutable


@final
class GetObjectResult(Immutable):
    """An object's bytes and the opaque etag of this version of it."""

    content: bytes
    etag: str


@runtime_checkable
class ObjectStoreClient(Protocol):
    """Conditional reads and writes of whole objects; the extension point of ``RemoteStorage``.

    The store must honour conditional writes (If-Match and If-None-Match) atomically, and every
    read must return the last write. One call is one attempt: ``RemoteStorage`` decides what to
    retry, and for how long.

    A client may also have ``aclose()``; ``delete_object(key)``, which ``check`` uses to clean up;
    and ``list_prefixes_with(prefix, name, *, after=None)``, which yields those names ``x`` of
    ``list_prefixes`` for which an object ``{prefix}{x}/{name}`` exists, always in the same order
    and starting after the ``x`` given as ``after``. Without it, every name counts as a run.
    """

    async def get_object(self, key: str) -> GetObjectResult | None:
        """Return the object at ``key``, or None if the store itself reports that there is none.

        Raise an exception unless the content is certainly complete. StorageError with
        ``rolled_back=True``, and UsageError, mean that a retry cannot succeed; after any other
        exception the read is retried.
        """
        ...

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        """Replace the object if its etag is still ``etag``; with None, create it if it is missing.

        Return the new etag. Raise PreconditionFailedError if the store refused the condition (HTTP
        412, 409, or 404 for a replacement), and StorageError with ``rolled_back=True`` if it
        certainly wrote nothing for another reason. Any other exception means that the put may have
        happened, or may still happen.
        """
        ...

    def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below ``prefix``, without it and without a trailing slash."""
        ...
