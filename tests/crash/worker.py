"""The fork server: imports everything once, then forks a child for each request; no test is here.

No thread and no event loop runs in it, so a child begins as clean as a fresh process, in a few
milliseconds. ``python -m crash.worker FD`` serves the socket ``FD`` until its other side closes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

from .processes import Channel

PRELOADED = (
    "anyio._backends._asyncio",
    "anyio._backends._trio",
    "kassette_io.loops.waiting_asyncio",
    "kassette_io.loops.waiting_trio",
    "kassette_io.workflows",
)


def serve(control: socket.socket) -> None:
    channel = Channel(control)
    children: set[int] = set()
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
            match json.loads(data or "null"):
                case {"call": [module, name], "arguments": arguments}:
                    function = getattr(import_module(module), name)
                    pid = os.fork()
                    if pid == 0:
                        control.close()
                        be_child(function, socket.socket(fileno=descriptors[0]), arguments)
                    os.close(descriptors[0])
                    children.add(pid)
                    channel.send(pid)
                case {"wait": pid}:
                    _, status = os.waitpid(pid, 0)
                    children.discard(pid)
                    channel.send(os.waitstatus_to_exitcode(status))
                case _:
                    return
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def be_child(function: Any, end: socket.socket, arguments: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 1
    try:
        function(Channel(end), **arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for preloaded in PRELOADED:
        import_module(preloaded)
    serve(socket.socket(fileno=int(sys.argv[1])))
