"""Makes aioboto3 clients for which one put is one request; loaded when S3 is first used."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

import aioboto3  # noqa: TID253 - this module is loaded only where S3 is used
from aiobotocore.config import AioConfig  # noqa: TID253
from aiobotocore.httpsession import AIOHTTPSession  # noqa: TID253
from botocore.handlers import add_expect_header  # noqa: TID253

from kassette_io.storages.s3_errors import Redirected

_CONNECTIONS: Final = 50


class _OneRequestSession(AIOHTTPSession):
    """An HTTP session that sends a request exactly once.

    It neither retries after a lost connection nor follows a redirect, for which the request is not
    signed. The SDK itself handles buckets in other regions, which S3 names.
    """

    async def _get_session(self, proxy_url: Any) -> Any:
        base: Any = super()  # it is missing from the stubs
        session: Any = await base._get_session(proxy_url)
        session._retry_connection = False
        return _WithoutRedirects(session)


class _WithoutRedirects:
    """The part of an HTTP session that ``AIOHTTPSession`` uses."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> Any:
        """Send one request. Raise Redirected for a redirect, on which the SDK would loop."""
        answer = await self._session.request(method, **options, allow_redirects=False)
        place: str | None = answer.headers.get("location")
        if 300 <= answer.status < 400 and place and "x-amz-bucket-region" not in answer.headers:
            answer.close()
            raise Redirected(place)
        return answer


async def open_client(
    stack: AsyncExitStack,
    session: dict[str, Any],
    client: dict[str, Any],
    *,
    connect_timeout: float,
    read_timeout: float,
) -> Any:
    """Open an S3 client on ``stack``. The timeouts are seconds without data on a connection."""
    settings = dict(client)
    config = _config(settings.pop("config", None), connect_timeout, read_timeout)
    made: Any = aioboto3.Session(**session)
    opened: Any = await stack.enter_async_context(made.client("s3", config=config, **settings))
    opened.meta.events.unregister("before-call.s3", add_expect_header)
    return opened


def _config(given: Any, connect_timeout: float, read_timeout: float) -> Any:
    """Return our defaults, overridden by the user's, then by what makes one put one request."""
    config: Any = AioConfig(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=_CONNECTIONS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    if given is not None:
        config = config.merge(given)
    config = config.merge(AioConfig(retries={"total_max_attempts": 1}))
    config.connector_args = getattr(given, "connector_args", config.connector_args)
    config.http_session_cls = _OneRequestSession  # merging loses it
    return config
