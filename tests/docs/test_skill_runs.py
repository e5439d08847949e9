"""skills/kassette/SKILL.md tells the truth: its commands are run, in its order, in one shell."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kassette_cli.table import names
from kassette_cli.verbs.list import STATUSES

ROOT = Path(__file__).parents[2]
SKILL = ROOT / "skills" / "kassette" / "SKILL.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
END = "\x1e"

APP = """\
from kassette_io import Context, LocalStorage, workflow

storage = LocalStorage(".kassette")


@workflow(storage=storage)
async def order(ctx: Context) -> str:
    await ctx.step("llm", lambda: "never asked: it is on record")
    await ctx.suspend("approval")
    return "refunded"
"""
"""The program whose runs are looked into; two of them go on in the course of the page."""


def line(kind: str, session: int, offset: int, time: str, more: str = "") -> str:
    stamp = time if "T" in time else f"2026-01-31T{time}Z"
    return (
        f'{{"type":"{kind}","session":{session},"offset":{offset},"timestamp":"{stamp}"{more}}}\n'
    )


def step(session: int, offset: int, time: str, step_id: str, result: str) -> str:
    name = step_id.partition("#")[0]
    return line(
        "step", session, offset, time, f',"stepId":"{step_id}","name":"{name}","result":{result}'
    )


RESUMED = ',"eventName":"approval","value":true'
STACK = (
    "Traceback (most recent call last):\\n"
    '  File \\"app.py\\", line 21, in order\\n'
    "SMTPError: the mail server said no\\n"
)
JOURNALS = {
    "order-1": line("start", 1, 0, "12:00:00.000")
    + step(1, 1, "12:00:01.000", "llm", '"ok"')
    + line("complete", 1, 2, "12:00:02.000"),
    "order-2": line("start", 1, 0, "12:00:00.000")
    + step(1, 1, "12:00:01.000", "llm", '"ok"')
    + line(
        "suspend",
        1,
        2,
        "12:00:01.000",
        ',"reason":"Waiting for event: approval","waitingFor":"approval"',
    ),
    "order-3": line("start", 1, 0, "12:00:00.000", ',"metadata":{"order":3}')
    + step(1, 1, "12:00:02.300", "llm", '{"tool":"lookup","order":3}')
    + step(1, 2, "12:00:02.400", "tool:lookup", '{"state":"lost"}')
    + line("start", 2, 3, "12:05:00.000")
    + step(2, 4, "12:05:03.400", "llm#2", '"Dear Ada"')
    + line(
        "error",
        2,
        5,
        "12:05:03.500",
        f',"message":"the mail server said no","name":"SMTPError","stack":"{STACK}"',
    ),
    "order-4": line("start", 1, 0, "12:00:00.000")
    + step(1, 1, "12:00:01.000", "llm", '"ok"')
    + line("start", 2, 2, "12:00:02.000")
    + line("resume", 2, 3, "12:00:02.000", RESUMED),
}

JQ = """\
import json, sys
import jq

flags = "".join(each[1:] for each in sys.argv[1:] if each.startswith("-"))
(program,) = (each for each in sys.argv[1:] if not each.startswith("-"))
assert set(flags) <= set("rcs"), flags
layout = {"separators": (",", ":")} if "c" in flags else {"indent": 2}
for found in jq.compile(program).input_text(sys.stdin.read(), slurp="s" in flags):
    raw = "r" in flags and isinstance(found, str)
    print(found if raw else json.dumps(found, ensure_ascii=False, **layout))
"""
"""``jq`` as the page uses it; the filters run in jq's own library."""


def blocks() -> list[tuple[str, str]]:
    return [(match[1], match[2] or "") for match in BLOCK.finditer(SKILL.read_text("utf-8"))]


def install(directory: Path, name: str, arguments: list[str]) -> None:
    path = directory / name
    path.write_text(f'#!/bin/sh\nexec {shlex.join(arguments)} "$@"\n', "utf-8")
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory with a program and its journals, and beside it the commands to run."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "filter.py").write_text(JQ, "utf-8")
    install(commands, "jq", [sys.executable, str(commands / "filter.py")])
    install(commands, "kassette", [sys.executable, "-m", "kassette_cli"])
    install(commands, "python", [sys.executable])
    place = tmp_path / "place"
    (place / ".kassette").mkdir(parents=True)
    for run_id, journal in JOURNALS.items():
        (place / ".kassette" / f"{run_id}.jsonl").write_text(journal, "utf-8")
    (place / "app.py").write_text(APP, "utf-8")
    return place


def test_every_command_of_the_skill_runs_and_prints_what_it_says(place: Path) -> None:
    """An agent would follow its guide into an error, or read an answer that no command gives."""
    script = "".join(f"{commands}printf '{END}'\n" for commands, _ in blocks())
    env = {name: value for name, value in os.environ.items() if name != "KASSETTE_STORAGE"}
    path = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    env |= {
        "PATH": f"{place.parent / 'bin'}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
        "LC_ALL": "C",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=place,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *printed, nothing = done.stdout.split(END)
    assert nothing == ""
    for (commands, expected), output in zip(blocks(), printed, strict=True):
        assert output == expected, commands


def test_the_skill_leaves_no_verb_and_no_state_out() -> None:
    """A verb or a state would be added that agents are not told of."""
    text = SKILL.read_text("utf-8")
    commands = "\n".join(block for block, _ in blocks())
    used = set(re.findall(r"\bkassette ([a-z]+)", commands))
    assert used == set(names()) - {"check", "completion"}
    assert all(word in text for word in STATUSES)
    assert len(re.findall(r"^```bash$", text, re.MULTILINE)) == len(blocks()) > 12


def test_the_skill_begins_as_skills_do() -> None:
    """A coding agent would not find out what the skill is for, or when to use it."""
    head = SKILL.read_text("utf-8").split("---\n")[1]
    fields = dict(each.split(": ", 1) for each in head.splitlines())
    assert fields.keys() == {"name", "description"}
    assert fields["name"] == SKILL.parent.name
    assert 100 < len(fields["description"]) < 1024


def test_the_manual_s_filters_are_jq(place: Path) -> None:
    """An example in `kassette --help` would be refused by jq."""
    from kassette_cli.parser import EPILOG

    (program,) = re.findall(r"jq '([^']+)'", EPILOG)
    done = subprocess.run(
        [str(place.parent / "bin" / "jq"), "-c", program],
        input=JOURNALS["order-1"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.count("\n") == 1
