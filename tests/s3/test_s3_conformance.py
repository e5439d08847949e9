"""The conformance suite on S3: on the server that is atomic, since it has writers that race."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from kassette_io import RemoteStorage, S3ObjectStoreClient
from kassette_io.testing import storage_conformance

from .servers import S3Server


@pytest.mark.anyio
async def test_d4_d10_d12_s3_keeps_the_contract_of_storages(
    bucket: str, atomic_server: S3Server
) -> None:
    """A workflow would behave otherwise on object storage than on a disk."""
    prefixes = map("storage-{}".format, count())

    @asynccontextmanager
    async def make() -> AsyncIterator[RemoteStorage]:
        client = S3ObjectStoreClient(bucket, endpoint_url=atomic_server.url)
        async with RemoteStorage(client, prefix=next(prefixes)) as storage:
            yield storage

    await storage_conformance(make)
