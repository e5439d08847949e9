"""Fixtures: two real S3 servers, a bucket for each test, a proxy, clients; no test lives here.

Both servers run for the whole session and forget everything after each test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from uuid import uuid4

import pytest

from kassette_io import RemoteStorage, S3ObjectStoreClient
from tests.io.conftest import clock  # noqa: F401 - a fixture
from tests.io.test_io_retrying import naps  # noqa: F401 - a fixture

from .proxy import Proxy
from .servers import S3Server, ministack, moto
from .support import Deadlines, S3World

FORGOTTEN = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_MAX_ATTEMPTS",
    "AWS_RETRY_MODE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
)


@pytest.fixture(autouse=True)
def aws_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Dummy credentials, and nothing of the machine's own."""
    nowhere = tmp_path_factory.getbasetemp() / "no-such-file"
    for name in FORGOTTEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAKASSETTETEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", autouse=True)
def one_loader() -> Iterator[None]:
    """Let the SDK read its service descriptions once, not once for every client: half the time."""
    from botocore import session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "create_loader", cache(session.create_loader))
        yield


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def ministack_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(params=["moto", "ministack"])
def s3_server(request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """Each server in turn; for a single writer only, since moto is not atomic."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    yield server
    server.reset()


@pytest.fixture
def atomic_server(ministack_server: S3Server) -> Iterator[S3Server]:
    """The server whose conditional writes hold against concurrent ones."""
    yield ministack_server
    ministack_server.reset()


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A fresh bucket on whichever server the test uses."""
    name = "s3_server" if "s3_server" in request.fixturenames else "atomic_server"
    server: S3Server = request.getfixturevalue(name)
    fresh = f"kassette-{uuid4().hex[:12]}"
    status, body = server.ask("PUT", f"/{fresh}")
    assert status == 200, body
    return fresh


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A proxy before whichever server the test uses."""
    name = "s3_server" if "s3_server" in request.fixturenames else "atomic_server"
    server: S3Server = request.getfixturevalue(name)
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
async def client(
    request: pytest.FixtureRequest, anyio_backend: str, bucket: str
) -> AsyncIterator[S3ObjectStoreClient]:
    """A client of the bucket, through the proxy where the test uses one."""
    if "proxy" in request.fixturenames:
        url = request.getfixturevalue("proxy").url
        opened = S3ObjectStoreClient(bucket, endpoint_url=url, timeout=PLENTY)
    else:
        name = "s3_server" if "s3_server" in request.fixturenames else "atomic_server"
        opened = S3ObjectStoreClient(bucket, endpoint_url=request.getfixturevalue(name).url)
    async with opened:
        yield opened


SHORT = 0.5
"""The deadline of a request that nobody answers. Nothing else may have to be done within it."""
PLENTY = 60.0
"""A deadline that no request meets, however busy the machine is."""


@pytest.fixture
def impatient(client: S3ObjectStoreClient, proxy: Proxy) -> Deadlines:
    """Let requests that the proxy holds be given up at once, and no other."""
    deadlines = Deadlines(client)
    proxy.on_hold.append(deadlines.expire)
    return deadlines


@pytest.fixture
def storage(client: S3ObjectStoreClient) -> RemoteStorage:
    return RemoteStorage(client, prefix="runs")


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backoff take its jitter's least value, nothing."""
    monkeypatch.setattr("kassette_io.storages.remote.random", lambda: 0.0)


@pytest.fixture
async def world(anyio_backend: str, s3_server: S3Server, bucket: str) -> AsyncIterator[S3World]:
    """The bucket as the tests of the drivers see any storage."""
    made = S3World(s3_server, bucket)
    yield made
    await made.aclose()


@pytest.fixture
def lockless(world: S3World) -> S3World:
    """Nothing is locked in an object store."""
    return world
