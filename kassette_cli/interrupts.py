"""Makes Ctrl-C end the command even while the main thread is blocked; knows no verb.

Python runs signal handlers in the main thread, between two bytecode instructions. That thread may
be in a system call that does not return: opening a file on a hung disk, or any call that it was
about to make when the signal arrived.

Rules:
- After an interrupt the main thread has one second to exit by itself, which nearly always
  suffices; while the verb writes to the storage, it has as long as that takes.
- After that second, or at the second interrupt, the process exits immediately. If the terminal
  accepts output, its cursor is restored first.
- Where this cannot be set up (no file descriptor or thread is left, or the caller is not the main
  thread), Python's own handler remains.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

_MOMENT: Final = 1.0
_SHOW_CURSOR: Final = b"\x1b[?25h"


@contextmanager
def heeded(code: int) -> Generator[threading.Event]:
    """Exit the process with ``code`` if an interrupt does not end the block.

    Yield an event. While it is set, something is being written, and only the second interrupt
    exits the process.
    """
    writing = threading.Event()
    with ExitStack() as stack:
        with suppress(OSError, RuntimeError, ValueError):
            _set_up(stack, code, writing)
        yield writing


def _set_up(stack: ExitStack, code: int, writing: threading.Event) -> None:
    heard, tell = os.pipe()
    watcher = threading.Thread(target=_watch, args=(heard, code, writing), daemon=True)
    try:
        os.set_blocking(tell, False)
        watcher.start()
    except BaseException:
        os.close(heard)
        os.close(tell)
        raise
    stack.callback(watcher.join)
    stack.callback(os.close, tell)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    stack.callback(signal.set_wakeup_fd, before)


def _watch(heard: int, code: int, writing: threading.Event) -> None:
    news = select.poll()
    news.register(heard, select.POLLIN)
    interrupts = 0
    while interrupts < 2:
        hurried = interrupts and not writing.is_set()
        if not news.poll(_MOMENT * 1000 if hurried else None):
            break
        signals = os.read(heard, 1)
        if not signals:
            os.close(heard)
            return
        interrupts += signals[0] == signal.SIGINT
    _show_cursor()
    os._exit(code)


def _show_cursor() -> None:
    screen = select.poll()
    screen.register(1, select.POLLOUT)
    if os.isatty(1) and screen.poll(0):
        os.write(1, _SHOW_CURSOR)
