"""Incidents, and what ``debug`` and ``pending`` say to somebody who was not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kassette import StartEntry, encode_entry
from kassette.evidence.diagnosis import VERDICTS, Diagnosis, Lock
from kassette_cli.verbs import debug
from kassette_io import LocalStorage, MemoryStorage
from kassette_io.storages import lock_state

from .journals import T0, T1, T2
from .processes import environment, run, run_on_terminal

WORKER = """
import anyio
import os
import sys
from kassette_io import LocalStorage, Retry, Suspended, workflow

storage = LocalStorage(sys.argv[1])
script = sys.argv[2]


def say(word):
    os.write(1, word.encode() + b"\\n")


@workflow(storage=storage)
async def refund(ctx):
    await ctx.step("llm", lambda: "refund it")
    if script == "pay":
        await ctx.step("pay", pay)
    if script == "flaky":
        return await ctx.step("pay", Flaky(), retry=Retry(max_attempts=6, delay=0))
    if script == "scan":
        return await ctx.parallel({each: scanner(each) for each in "abc"})
    if script == "ask":
        return await ctx.parallel({each: asker(each) for each in "abc"})
    if script == "late":
        return await ctx.suspend("approval", timeout=0)
    return "done"


async def pay():
    with open(f"{sys.argv[1]}/ledger", "a") as ledger:
        ledger.write("paid\\n")
    say("paid")
    await anyio.sleep_forever()


class Flaky:
    calls = 0

    def __call__(self):
        self.calls += 1
        if self.calls < 6:
            raise ConnectionError("529 overloaded")
        return "written"


def scanner(name):
    async def scan(ctx):
        return await ctx.step("scan", lambda: name)

    return scan


def asker(name):
    async def ask(ctx):
        return await ctx.suspend(f"approval:{name}", timeout=3600 if name == "a" else None)

    return ask


async def main():
    if len(sys.argv) > 3:
        print(await refund.resume("run", sys.argv[3], True, by="dana"))
    else:
        print(await refund.start(run_id="run"))


