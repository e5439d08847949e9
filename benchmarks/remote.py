"""A durable step over S3 against a bare conditional put of the same body; both keep one client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks import inline, loops
from benchmarks.harness import Bench, Contestant, Perform, Sample, Stopwatch, WorkerFailed
from benchmarks.report import Table

TARGETS = {"asyncio": 1.15, "trio": 1.15 * 1.5}
ROUNDS = 41
"""More than elsewhere: the server is a second process, on a machine that may have two cores."""
BUCKET = "kassette-bench"
CREDENTIALS: dict[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "AKIAKASSETTEBENCH",
    "aws_secret_access_key": "secret",
}
START_DEADLINE = 30.0


def measure(bench: Bench) -> Iterator[Table]:
    missing = [name for name in ("aioboto3", "ministack") if find_spec(name) is None]
    if missing:
        raise WorkerFailed(f"the benchmark 'remote' needs {' and '.join(missing)} to be installed")
    steps = bench.size(100, 10)
    with server(bench.directory) as url:
        size = {"url": url, "steps": steps}
        contestants = [
            Contestant("bare aioboto3, asyncio", put, size),
            *(
                Contestant(loop, record, {"loop": loop, **size}, TARGETS[loop])
                for loop in loops.installed("asyncio", "trio")
            ),
        ]
        yield Table(
            f"one durable step of 2 KB on S3, {steps} in a row, each one conditional put",
            "ms",
            1e3,
            contestants,
            bench.compete(contestants, rounds=ROUNDS),
            ["the server is ministack, on the same machine: a real store is farther away"],
        )


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """Run an S3 server on this machine, with one bucket."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "LOG_LEVEL": "ERROR",
        "TMPDIR": str(directory.resolve()),
    }
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "ministack")],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            create_bucket(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def create_bucket(port: int) -> None:
    """Create it as soon as the server answers."""
    from http.client import HTTPConnection

    deadline = monotonic() + START_DEADLINE
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=START_DEADLINE)
        try:
            connection.request("PUT", f"/{BUCKET}")
            connection.getresponse().read()
        except OSError:
            if monotonic() > deadline:
                raise WorkerFailed("the S3 server did not come up") from None
            sleep(0.05)
        else:
            return
        finally:
            connection.close()


def put(directory: Path, *, url: str, steps: int) -> Perform:
    """Prepare the floor: the bodies that the others write, put with a client like theirs."""
    from contextlib import AsyncExitStack

    from kassette_io.storages.s3_client import open_client

    bodies = journal_bodies(steps)
    keys = map("bare-{}".format, count())

    async def perform() -> Sample:
        async with AsyncExitStack() as stack:
            settings = {"endpoint_url": url}
            client = await open_client(
                stack, CREDENTIALS, settings, connect_timeout=30.0, read_timeout=30.0
            )
            write = partial(client.put_object, Bucket=BUCKET, Key=next(keys))
            etag = (await write(Body=bodies[0], IfNoneMatch="*"))["ETag"]
            with Stopwatch() as watch:
                for body in bodies[1:]:
                    etag = (await write(Body=body, IfMatch=etag.strip('"')))["ETag"]
        return watch.per(steps)

    return lambda: loops.run("asyncio", perform)


def record(directory: Path, *, loop: str, url: str, steps: int) -> Perform:
    from kassette_io import RemoteStorage, S3ObjectStoreClient, start

    run_ids = map(f"{loop}-{{}}".format, count())

    async def answer(number: int) -> object:
        return inline.BODIES[number % len(inline.BODIES)]

    async def perform() -> Sample:
        client = S3ObjectStoreClient(BUCKET, endpoint_url=url, **CREDENTIALS)
        async with (
            RemoteStorage(client) as storage,
            await start(storage, next(run_ids)) as run,
        ):
            with Stopwatch() as watch:
                for number in range(steps):
                    await run.record("llm", answer, number)
        return watch.per(steps)

    return lambda: loops.run(loop, perform)


def journal_bodies(steps: int) -> list[bytes]:
    """Give a journal as it is after its start, and after each step."""
    from datetime import UTC, datetime

    from kassette import Append, Appended, Machine, Record, RunStep, Start, StepSucceeded
    from kassette.codec import encode_entry

    now = datetime.now(UTC)
    machine = Machine("bare", [])
    lines: list[bytes] = []

    def append(command: Start | StepSucceeded) -> None:
        for effect in machine.handle(command, now=now):
            if isinstance(effect, Append):
                lines.append(encode_entry(effect.entry, len(lines)))
                machine.handle(Appended(effect.entry, len(lines) - 1), now=now)

    append(Start(writer="0" * 32))
    for number in range(steps):
        (asked,) = machine.handle(Record("llm"), now=now)
        assert isinstance(asked, RunStep)
        append(StepSucceeded(asked.step_id, inline.BODIES[number % len(inline.BODIES)]))
    return [b"".join(lines[: end + 1]) for end in range(len(lines))]
