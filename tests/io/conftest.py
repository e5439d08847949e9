"""Fixtures of the driver tests: the worlds of storage, appends that are held up, the clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kassette_io import LocalStorage, MemoryStorage, Storage
from tests.io.storages import WORLDS, Held, HeldForeign, HeldLocal, World
from tests.io.stories import Clock


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(str(request.param), tmp_path / "journals")


@pytest.fixture(params=["memory", "remote", "three-methods"])
def lockless(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Give a world in which a second session opens while the first one is alive."""
    return World(str(request.param), tmp_path / "journals")


@pytest.fixture
def storage(world: World) -> Storage:
    return world.open()


@pytest.fixture
def memory() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "journals")


@pytest.fixture(params=["local", "three-methods"])
def held(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Held]:
    if request.param == "three-methods":
        yield HeldForeign()
        return
    local = HeldLocal(tmp_path / "journals", monkeypatch)
    yield local
    local.let_go()


@pytest.fixture
def held_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldLocal]:
    local = HeldLocal(tmp_path / "journals", monkeypatch)
    yield local
    local.let_go()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("kassette_io._clock.now", clock.now)
    return clock
