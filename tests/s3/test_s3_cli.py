"""The command over ``s3://``: the same verbs, output and errors as over ``file:``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import anyio
import pytest

from kassette_io import open_storage, start

from .proxy import BARE_404, CLOSED_BEFORE, PAGE_404, SLOW_DOWN, Proxy
from .servers import S3Server, free_port
from .support import PREFIX, journal, step_ids


def kassette(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kassette_cli", *arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answers(*arguments: str) -> list[dict[str, Any]]:
    done = kassette(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def url(bucket: str, atomic_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage with two runs, at the endpoint that the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", atomic_server.url)
    monkeypatch.delenv("KASSETTE_STORAGE", raising=False)
    where = f"s3://{bucket}/{PREFIX}"

    async def fill() -> None:
        async with open_storage(where) as storage:
            async with await start(storage, "run-1", metadata={"n": 1}) as run:
                await run.record("llm", lambda: {"text": "ü"})
                await run.record("llm", lambda: 2)
                await run.complete()
            async with await start(storage, "run-2"):
                pass

    anyio.run(fill)
    return where


def test_every_verb_works_over_s3(url: str, bucket: str, atomic_server: S3Server) -> None:
    """Journals of another machine are what people most want to look into."""
    assert answers("--storage", url, "list") == [{"runId": "run-1"}, {"runId": "run-2"}]
    assert len(answers("--storage", url, "list", "--limit", "1")) == 1
    (status,) = answers("--storage", url, "status", "run-1")
    assert status["status"] == "completed"
    dumped = kassette("--storage", url, "dump", "run-1").stdout
    assert dumped == atomic_server.ask("GET", f"/{bucket}/{PREFIX}/run-1/journal.jsonl")[1].decode()
    assert [
        each["type"] for each in answers("--storage", url, "dump", "run-1", "--offset", "2")
    ] == [
        "step",
        "complete",
    ]
    forked = answers(
        "--storage", url, "fork", "run-1", "--from-step", "llm#2", "--new-run-id", "run-3"
    )
    assert forked == [{"runId": "run-3"}]
    assert step_ids(journal(atomic_server, bucket, "run-3")) == ["llm"]


def test_the_verbs_beyond_the_reference_work_over_s3(url: str) -> None:
    """What a file tells by its last block and its growth, an object has to tell as well."""
    listing = answers("--storage", url, "list", "--status", "completed")
    assert listing == [{"runId": "run-1"}]
    assert answers("--storage", url, "list", "--status", "unsettled", "--older-than", "1d") == []
    assert kassette("--storage", url, "list", "--ids").stdout == "run-1\nrun-2\n"
    followed = kassette("--storage", url, "dump", "run-1", "--follow").stdout
    assert followed == kassette("--storage", url, "dump", "run-1").stdout
    spans = answers("--storage", url, "timeline", "run-1")
    assert [span["type"] for span in spans] == ["session", "step", "step"]
    points = answers("--storage", url, "steps", "run-1")
    assert [point["stepId"] for point in points] == ["llm", "llm#2", None]
    assert answers("--storage", url, "diff", "run-1", "run-2")[-1]["same"] == 0


def test_a_run_over_s3_is_followed_while_it_goes_on(url: str) -> None:
    """Each look would need a client of its own, or the second one find a closed one."""
    command = (sys.executable, "-m", "kassette_cli", "--storage", url, "dump", "run-3", "--follow")

    async def work() -> list[str]:
        async with open_storage(url) as storage, await start(storage, "run-3") as run:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                seen = [await anyio.to_thread.run_sync(process.stdout.readline)]
                for number in range(2):
                    await run.record("llm", lambda number=number: number)
                    seen.append(await anyio.to_thread.run_sync(process.stdout.readline))
                await run.complete()
                seen.append(await anyio.to_thread.run_sync(process.stdout.read))
            assert process.returncode == 0
            return seen

    seen = [json.loads(line) for line in anyio.run(work)]
    assert [entry["type"] for entry in seen] == ["start", "step", "step", "complete"]


def test_a_terminal_is_served_over_s3_as_well(url: str) -> None:
    """What people see also looks for a lock file, which an object store does not have."""
    for verb in (
        ["list"],
        ["list", "--status", "failed,completed"],
        ["status", "run-1"],
        ["status", "run-2"],
        ["dump", "run-1"],
        ["timeline", "run-1"],
        ["steps", "run-1"],
        ["diff", "run-1", "run-2"],
        ["check"],
    ):
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "kassette_cli", "--storage", url, *verb],
            stdout=theirs,
            stderr=subprocess.PIPE,
        ) as process:
            os.close(theirs)
            shown = read_all(ours)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b""), verb
        assert shown.strip(), verb


def read_all(terminal: int) -> bytes:
    """Read until the other side has gone, which a terminal says with an error."""
    parts: list[bytes] = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:
        pass
    os.close(terminal)
    return b"".join(parts)


def test_the_storage_may_come_from_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KASSETTE_STORAGE is for s3:// as much as for file:."""
    monkeypatch.setenv("KASSETTE_STORAGE", url)
    assert answers("list") == [{"runId": "run-1"}, {"runId": "run-2"}]


