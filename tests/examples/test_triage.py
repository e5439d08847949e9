"""The support desk of examples/triage.py, end to end in processes of its own, on both event loops."""

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROGRAM = EXAMPLES / "triage.py"
SHIPPED = EXAMPLES / "tickets.jsonl"
BACKENDS = ("asyncio", "trio")
SEVERE = ["ticket-TCK-1043", "ticket-TCK-1048", "ticket-TCK-1052", "ticket-TCK-1058"]
SEVERE.append("ticket-TCK-1065")
STEPS = ["classify", "actions:draft", "answer:draft", "summary:draft", "reply"]

Result = subprocess.CompletedProcess[str]
Report = tuple[str, str, str]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*arguments: object, cwd: Path | None = None) -> Result:
    command = [sys.executable, str(PROGRAM), "--token-delay", "0", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env=environment(), cwd=cwd, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run_reporting(
    *arguments: object, stop_at: set[Report] | None = None, with_signal: int = signal.SIGKILL
) -> tuple[list[Report], int]:
    """Run the program and read its reports; send the signal once it has made all of ``stop_at``."""
    reading, writing = os.pipe()
    command = [sys.executable, str(PROGRAM), "--token-delay", "0", "--report", str(writing)]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        env=environment(),
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(writing)
        reports: list[Report] = []
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                what, run_id, step = json.loads(line)
                reports.append((what, run_id, step))
                if stop_at is not None and stop_at <= set(reports):
                    process.send_signal(with_signal)
    return reports, process.returncode


def journal(storage: Path, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (storage / f"{run_id}.jsonl").read_bytes().splitlines()]


def types(storage: Path, run_id: str) -> list[str]:
    return [entry["type"] for entry in journal(storage, run_id)]


def step_ids(storage: Path, run_id: str) -> list[str]:
    return [each["stepId"] for each in journal(storage, run_id) if each["type"] == "step"]


def sent(storage: Path) -> list[str]:
    text = (storage / "outbox" / "replies.jsonl").read_text("utf-8")
    return [json.loads(line)["run"] for line in text.splitlines()]


def write_tickets(path: Path, *tickets: Sequence[str]) -> Path:
    keys = ("id", "customer", "subject", "body")
    lines = [json.dumps(dict(zip(keys, each, strict=True))) for each in tickets]
    path.write_text("\n".join(lines), "utf-8")
    return path


def kill_while_answering(storage: Path, ticket: str, *arguments: object) -> list[Report]:
    """Kill the program where one ticket has every draft but the answer, which is being written."""
    run_id = f"ticket-{ticket}"
    reports, code = run_reporting(
        "--storage",
        storage,
        "--stall",
        ticket,
        *arguments,
        stop_at={
            ("called", run_id, "answer"),
            ("recorded", run_id, "summary"),
            ("recorded", run_id, "actions"),
        },
    )
    assert code == -signal.SIGKILL
    return reports


@pytest.mark.parametrize("backend", BACKENDS)
def test_demo_is_killed_recovers_and_proves_it(backend: str, tmp_path: Path) -> None:
    """Would show that the first thing a newcomer runs does not do what the README says of it."""
    storage = tmp_path / "demo"
    done = run("--demo", "--backend", backend, "--storage", storage)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) < 60
    assert any("SIGKILL" in line for line in lines)
    assert [line.split()[0] for line in lines[-5:]] == ["ok"] * 5
    assert "of 14 steps recorded before the kill, 0 ran again" in done.stdout
    assert types(storage, "ticket-TCK-1044")[:4] == ["start", "step", "step", "step"]
    assert types(storage, "ticket-TCK-1044")[4:] == ["start", "step", "step", "complete"]


