"""``kassette check``: the proof that an object store keeps what journals rely on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from kassette_io.storages.protocol import Storage

PLACE = 80
SUMMARY = "prove that an object store keeps what journals rely on"
DESCRIPTION = ""
WRITES = True


def add_arguments(_: ArgumentParser) -> None:
    """Add nothing: the storage is all it takes."""


async def find(storage: Storage, _: Namespace) -> None:
    """Prove that an object store keeps its promises; a local disk has none to prove.

    Raises StorageError that names every promise the store breaks.
    """
    check = getattr(storage, "check", None)
    if check is not None:
        await check()


def lines(_: None, __: Namespace) -> Iterable[bytes]:
    """Return ``{"ok":true}``."""
    return [b'{"ok":true}\n']


def view(_: None, __: Namespace) -> Iterable[str]:
    """Say which promises are kept."""
    return ["ok: both conditions are enforced, and a read sees the last write"]
