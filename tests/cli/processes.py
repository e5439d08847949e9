"""The command as a real process, its output in a pipe or on a pseudo-terminal; no expectations."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, final

import kassette_cli

COMMAND = (sys.executable, "-m", "kassette_cli")

_PROGRESS = re.compile(rb"\x1b\[\?25l.*\x1b\[\?25h\r(?:\x1b\[1A\x1b\[2K)+", re.DOTALL)
"""What is shown with the cursor hidden, and wiped out; a slow machine shows it anywhere."""

_ROOT = str(Path(kassette_cli.__file__).parents[1])
_NAMES = "COLUMNS COLORTERM FORCE_COLOR KASSETTE_STORAGE LINES NO_COLOR PYTHONUNBUFFERED TERM"


class Outcome(NamedTuple):
    """What a process left behind."""

    code: int
    out: bytes
    err: bytes


def environment(**variables: str) -> dict[str, str]:
    """Give the environment of the tests, without what would change the output."""
    left_out = _NAMES.split()
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    path = [_ROOT, *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(path), **variables}


def run(
    *arguments: str | bytes,
    command: tuple[str, ...] = COMMAND,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Run ``kassette`` with its output in pipes."""
    done = subprocess.run(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        env=environment() if env is None else env,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(
    *arguments: str,
    command: tuple[str, ...] = COMMAND,
    stdout: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``kassette``; it is killed if it is still there in the end."""
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment() if env is None else env,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@final
class Terminal:
    """``kassette`` with its output on a pseudo-terminal, and its errors in a pipe."""

    def __init__(
        self,
        *arguments: str,
        command: tuple[str, ...] = COMMAND,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._screen, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=side,
            stdout=side,
            stderr=subprocess.PIPE,
            env=env or environment(TERM="xterm-256color"),
        )
        os.close(side)
        self.shown = b""

    def read_until(self, text: bytes) -> None:
        """Wait until ``text`` is on the screen. Raises EOFError if it never will be."""
        while text not in self.shown:
            if not self._read():
                raise EOFError(self.shown)

    def close(self) -> Outcome:
        """Read to the end."""
        while self._read():
            pass
        os.close(self._screen)
        assert self.process.stderr is not None
        err = self.process.stderr.read()
        self.process.stderr.close()
        return Outcome(self.process.wait(), self.shown, err)

    def _read(self) -> bool:
        try:
            data = os.read(self._screen, 65536)
        except OSError:
            return False
        self.shown += data
        return bool(data)


def run_on_terminal(
    *arguments: str, columns: int = 80, env: Mapping[str, str] | None = None
) -> Outcome:
    """Run ``kassette`` on a pseudo-terminal; ``out`` is what stays there when it has ended."""
    outcome = Terminal(*arguments, columns=columns, env=env).close()
    return outcome._replace(out=_PROGRESS.sub(b"", outcome.out))
