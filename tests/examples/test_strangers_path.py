"""The way of somebody who has the wheel and the README: run, crash, look, go on, fork, test.

Runs with whatever kassette its Python has: the tree's in the tests, the wheel's in `nox -s wheel`.
"""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

README = next(
    each / "README.md" for each in Path(__file__).parents if (each / "README.md").is_file()
)
FROM_THE_JOURNAL = """
import pytest
from answer import answer


@pytest.mark.kassette("journals/mail-1.jsonl")
def test_answer(kassette_journal):
    assert kassette_journal.run_sync(answer).result.startswith("sent to ada@example.com")
"""


class Stranger:
    """Sits in a directory of their own, with a Python that has kassette."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        readme = README.read_text("utf-8")
        block = re.search(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        assert block is not None
        self.program = block[1]

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, "utf-8")

    def run(self, *command: str) -> tuple[int, str]:
        """Run a command; nothing may be complained about."""
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, encoding="utf-8", check=False
        )
        assert done.stderr == "", done.stderr
        return done.returncode, done.stdout

    def ask(self, *arguments: str) -> list[dict[str, object]]:
        """Give what the kassette command prints."""
        kassette = str(Path(sys.executable).with_name("kassette"))
        code, printed = self.run(kassette, "--storage", "file:journals", *arguments)
        assert code == 0
        return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    return Stranger(tmp_path)


def test_from_the_readme_to_a_regression_test(stranger: Stranger) -> None:
    """Somebody who follows the README would be stuck on the way, at the first step that fails."""
    stranger.write("answer.py", stranger.program)
    killed, printed = stranger.run(sys.executable, "-u", "answer.py", "--crash")
    assert (killed, printed) == (-signal.SIGKILL, "asking the model\nsending the mail\n")
    (status,) = stranger.ask("status", "mail-1")
    assert status["status"] == "unsettled"

    done, printed = stranger.run(sys.executable, "answer.py")
    assert done == 0
    assert printed.startswith("sending the mail\nSuccess(")
    (status,) = stranger.ask("status", "mail-1")
    assert status["status"] == "completed"
    journal = stranger.ask("dump", "mail-1")
    assert [entry["type"] for entry in journal] == ["start", "step", "start", "step", "complete"]

    assert stranger.ask("fork", "mail-1", "--from-step", "send", "--new-run-id", "mail-1b") == [
        {"runId": "mail-1b"}
    ]
    (status,) = stranger.ask("status", "mail-1b")
    assert status["status"] == "unsettled"

    stranger.write("test_answer.py", FROM_THE_JOURNAL)
    code, printed = stranger.run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_answer.py"
    )
    assert code == 0, printed
    assert "1 passed" in printed
