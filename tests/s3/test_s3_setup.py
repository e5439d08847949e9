"""How a client finds its region, endpoint and credentials, and what it says when it cannot work."""

from __future__ import annotations

import datetime
import ipaddress
import math
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kassette import StartEntry, StorageError, UsageError
from kassette_io import RemoteStorage, S3ObjectStoreClient, open_storage, start
from kassette_io.storages import remote, s3_errors

from .proxy import SLOW_DOWN, Fault, Proxy, refusal
from .servers import S3Server, free_port

pytestmark = pytest.mark.anyio

STAMP = "2026-01-31T12:00:00.000Z"
REFUSALS = {
    (403, "AccessDenied"): "s3:PutObject",
    (403, "RequestTimeTooSkewed"): "clock of this machine is wrong",
    (400, "AuthorizationHeaderMalformed"): "another region",
    (501, "NotImplemented"): "does not support conditional writes",
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
        with pytest.raises(UsageError, match=r"ProfileNotFound.*three.*check the settings"):
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
        said = (
            f"bucket 'no-such-bucket' at {atomic_server.url}: NoSuchBucket: .*; create the bucket"
        )
        with pytest.raises(StorageError, match=said):
            await start(storage, "run-1")
        with pytest.raises(StorageError, match=said):
            await client.put_object("k", b"1", None)
        with pytest.raises(StorageError, match=said):
            [name async for name in storage.list_runs()]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_connection_names_bucket_and_endpoint(host: str) -> None:
    """The commonest mistake, a store that is not running, would read as a botocore riddle."""
    url = f"http://{host}:{free_port()}"
    said = f"bucket 'some-bucket' at {url}: connection refused: nothing is listening"
    async with S3ObjectStoreClient("some-bucket", endpoint_url=url) as client:
        with pytest.raises(StorageError, match=said):
            await client.get_object("k")
        with pytest.raises(StorageError, match=said) as caught:
            await client.put_object("k", b"1", None)
        assert caught.value.rolled_back is False


async def test_a_host_that_is_not_known_is_named() -> None:
    """A typo in the endpoint or the region would read as a network that is down."""
    url = "http://no-such-host.invalid:1"
    async with S3ObjectStoreClient("some-bucket", endpoint_url=url) as client:
        with pytest.raises(
            StorageError, match=f"at {url}: the host name cannot be resolved: .*region"
        ):
            await client.get_object("k")


@contextmanager
def tls_server(directory: Path) -> Iterator[str]:
    """Accept TLS connections, with a certificate that nobody has signed, and say nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(accepted, server_side=True).close()
            except OSError:
                accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


async def test_a_certificate_that_is_not_trusted_is_named_and_nothing_is_repeated(
    tmp_path: Path,
) -> None:
    """A store of one's own would read as a network that is down, and be asked for half a minute."""
    with tls_server(tmp_path) as url:
        async with S3ObjectStoreClient("some-bucket", endpoint_url=url) as client:
            said = f"at {url}: the server's certificate is not trusted: .*AWS_CA_BUNDLE"
            with pytest.raises(StorageError, match=said) as caught:
                await RemoteStorage(client).read_all("run-1")
            assert "no usable response for" not in str(caught.value)
            with pytest.raises(StorageError, match=said) as caught:
                await client.put_object("k", b"1", None)
            assert caught.value.rolled_back


async def test_tls_at_a_port_without_it_is_named(atomic_server: S3Server) -> None:
    """An https:// that should be http:// would read as a network that is down."""
    url = atomic_server.url.replace("http:", "https:")
    async with S3ObjectStoreClient("some-bucket", endpoint_url=url) as client:
        with pytest.raises(StorageError, match=f"at {url}: the server does not speak TLS"):
            await client.get_object("k")


async def test_a_redirect_says_where_the_bucket_is(
    bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """A bucket of another region would read as one that is not there."""
    said = b"<Error><Code>PermanentRedirect</Code><Message>use the other</Message></Error>"
    head = b"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-3\r\nContent-Length: %d\r\n\r\n"
    elsewhere = Fault(forwards=0, raw=head % len(said) + said)
    https = Fault(
        forwards=0,
        raw=b"HTTP/1.1 307 Go\r\nLocation: https://s3.example/\r\nContent-Length: 0\r\n\r\n",
    )
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        for fault, says in (
            (elsewhere, "use the other; the bucket is in another region.*region eu-west-3"),
            (https, "it redirects to https://s3.example/; set endpoint_url"),
        ):
            proxy.choose = lambda _, fault=fault: fault
            with pytest.raises(StorageError, match=says) as caught:
                await RemoteStorage(client).read_all("run-1")
            assert caught.value.rolled_back
            with pytest.raises(StorageError, match=says) as caught:
                await client.put_object("k", b"1", None)
            assert caught.value.rolled_back


async def test_a_store_that_is_silent_from_the_start_is_given_up_soon(
    bucket: str, proxy: Proxy, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped port would be asked for half a minute; a restart at hand would be no excuse."""
    assert remote.FIRST_CONTACT == 5.0
    monkeypatch.setattr(remote, "FIRST_CONTACT", 0.0)
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        storage = RemoteStorage(client)
        proxy.script(SLOW_DOWN, method="GET")
        with pytest.raises(StorageError, match="no usable response for"):
            await storage.read_all("run-1")
        proxy.script(SLOW_DOWN, method="GET")
        with pytest.raises(StorageError, match="no usable response for"):
            await storage.append("run-1", StartEntry(session=1, timestamp=STAMP))
        proxy.script(SLOW_DOWN, method="GET")
        with pytest.raises(StorageError, match="no usable response for"):
            [name async for name in storage.list_runs()]
        assert await storage.read_all("run-1") == []
        proxy.script(SLOW_DOWN, SLOW_DOWN, method="GET")
        assert await storage.read_all("run-1") == [], "it has answered: this is an outage"
        proxy.script(SLOW_DOWN, SLOW_DOWN, method="GET")
        assert [name async for name in storage.list_runs()] == []
        assert proxy.unused() == 0


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
            said = f"bucket '{bucket}' at {proxy.url}: {code}: scripted {code}; .*{advice}"
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


async def test_a_store_without_conditional_writes_is_named_at_once(
    bucket: str, proxy: Proxy, atomic_server: S3Server
) -> None:
    """Every append would be tried for half a minute, and end in contention with nobody."""
    bare = Fault(forwards=0, raw=b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n")
    async with S3ObjectStoreClient(bucket, endpoint_url=proxy.url) as client:
        storage = RemoteStorage(client)
        for fault in (bare, refusal(501, "NotImplemented"), refusal(400, "NotImplemented")):
            for act in (storage.check(), start(storage, "run-1")):
                proxy.forget()
                proxy.script(fault)
                with pytest.raises(
                    StorageError, match="does not support conditional writes"
                ) as caught:
                    await act
                assert caught.value.rolled_back
                assert proxy.count("PUT") == 1


async def test_an_unusable_setting_is_a_clear_error(bucket: str) -> None:
    """A ValueError or TypeError from deep inside botocore would escape as if it were ours."""
    async with S3ObjectStoreClient(bucket, endpoint_url="no url") as client:
        with pytest.raises(UsageError, match=f"cannot open .*bucket '{bucket}'.*no url"):
            await client.get_object("k")
    async with S3ObjectStoreClient(bucket, no_such_setting=1) as client:
        with pytest.raises(UsageError, match="no_such_setting"):
            await RemoteStorage(client).read_all("run-1")
    async with S3ObjectStoreClient(bucket, region_name="no region") as client:
        with pytest.raises(UsageError, match="no region"):
            await client.put_object("k", b"1", None)
    async with S3ObjectStoreClient("no bucket") as client:
        with pytest.raises(UsageError, match="no bucket"):
            await start(RemoteStorage(client), "run-1")
    for timeout in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="timeout must be a finite number of seconds"):
            S3ObjectStoreClient(bucket, timeout=timeout)
    for patience in (-1.0, math.nan):
        with pytest.raises(UsageError, match="patience must be a number of seconds"):
            RemoteStorage(S3ObjectStoreClient(bucket), patience=patience)
    with pytest.raises(UsageError, match=r"not an object store client.*S3ObjectStoreClient"):
        RemoteStorage("s3://bucket")  # type: ignore[arg-type]


def test_only_what_opening_a_client_refuses_is_a_setting() -> None:
    """A garbled answer would be the caller's mistake, and a put that has landed be called undone."""
    for error in (ValueError("garbled"), TypeError("garbled")):
        assert s3_errors.meaning(error, "", opening=True).misuse
        found = s3_errors.meaning(error, "")
        assert (found.misuse, found.certain) == (False, False)
        assert "garbled" in found.why


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
    assert done.stdout.count("pip install 'kassette-py[s3]'") == 2


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
