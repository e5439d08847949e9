"""A simulated object store whose answers go astray; knows no journals.

A put is conditional and atomic. It may be done and its answer lost, be sent again by the client's
SDK (which ends as a refusal), be on its way for a long time and arrive when nobody waits any more,
meet another one (409), be refused for good (403), or fail (500).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from kassette import PreconditionFailedError, StorageError
from kassette_io.storages.object_store import GetObjectResult
from tests.simulation.world import Process, World

FAULTS: tuple[str, ...] = (
    "none",
    "lost",
    "resent",
    "500",
    "409",
    "late",
    "late 409",
    "403",
    "late and done",
)

DELAYS = (0.0, 0.05, 1.0, 60.0)


class Store:
    """The objects, and the client that every process uses."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.bodies: dict[str, bytes] = {}
        self._etags: dict[str, str] = {}
        self._versions = 0
        self.fault_rate = self.failing_rate = 0.0
        self.faults = FAULTS
        self.faults_left = 1000
        self.network = Process("net", mortal=False)
        self.on_put: Callable[[str, bytes, bytes], None] = lambda key, old, new: None

    async def get_object(self, key: str) -> GetObjectResult | None:
        """Give the object, or raise what a broken network raises."""
        world = self._world
        world.pause("get")
        if self.failing_rate and world.choices.chance(self.failing_rate):
            world.say("the get fails")
            raise OSError("unreachable")
        body = self.bodies.get(key)
        return None if body is None else GetObjectResult(body, self._etags[key])

    async def put_object(self, key: str, content: bytes, etag: str | None) -> str:
        """Put under a condition; one of the faults may befall it."""
        world = self._world
        world.pause("put")
        fault = "none"
        if self.fault_rate and self.faults_left and world.choices.chance(self.fault_rate):
            self.faults_left -= 1
            fault = self.faults[world.choices.below(len(self.faults))]
            world.say(f"the put meets: {fault}")
        if fault == "500":
            raise StorageError("500")
        if fault == "409":
            raise PreconditionFailedError("409")
        if fault == "403":
            raise StorageError("403", rolled_back=True)
        if fault.startswith("late"):
            world.spawn(self.network, "late put", lambda: self._land_late(key, content, etag))
            if fault == "late 409":
                raise PreconditionFailedError("409")
            if fault == "late":
                raise TimeoutError("timeout")
        done = self._put(key, content, etag)
        if fault in {"lost", "late and done"}:
            raise TimeoutError("timeout")
        if fault == "resent" or done is None:
            raise PreconditionFailedError("412")
        return done

    def list_prefixes(self, prefix: str) -> AsyncIterator[str]:
        """Nothing is listed here."""
        raise NotImplementedError

    def _land_late(self, key: str, content: bytes, etag: str | None) -> None:
        if not self._world.timeless:
            self._world.sleep(DELAYS[self._world.choices.below(len(DELAYS))])
        self._world.pause("a late put arrives")
        if self._put(key, content, etag) is None:
            self._world.say("and is refused")

    def _put(self, key: str, content: bytes, etag: str | None) -> str | None:
        if etag != self._etags.get(key):
            return None
        self.on_put(key, self.bodies.get(key, b""), content)
        self.bodies[key] = content
        self._versions += 1
        self._etags[key] = f"e{self._versions}"
        return self._etags[key]