def test_demo_leaves_nothing_behind_in_the_working_directory(tmp_path: Path) -> None:
    """Would show that trying kassette out litters the directory that one tries it in."""
    assert run("--demo", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def load_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("triage_demo", EXAMPLES / "triage_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_says_so_when_a_recorded_step_runs_again(storage: Path) -> None:
    """Would show that the demonstration praises whatever happens: its checks could not fail."""
    demo = load_demo()
    run("--storage", storage, "--limit", "6")
    run("--storage", storage, "--approve", "ticket-TCK-1043")
    watched = demo.Demo("asyncio", storage)
    before = watched.journals()
    recorded = [demo.Report("recorded", "ticket-TCK-1041", "classify")]
    in_flight = demo.Report("called", "ticket-TCK-1044", "answer")
    again = demo.Report("called", "ticket-TCK-1041", "classify")

    def verdict(later: list[Any]) -> list[bool]:
        return list(watched.claims(recorded, later, before).values())

    assert verdict([in_flight]) == [True] * 5
    assert verdict([in_flight, again]) == [False, True, True, True, True]
    assert verdict([in_flight, in_flight]) == [True, False, True, True, True]

    path = storage / "ticket-TCK-1042.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    assert verdict([in_flight]) == [True, True, False, False, True]
    path.write_bytes(b"".join(lines))
    outbox = storage / "outbox" / "replies.jsonl"
    outbox.write_bytes(outbox.read_bytes() + outbox.read_bytes().splitlines(keepends=True)[0])
    assert verdict([in_flight]) == [True, True, True, True, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_run_goes_on_without_repeating_what_was_recorded(
    backend: str, storage: Path
) -> None:
    """Would show that a kill costs a model call, or a customer a reply, a second time."""
    first = kill_while_answering(storage, "TCK-1042", "--backend", backend)
    killed = "ticket-TCK-1042"
    assert types(storage, "ticket-TCK-1041")[-1] == "complete"
    assert sorted(step_ids(storage, killed)) == ["actions:draft", "classify", "summary:draft"]
    before = (storage / f"{killed}.jsonl").read_bytes()

    later, code = run_reporting("--storage", storage, "--backend", backend, "--limit", 2)
    assert code == 0
    assert {each[1] for each in later} == {killed}
    replayed = {step for what, _, step in later if what == "replayed"}
    called = [step for what, _, step in later if what == "called"]
    assert replayed == {"classify", "summary", "actions"}
    assert called == ["answer", "reply"]
    assert {each[1:] for each in first if each[0] == "recorded"}.isdisjoint(
        {each[1:] for each in later if each[0] == "called"}
    )
    assert (storage / f"{killed}.jsonl").read_bytes().startswith(before)
    assert sorted(step_ids(storage, killed)) == sorted(STEPS)
    assert sorted(sent(storage)) == ["ticket-TCK-1041", killed]


def test_work_of_one_loop_is_taken_up_by_the_other(storage: Path) -> None:
    """Would show that a journal belongs to the event loop that wrote it."""
    kill_while_answering(storage, "TCK-1041", "--backend", "trio")
    done = run("--storage", storage, "--backend", "asyncio", "--limit", 1)
    assert "classify○" in done.stdout
    assert sent(storage) == ["ticket-TCK-1041"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_reply_whose_step_was_in_flight_is_sent_once(backend: str, storage: Path) -> None:
    """Would show that a kill between sending and recording sends the customer two replies."""
    run("--storage", storage, "--backend", backend, "--limit", 1)
    path = storage / "ticket-TCK-1041.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    done = run("--storage", storage, "--backend", backend, "--limit", 1)
    assert "reply●" in done.stdout
    assert sent(storage) == ["ticket-TCK-1041"]


def test_torn_line_of_the_outbox_is_a_reply_that_did_not_go_out(storage: Path) -> None:
    """Would show that a reply cut off by a crash is taken as sent, or spoils the one after it."""
    run("--storage", storage, "--limit", 1)
    path = storage / "ticket-TCK-1041.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    outbox = storage / "outbox" / "replies.jsonl"
    whole = outbox.read_bytes()
    outbox.write_bytes(whole[:40])
    run("--storage", storage, "--limit", 1)
    assert outbox.read_bytes() == whole[:40] + b"\n" + whole


@pytest.mark.parametrize("backend", BACKENDS)
def test_shipped_tickets_are_replied_to_or_wait(backend: str, storage: Path) -> None:
    """Would show that the example stops half-way, or that severe tickets get a reply unasked."""
    tickets = [json.loads(line) for line in SHIPPED.read_text("utf-8").splitlines()]
    assert len({each["id"] for each in tickets}) == len(tickets) >= 24
    done = run("--storage", storage, "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    runs = {f"ticket-{each['id']}" for each in tickets}
    waiting = {run_id for run_id in runs if types(storage, run_id)[-1] == "suspend"}
    assert sorted(waiting) == SEVERE
    assert sorted(sent(storage)) == sorted(runs - waiting)
    assert "steps: 0 replayed (○), 120 ran live (●); tickets: 23 finished now, 0 before, " in (
        done.stdout
    )

    again = run("--storage", storage, "--backend", backend)
    assert "steps: 0 replayed (○), 0 ran live (●); tickets: 0 finished now, 23 before, " in (
        again.stdout
    )
    assert "5 waiting for approval, 0 failed" in again.stdout
    assert len(sent(storage)) == 23


@pytest.mark.parametrize("backend", BACKENDS)
def test_printed_command_approves_a_ticket_of_ones_own(backend: str, tmp_path: Path) -> None:
    """Would show that the command which the summary tells people to type does not work."""
    mine = write_tickets(
        tmp_path / "my tickets.jsonl",
        ("#47 / ä~", "Ada", "Our production is down", "Please help."),
        ("calm", "Bob", "Invoice", "Where is my invoice?"),
    )
    storage = tmp_path / "my journals"
    done = run(mine, "--storage", storage, "--backend", backend)
    assert done.returncode == 0
    (command,) = (line for line in done.stdout.splitlines() if "--approve" in line)
    python, program, *arguments = shlex.split(command)
    assert (python, program) == ("python", str(PROGRAM))
    run_id = arguments[-1]
    assert types(storage, run_id) == ["start", "step", "suspend"]
    assert journal(storage, run_id)[-1]["timeout"] is not None

    approved = run(*arguments, "--backend", backend)
    assert approved.returncode == 0
    assert "classify○" in approved.stdout
    assert "steps: 1 replayed (○), 4 ran live (●)" in approved.stdout
    assert sorted(sent(storage)) == sorted([run_id, "ticket-calm"])

    repeated = run(*arguments, "--backend", backend)
    assert repeated.returncode == 0
    assert "already complete" in repeated.stdout
    assert len(sent(storage)) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_denied_ticket_gets_no_reply(backend: str, storage: Path) -> None:
    """Would show that a person's no is overheard."""
    run("--storage", storage, "--backend", backend, "--limit", 3)
    denied = run(
        "--storage", storage, "--backend", backend, "--approve", "ticket-TCK-1043", "--deny"
    )
    assert denied.returncode == 0
    assert "denied" in denied.stdout
    assert types(storage, "ticket-TCK-1043")[-2:] == ["resume", "complete"]
    assert "ticket-TCK-1043" not in sent(storage)


def test_approving_an_unknown_run_is_one_clear_line(storage: Path) -> None:
    """Would show that a typing mistake is answered with a traceback, or with silence."""
    done = run("--storage", storage, "--approve", "ticket-none")
    assert done.returncode == 1
    assert done.stderr.strip() == "triage: there is no run 'ticket-none' to resume"
    assert not storage.exists()


GOOD = '{"id": "a", "customer": "b", "subject": "c", "body": "d"}\n'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "contains no ticket"),
        (b"{\n", "line 1: not JSON (Expecting property name"),
        (GOOD.encode() + b"\n[]\n", "line 3: not a JSON object"),
        (GOOD.encode() * 2, "line 2: a second ticket 'a'"),
        (b'{"id": 4}\n', "line 1: 'id' is missing, empty or not text"),
        (b'{"id": "a", "customer": " "}\n', "line 1: 'customer' is missing, empty or not text"),
        (GOOD.replace('"d"', '"\\ud83d"').encode(), "line 1: 'utf-8' codec can't encode"),
        (GOOD.replace('"a"', f'"{"x" * 300}"').encode(), "line 1: 'id' is too long"),
        (b"[" * 100_000, "line 1: "),
        (GOOD.encode("utf-16"), "is not UTF-8 text"),
        (None, "cannot be read: No such file or directory"),
    ],
    ids=lambda each: str(each)[:24] if isinstance(each, str) else "",
)
def test_bad_tickets_file_is_one_clear_line(
    content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    """Would show that somebody's broken file is answered with a traceback, or half worked on."""
    path = tmp_path / "tickets.jsonl"
    if content is not None:
        path.write_bytes(content)
    done = run(path, "--storage", tmp_path / "journals")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"triage: {path}")
    assert complaint in line
    assert not (tmp_path / "journals").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--deny",),
        ("--limit", "0"),
        ("--token-delay", "nan"),
        ("--demo", "--limit", "3"),
        ("--demo", "--storage", "."),
        (str(SHIPPED), "--approve", "ticket-TCK-1043"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Would show that an option is quietly ignored."""
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "error: " in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_changed_ticket_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    """Would show that a run goes on with half of an old text and half of a new one."""
    storage, path = tmp_path / "journals", tmp_path / "tickets.jsonl"
    calm = ("calm", "Bob", "Invoice", "Where is my invoice?")
    write_tickets(path, ("t", "Ada", "Slow", "It is slow."))
    kill_while_answering(storage, "t", path)
    before = (storage / "ticket-t.jsonl").read_bytes()
    write_tickets(path, ("t", "Ada", "Slow", "It is fast now."), calm)
    done = run(path, "--storage", storage)
    assert done.returncode == 1
    assert "run 'ticket-t' was started with different metadata (input)" in done.stdout
    assert (storage / "ticket-t.jsonl").read_bytes() == before
    assert sent(storage) == ["ticket-calm"]


def test_damaged_journal_stops_its_own_ticket_only(storage: Path) -> None:
    """Would show that one damaged journal keeps every other customer waiting."""
    kill_while_answering(storage, "TCK-1041")
    path = storage / "ticket-TCK-1041.jsonl"
    damaged = path.read_bytes().replace(b'"session":1', b'"session":"', 1)
    path.write_bytes(damaged)
    done = run("--storage", storage, "--limit", 2)
    assert done.returncode == 1
    assert "journal of run 'ticket-TCK-1041', line 1" in done.stdout
    assert path.read_bytes() == damaged
    assert sent(storage) == ["ticket-TCK-1042"]


def test_unusable_storage_is_one_clear_line(tmp_path: Path) -> None:
    """Would show that a disk which cannot be used is reported once for every ticket."""
    file = tmp_path / "file"
    file.touch()
    done = run("--storage", file)
    assert done.returncode == 1
    (line,) = done.stderr.split("\n")[1:-1]
    assert line.startswith("triage: cannot ")
    assert str(file) in line


@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupted_by_ctrl_c_it_goes_on_later(backend: str, storage: Path) -> None:
    """Would show that Ctrl-C ends a run as failed (D2), or prints a traceback."""
    stop_at = {
        ("called", "ticket-TCK-1041", "answer"),
        ("recorded", "ticket-TCK-1041", "summary"),
        ("recorded", "ticket-TCK-1041", "actions"),
    }
    common = ("--storage", storage, "--backend", backend, "--limit", 1)
    _, code = run_reporting(
        *common, "--stall", "TCK-1041", stop_at=stop_at, with_signal=signal.SIGINT
    )
    assert code == 130
    assert types(storage, "ticket-TCK-1041") == ["start", "step", "step", "step"]
    assert run(*common).returncode == 0
    assert sent(storage) == ["ticket-TCK-1041"]


def test_closed_pipe_is_a_crash_and_not_a_failure(storage: Path) -> None:
    """Would show that ``| head`` ends runs as failed, so that nothing can take them up again."""
    common = [str(PROGRAM), "--token-delay", "0", "--storage", str(storage), "--limit", "1"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *common], stdout=writing, env=environment(), check=False)
    os.close(writing)
    assert done.returncode == -signal.SIGPIPE
    assert run(*common[1:]).returncode == 0
    assert types(storage, "ticket-TCK-1041")[-1] == "complete"
