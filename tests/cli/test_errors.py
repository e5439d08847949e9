"""What goes wrong: the exit code, one clear line on standard error, and never a traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

from kassette_io import LocalStorage, start

from .journals import START
from .processes import COMMAND, Outcome, environment, run, run_on_terminal


def complaint(outcome: Outcome, code: int) -> str:
    """Check that ``outcome`` is an error as all errors are, and give its message."""
    assert outcome.code == code, outcome
    assert outcome.out == b""
    assert b"Traceback" not in outcome.err
    prefix, line, nothing = outcome.err.decode().partition("kassette: ")
    assert (prefix, line) == ("", "kassette: ")
    assert nothing.count("\n") == 1
    return nothing.removesuffix("\n")


def test_without_fcntl_nothing_is_called_a_bug(url: str, tmp_path: Path) -> None:
    """Whoever has no POSIX locks, which reading and object stores do without, could do nothing at
    all, and would report a bug.
    """
    (tmp_path / "fcntl.py").write_text('raise ImportError("blocked")')
    env = {
        **environment(AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_DEFAULT_REGION="x"),
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    env["PYTHONPATH"] = os.pathsep.join((str(tmp_path), env["PYTHONPATH"]))
    assert run("--storage", url, "status", "completed", env=env).code == 0
    fork = ("--storage", url, "fork", "completed", "--from-offset", "1")
    assert "no fcntl" in complaint(run(*fork, env=env), 1)
    remote = complaint(run("--storage", "s3://bucket", "status", "completed", env=env), 1)
    assert "bug" not in remote
    assert "bucket" in remote


MISUSES = [
    (
        (),
        "no verb given; choose one of list, debug, pending, status, dump, timeline, steps, diff, fork, check, completion; "
        "see kassette --help",
    ),
    (("lst",), "'lst'"),
    (("list", "extra"), "unrecognized arguments: extra"),
    (("list", "--limit", "-1"), "'-1' is not a whole number, 0 or greater"),
    (("list", "--limit", "many"), "'many' is not a whole number, 0 or greater"),
    (("list", "--limit", "1.5"), "'1.5' is not a whole number, 0 or greater"),
    (("list", "--limit", "٣"), "'٣' is not a whole number, 0 or greater"),
    (("list", "--limit", "9" * 5000), "is not a whole number, 0 or greater"),
    (("list", "--limit"), "expected one argument"),
    (("list", "--lim", "1"), "unrecognized arguments"),
    (("--vers",), "unrecognized arguments: --vers"),
    (("list", "--status", "done"), "'done' is not one of completed, failed, cancelled,"),
    (("list", "--status", "failed,"), "'' is not one of completed, failed, cancelled,"),
    (("list", "--older-than", "30"), "'30' is not an age; write 45s, 30m, 12h, 30d or 2w"),
    (("list", "--older-than", "-1d"), "expected one argument"),
    (("list", "--older-than=-1d"), "'-1d' is not an age"),
    (("list", "--older-than", "d"), "'d' is not an age"),
    (("list", "--older-than", "9999999999d"), "'9999999999d' is not an age"),
    (("list", "--older-than", "٣d"), "'٣d' is not an age"),
    (("timeline",), "the following arguments are required: RUN"),
    (("steps", "../x"), "'../x' is not a valid run id"),
    (("diff", "completed"), "the following arguments are required: RUN_B"),
    (("diff", "completed", "../x"), "'../x' is not a valid run id"),
    (("completion", "csh"), "'csh'"),
    (("status",), "the following arguments are required: RUN; see kassette status --help"),
    (("status", "../etc/passwd"), "'../etc/passwd' is not a valid run id"),
    (("status", ""), "'' is not a valid run id"),
    (("dump", "completed", "--offset", "-1"), "'-1' is not a whole number, 0 or greater"),
    (("dump", "completed", "--offset=-1"), "'-1' is not a whole number, 0 or greater"),
    (("fork", "completed"), "one of the arguments --from-offset --from-step is required"),
    (
        ("fork", "completed", "--from-offset", "1", "--from-step", "llm"),
        "argument --from-step: not allowed with argument --from-offset",
    ),
    (("fork", "completed", "--from-offset", "-1"), "'-1' is not a whole number, 0 or greater"),
    (
        ("fork", "completed", "--from-offset", "1", "--new-run-id", "a/b"),
        "'a/b' is not a valid run id",
    ),
    (("fork", "completed", "--from-offset", "1", "--new-run-id", ""), "'' is not a valid run id"),
]


@pytest.mark.parametrize(("arguments", "message"), MISUSES)
def test_misuse_exits_2(url: str, store: Path, arguments: tuple[str, ...], message: str) -> None:
    """A script could not tell its own mistake from the state of a run; or something was written."""
    before = sorted(os.listdir(store))
    assert message in complaint(run("--storage", url, *arguments), 2)
    assert sorted(os.listdir(store)) == before


@pytest.mark.parametrize(
    "url", ["", "store", "file:", "http://example.org/x", "file://host/x", "FILE"]
)
def test_a_bad_url_exits_2(url: str) -> None:
    """A typo in the URL would be taken for a storage without runs."""
    message = complaint(run("--storage", url, "list"), 2)
    assert repr(url) in message
    assert "file:<path>" in message or "two slashes" in message


@pytest.mark.parametrize("variables", [{}, {"KASSETTE_STORAGE": ""}])
def test_a_missing_storage_exits_2(variables: dict[str, str]) -> None:
    """The command would guess where to look."""
    message = complaint(run("list", env=environment(**variables)), 2)
    assert message == "no storage given; pass --storage URL or set KASSETTE_STORAGE"


VERBS = [
    ("list",),
    ("list", "--limit", "0"),
    ("status", "completed"),
    ("dump", "completed"),
    ("fork", "completed", "--from-offset", "1"),
    ("list", "--status", "failed"),
    ("dump", "completed", "--follow"),
    ("timeline", "completed"),
    ("steps", "completed"),
    ("diff", "completed", "failed"),
]


@pytest.mark.parametrize("arguments", VERBS)
def test_a_storage_that_is_not_there_exits_1(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """An operator's typo would look like a storage without runs, or make a directory."""
    missing = tmp_path / "typo"
    message = complaint(run("--storage", f"file:{missing}", *arguments), 1)
    assert message == (
        f"there is no directory {str(missing)!r}; check --storage or KASSETTE_STORAGE"
    )
    assert not missing.exists()


