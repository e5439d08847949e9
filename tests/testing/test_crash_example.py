"""The example of this repository, crashed everywhere: what we show people keeps our own rules."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from examples.triage import Desk, Outbox, Ticket, triage_workflow
from kassette_io import LocalStorage, Success
from kassette_io.testing import crash_everywhere

pytestmark = pytest.mark.anyio

SEVERE = Ticket("T-1", "Ada (Acme)", "Production is down", "503 everywhere, all is offline")


@pytest.mark.parametrize("approved", [True, False])
async def test_the_support_desk_survives_a_crash_at_every_point(
    approved: bool, tmp_path: Path, anyio_backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """People would copy a workflow that sends a reply twice, or not at all."""
    options = argparse.Namespace(
        storage=tmp_path, backend=anyio_backend, token_delay=0, stall=None, report=None
    )
    desk = Desk(options)
    outbox = tmp_path / "outbox" / "replies.jsonl"

    def replies() -> list[str]:
        if not outbox.exists():
            return []
        return [json.loads(line)["text"] for line in outbox.read_text("utf-8").splitlines()]

    async def send(ticket: Ticket, text: str) -> str:
        answer = await desk.outbox.send(ticket, text)
        assert answer in ("replied", "replied (sent before the crash)")
        return "replied"

    assert isinstance(desk.outbox, Outbox)
    survived = await crash_everywhere(
        triage_workflow(desk, LocalStorage(tmp_path / "journals")),
        SEVERE,
        answers={"approval": {"approved": approved}},
        stubs={"reply": send},
        reset=lambda: outbox.unlink(missing_ok=True),
        probe=replies,
    )
    assert survived.outcome == Success(
        "replied" if approved else "denied, left to a person", "run-1"
    )
    assert len(survived.crashes) == (40 if approved else 16)
    assert len(replies()) == approved
    capsys.readouterr()
