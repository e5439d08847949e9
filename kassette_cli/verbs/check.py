"""``kassette check``: verifies that an object store has the semantics that journals rely on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from kassette_io.storages.protocol import Storage

PLACE = 80
SUMMARY = "verify that an object store honours conditional writes"
DESCRIPTION = (
    "Use a scratch object to check that conditional writes are enforced and that a read\n"
    "returns the last write. A local disk has nothing to check."
)
WRITES = True


def add_arguments(_: ArgumentParser) -> None:
    """Add nothing: the storage is all it takes."""


async def find(storage: Storage, _: Namespace) -> None:
    """Check the object store; do nothing for a local disk.

    Raise StorageError that names every requirement the store does not meet.
    """
    check = getattr(storage, "check", None)
    if check is not None:
        await check()


def lines(_: None, __: Namespace) -> Iterable[bytes]:
    """Return ``{"ok":true}``."""
    return [b'{"ok":true}\n']


def view(_: None, __: Namespace) -> Iterable[str]:
    """Show what was verified."""
    return ["ok: conditional writes are enforced, and a read returns the last write"]