def test_a_storage_that_is_a_file_exits_1(tmp_path: Path) -> None:
    """The path of a journal, given for that of its directory, would look like no runs."""
    file = tmp_path / "run.jsonl"
    file.write_text(START, encoding="utf-8")
    message = complaint(run("--storage", f"file:{file}", "list"), 1)
    assert message == f"{str(file)!r} is not a directory; check --storage or KASSETTE_STORAGE"
    message = complaint(run("--storage", f"file:{file}/deeper", "list"), 1)
    assert message == f"cannot open '{file}/deeper': Not a directory"


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "unknown"),
        ("dump", "unknown"),
        ("dump", "unknown", "--offset", "7"),
        ("dump", "unknown", "--follow"),
        ("timeline", "unknown"),
        ("steps", "unknown"),
        ("diff", "unknown", "completed"),
        ("diff", "completed", "unknown"),
        ("fork", "unknown", "--from-offset", "0"),
        ("fork", "unknown", "--from-step", "llm"),
    ],
)
def test_an_unknown_run_exits_1(url: str, store: Path, arguments: tuple[str, ...]) -> None:
    """An empty success: whoever mistypes a run id would conclude that nothing happened."""
    before = sorted(os.listdir(store))
    message = complaint(run("--storage", url, *arguments), 1)
    assert message.startswith("there is no run 'unknown'")
    assert sorted(os.listdir(store)) == before