anyio.run(main)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory with a worker, which keeps its runs in ``store``."""
    (tmp_path / "worker.py").write_text(WORKER, "utf-8")
    (tmp_path / "store").mkdir()
    return tmp_path


def command(place: Path, *words: str) -> list[str]:
    return [sys.executable, str(place / "worker.py"), str(place / "store"), *words]


def work(place: Path, *words: str) -> str:
    done = subprocess.run(
        command(place, *words), env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


@contextmanager
def paying(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker, and wait until it has paid."""
    process = subprocess.Popen(command(place, "pay"), env=environment(), stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"paid\n"
            yield process
        finally:
            process.kill()


def explained(place: Path) -> tuple[int, dict[str, Any]]:
    """Give what ``debug`` says; the terminal has to say it as well."""
    url = f"file:{place}/store"
    code, out, err = run("--storage", url, "debug", "run")
    assert err == b""
    said = json.loads(out)
    assert code == debug.EXIT_CODES[said["verdict"]]
    assert run_on_terminal("--storage", url, "debug", "run", columns=300).code == code
    return code, said


def screen(place: Path) -> str:
    url = f"file:{place}/store"
    return run_on_terminal("--storage", url, "debug", "run", columns=300).out.decode()


def test_incident_1_a_process_was_killed_in_a_paid_step(place: Path) -> None:
    """Somebody would start the run again because the refund never came, and pay twice."""
    with paying(place) as process:
        pid = process.pid
        process.send_signal(signal.SIGKILL)
    _, said = explained(place)
    assert said["verdict"] == "left-in-step"
    (step,) = said["inFlight"]
    assert (step["stepId"], step["attempt"]) == ("pay", 1)
    assert step["startedAt"] in said["why"]
    assert said["lock"]["held"] is False
    assert said["lock"]["pid"] == pid
    assert said["lock"]["host"] == os.uname().nodename
    assert said["next"]["say"].startswith("look whether 'pay' took effect")
    assert "idempotency key" in said["next"]["say"]
    assert said["next"]["call"] is None
    assert len(said["next"]["then"]) == 2
    shown = screen(place)
    for fact in (step["startedAt"], f"process {pid}", "attempt 1", said["next"]["command"]):
        assert fact in shown
    subprocess.run(  # what it advises pays nobody
        said["next"]["command"].replace("kassette", f"{sys.executable} -m kassette_cli", 1),
        shell=True,
        env=environment(),
        check=True,
        capture_output=True,
    )
    assert (place / "store" / "ledger").read_text("utf-8") == "paid\n"


def test_incident_2_a_process_is_at_work(place: Path) -> None:
    """Somebody who asks whether it is working would start a second one, or kill the wrong process."""
    with paying(place) as process:
        _, said = explained(place)
        assert said["verdict"] == "running"
        assert said["lock"]["held"] is True
        assert said["lock"]["pid"] == process.pid
        assert [each["stepId"] for each in said["inFlight"]] == ["pay"]
        assert said["next"]["call"] is None
        assert "--follow" in said["next"]["command"]
        assert f"stop process {process.pid} on {os.uname().nodename}" in screen(place)


def test_incident_4_two_of_three_approvals_are_missing(place: Path) -> None:
    """Somebody would be asked again who has answered, and nobody know whom to ask."""
    work(place, "ask")
    work(place, "ask", "approval:b")
    _, said = explained(place)
    assert said["verdict"] == "waits"
    assert [each["event"] for each in said["waits"]] == ["approval:a", "approval:c"]
    first, second = said["waits"]
    assert (first["branch"], second["branch"]) == ("a", "c")
    assert first["since"]
    assert first["deadline"]
    assert second["deadline"] is None
    (delivery,) = said["deliveries"]
    assert (delivery["event"], delivery["by"], delivery["outcome"]) == (
        "approval:b",
        "dana",
        "recorded",
    )
    assert "approval:b by dana" in screen(place)
    outcome = run("--storage", f"file:{place}/store", "pending")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [each["call"] for each in lines] == [
        "await refund.resume('run', 'approval:a', VALUE)",
        "await refund.resume('run', 'approval:c', VALUE)",
    ]
    work(place, "ask", "approval:a")
    assert work(place, "ask", "approval:c").startswith("Success")


def test_incident_3_a_mistyped_event_leaves_the_wait_as_it_was(place: Path) -> None:
    """Somebody who sent the approval would not see what the run does wait for."""
    work(place, "ask")
    with pytest.raises(subprocess.CalledProcessError):
        work(place, "ask", "aproval:a")
    _, said = explained(place)
    assert said["deliveries"] == []
    assert said["waits"][0]["event"] == "approval:a"
    assert "approval:a" in screen(place)


def test_incident_5_the_deadline_has_passed_and_nobody_called(place: Path) -> None:
    """The pasted resume would cancel the run."""
    work(place, "late")
    _, said = explained(place)
    assert said["verdict"] == "late"
    assert said["waits"][0]["late"] is True
    assert "start or resume" in said["next"]["say"]
    assert " fork run --from-offset 2" in said["next"]["command"]
    (line,) = run("--storage", f"file:{place}/store", "pending").out.splitlines()
    assert json.loads(line)["call"] is None
    url = f"file:{place}/store"
    again = run("--storage", url, "fork", "run", "--from-offset", "2", "--new-run-id", "again")
    assert again.code == 0
    source = (place / "worker.py").read_text("utf-8").replace('run_id="run"', 'run_id="again"')
    (place / "worker.py").write_text(source.replace("timeout=0", "timeout=60"), "utf-8")
    assert work(place, "late").startswith("Suspended")


def test_incident_6_one_step_took_many_attempts(place: Path) -> None:
    """Three steps would have taken half an hour, and nothing say in which of them."""
    work(place, "flaky")
    _, said = explained(place)
    assert said["verdict"] == "done"
    assert said["result"] == "written"
    (retried,) = said["attempts"]
    assert (retried["stepId"], retried["attempts"], len(retried["errors"])) == ("pay", 6, 3)
    assert retried["errors"][0]["message"] == "529 overloaded"
    assert retried["seconds"] >= 0
    shown = screen(place)
    assert "pay, 6 attempts" in shown
    assert "529 overloaded" in shown


def test_incident_9_the_slow_one_of_the_parallel_steps(tmp_path: Path) -> None:
    """The last of the branches to be recorded would look fast, or the first one slow."""
    begin = '"startedAt":"2026-01-31T12:00:00.000Z"'
    lines = [f'{{"type":"start","session":1,"timestamp":"{T0}"}}']
    for name, at in (("a", T1), ("c", T2), ("b", "2026-01-31T12:06:40.000Z")):
        lines.append(
            f'{{"type":"step","session":1,"timestamp":"{at}",{begin},"stepId":"{name}:scan",'
            f'"name":"{name}:scan","result":null}}'
        )
    (tmp_path / "run.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (line,) = run("--storage", f"file:{tmp_path}", "debug", "run").out.splitlines()
    longest = json.loads(line)["longest"]
    assert longest[0] == {"stepId": "b:scan", "seconds": 400.0, "measured": True}
    assert [each["stepId"] for each in longest] == ["b:scan", "c:scan", "a:scan"]


STARTED = StartEntry(session=1, timestamp=T0)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(True, False, "running"), (False, True, "running"), (False, False, "left")],
)
def test_a_session_that_opens_or_ends_meanwhile_has_not_left_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool, after: bool, verdict: str
) -> None:
    """A run that has just begun or ended would be said to be left by its process."""
    (tmp_path / "run.jsonl").write_bytes(encode_entry(STARTED, 0))
    held = iter((before, after))
    monkeypatch.setattr(lock_state, "read_lock_state", lambda _: Lock(held=next(held)))
    found = anyio.run(debug.find, LocalStorage(tmp_path), Namespace(run="run"))
    assert found.verdict == verdict


