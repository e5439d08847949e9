"""What tests of workflows and storages are made of; it needs no test runner.

- ``conformance``  the rules that every storage has to keep, yours too
- ``crashes``      a workflow crashed at every point of its life, and recovered
- ``journals``     a workflow replayed from a journal file; the pytest plugin's fixture
- ``watching``     how both see each step before it runs

``kassette_io.pytest_plugin`` is the plugin. Nothing of this is imported by ``kassette_io`` itself.
"""

from typing import TYPE_CHECKING

from kassette._lazy import lazy_names

if TYPE_CHECKING:
    from kassette_io.testing.conformance import (
        MakeStorage as MakeStorage,
        storage_conformance as storage_conformance,
    )
    from kassette_io.testing.crashes import (
        Survived as Survived,
        crash_everywhere as crash_everywhere,
    )
    from kassette_io.testing.journals import (
        JournalReplay as JournalReplay,
        Mode as Mode,
    )

_NAMES = {
    "kassette_io.testing.conformance": "MakeStorage storage_conformance",
    "kassette_io.testing.crashes": "Survived crash_everywhere",
    "kassette_io.testing.journals": "JournalReplay Mode",
}

__all__ = sorted(" ".join(_NAMES.values()).split())  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll]
__getattr__ = lazy_names(__name__, _NAMES)
