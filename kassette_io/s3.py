"""Objects in an S3-compatible bucket, through aioboto3; which append is right is not decided here.

Rules (D5, D16):
- A put is sent once. The SDK's own retries are off, and so is aiohttp's quiet second attempt after
  a lost connection: a put that is repeated below us comes back as a false 412.
- What only reads is repeated a few times while the store is merely unwell; a client that the user
  supplies does so by itself.
- Every operation has a deadline of our own. The ``Expect: 100-continue`` header, for whose answer
  aiohttp waits without one, is not sent.
- Etags go out without quotes, which every store that honours conditions accepts.
- aioboto3 is imported when the first client is opened. Under trio the client lives on an asyncio
  loop in a background thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from random import random
from typing import Any, Final, NoReturn, TypeVar, final

from kassette import PreconditionFailedError, StorageError, UsageError
from kassette_io._asyncio_home import AsyncioHome
from kassette_io.object_store import GetObjectResult

T = TypeVar("T")

_READ_ATTEMPTS: Final = 4
_READ_PAUSE: Final = 0.1
_SESSION_SETTINGS: Final = frozenset(
    {
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "region_name",
        "profile_name",
    }
)
_MISSING_CODES: Final = frozenset({"NoSuchKey", "404"})
_CONDITION_CODES: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_PASSING_STATUSES: Final = frozenset({408, 429})
_PASSING_CODES: Final = frozenset({"RequestTimeout", "SlowDown", "Throttling"})
_ADVICE: Final = {
    "AccessDenied": "the credentials lack s3:GetObject, s3:PutObject or s3:ListBucket here",
    "NoSuchBucket": "create the bucket, or name another",
    "InvalidAccessKeyId": "the access key is unknown to this store",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "ExpiredToken": "the credentials have expired; renew them",
}


@final
class S3ObjectStoreClient:
    """An ``ObjectStoreClient`` over one bucket of S3 or of a store that speaks it.

    Region, endpoint, credentials and profile come the usual ways of the AWS SDKs
    (``AWS_ENDPOINT_URL_S3``, ``AWS_PROFILE``, …), or as ``settings``: ``region_name``,
    ``profile_name``, ``aws_access_key_id``, ``endpoint_url``, ``verify`` and so on, as aioboto3's
    session and client take them. ``client`` is an open aioboto3 client to use instead (asyncio
    only); it is not closed here. ``timeout`` is the deadline of one operation in seconds.

    The client is opened at its first use and closed by ``aclose`` or ``async with``.
    """

    def __init__(
        self, bucket: str, *, client: Any = None, timeout: float = 30.0, **settings: Any
    ) -> None:
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
        """See ``ObjectStoreClient.get_object``. Raises StorageError."""
        return await self._home.call(self._get, key)

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        """See ``ObjectStoreClient.put_object``."""
        return await self._home.finish(self._put, key, content, etag)

    async def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        """See ``ObjectStoreClient.list_prefixes``; one request a page, as it is asked for."""
        token: str | None = None
        while True:
            names, token = await self._home.call(self._list_page, prefix, token)
            for name in names:
                yield name
            if token is None:
                return

    async def delete_object(self, key: str) -> None:
        """Remove an object; only ``RemoteStorage.check`` asks for it, of its scratch objects."""
        await self._home.call(self._delete, key)

    async def aclose(self) -> None:
        """Close the client and the connections that it holds."""
        if self._stack is not None:
            await self._home.finish(self._close)
        await self._home.aclose()

    async def __aenter__(self) -> S3ObjectStoreClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- on the asyncio loop ---------------------------------------------------------------

    async def _get(self, key: str) -> GetObjectResult | None:
        async def get(client: Any) -> GetObjectResult | None:
            try:
                answer = await client.get_object(Bucket=self.bucket, Key=key)
            except Exception as error:
                if _code(error) in _MISSING_CODES:
                    return None
                raise
            async with answer["Body"] as stream:
                return GetObjectResult(await stream.read(), _bare(answer["ETag"]))

        return await self._read("read", key, get)

    async def _put(self, key: str, content: bytes, etag: str | None) -> str:
        client = await self._open()
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            async with asyncio.timeout(self._timeout):
                answer = await client.put_object(
                    Bucket=self.bucket, Key=key, Body=content, **condition
                )
        except Exception as error:
            if _is_refused_condition(error):
                raise PreconditionFailedError(
                    f"{key} in bucket {self.bucket!r} is not the version that was expected"
                ) from error
            self._fail("write", key, error)
        return _bare(answer["ETag"])

    async def _list_page(self, prefix: str, token: str | None) -> tuple[list[str], str | None]:
        more = {} if token is None else {"ContinuationToken": token}

        async def get(client: Any) -> Any:
            return await client.list_objects_v2(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/", **more
            )

        page = await self._read("list", prefix, get)
        found = [
            each["Prefix"][len(prefix) :].rstrip("/") for each in page.get("CommonPrefixes", [])
        ]
        return found, page.get("NextContinuationToken") if page.get("IsTruncated") else None

    async def _delete(self, key: str) -> None:
        client = await self._open()
        try:
            async with asyncio.timeout(self._timeout):
                await client.delete_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            self._fail("delete", key, error)

    async def _read(self, verb: str, key: str, read: Callable[[Any], Awaitable[T]]) -> T:
        """Do what changes nothing; again while the store is merely unwell, all in one deadline."""
        client = await self._open()
        attempt = 1
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        return await read(client)
                    except Exception as error:
                        if self._given is not None or attempt == _READ_ATTEMPTS:
                            raise
                        if not _may_pass(error):
                            raise
                    await asyncio.sleep(_READ_PAUSE * 2.0 ** (attempt - 1) * random())
                    attempt += 1
        except Exception as error:
            self._fail(verb, key, error)

    async def _open(self) -> Any:
        if self._given is not None:
            if self._home.elsewhere:
                raise UsageError(
                    "an aioboto3 client works in its own asyncio loop only; under trio, give its "
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
            from kassette_io._aioboto3 import open_client
        except ImportError as error:
            raise UsageError("S3 storage needs aioboto3: pip install 'kassette[s3]'") from error
        session = {k: v for k, v in self._settings.items() if k in _SESSION_SETTINGS}
        client = {k: v for k, v in self._settings.items() if k not in _SESSION_SETTINGS}
        async with AsyncExitStack() as stack:
            try:
                opened = await open_client(stack, session, client, self._timeout)
            except Exception as error:
                self._fail("open", "", error)
            self._stack = stack.pop_all()
        self._endpoint = str(opened.meta.endpoint_url)
        return opened

    async def _close(self) -> None:
        stack, self._stack, self._client, self._opening = self._stack, None, None, None
        if stack is not None:
            await stack.aclose()

    def _fail(self, verb: str, key: str, error: Exception) -> NoReturn:
        """Raise the StorageError that says what to do; certain only of a clean refusal (4xx)."""
        status, code = _status(error), _code(error)
        name = type(error).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"):
            why, certain = f"{error}; give credentials the usual AWS ways", True
        elif isinstance(error, TimeoutError):
            why, certain = f"no answer within {self._timeout:g} s", False
        elif code is not None:
            why = f"{code}: {_ADVICE.get(code, error)}"
            certain = status is not None and 400 <= status < 500 and not _may_pass(error)
            if self._given is not None:  # what it repeated by itself may have landed before
                certain = certain and _repeats(error) == 0
        else:
            why, certain = f"{name}: {error}", False
        what = f"{key} " if key else ""
        raise StorageError(
            f"cannot {verb} {what}in bucket {self.bucket!r} at {self._endpoint}: {why}",
            rolled_back=certain and verb == "write",
        ) from error


def _response(error: Exception) -> dict[str, Any]:
    found: object = getattr(error, "response", None)
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _status(error: Exception) -> int | None:
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _code(error: Exception) -> str | None:
    code = _response(error).get("Error", {}).get("Code")
    return code if isinstance(code, str) else None


def _repeats(error: Exception) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("RetryAttempts", 0))


def _is_refused_condition(error: Exception) -> bool:
    return _status(error) in (409, 412) or _code(error) in _CONDITION_CODES | _MISSING_CODES


def _may_pass(error: Exception) -> bool:
    """Tell whether the same request may succeed in a moment."""
    status = _status(error)
    if status is None:
        from kassette_io._aioboto3 import TRANSIENT

        return isinstance(error, TRANSIENT)
    return status >= 500 or status in _PASSING_STATUSES or _code(error) in _PASSING_CODES


def _bare(etag: str) -> str:
    return etag.strip('"')
