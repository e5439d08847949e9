"""The JSON contract, byte for byte, as a program that reads it from a pipe sees it."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest

from .journals import (
    COMPLETED,
    FAILED,
    JOURNALS,
    RESUMED,
    START,
    STATUS_LINES,
    SURROGATES,
    UNKNOWN_FIELDS,
    long_journal,
)
from .processes import Outcome, environment, run, run_on_terminal

LISTED = "".join(f'{{"runId":"{run_id}"}}\n' for run_id in sorted(JOURNALS)).encode()


def test_list_gives_one_run_id_a_line_in_order(url: str) -> None:
    """`list | jq -r .runId` would miss runs, or meet files that are none."""
    assert run("--storage", url, "list") == Outcome(0, LISTED, b"")


@pytest.mark.parametrize(("limit", "lines"), [("0", 0), ("2", 2), ("11", 11), ("999", 11)])
def test_list_stops_at_its_limit(url: str, limit: str, lines: int) -> None:
    """`--limit` would be off by one, or fail where there are fewer runs."""
    expected = b"".join(LISTED.splitlines(keepends=True)[:lines])
    assert run("--storage", url, "list", "--limit", limit) == Outcome(0, expected, b"")


def test_list_of_an_empty_storage_is_an_empty_success(tmp_path: Path) -> None:
    """A script over a storage that has no runs yet would stop."""
    assert run("--storage", f"file:{tmp_path}", "list") == Outcome(0, b"", b"")


@pytest.mark.parametrize("run_id", sorted(STATUS_LINES))
def test_status_is_one_compact_object(url: str, run_id: str) -> None:
    """One of the five states would be told wrongly, or in another form than the reference's."""
    expected = STATUS_LINES[run_id].encode()
    assert run("--storage", url, "status", run_id) == Outcome(0, expected, b"")


@pytest.mark.parametrize(
    ("run_id", "journal"),
    [
        ("completed", COMPLETED),
        ("failed", FAILED),
        ("resumed", RESUMED),
        ("surrogates", SURROGATES),
        ("unknown-fields", UNKNOWN_FIELDS),
    ],
)
def test_dump_gives_the_lines_of_the_journal(url: str, run_id: str, journal: str) -> None:
    """An archive made with `dump` would not be the journal: a field lost, a byte changed."""
    assert run("--storage", url, "dump", run_id) == Outcome(0, journal.encode(), b"")


def test_dump_writes_offsets_that_a_journal_leaves_out(store: Path, url: str) -> None:
    """`jq .offset` would give null for journals in the older, shorter form."""
    short = COMPLETED.replace('"offset":0,', "").replace('"offset":2,', "")
    (store / "short.jsonl").write_text(short, encoding="utf-8")
    assert run("--storage", url, "dump", "short").out == COMPLETED.encode()


@pytest.mark.parametrize(("offset", "lines"), [(0, 4), (1, 3), (3, 1), (4, 0), (10**17, 0)])
def test_dump_begins_at_an_offset(url: str, offset: int, lines: int) -> None:
    """`--offset` would be off by one, or an error beyond the end, where a poller waits for more."""
    expected = "".join(COMPLETED.splitlines(keepends=True)[4 - lines :]).encode()
    outcome = run("--storage", url, "dump", "completed", "--offset", str(offset))
    assert outcome == Outcome(0, expected, b"")


def test_dump_leaves_out_an_append_that_never_happened(url: str) -> None:
    """A torn last line would reach jq (D11)."""
    assert run("--storage", url, "dump", "torn") == Outcome(0, START.encode(), b"")
    assert run("--storage", url, "dump", "never-written") == Outcome(0, b"", b"")


def test_dump_gives_the_whole_of_a_long_journal(store: Path, url: str) -> None:
    """What does not fit into one write would be cut off."""
    journal = long_journal(2000)
    (store / "long.jsonl").write_text(journal, encoding="utf-8")
    assert run("--storage", url, "dump", "long") == Outcome(0, journal.encode(), b"")


def test_fork_names_the_new_run_and_leaves_the_source_alone(store: Path, url: str) -> None:
    """The only verb that writes would write to the run that is being looked into."""
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    outcome = run(
        "--storage", url, "fork", "completed", "--from-offset", "2", "--new-run-id", "again"
    )
    assert outcome == Outcome(0, b'{"runId":"again"}\n', b"")
    after = {path.name: path.read_bytes() for path in store.iterdir()}
    new = after.pop("again.jsonl")
    assert after == before
    assert run("--storage", url, "dump", "again") == Outcome(0, new, b"")


@pytest.mark.parametrize("cut", [("--from-offset", "2"), ("--from-step", "llm#2")])
def test_fork_copies_what_lies_below_the_cut(url: str, cut: tuple[str, str]) -> None:
    """The new run would replay the step it was forked to do anew, or miss one before it."""
    run("--storage", url, "fork", "completed", *cut, "--new-run-id", "again")
    lines = run("--storage", url, "dump", "again").out.decode().splitlines(keepends=True)
    first, copied, second = lines
    assert copied == COMPLETED.splitlines(keepends=True)[1]
    first_entry, second_entry = json.loads(first), json.loads(second)
    written_by_this_fork = {
        key: second_entry[key] for key in ("timestamp", "writer") if first_entry[key]
    }
    assert first_entry == {
        "type": "start",
        "session": 1,
        "offset": 0,
        "metadata": {"ticket": 7},
        **written_by_this_fork,
    }
    assert second_entry == {
        "type": "start",
        "session": 2,
        "offset": 2,
        "source": {"runId": "completed", "fromOffset": 2},
        "opened": "fork",
        **{key: second_entry[key] for key in ("host", "pid", "lib")},
        **written_by_this_fork,
    }
    assert run("--storage", url, "status", "again").out == b'{"status":"unsettled"}\n'


