"""A real HTTP proxy between the SDK and a server, which does to each request what a test scripted.

It counts what arrives, and it can lose, delay, repeat, refuse and cut short. ``page_size`` makes
listings come in small pages, ``drops`` and ``drops_query`` name request headers and parameters that
never reach the server. ``upload_takes`` seconds are spent on receiving each body. All goes over real
sockets; the proxy runs in an asyncio loop on a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import unquote

Then = Literal[
    "answer", "close", "reset", "hold", "late", "truncate", "unmeasured", "cut at a line", "chunked"
]


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    It reaches the server ``forwards`` times; ``then`` the client gets the last answer (or
    ``answer``: a status and an S3 error code, or ``raw`` bytes), a closed or reset connection, half
    a body, or nothing: ``hold`` keeps it waiting until it goes away or ``release`` is called,
    ``late`` does so and forwards the request only afterwards. ``after_late`` first lets every late
    one land. ``unmeasured`` is the answer without its length; ``cut at a line`` is that without the
    last line of its body, and ``chunked`` the same as a chunked body that ends as it should.
    """

    forwards: int = 1
    then: Then = "answer"
    answer: tuple[int, str] | None = None
    raw: bytes | None = None
    after_late: bool = False


PASS = Fault()
LOST = Fault(then="close")
LOST_BY_RESET = Fault(then="reset")
ERROR_AFTER = Fault(answer=(500, "InternalError"))
RESET_BEFORE = Fault(forwards=0, then="reset")
CLOSED_BEFORE = Fault(forwards=0, then="close")
SILENT = Fault(then="hold")
SILENT_BEFORE = Fault(forwards=0, then="hold")
SLOW_DOWN = Fault(forwards=0, answer=(503, "SlowDown"))
TRUNCATED = Fault(then="truncate")
RESENT = Fault(forwards=2)
CONFLICT = Fault(forwards=0, answer=(409, "ConditionalRequestConflict"))
LATE = Fault(forwards=0, then="late")
AFTER_LATE = Fault(after_late=True)


