"""How a client finds its region, endpoint and credentials, and what it says when it cannot work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kassette import StorageError, UsageError
from kassette_io import RemoteStorage, S3ObjectStoreClient, open_storage, start

from .proxy import Proxy, refusal
from .servers import S3Server, free_port

pytestmark = pytest.mark.anyio

REFUSALS = {
    (403, "AccessDenied"): "s3:PutObject",
    (403, "InvalidAccessKeyId"): "access key is unknown",
    (403, "SignatureDoesNotMatch"): "secret key does not belong",
    (400, "ExpiredToken"): "expired; renew",
    (404, "NoSuchBucket"): "create the bucket",
}


def signed_for(proxy: Proxy) -> tuple[str, str]:
    """Give the access key and the region of the last request."""
    credential = proxy.seen[-1].headers["authorization"].partition("Credential=")[2]
    key, _, region, *_ = credential.split("/")
    return key, region


async def test_the_endpoint_comes_from_aws_endpoint_url_s3(
    bucket: str, proxy: Proxy, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``open_storage`` takes no settings: without the environment it could reach AWS alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    async with open_storage(f"s3://{bucket}/some/prefix/") as storage:
        run = await start(storage, "run-1")
        await run.complete()
        assert [name async for name in storage.list_runs()] == ["run-1"]
    assert signed_for(proxy) == ("AKIAKASSETTETEST", "us-east-1")
    assert proxy.seen[0].path == f"/{bucket}/some/prefix/run-1/journal.jsonl"


async def test_a_profile_gives_credentials_region_and_endpoint(
    bucket: str,
    proxy: Proxy,
    atomic_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """AWS_PROFILE, or ``profile_name`` over it, are how people keep several accounts apart."""
    config = tmp_path / "config"
    config.write_text(
        "[profile one]\naws_access_key_id = AKIAONE\naws_secret_access_key = x\n"
        f"region = eu-west-3\nendpoint_url = {proxy.url}\n"
        "[profile two]\naws_access_key_id = AKIATWO\naws_secret_access_key = x\n"
        f"region = ap-south-1\nservices = here\n[services here]\ns3 =\n  endpoint_url = {proxy.url}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "one")
    async with S3ObjectStoreClient(bucket) as client:
        assert await client.get_object("k") is None
    assert signed_for(proxy) == ("AKIAONE", "eu-west-3")
    async with S3ObjectStoreClient(bucket, profile_name="two") as client:
        assert await client.get_object("k") is None
    assert signed_for(proxy) == ("AKIATWO", "ap-south-1")
    async with S3ObjectStoreClient(bucket, profile_name="three") as client:
        with pytest.raises(StorageError, match=r"three.*credentials"):
            await client.get_object("k")


async def test_settings_are_passed_on(bucket: str, proxy: Proxy, atomic_server: S3Server) -> None:
    """Keyword settings are aioboto3's own; they win over the environment."""
    async with S3ObjectStoreClient(
        bucket,
        endpoint_url=proxy.url,
        region_name="eu-north-1",
        aws_access_key_id="AKIAMINE",
        aws_secret_access_key="x",
        aws_session_token="token",
    ) as client:
        assert await client.get_object("k") is None
    assert signed_for(proxy) == ("AKIAMINE", "eu-north-1")
    assert proxy.seen[-1].headers["x-amz-security-token"] == "token"


async def test_a_missing_bucket_is_named(atomic_server: S3Server) -> None:
    """A typo in the bucket would read as an empty storage: a run would begin anew."""
    async with S3ObjectStoreClient("no-such-bucket", endpoint_url=atomic_server.url) as client:
        storage = RemoteStorage(client)
        said = f"bucket 'no-such-bucket' at {atomic_server.url}: NoSuchBucket: create the bucket"
        with pytest.raises(StorageError, match=said):
            await start(storage, "run-1")
        with pytest.raises(StorageError, match=said):
            await client.put_object("k", b"1", None)
        with pytest.raises(StorageError, match=said):
            [name async for name in storage.list_runs()]


async def test_a_refused_connection_names_bucket_and_endpoint() -> None:
    """The commonest mistake, a store that is not running, would read as a botocore riddle."""
    url = f"http://127.0.0.1:{free_port()}"
    async with S3ObjectStoreClient("some-bucket", endpoint_url=url) as client:
        with pytest.raises(StorageError, match=f"bucket 'some-bucket' at {url}: .*onnect"):
            await client.get_object("k")
        with pytest.raises(StorageError, match=f"bucket 'some-bucket' at {url}") as caught:
            await client.put_object("k", b"1", None)
        assert caught.value.rolled_back is False


async def test_missing_credentials_are_named(
    bucket: str, atomic_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh container has none; the error must say what is missing, and that nothing happened."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with S3ObjectStoreClient(bucket, endpoint_url=atomic_server.url) as client:
        said = f"bucket '{bucket}' at {atomic_server.url}: .*credentials"
        with pytest.raises(StorageError, match=said):
            await start(RemoteStorage(client), "run-1")
        with pytest.raises(StorageError, match=said) as caught:
            await client.put_object("k", b"1", None)
        assert caught.value.rolled_back


async def test_each_refusal_says_what_to_do(
    bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """403 without a word more sends people searching for hours."""
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        storage = RemoteStorage(client)
        for (status, code), advice in REFUSALS.items():
            said = f"bucket '{bucket}' at {proxy.url}: {code}: .*{advice}"
            proxy.script(refusal(status, code), method="GET")
            with pytest.raises(StorageError, match=said):
                await start(storage, "run-1")
            run = await start(storage, f"run-{code}")
            proxy.script(refusal(status, code))
            with pytest.raises(StorageError, match=said) as caught:
                await run.record("step", lambda: 1)
            assert caught.value.run_id == f"run-{code}"
            assert await run.record("step", lambda: 2) == 2, "nothing was written; it goes on"
            await run.complete()
            assert proxy.unused() == 0


async def test_an_unusable_setting_is_a_clear_error(bucket: str) -> None:
    """A ValueError or TypeError from deep inside botocore would escape as if it were ours."""
    async with S3ObjectStoreClient(bucket, endpoint_url="no url") as client:
        with pytest.raises(StorageError, match=f"cannot open .*bucket '{bucket}'.*no url"):
            await client.get_object("k")
    async with S3ObjectStoreClient(bucket, no_such_setting=1) as client:
        with pytest.raises((UsageError, StorageError), match="no_such_setting"):
            await client.get_object("k")


def test_a_missing_aioboto3_names_the_extra() -> None:
    """An ImportError in the middle of a run does not say that an extra is missing."""
    script = (
        "import sys, anyio\n"
        "for name in ('aioboto3', 'aiobotocore', 'boto3', 'botocore'): sys.modules[name] = None\n"
        "from kassette_io import UsageError, open_storage, start\n"
        "async def main():\n"
        "    async with open_storage('s3://bucket/prefix') as storage:\n"
        "        try: await start(storage, 'run-1')\n"
        "        except UsageError as error: print(error)\n"
        "anyio.run(main); anyio.run(main, backend='trio')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.count("pip install 'kassette[s3]'") == 2


def test_importing_kassette_io_does_not_import_the_sdk() -> None:
    """Everybody who keeps journals on disk would pay half a second at every start."""
    script = (
        "import sys\nfrom kassette_io import S3ObjectStoreClient, open_storage\n"
        "open_storage('s3://bucket/prefix')\n"
        "print([name for name in ('aioboto3', 'botocore', 'aiohttp') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
