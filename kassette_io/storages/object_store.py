"""What an object store must offer to keep journals; no store lives here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, final, runtime_checkable

from kassette.immutable import Immutable


@final
class GetObjectResult(Immutable):
    """An object's bytes and the opaque tag of this version of it."""

    content: bytes
    etag: str


@runtime_checkable
class ObjectStoreClient(Protocol):
    """Conditional reads and writes of whole objects; the extension point of ``RemoteStorage``.

    The store must honour both conditions atomically and let every read see the last write. One call
    is one attempt: ``RemoteStorage`` knows what to repeat, and for how long.

    A client may have more: ``aclose()``; ``delete_object(key)``, with which ``check`` cleans up;
    and ``list_prefixes_with(prefix, name, *, after=None)``, which yields those names ``x`` of
    ``list_prefixes`` for which there is an object ``{prefix}{x}/{name}``, always in one order and
    beginning behind the ``x`` that is ``after``. Without it, every name is taken for a run.
    """

    async def get_object(self, key: str) -> GetObjectResult | None:
        """Return the object at ``key``, or None if the store itself says that there is none.

        Raises where it is not certain that the content is whole. StorageError with
        ``rolled_back=True``, and UsageError, mean that no repetition mends it; after any other
        exception the object is asked for again.
        """
        ...

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        """Replace the object if its etag is still ``etag``; None: create it if there is none.

        Returns the new etag. Raises PreconditionFailedError where the store refused the condition
        (HTTP 412, 409, or 404 for a replacement), and StorageError with ``rolled_back=True`` where
        it certainly wrote nothing for another reason. Any other exception means that the put may
        have happened, or may still happen.
        """
        ...

    def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        """Return the names directly below ``prefix``, without it and without a trailing slash."""
        ...
