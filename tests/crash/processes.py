"""Child processes of the crash tests and how a test talks to them; the fork server is ``worker``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import Any, final

TESTS = Path(__file__).parents[1]
PATIENCE = 120.0
"""Seconds after which silence of a child is a hang, on a machine that is busy with other things."""


@final
class Channel:
    """One end of a line between two processes: JSON values, one a line."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: object) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Wait for a message. Raises EOFError when the other side is gone."""
        while b"\n" not in self._received:
            if not self._fill():
                raise EOFError
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def rest(self) -> list[Any]:
        """Give every message up to the other side's end."""
        while self._fill():
            pass
        lines, self._received = self._received.split(b"\n"), b""
        return [json.loads(line) for line in lines[:-1]]

    def silent(self) -> bool:
        """Tell whether nothing waits to be received: no message, and no end."""
        return not self._received and not select([self._socket], [], [], 0)[0]

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            return False
        self._received += data
        return bool(data)

    def close(self) -> None:
        self._socket.close()


@final
class Child:
    """A forked process; ``pid`` stays its own until ``wait``."""

    def __init__(self, server: ForkServer, pid: int, channel: Channel) -> None:
        self._server = server
        self._exit_code: int | None = None
        self.pid = pid
        self.channel = channel

    def fileno(self) -> int:
        return self.channel.fileno()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end; give the exit code, or minus the number of the signal."""
        if self._exit_code is None:
            self._exit_code = self._server.wait(self.pid)
        return self._exit_code

    def ended(self) -> bool:
        return self._exit_code is not None


@final
class ForkServer:
    """A process without threads that has imported everything and forks itself on request."""

    def __init__(self, prefix: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", f"{__package__}.worker", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
                pass_fds=[theirs.fileno()],
            )
        ours.settimeout(PATIENCE)
        self._socket = ours
        self._control = Channel(ours)

    def start(self, function: Callable[..., object], arguments: dict[str, Any]) -> Child:
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        request = {"call": [function.__module__, function.__name__], "arguments": arguments}
        with theirs:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno()])
            pid: int = self._control.receive()
        return Child(self, pid, Channel(ours))

    def wait(self, pid: int) -> int:
        self._control.send({"wait": pid})
        exit_code: int = self._control.receive()
        return exit_code

    def close(self) -> None:
        self._control.close()
        self._process.wait()


@final
class Processes:
    """The children of one test; whatever is left of them is killed when the test ends."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self._children: list[Child] = []

    def start(self, function: Callable[..., object], **arguments: Any) -> Child:
        """Run ``function(channel, **arguments)`` in a process of its own.

        Arguments travel as JSON. A function that returns ends the process with exit code 0.
        """
        child = self._server.start(function, arguments)
        self._children.append(child)
        return child

    def run(self, function: Callable[..., object], **arguments: Any) -> Any:
        """Run ``function`` to its end and give the last message it sent."""
        child = self.start(function, **arguments)
        messages = child.channel.rest()
        assert child.wait() == 0, f"{function.__name__} ended with {child.wait()}"
        return messages[-1] if messages else None

    def end(self) -> None:
        for child in self._children:
            if not child.ended():
                with suppress(ProcessLookupError):
                    child.kill()
                child.wait()
            child.channel.close()


@contextmanager
def fork_server(prefix: Sequence[str] = ()) -> Iterator[ForkServer]:
    server = ForkServer(prefix)
    try:
        yield server
    finally:
        server.close()
