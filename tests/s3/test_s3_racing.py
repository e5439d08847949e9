"""The tests of sessions that race, unchanged, on S3: on the server that is atomic."""

from collections.abc import AsyncIterator

import pytest

from tests.io import test_io_racing

from .servers import S3Server
from .support import S3World
from .test_s3_stories import takes_any_storage

pytestmark = test_io_racing.pytestmark


@pytest.fixture
async def world(anyio_backend: str, atomic_server: S3Server, bucket: str) -> AsyncIterator[S3World]:
    made = S3World(atomic_server, bucket)
    yield made
    await made.aclose()


globals().update(takes_any_storage(test_io_racing))
