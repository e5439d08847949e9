"""An interrupt that the main thread cannot feel ends the command all the same; no verb is known.

Python runs its handler of a signal in the main thread, between two instructions. That thread may be
in a call to the system that goes on regardless: opening a file of a hung disk, or any call that it
was just about to make when the signal came.

Rules:
- The main thread has a moment to end by itself, as it does nearly always.
- After that moment, or at the second interrupt, the process ends there and then. A terminal gets
  its cursor back first.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_MOMENT: Final = 1.0
_SHOW_CURSOR: Final = b"\x1b[?25h"


@contextmanager
def heeded(code: int) -> Generator[None]:
    """End the process with ``code`` if an interrupt does not end the block; main thread only."""
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard, code), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)


def _watch(heard: int, code: int) -> None:
    if os.read(heard, 1):
        ended = select.poll()
        ended.register(heard, select.POLLIN)
        if not ended.poll(_MOMENT * 1000) or os.read(heard, 1):
            if os.isatty(1):
                os.write(1, _SHOW_CURSOR)
            os._exit(code)
    os.close(heard)