REFUSALS = [
    (("--from-offset", "5"), "from_offset is 5, but run 'completed' has 4 entries; pass 0 to 4"),
    (("--from-step", "tool"), "run 'completed' has no step 'tool'"),
    (
        ("--from-offset", "1", "--new-run-id", "failed"),
        "run 'failed' already has a journal; fork into a new run id",
    ),
    (
        ("--from-offset", "1", "--new-run-id", "completed"),
        "run 'completed' already has a journal; fork into a new run id",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS)
def test_a_fork_that_cannot_be_exits_1(
    url: str, store: Path, arguments: tuple[str, ...], message: str
) -> None:
    """A fork would cut somewhere else than asked, or overwrite a run."""
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    assert complaint(run("--storage", url, "fork", "completed", *arguments), 1) == message
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before


def test_a_fork_into_a_run_that_is_open_exits_1(url: str, store: Path) -> None:
    """A run id that another process is using this moment would be taken from it (D14)."""

    async def fork_while_open() -> Outcome:
        async with LocalStorage(store) as storage, await start(storage, "mine"):
            return await anyio.to_thread.run_sync(fork)

    def fork() -> Outcome:
        return run(
            "--storage", url, "fork", "completed", "--from-offset", "1", "--new-run-id", "mine"
        )

    message = complaint(anyio.run(fork_while_open), 1)
    assert f"pid {os.getpid()} on " in message


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "damaged"),
        ("dump", "damaged", "--offset", "2"),
        ("timeline", "damaged"),
        ("steps", "damaged"),
        ("diff", "completed", "damaged"),
    ],
)
def test_a_damaged_journal_exits_1_and_names_the_line(url: str, arguments: tuple[str, ...]) -> None:
    """Damage would be passed over, or somebody would look for it line by line."""
    message = complaint(run("--storage", url, *arguments), 1)
    assert message.startswith("journal of run 'damaged', line 2: ")


@pytest.mark.parametrize("option", [(), ("--follow",)])
def test_a_damaged_journal_is_dumped_up_to_the_damage(url: str, option: tuple[str, ...]) -> None:
    """What is still whole could not be saved; or the half would be called a success."""
    code, out, err = run("--storage", url, "dump", "damaged", *option)
    assert (code, out) == (1, START.encode())
    assert err.startswith(b"kassette: journal of run 'damaged', line 2: ")
    assert err.count(b"\n") == 1


def test_a_damaged_journal_does_not_keep_others_from_being_listed(url: str) -> None:
    """One bad file would hide every run of a storage."""
    assert b'{"runId":"damaged"}\n' in run("--storage", url, "list").out


def test_a_journal_that_cannot_be_read_exits_1(store: Path, url: str) -> None:
    """An error of the disk would look like a run without entries."""
    (store / "folder.jsonl").mkdir()
    message = complaint(run("--storage", url, "dump", "folder"), 1)
    assert message.startswith(f"cannot read journal {store}/folder.jsonl: Is a directory")


@pytest.mark.parametrize(
    ("arguments", "escaped"),
    [
        (("status", "a\nb\x1b[2J"), r"a\nb\x1b[2J"),
        (("list", "a\nb\x1b[2J\u202e"), r"a\nb\x1b[2J\u202e"),
        ((b"list", b"\xff"), r"\udcff"),
    ],
)
def test_an_error_is_one_line_that_steers_no_terminal(
    url: str, arguments: tuple[str | bytes, ...], escaped: str
) -> None:
    """An argument from elsewhere could forge a second line, or clear somebody's screen."""
    message = complaint(run("--storage", url, *arguments), 2)
    assert escaped in message.replace("\\\\", "\\")


def test_errors_on_a_terminal_are_the_same_lines(url: str, store: Path) -> None:
    """Somebody at a terminal would be shown a traceback where a script gets a line."""
    for arguments in (("steps", "damaged"), ("status", "unknown"), ("list", "--limit", "x")):
        shown = run_on_terminal("--storage", url, *arguments)
        assert (shown.code, shown.err) == run("--storage", url, *arguments)[::2]
        assert shown.out == b""


def test_a_bug_is_one_line_as_well(url: str) -> None:
    """A bug of ours would fill the screen, or say nothing that its report could be traced by."""
    broken = """
import sys
import kassette
from kassette_cli.main import main
def run_status(entries):
    raise ZeroDivisionError('no\\nway')
kassette.run_status = run_status
sys.exit(main())
"""
    command = (sys.executable, "-c", broken)
    message = complaint(run("--storage", url, "status", "completed", command=command), 1)
    assert message == (
        "this is a bug in kassette, please report it: ZeroDivisionError: no\\nway (<string>:6)"
    )


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(
    ("arguments", "code"), [(("status", "unknown"), 1), (("lst",), 2), (("list",), 0)]
)
def test_a_standard_error_that_takes_nothing_changes_nothing(
    url: str, arguments: tuple[str, ...], code: int, redirection: str
) -> None:
    """`2>&-` would turn an error into a crash, or send its message to standard output."""
    shell = ("sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND)
    outcome = run("--storage", url, *arguments, command=shell)
    assert (outcome.code, outcome.err) == (code, b"")
    assert b"kassette:" not in outcome.out