def test_on_an_object_store_nobody_can_tell_whether_a_process_has_the_run() -> None:
    """The advice would be to start a run that another process is working on, which takes it over."""
    storage = MemoryStorage()

    async def asked() -> Diagnosis:
        await storage.append("run", STARTED)
        return await debug.find(storage, Namespace(run="run"))

    found = anyio.run(asked)
    assert (found.verdict, found.lock, found.next.call) == ("unsettled", None, None)
    assert "takes the run over" in found.next.say
    (line,) = debug.lines(found, Namespace(storage="s3://bucket"))
    assert json.loads(line)["next"]["command"] == "kassette --storage s3://bucket dump run"


def test_every_verdict_has_an_exit_code_of_its_own() -> None:
    """A script would take one verdict for another, or find it nowhere explained."""
    assert set(debug.EXIT_CODES) == set(VERDICTS)
    assert len(set(debug.EXIT_CODES.values())) == len(VERDICTS)
    assert not {1, 2, 130, 141} & set(debug.EXIT_CODES.values())
    for verdict, code in debug.EXIT_CODES.items():
        assert f"  {code:<3} {verdict} " in debug.DESCRIPTION


@pytest.mark.parametrize("run_id", ["damaged", "unknown"])
def test_a_run_that_cannot_be_read_is_an_error(url: str, run_id: str) -> None:
    """The exit code would be that of a verdict."""
    code, out, err = run("--storage", url, "debug", run_id)
    assert (code, out) == (1, b"")
    assert err.startswith(b"kassette: ")


def test_pending_hides_no_journal_that_cannot_be_read(url: str) -> None:
    """Somebody who looks for whom to ask would not be told of a run that may wait."""
    lines = [json.loads(line) for line in run("--storage", url, "pending").out.splitlines()]
    assert [each["runId"] for each in lines if "error" in each] == ["damaged"]
    answers = {each["runId"]: each["call"] for each in lines if "event" in each}
    assert answers == {
        "suspended": "await WORKFLOW.resume('suspended', 'approval', VALUE)",
        "suspended-then-start": "await WORKFLOW.resume('suspended-then-start', 'approval', VALUE)",
    }
    shown = run_on_terminal("--storage", url, "pending", columns=200).out.decode()
    assert "2 open waits" in shown
    assert "damaged" in shown


def test_a_wait_of_a_run_that_was_left_is_answered_by_looking_at_it(tmp_path: Path) -> None:
    """A resume would run the step again that the process died in."""
    (tmp_path / "run.jsonl").write_text(
        f'{{"type":"start","session":1,"timestamp":"{T0}"}}\n'
        f'{{"type":"suspend","session":1,"timestamp":"{T0}","reason":"","waitingFor":"e"}}\n'
        f'{{"type":"suspend","session":1,"timestamp":"{T0}","reason":"","waitingFor":"f"}}\n'
        f'{{"type":"start","session":2,"timestamp":"{T1}"}}\n'
        f'{{"type":"resume","session":2,"timestamp":"{T1}","eventName":"e","value":1}}\n',
        "utf-8",
    )
    (line,) = run("--storage", f"file:{tmp_path}", "pending").out.splitlines()
    said = json.loads(line)
    assert (said["event"], said["call"]) == ("f", None)
    assert said["command"] == f"kassette --storage file:{tmp_path} debug run"
    assert [*said][-2:] == ["call", "command"]


def test_looking_leaves_the_storage_as_it_was(store: Path, url: str) -> None:
    """A verb for looking would leave a lock behind, or change a journal."""
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    for words in (["pending"], *(["debug", each.stem] for each in store.glob("*.jsonl"))):
        run("--storage", url, *words)
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
