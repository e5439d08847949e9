"""Tools for testing workflows and storages; they need no test runner.

- ``conformance``  the rules that every storage must obey, including yours
- ``crashes``      crashes a workflow at every point, and recovers it
- ``journals``     replays a workflow from a journal file; the pytest plugin's fixture
- ``watching``     how both intercept each step before it runs

``kassette_io.pytest_plugin`` is the plugin. ``kassette_io`` itself imports none of this.
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