UNMEASURED = Fault(then="unmeasured")
CUT_AT_A_LINE = Fault(then="cut at a line")
CUT_IN_CHUNKS = Fault(then="chunked")
BARE_404 = Fault(forwards=0, raw=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
PAGE_404 = Fault(
    forwards=0,
    raw=b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 44\r\n\r\n"
    b"<html><body><h1>Not Found</h1></body></html>",
)
BROKEN_PAGE_404 = Fault(
    forwards=0, raw=b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n<p>no<br>"
)


def refusal(status: int, code: str) -> Fault:
    """The server is not asked; the answer is this S3 error."""
    return Fault(forwards=0, answer=(status, code))


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    target: str
    body: bytes


@dataclass(frozen=True)
class Seen:
    """One request that arrived, and what was done to it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    fault: Fault


class Proxy:
    """``with Proxy(port) as proxy:``; point an SDK at ``proxy.url``."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = upstream_port
        self._scripts: dict[str, deque[Fault]] = {}
        self._late: list[Request] = []
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="s3-proxy")
        self.choose: Callable[[Request], Fault] | None = None
        self.page_size: int | None = None
        self.drops: frozenset[str] = frozenset()
        self.drops_query: frozenset[str] = frozenset()
        self.held = threading.Event()
        self.on_hold: list[Callable[[], None]] = []
        self.upload_takes = 0.0
        self.seen: list[Seen] = []
        self.url = ""

    # --- what tests use --------------------------------------------------------------------

    def script(self, *faults: Fault, method: str = "PUT") -> None:
        """Do this to the next requests of ``method``, in order; whatever comes after passes."""
        self._scripts.setdefault(method, deque()).extend(faults)

    def forget(self) -> None:
        """Drop what was scripted and what was counted."""
        self._scripts.clear()
        self.choose = None
        self.held.clear()
        self.seen.clear()

    def methods(self) -> list[str]:
        """Give the methods of all requests, in order of arrival."""
        return [each.method for each in self.seen]

    def count(self, method: str, path_ends: str = "") -> int:
        return sum(each.method == method and each.path.endswith(path_ends) for each in self.seen)

    def unused(self) -> int:
        """Give the number of scripted faults that no request has met."""
        return sum(map(len, self._scripts.values()))

    def release(self) -> None:
        """Let go of every request that is held, and of those to come."""
        self._loop.call_soon_threadsafe(self._released.set)

    def land_late_ones(self) -> None:
        """Forward what was held back, and wait until it has been answered."""
        asyncio.run_coroutine_threadsafe(self._land(), self._loop).result(30)

    # --- the machinery ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**16)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client or the test has gone
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False once the connection is of no more use."""
        request = await _read_request(reader, writer, self.upload_takes)
        if request is None:
            return False
        fault = self._fault_for(request)
        self.seen.append(Seen(request.method, request.path, request.query, request.headers, fault))
        if fault.after_late:
            await self._land()
        answer = b""
        for _ in range(fault.forwards):
            answer = await self._forward(request)
        if fault.answer is not None:
            answer = _error(*fault.answer)
        if fault.raw is not None:
            answer = fault.raw
        match fault.then:
            case "answer":
                writer.write(answer)
                await writer.drain()
                return True
            case "truncate":
                head, _, body = answer.partition(b"\r\n\r\n")
                writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
                await writer.drain()
            case "unmeasured" | "cut at a line" | "chunked":
                writer.write(_without_length(answer, fault.then))
                await writer.drain()
            case "reset":
                _reset_on_close(writer)
            case "hold" | "late":
                if fault.then == "late":
                    self._late.append(request)
                await self._hold(reader)
            case "close":
                pass
        return False

    def _fault_for(self, request: Request) -> Fault:
        script = self._scripts.get(request.method)
        if script:
            return script.popleft()
        return PASS if self.choose is None else self.choose(request)

    async def _hold(self, reader: asyncio.StreamReader) -> None:
        self.held.set()
        for each in self.on_hold:
            each()
        gone = asyncio.ensure_future(reader.read(1))
        released = asyncio.ensure_future(self._released.wait())
        try:
            await asyncio.wait({gone, released}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            released.cancel()
            await asyncio.gather(gone, released, return_exceptions=True)

    async def _land(self) -> None:
        late, self._late = self._late, []
        for each in late:
            await self._forward(each)

    def _head(self, request: Request) -> bytes:
        path, _, query = request.target.partition("?")
        kept_query = [
            each for each in query.split("&") if each.partition("=")[0] not in self.drops_query
        ]
        target = "?".join([path, "&".join(kept_query)] if query else [path])
        if self.page_size is not None and "list-type=2" in request.query:
            target += f"&max-keys={self.page_size}"
        dropped = {"connection", "expect"} | self.drops
        kept = [
            f"{name}: {value}" for name, value in request.headers.items() if name not in dropped
        ]
        lines = [f"{request.method} {target} HTTP/1.1", *kept, "connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1")

    async def _forward(self, request: Request) -> bytes:
        """Give the server's whole answer, fit for a connection that stays open."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            writer.write(self._head(request) + request.body)
            await writer.drain()
            return _kept_open(await reader.read(-1), request.method)
        finally:
            writer.close()


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, takes: float
) -> Request | None:
    """Read a request; a body with ``takes`` seconds to spend on it comes in a hundred pieces."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if "expect" in headers:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert "transfer-encoding" not in headers, "the SDK sends its bodies with their length"
    length = int(headers.get("content-length", 0))
    body = b""
    while takes and len(body) < length:
        body += await reader.readexactly(min(length // 100 + 1, length - len(body)))
        await asyncio.sleep(takes / 100)
    body += await reader.readexactly(length - len(body))
    return Request(method, unquote(path), query, headers, target, body)


def _kept_open(answer: bytes, method: str) -> bytes:
    """Give the answer without ``Connection`` and with its length."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    names = [line.partition(b":")[0].strip().lower() for line in lines]
    if b"transfer-encoding" in names:
        body = _unchunked(body)
    dropped = (b"connection", b"keep-alive", b"transfer-encoding")
    kept = [line for name, line in zip(names, lines, strict=True) if name not in dropped]
    if b"content-length" not in names and method != "HEAD":
        kept.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([first, *kept, b"", body])


def _without_length(answer: bytes, then: Then) -> bytes:
    """Give an answer that ends with its connection, or in chunks; not all of it is there."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    if then != "unmeasured":
        body = b"".join(body.splitlines(keepends=True)[:-1])
    if then == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        parts.append(body[:length])
        body = body[length + 2 :]
    return b"".join(parts)


def _error(status: int, code: str) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
        f"<Message>scripted {code}</Message><RequestId>1</RequestId></Error>"
    ).encode()
    head = (
        f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
