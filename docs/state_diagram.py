"""Draws the session's state diagram in architecture.md from ``kassette.TRANSITIONS``.

``python docs/state_diagram.py`` writes the block between the markers; with ``--check`` it fails if
the block is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kassette import ENDED, TRANSITIONS, State

PAGE = Path(__file__).with_name("architecture.md")
BEGIN = "<!-- state diagram: begin, written by docs/state_diagram.py -->"
END = "<!-- state diagram: end -->"


def diagram() -> str:
    """Return the mermaid diagram, and the table of the commands that leave a state as it is."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.NEW.value}"]
    staying: list[tuple[str, str]] = []
    for state in State:
        row = TRANSITIONS[state]
        for following in State:
            names = [command.__name__ for command, states in row.items() if following in states]
            if following is state and names:
                staying.append((state.value, ", ".join(f"`{name}`" for name in names)))
            elif names:
                lines.append(f"    {state.value} --> {following.value}: {', '.join(names)}")
    lines += [f"    {state.value} --> [*]" for state in State if state in ENDED]
    lines += ["```", "", "| state | commands that it also allows, without leaving it |"]
    lines.append("|---|---|")
    lines += [f"| {state} | {names} |" for state, names in staying]
    return "\n".join(lines)


def renew(page: str) -> str:
    """Return ``page`` with the block between its markers drawn again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{diagram()}\n\n{END}{after}"


def main(arguments: list[str]) -> str | None:
    """Write or check the page; return the complaint, if there is one."""
    page = PAGE.read_text("utf-8")
    renewed = renew(page)
    if arguments == ["--check"]:
        return None if page == renewed else f"{PAGE} is stale: run python {Path(__file__)}"
    PAGE.write_text(renewed, "utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