def test_fork_keeps_unknown_fields_and_lone_surrogates(url: str) -> None:
    """A fork would lose what another implementation has put into the journal."""
    run("--storage", url, "fork", "unknown-fields", "--from-offset", "2", "--new-run-id", "u")
    assert UNKNOWN_FIELDS.splitlines()[1] in run("--storage", url, "dump", "u").out.decode()
    run("--storage", url, "fork", "surrogates", "--from-offset", "2", "--new-run-id", "s")
    assert SURROGATES.splitlines()[1] in run("--storage", url, "dump", "s").out.decode()


def test_fork_of_everything_drops_the_end(url: str) -> None:
    """The fork of a failed run would be failed as well, and could never go on."""
    run("--storage", url, "fork", "failed", "--from-offset", "2", "--new-run-id", "again")
    assert run("--storage", url, "status", "again").out == b'{"status":"unsettled"}\n'


def test_fork_makes_a_random_run_id_and_lets_go_of_the_run(store: Path, url: str) -> None:
    """Two forks would collide, or the run would stay locked by a process that is gone (D14)."""
    outcomes = [run("--storage", url, "fork", "completed", "--from-offset", "1") for _ in range(2)]
    made = {json.loads(outcome.out)["runId"] for outcome in outcomes}
    assert len({str(uuid.UUID(run_id)) for run_id in made}) == 2
    assert [outcome[::2] for outcome in outcomes] == [(0, b""), (0, b"")]
    assert not list(store.glob("*.lock"))


def test_a_run_id_that_looks_like_an_option_stands_behind_two_dashes(url: str, store: Path) -> None:
    """A run that D10 allows could not be looked at."""
    (store / "-x.jsonl").write_text(START, encoding="utf-8")
    assert run("--storage", url, "dump", "--", "-x") == Outcome(0, START.encode(), b"")


def test_the_environment_names_the_storage(url: str, store: Path, tmp_path: Path) -> None:
    """KASSETTE_STORAGE would be ignored, or win over what the command line says."""
    assert run("list", env=environment(KASSETTE_STORAGE=url)).out == LISTED
    other = environment(KASSETTE_STORAGE=f"file:{tmp_path}/none")
    assert run("--storage", url, "list", env=other).out == LISTED
    relative = environment(KASSETTE_STORAGE=f"file:{store.name}")
    assert run("list", env=relative, cwd=store.parent).out == LISTED


def test_options_may_stand_behind_the_verb(url: str) -> None:
    """`kassette list --json`, as everybody types it, would be misuse."""
    assert run("list", "--storage", url, "--json") == Outcome(0, LISTED, b"")
    assert run("--storage", "file:/none", "list", "--storage", url).out == LISTED
    assert run("--storage", url, "--json", "list").out == LISTED


@pytest.mark.parametrize(
    "arguments", [("list",), ("status", "failed"), ("dump", "surrogates"), ("dump", "completed")]
)
def test_json_on_a_terminal_is_the_json_of_a_pipe(url: str, arguments: tuple[str, ...]) -> None:
    """`--json` would still be coloured, wrapped or indented by somebody who copies it."""
    shown = run_on_terminal("--json", "--storage", url, *arguments, columns=20)
    piped = run("--storage", url, *arguments)
    assert shown == Outcome(0, piped.out.replace(b"\n", b"\r\n"), b"")


def test_output_is_utf_8_whatever_the_locale(url: str) -> None:
    """A cron job in the C locale would get other bytes, or a crash, for a name with an accent."""
    env = environment(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert run("--storage", url, "dump", "completed", env=env).out == COMPLETED.encode()


@pytest.mark.parametrize("arguments", [("--help",), ("fork", "--help"), ("-h",)])
def test_help_goes_to_standard_output(arguments: tuple[str, ...]) -> None:
    """`kassette --help | less` would be empty, or ask for a storage."""
    code, out, err = run(*arguments)
    assert (code, err) == (0, b"")
    assert out.startswith(b"usage: kassette ")
    assert b"--storage URL" in out


def test_version_is_one_line() -> None:
    """A bug report could not say what it is about."""
    code, out, err = run("--version")
    assert (code, err) == (0, b"")
    assert re.fullmatch(rb"kassette \S.*\n", out)


def test_a_timestamp_is_dumped_as_it_stands(store: Path, url: str) -> None:
    """A journal with timestamps in a form of its own could not be archived as it is."""
    journal = '{"type":"start","session":1,"offset":0,"timestamp":"yesterday"}\n'
    (store / "loose.jsonl").write_text(journal, encoding="utf-8")
    assert run("--storage", url, "dump", "loose").out == journal.encode()
