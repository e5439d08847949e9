"""Start-up: what a piped command must not import, and the two ways to start it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from .journals import START
from .processes import run

HEAVY = ("aioboto3", "aiofiles", "boto3", "botocore", "pydantic", "pygments", "rich", "trio")
NEEDED = (
    *("interrupts", "main", "output", "output.escaping", "output.json_lines", "output.pieces"),
    *("misuse", "output.units", "parser", "storage", "table", "verbs", "verbs.list"),
)
CALL = "import sys; from kassette_cli.main import main; code = main(sys.argv[1:]); "


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("status", "completed"),
        ("dump", "completed"),
        ("fork", "completed", "--from-offset", "1"),
        ("list", "--status", "failed", "--older-than", "1d"),
        ("dump", "completed", "--follow"),
        ("timeline", "completed"),
        ("steps", "completed"),
        ("diff", "completed", "failed"),
        ("completion", "bash"),
        ("status", "unknown"),
        ("--help",),
        ("--version",),
    ],
)
def test_a_pipe_imports_nothing_heavy(url: str, arguments: tuple[str, ...]) -> None:
    """A loop over a thousand runs in a shell would wait for packages that it has no use for."""
    report = f"print(sorted(sys.modules.keys() & set({HEAVY!r})), file=sys.stderr)"
    outcome = run("--storage", url, *arguments, command=(sys.executable, "-c", CALL + report))
    assert outcome.err.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("lst",), ("completion", "fish")]
)
def test_help_starts_no_event_loop(arguments: tuple[str, ...]) -> None:
    """`kassette --help` would take three times as long as it has to."""
    report = "print(sorted(sys.modules.keys() & {'anyio', 'asyncio'}), file=sys.stderr)"
    outcome = run(*arguments, command=(sys.executable, "-c", CALL + report))
    assert outcome.err.decode().splitlines()[-1] == "[]"


def test_the_entry_point_and_the_module_are_the_same_command(url: str) -> None:
    """The installed `kassette` would be another program than the tested one."""
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    script = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["scripts"]["kassette"]
    module, function = script.split(":")
    code = f"import sys; from {module} import {function} as main; sys.exit(main())"
    installed = (sys.executable, "-c", code)
    for arguments in (("--storage", url, "list"), ("--storage", url, "status", "no"), ("--help",)):
        assert run(*arguments, command=installed) == run(*arguments)


def test_a_relative_storage_is_relative_to_the_working_directory(store: Path) -> None:
    """`file:.kassette`, as every example has it, would be looked for somewhere else."""
    (store / "here.jsonl").write_text(START, encoding="utf-8")
    outcome = run("--storage", "file:.", "dump", "here", cwd=store)
    assert outcome == (0, START.encode(), b"")


def test_a_plain_list_imports_nothing_that_it_does_not_need(url: str) -> None:
    """Every new verb would make the oldest one slower."""
    ours = "print(sorted(m for m in sys.modules if m.startswith('kassette_cli')), file=sys.stderr)"
    outcome = run("--storage", url, "list", command=(sys.executable, "-c", CALL + ours))
    assert outcome.err.decode().splitlines()[-1] == str(
        [
            "kassette_cli",
            *(f"kassette_cli.{each}" for each in sorted(NEEDED)),
        ]
    )
