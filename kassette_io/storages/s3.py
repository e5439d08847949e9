"""Objects in an S3-compatible bucket, through aioboto3; no decision about appends is made here.

Rules:
- One operation is one request. The SDK's own retries are off, and so is aiohttp's silent second
  attempt after a lost connection: a put that is repeated below us returns a false 412.
  ``RemoteStorage`` retries transient errors; it knows for how long.
- Every request has a deadline of our own, which moves while bytes do: a request fails after
  ``timeout`` seconds without progress. Data in the operating system's buffers is invisible, so a
  put gets the extra time that a slow connection needs for it. The ``Expect: 100-continue`` header
  is not sent, because aiohttp waits for its response without a deadline.
- A body is accepted only if it is certainly complete: it has the declared length or, without one,
  the MD5 that its etag states, or the length that a HEAD of the same etag returns.
- Only the store itself can report that an object does not exist (``s3_errors``).
- Etags are sent without quotes, which every store with conditional writes accepts.
- aioboto3 is imported when the first client is opened. Under trio the client runs on an asyncio
  loop in a background thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from hashlib import md5
from io import BytesIO
from math import inf
from typing import Any, Final, NoReturn, final

from kassette import PreconditionFailedError, StorageError, UsageError
from kassette_io.loops.asyncio_home import AsyncioHome
from kassette_io.storages import s3_errors
from kassette_io.storages.object_store import GetObjectResult

_CONNECT_TIMEOUT: Final = 10.0
_PIECE: Final = 2**20
_WATCHED: Final = 2**16
"""The size in bytes from which an upload is watched; a smaller one is sent immediately."""
_SLOWEST: Final = 2**17
"""The slowest expected connection, in bytes per second."""
_OUT_OF_SIGHT: Final = 2**22
"""How many unsent bytes an operating system may buffer."""
_SESSION_SETTINGS: Final = frozenset(
    {
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "region_name",
        "profile_name",
    }
)


@final
class S3ObjectStoreClient:
    """An ``ObjectStoreClient`` for one bucket of S3 or of an S3-compatible store.

    Region, endpoint, credentials and profile are configured as usual for AWS SDKs
    (``AWS_ENDPOINT_URL_S3``, ``AWS_PROFILE``, …), or with ``settings``: ``region_name``,
    ``profile_name``, ``aws_access_key_id``, ``endpoint_url``, ``verify`` and so on, as aioboto3's
    session and client accept them. ``client`` is an open aioboto3 client to use instead (asyncio
    only); it is not closed here. ``timeout`` is the number of seconds without a response or any
    progress after which a request fails.

    The client is opened by the first request and closed by ``aclose`` or ``async with``. Opening it
    raises UsageError for invalid settings; requests raise StorageError for what the store refuses
    and for transient errors.
    """

    def __init__(
        self, bucket: str, *, client: Any = None, timeout: float = 10.0, **settings: Any
    ) -> None:
        if not 0 < timeout < inf:
            raise UsageError(
                f"timeout must be a finite number of seconds greater than 0, not {timeout!r}"
            )
        self.bucket = bucket
        self._timeout = timeout
        self._settings = settings
        self._given = client
        self._client: Any = None
        self._stack: AsyncExitStack | None = None
        self._opening: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home = AsyncioHome()
        self._endpoint = str(settings.get("endpoint_url") or "the default endpoint")

    def __repr__(self) -> str:
        return f"S3ObjectStoreClient({self.bucket!r})"

    async def get_object(self, key: str) -> GetObjectResult | None:
        """See ``ObjectStoreClient.get_object``. Raise StorageError."""
        return await self._home.call(self._get, key)

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        """See ``ObjectStoreClient.put_object``."""
        return await self._home.finish(self._put, key, content, etag)

    async def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        """See ``ObjectStoreClient.list_prefixes``; one request per page, made on demand."""
        token: str | None = None
        while True:
            more = {} if token is None else {"ContinuationToken": token}
            page = await self._home.call(self._list_page, prefix, {"Delimiter": "/", **more})
            for each in page.get("CommonPrefixes", []):
                yield each["Prefix"][len(prefix) :].rstrip("/")
            token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
            if token is None:
                return

    async def list_prefixes_with(
        self, prefix: str, name: str, *, after: str | None = None
    ) -> AsyncIterator[str]:
        """Yield every ``x`` for which ``{prefix}{x}/{name}`` exists, in the store's order.

        It starts after ``after``. All keys below the prefix are listed, one page per request, so
        if there are only such objects this costs no more than a listing. Other objects below an
        ``x`` cost at most two requests more, however many there are.
        """
        where: dict[str, str] = {}
        last = ""
        if after is not None:
            last = f"{prefix}{after}/{name}"
            where = {"StartAfter": last}
        while True:
            page = await self._home.call(self._list_page, prefix, where)
            keys = [each["Key"] for each in page.get("Contents", [])]
            for key in keys:
                found, slash, rest = key[len(prefix) :].partition("/")
                if slash and rest == name and found and _order(key) > _order(last):
                    yield found
            if not page.get("IsTruncated") or not keys:
                return
            seek = _beyond(keys[-1], prefix, name)
            if seek is not None and _order(keys[-1]) > _order(last):
                where = {"StartAfter": seek}
            else:
                where = {"ContinuationToken": page["NextContinuationToken"]}
            last = max(last, keys[-1], key=_order)

    async def delete_object(self, key: str) -> None:
        """Delete an object; only ``RemoteStorage.check`` does, to remove its scratch objects."""
        await self._home.call(self._delete, key)

    async def aclose(self) -> None:
        """Close the client and its connections."""
        if self._opening is not None:
            await self._home.finish(self._close)
        await self._home.aclose()

    async def __aenter__(self) -> S3ObjectStoreClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- on the asyncio loop ---------------------------------------------------------------

    async def _get(self, key: str) -> GetObjectResult | None:
        client = await self._open()
        try:
            async with self._deadline() as deadline:
                try:
                    answer = await client.get_object(Bucket=self.bucket, Key=key)
                except Exception as error:
                    if s3_errors.code(error) == s3_errors.MISSING_KEY:
                        return None
                    raise
                pieces: list[bytes] = []
                body = answer["Body"]
                async with body:
                    while piece := await body.read(_PIECE):
                        pieces.append(piece)
                        deadline.reschedule(asyncio.get_running_loop().time() + self._timeout)
                content, etag = b"".join(pieces), _etag(answer)
                await self._check_whole(client, key, content, etag, answer.get("ContentLength"))
        except Exception as error:
            self._fail("read", key, error, self._silence)
        return GetObjectResult(content, etag)

    async def _check_whole(
        self, client: Any, key: str, content: bytes, etag: str, declared: int | None
    ) -> None:
        """Raise Unusable unless ``content`` is certainly the complete version ``etag``."""
        if declared is None:
            if md5(content, usedforsecurity=False).hexdigest() == etag:
                return
            head = await client.head_object(Bucket=self.bucket, Key=key)
            declared = head.get("ContentLength") if _etag(head) == etag else None
        if declared is None:
            raise s3_errors.Unusable(
                f"a body of {len(content)} bytes came without a length, and a HEAD request did not "
                "return one either, so it may be incomplete"
            )
        if declared != len(content):
            raise s3_errors.Unusable(f"received {len(content)} of {declared} bytes")

    async def _put(self, key: str, content: bytes, etag: str | None) -> str:
        client = await self._open()
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            async with self._deadline() as deadline:
                answer = await client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=_watched(content, deadline, self._timeout),
                    **condition,
                )
            return _etag(answer)
        except Exception as error:
            if s3_errors.is_refused_condition(error):
                raise PreconditionFailedError(
                    f"{key} in bucket {self.bucket!r} is not the expected version"
                ) from error
            slow = (
                f"; the upload has {len(content)} bytes, so if the network is slow, raise timeout="
            )
            self._fail("write", key, error, self._silence + slow)

    async def _list_page(self, prefix: str, where: dict[str, str]) -> dict[str, Any]:
        client = await self._open()
        try:
            async with self._deadline():
                page: dict[str, Any] = await client.list_objects_v2(
                    Bucket=self.bucket, Prefix=prefix, **where
                )
        except Exception as error:
            self._fail("list", prefix, error, self._silence)
        return page

    async def _delete(self, key: str) -> None:
        client = await self._open()
        try:
            async with self._deadline():
                await client.delete_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            self._fail("delete", key, error, self._silence)

    async def _open(self) -> Any:
        if self._given is not None:
            if self._home.elsewhere:
                raise UsageError(
                    "an aioboto3 client works only in its own asyncio loop; under trio, pass its "
                    "settings instead of client="
                )
            self._endpoint = str(self._given.meta.endpoint_url)
            return self._given
        loop = asyncio.get_running_loop()
        if self._opening is None or self._loop is not loop:
            self._loop, self._opening, self._client = loop, asyncio.Lock(), None
        async with self._opening:
            if self._client is None:
                self._client = await self._connect()
        return self._client

    async def _connect(self) -> Any:
        try:
            from kassette_io.storages.s3_client import open_client
        except ImportError as error:
            raise UsageError("S3 storage needs aioboto3: pip install 'kassette-py[s3]'") from error
        session = {k: v for k, v in self._settings.items() if k in _SESSION_SETTINGS}
        client = {k: v for k, v in self._settings.items() if k not in _SESSION_SETTINGS}
        async with AsyncExitStack() as stack:
            try:
                opened = await open_client(
                    stack,
                    session,
                    client,
                    connect_timeout=min(self._timeout, _CONNECT_TIMEOUT),
                    read_timeout=self._timeout + _OUT_OF_SIGHT / _SLOWEST,
                )
            except Exception as error:
                self._fail("open", "", error, self._silence)
            self._stack = stack.pop_all()
        self._endpoint = str(opened.meta.endpoint_url)
        return opened

    async def _close(self) -> None:
        opening = self._opening
        if opening is None or self._loop is not asyncio.get_running_loop():
            await self._forget()
            return
        async with opening:  # otherwise a client that is just being opened would stay open
            await self._forget()

    async def _forget(self) -> None:
        stack, self._stack, self._client = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    def _deadline(self) -> asyncio.Timeout:
        return asyncio.timeout(self._timeout)

    @property
    def _silence(self) -> str:
        return f"no answer and no progress for {self._timeout:g} s"

    def _fail(self, verb: str, key: str, error: Exception, silence: str) -> NoReturn:
        """Raise the error that explains ``error``, with ``rolled_back`` if that is certain."""
        found = s3_errors.meaning(error, silence, opening=verb == "open")
        what = f"{key} " if key else ""
        told = f"cannot {verb} {what}in bucket {self.bucket!r} at {self._endpoint}: {found.why}"
        if found.misuse:
            raise UsageError(told) from error
        # a put that the user's own client retried may have succeeded before
        certain = found.certain and (self._given is None or s3_errors.repeats(error) == 0)
        raise StorageError(told, rolled_back=certain) from error


@final
class _Watched(BytesIO):
    """The body of a put, which extends its deadline while it is being read."""

    def __init__(self, content: bytes, deadline: asyncio.Timeout, timeout: float) -> None:
        super().__init__(content)
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._timeout = timeout

    def read(self, size: int | None = -1, /) -> bytes:
        self._loop.call_soon_threadsafe(self._move, self.tell())  # older SDKs read in a thread
        return super().read(size)

    def _move(self, sent: int) -> None:
        unseen = min(sent + _WATCHED, _OUT_OF_SIGHT) / _SLOWEST
        with suppress(RuntimeError):  # the request has ended in the meantime
            self._deadline.reschedule(self._loop.time() + self._timeout + unseen)


def _watched(content: bytes, deadline: asyncio.Timeout, timeout: float) -> bytes | BytesIO:
    return content if len(content) < _WATCHED else _Watched(content, deadline, timeout)


def _beyond(key: str, prefix: str, name: str) -> str | None:
    """Return the key after which to continue listing after ``key``; None for ``key`` itself.

    Other objects below an ``x`` are skipped: up to ``{x}/{name}`` if it is still ahead, or all.
    """
    found, slash, rest = key[len(prefix) :].partition("/")
    if not slash:
        return None
    if _order(rest) > _order(name):
        return f"{prefix}{found}0"  # "0" sorts after "/"; an object of that name is not a journal
    return f"{prefix}{found}/{name[:-1]}" if _order(rest) < _order(name[:-1]) else None


def _order(key: str) -> bytes:
    """Return the bytes by which stores sort keys."""
    return key.encode("utf-8", "surrogatepass")


def _etag(answer: dict[str, Any]) -> str:
    etag: object = answer.get("ETag")
    if not isinstance(etag, str):
        raise s3_errors.Unusable("the response has no etag, so it is not from the store")
    return etag.strip('"')
