"""Starts real S3 servers as processes and stops them; no test, no fault lives here."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

BIN = Path(sys.executable).parent
NO_ORPHAN = """
import os, runpy, sys, threading
def die_with_the_parent():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=die_with_the_parent, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
START_DEADLINE = 30.0
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIAKASSETTETEST/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)


@dataclass(frozen=True)
class S3Server:
    """One server: where it answers, how it forgets everything, and what it promises.

    ``atomic`` says whether conditional writes hold against concurrent ones. moto's do not: nothing
    is locked between its check and its store, so it serves tests with a single writer only.
    """

    name: str
    port: int
    reset_path: str
    atomic: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        self.ask("POST", self.reset_path)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one plain request; neither server looks at what a signature says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers={"Authorization": SIGNED})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto(directory: Path) -> Iterator[S3Server]:
    port = free_port()
    with _running(
        [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], {}, directory, port
    ):
        yield S3Server("moto", port, "/moto-api/reset", atomic=False)


@contextmanager
def ministack(
    directory: Path, *, port: int | None = None, on_disk: bool = False
) -> Iterator[S3Server]:
    """Run the server; what it keeps ``on_disk`` is there again when it is started anew."""
    port = free_port() if port is None else port
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(directory),
        "S3_PERSIST": "1" if on_disk else "0",
        "S3_DATA_DIR": str(directory / "s3"),
    }
    with _running([str(BIN / "ministack")], settings, directory, port):
        yield S3Server("ministack", port, "/_ministack/reset", atomic=True)


@contextmanager
def _running(
    command: list[str], settings: dict[str, str], directory: Path, port: int
) -> Iterator[None]:
    log = directory / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-c", NO_ORPHAN, *command],
            env={**os.environ, **settings},
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait_until_it_answers(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = monotonic() + START_DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            died = process.poll() is not None
            if died or monotonic() > deadline:
                raise RuntimeError(f"no server: {log.read_text(errors='replace')}") from None
            _pause()
        else:
            return


def _pause() -> None:
    """Let the server run a moment: a wait for an event that never comes."""
    import threading

    threading.Event().wait(0.02)
