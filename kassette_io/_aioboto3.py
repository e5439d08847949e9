"""How an aioboto3 client is made so that one put is one request; loaded when S3 is first used."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

import aioboto3  # noqa: TID253 - this module is loaded only where S3 is used
from aiobotocore.config import AioConfig  # noqa: TID253
from aiobotocore.httpsession import AIOHTTPSession  # noqa: TID253
from aiohttp import ClientError  # noqa: TID253
from botocore.exceptions import (  # noqa: TID253
    ConnectionError as NotConnected,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.handlers import add_expect_header  # noqa: TID253

TRANSIENT: Final = (ClientError, HTTPClientError, IncompleteReadError, NotConnected, OSError)
"""What a request fails with that got no answer, or half of one."""

_CONNECT_TIMEOUT: Final = 10.0
_CONNECTIONS: Final = 50


class _OneRequestSession(AIOHTTPSession):
    """An HTTP session that does not repeat a request whose connection was lost."""

    async def _get_session(self, proxy_url: Any) -> Any:
        base: Any = super()  # the stubs do not have it
        session: Any = await base._get_session(proxy_url)
        session._retry_connection = False
        return session


async def open_client(
    stack: AsyncExitStack, session: dict[str, Any], client: dict[str, Any], timeout: float
) -> Any:
    """Open an S3 client on ``stack``."""
    settings = dict(client)
    config = _config(settings.pop("config", None), timeout)
    made: Any = aioboto3.Session(**session)
    opened: Any = await stack.enter_async_context(made.client("s3", config=config, **settings))
    opened.meta.events.unregister("before-call.s3", add_expect_header)
    return opened


def _config(given: Any, timeout: float) -> Any:
    """Give our settings, the user's over them, and over all what makes one put one request."""
    config: Any = AioConfig(
        connect_timeout=min(timeout, _CONNECT_TIMEOUT),
        read_timeout=timeout,
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
