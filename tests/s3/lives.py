"""What the processes of the kill test do: the run of ``crash.lives``, kept in a bucket.

The fork server imports this module once, so each process begins with the SDK loaded and nothing
opened.
"""

from __future__ import annotations

from functools import cache

import anyio
from botocore import session

import kassette_io.storages.s3_client  # noqa: F401 - slow, therefore before the fork
from kassette_io import FencedError, RemoteStorage, S3ObjectStoreClient
from tests.crash.lives import Life, live_on
from tests.crash.processes import Channel


def live_on_s3(
    channel: Channel,
    *,
    backend: str,
    endpoint: str,
    bucket: str,
    prefix: str,
    number: int,
    effects: str,
) -> None:
    """Take the run as far as it goes, knowing nothing but where the bucket is."""
    life = Life(channel, number, effects)
    anyio.run(_live, endpoint, bucket, prefix, life, channel, backend=backend)


async def _live(endpoint: str, bucket: str, prefix: str, life: Life, channel: Channel) -> None:
    client = S3ObjectStoreClient(bucket, endpoint_url=endpoint)
    async with RemoteStorage(client, prefix=prefix) as storage:
        try:
            await live_on(storage, life, channel)
        except FencedError as error:
            channel.send(["fenced", str(error)])


def _read_the_service_description_once() -> None:
    session.create_loader = cache(session.create_loader)
    session.Session().create_client("s3", region_name="us-east-1")


_read_the_service_description_once()