def test_an_error_is_one_line_and_exit_1(
    url: str, atomic_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback of three libraries would hide the one word that helps."""
    unknown = kassette("--storage", url, "status", "no-such-run")
    assert unknown.returncode == 1
    assert "no-such-run" in unknown.stderr
    missing = kassette("--storage", "s3://no-such-bucket/x", "list")
    assert missing.returncode == 1
    assert "no-such-bucket" in missing.stderr
    assert atomic_server.url in missing.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    refused = kassette("--storage", url, "dump", "run-1")
    assert refused.returncode == 1
    misused = kassette("--storage", "s3://", "list")
    assert misused.returncode == 2
    for each in (unknown, missing, refused, misused):
        assert each.stdout == ""
        assert each.stderr.count("\n") == 1, each.stderr
        assert each.stderr.startswith("kassette: ")


def test_check_proves_the_store(url: str) -> None:
    """Whoever sets up a bucket wants to know before the first run whether it can be trusted."""
    assert answers("--storage", url, "check") == [{"ok": True}]
    refused = kassette("--storage", "s3://no-such-bucket/x", "check")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "NoSuchBucket" in refused.stderr
    assert "scratch" not in refused.stderr, "nothing was written, so nothing stays"
    assert refused.stderr.count("\n") == 1


def test_a_prefix_is_no_run(url: str, bucket: str) -> None:
    """A root one level too high would show its prefixes as runs, and a typo as an unsettled one."""
    above = f"s3://{bucket}"
    assert answers("--storage", above, "list") == []
    for verb in (["status"], ["dump"], ["timeline"], ["steps"], ["dump", "--follow"]):
        refused = kassette("--storage", above, verb[0], PREFIX, *verb[1:])
        assert (refused.returncode, refused.stdout) == (1, ""), verb
        assert f"there is no run '{PREFIX}'" in refused.stderr


def test_a_run_that_is_not_there_is_not_looked_for_among_a_million(
    url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo would cost a listing of everything there is."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    assert kassette("--storage", url, "status", "run-0").returncode == 1
    assert proxy.methods() == ["GET"]


def test_the_command_outlasts_a_server_that_restarts(
    bucket: str, proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a run would fail, or tell of a run that is not there, because a server restarts."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    for fault in (CLOSED_BEFORE, BARE_404, PAGE_404, SLOW_DOWN):
        proxy.script(fault, fault, method="GET")
        (status,) = answers("--storage", url, "status", "run-1")
        assert status["status"] == "completed"
        proxy.script(fault, fault, method="GET")
        assert answers("--storage", url, "list") == [{"runId": "run-1"}, {"runId": "run-2"}]
        assert proxy.unused() == 0
