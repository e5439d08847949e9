"""Simulated object stores for tests, in memory: atomic, scriptable, and broken on purpose."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from enum import Enum

from anyio import Event
from anyio.lowlevel import checkpoint

from kassette import PreconditionFailedError, StorageError
from kassette_io import GetObjectResult


class Fault(Enum):
    """What becomes of one put."""

    NONE = "it is done and answered"
    LOST = "it lands, the answer is lost"
    RESENT = "it lands, its answer is lost, and the SDK sends it again: 412"
    RESET = "the connection goes before it lands"
    LATE = "no answer in time; it lands when the store is told to settle, if it still can"
    CONFLICT = "409: another put is under way"
    SERVER_ERROR = "500, nothing written"
    DENIED = "403, nothing written"


class Gate:
    """Holds one put: before it reaches the store, or, with ``landed``, its answer."""

    def __init__(self, *, landed: bool = False) -> None:
        self.landed = landed
        self.reached = Event()
        self.opened = Event()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.opened.wait()


class Store:
    """Objects by key, shared by clients; every version has an etag of its own."""

    def __init__(self) -> None:
        self.objects: dict[str, GetObjectResult] = {}
        self.versions = 0
        self.late: list[tuple[str, bytes, str | None]] = []

    def holds(self, key: str, etag: str | None) -> bool:
        """Tell whether the condition of a put holds."""
        found = self.objects.get(key)
        return etag == (None if found is None else found.etag)

    def put(self, key: str, content: bytes, etag: str | None) -> str:
        """Do a conditional put at once."""
        if not self.holds(key, etag):
            raise PreconditionFailedError("412")
        return self.write(key, content)

    def write(self, key: str, content: bytes) -> str:
        """Replace an object whatever it is."""
        self.versions += 1
        tag = f"v{self.versions}"
        self.objects[key] = GetObjectResult(content, tag)
        return tag

    def settle(self) -> None:
        """Let late puts reach the store, whose conditions decide."""
        late, self.late = self.late, []
        for key, content, etag in late:
            if self.holds(key, etag):
                self.write(key, content)


class Client:
    """The three methods and nothing else, over a ``store``; it logs every request.

    ``faults`` befall the next puts in order, ``read_errors`` the next reads; ``gate`` holds the
    next put. A page of a listing has ``page`` names.
    """

    def __init__(self, store: Store | None = None, *, page: int = 1000) -> None:
        self.store = Store() if store is None else store
        self.page = page
        self.log: list[str] = []
        self.sent: list[bytes] = []
        self.faults: deque[Fault] = deque()
        self.read_errors: deque[BaseException | None] = deque()
        self.gate: Gate | None = None

    def __repr__(self) -> str:
        return type(self).__name__

    def take_log(self) -> list[str]:
        """Give the requests since the last call."""
        log, self.log = self.log, []
        return log

    async def get_object(self, key: str) -> GetObjectResult | None:
        self.log.append("get")
        await checkpoint()
        error = self.read_errors.popleft() if self.read_errors else None
        if error is not None:
            raise error
        return self.store.objects.get(key)

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        self.log.append("put")
        self.sent.append(content)
        gate, self.gate = self.gate, None
        if gate is not None and not gate.landed:
            await gate.pass_through()
        await checkpoint()
        tag = self._put(key, content, etag, self.faults.popleft() if self.faults else Fault.NONE)
        if gate is not None and gate.landed:
            await gate.pass_through()
        return tag

    def _put(self, key: str, content: bytes, etag: str | None, fault: Fault) -> str:
        match fault:
            case Fault.LOST:
                self.store.put(key, content, etag)
                raise TimeoutError("no answer")
            case Fault.RESENT:
                self.store.put(key, content, etag)
                return self.store.put(key, content, etag)
            case Fault.RESET:
                raise ConnectionResetError("reset")
            case Fault.LATE:
                self.store.late.append((key, content, etag))
                raise TimeoutError("no answer")
            case Fault.CONFLICT:
                raise PreconditionFailedError("409")
            case Fault.SERVER_ERROR:
                raise StorageError("500")
            case Fault.DENIED:
                raise StorageError("403: access denied", rolled_back=True)
            case Fault.NONE:
                return self.store.put(key, content, etag)

    async def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        below = [key.removeprefix(prefix) for key in self.store.objects if key.startswith(prefix)]
        names = sorted({key.split("/")[0] for key in below if "/" in key})
        for at in range(0, len(names), self.page):
            self.log.append("list")
            await checkpoint()
            for name in names[at : at + self.page]:
                yield name


class ClosingClient(Client):
    """A client that can also remove objects and be closed, as the one for S3 can."""

    closed = False

    async def delete_object(self, key: str) -> None:
        self.log.append("delete")
        await checkpoint()
        self.store.objects.pop(key, None)

    async def aclose(self) -> None:
        self.closed = True


class IgnoresIfNoneMatch(Store):
    def holds(self, key: str, etag: str | None) -> bool:
        return etag is None or super().holds(key, etag)


class IgnoresIfMatch(Store):
    def holds(self, key: str, etag: str | None) -> bool:
        if etag is None:
            return super().holds(key, etag)
        return key in self.objects


class CreatesOnIfMatch(Store):
    def holds(self, key: str, etag: str | None) -> bool:
        return (etag is not None and key not in self.objects) or super().holds(key, etag)


class RefusesItsEtags(Store):
    def holds(self, key: str, etag: str | None) -> bool:
        return etag is None and super().holds(key, etag)


class OneEtagForAll(Store):
    def write(self, key: str, content: bytes) -> str:
        self.objects[key] = GetObjectResult(content, "same")
        return "same"


class ReadsBehind(ClosingClient):
    """A client of a store behind a cache: a read gives what the read before it saw."""

    def __init__(self, store: Store | None = None) -> None:
        super().__init__(store)
        self.cache: dict[str, GetObjectResult | None] = {}

    async def get_object(self, key: str) -> GetObjectResult | None:
        fresh = await super().get_object(key)
        cached = self.cache.get(key, fresh)
        self.cache[key] = fresh
        return cached


def journal(client: Client, key: str) -> list[bytes]:
    """Give the lines of the object at ``key``."""
    return client.store.objects[key].content.splitlines()
