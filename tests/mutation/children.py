"""Python processes that tests start, as forks of the process that holds the mutant.

``python -m kassette_cli`` would import the code as it stands on the disk, blind to a mutant in
memory. While ``forked`` is in force, such a process, and one that runs ``python -c …``, is a fork
that goes on as a fresh interpreter would, with the arguments, environment, descriptors and signals
that it was given, and with the modules of its parent. Every other program is executed as ever.

It is quicker, too. What a fork cannot be is a process with few modules, or one whose interpreter
was given options: tests of these are in ``NOT_HERE``.
"""

from __future__ import annotations

import atexit
import io
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, NoReturn, TextIO

NOT_HERE = (
    "tests/cli/test_startup.py::test_a_pipe_imports_nothing_heavy",
    "tests/cli/test_startup.py::test_help_starts_no_event_loop",
    "tests/cli/test_startup.py::test_a_plain_list_imports_nothing_that_it_does_not_need",
    "tests/testing/test_pytest_plugin.py::test_the_plugin_costs_nothing_to_import",
    "tests/io/test_io_without_pydantic.py::test_pydantic_is_not_loaded_before_it_is_needed",
)
"""Tests of what a process imports, or of what its interpreter does with an option."""
MODULES = ("kassette_cli",)
"""What is forked for ``python -m``."""
BROKEN_AT_EXIT = 120
"""Python's exit code where standard output cannot be flushed in the end."""

_NAME = "_fork_exec"
_execute: Any = getattr(subprocess, _NAME)


@contextmanager
def forked(at_exit: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Fork for Python programs, and call ``at_exit`` in each before it ends."""

    def fork_exec(args: Sequence[bytes | str], executables: Sequence[bytes], *rest: Any) -> int:
        program = [os.fsdecode(each) for each in args]
        kind, what = [*program[1:3], "", ""][:2]
        known = kind == "-c" or (kind == "-m" and what in MODULES)
        if program[0] != sys.executable or not known:
            return int(_execute(args, executables, *rest))
        pid = os.fork()
        if pid == 0:
            _become(program[1:], rest, at_exit)
        return pid

    setattr(subprocess, _NAME, fork_exec)
    try:
        yield
    finally:
        setattr(subprocess, _NAME, _execute)


def _become(program: list[str], given: Sequence[Any], at_exit: Callable[[], None]) -> NoReturn:
    """Go on as a process that runs ``program``; ``given`` is what ``fork_exec`` is given."""
    code = 255
    leave = os._exit

    def end(status: int) -> NoReturn:
        at_exit()
        leave(status)

    try:
        _, keep, cwd, environment, *descriptors = given
        _place(descriptors[:6], keep)
        if environment is not None:
            os.environ.clear()
            for each in environment:
                name, _, value = os.fsdecode(each).partition("=")
                os.environ[name] = value
        if cwd is not None:
            os.chdir(cwd)
        os._exit = end
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = Context().run(_interpret, program)
    except BaseException:
        traceback.print_exc()
    end(code)


def _place(descriptors: Sequence[int], keep: Sequence[int]) -> None:
    """Make standard descriptors of those given, and close all others but those to keep."""
    stdin, _, _, stdout, _, stderr = descriptors
    taken = [
        os.dup(each) if each >= 0 else number for number, each in enumerate((stdin, stdout, stderr))
    ]
    for number, each in enumerate(taken):
        if each != number:
            os.dup2(each, number)
    # the pipe in which an error of `exec` would be told is closed as well: there was none
    passed = {each for each in keep[:-1] if each > 2}
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) not in passed:
            with suppress(OSError):
                os.close(int(name))


def _interpret(program: list[str]) -> int:
    """Run ``program`` as the interpreter does, and give its exit code."""
    kind, what, *arguments = program
    sys.argv = [kind, *arguments]
    atexit._clear()
    sys.stdin, sys.stdout, sys.stderr = (_stream(number) for number in range(3))
    code = 0
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        traceback.print_exc()
    except BaseException:
        code = 1
        traceback.print_exc()
    vars(threading)["_shutdown"]()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = BROKEN_AT_EXIT
        print(f"Exception ignored: {error}", file=sys.stderr)
    sys.stderr.flush()
    return code


def _stream(number: int) -> TextIO:
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    raw = os.fdopen(number, "rb" if number == 0 else "wb", closefd=False)
    return io.TextIOWrapper(
        raw,
        encoding=encoding,
        errors="backslashreplace" if number == 2 else errors or "strict",
        line_buffering=number == 2 or os.isatty(number),
    )
