"""The requests with which ``RemoteStorage.check`` tests a store; journals are not touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, final

import anyio

from kassette import PreconditionFailedError, StorageError
from kassette_io.storages.object_store import GetObjectResult, ObjectStoreClient

Get: TypeAlias = Callable[[str], Awaitable[GetObjectResult | None]]

_MISSING: Final = ".missing"
_STALE: Final = "a read did not return the last write"


@final
class StoreCheck:
    """One check of a store, with the object ``key``, which must not exist yet.

    Rule: only what may have been written is deleted, so that for an unreachable store or a missing
    bucket there is no warning about objects that remain.
    """

    def __init__(self, client: ObjectStoreClient, get: Get, key: str) -> None:
        self._client = client
        self._get = get
        self._key = key
        self._written: list[str] = []

    async def broken_promises(self) -> list[str]:
        """Return the requirements that the store does not meet."""
        key = self._key
        await self._get(key)  # a cache in between would now store the 404
        etag = await self._put(key, b"1", None)
        if etag is None:
            return ["it refused to create a missing object with `If-None-Match: *`"]
        broken: list[str] = []
        if not await self._holds(b"1", etag):
            broken.append(_STALE)
        again = await self._put(key, b"2", None)
        if again is not None:
            broken.append("it overwrote an object despite `If-None-Match: *`")
        first = etag if again is None else again
        second = await self._put(key, b"3", first)
        if second is None:
            broken.append("it refused `If-Match` with the etag that it had just returned")
        elif second == first:
            broken.append("it returned the same etag for two versions of an object")
        elif not await self._holds(b"3", second) and _STALE not in broken:
            broken.append(_STALE)
        if second not in (None, first) and await self._put(key, b"4", first) is not None:
            broken.append("it overwrote an object despite a stale `If-Match`")
        if await self._put(key + _MISSING, b"5", first) is not None:
            broken.append("it created a missing object despite `If-Match`")
        return broken

    async def clean_up(self) -> None:
        """Delete what was written, if the client can; an object that remains does no harm."""
        delete = getattr(self._client, "delete_object", None)
        if delete is None:
            return
        with anyio.CancelScope(shield=True):
            for key in dict.fromkeys(self._written):
                try:
                    await delete(key)
                except Exception as error:
                    from logging import getLogger

                    getLogger("kassette").warning("cannot delete scratch object %s: %s", key, error)

    async def _holds(self, content: bytes, etag: str) -> bool:
        found = await self._get(self._key)
        return found is not None and found.content == content and found.etag == etag

    async def _put(self, key: str, content: bytes, etag: str | None) -> str | None:
        """Return the new etag, or None if the condition was refused."""
        self._written.append(key)
        try:
            return await self._client.put_object(key, content, etag)
        except PreconditionFailedError:
            return None
        except StorageError as error:
            if error.rolled_back:
                self._written.remove(key)
            raise
