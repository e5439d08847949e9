"""The site's own parts: its pictures are of today's code, its checks fail where they cannot look."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"


def script(name: str) -> ModuleType:
    """Return a script of ``docs/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_of_terminals_show_what_terminals_show() -> None:
    """A page would show a view, or a recovery, that nobody gets any more."""
    pictures = script("pictures")
    drawn = dict(pictures.pictures())
    assert {path.name for path in drawn} == {"crash.svg", *(f"{v}.svg" for v in pictures.VIEWS)}
    for path, svg in drawn.items():
        said = pictures.text_of(path.read_text("utf-8"))
        assert said == pictures.text_of(svg), f"{path} is stale: run python docs/pictures.py"
        assert said.count("\n") > 5
        assert "$ " in said


def test_the_first_page_shows_the_crash_that_the_readme_begins_with() -> None:
    """The picture that sells the project would be of another program, or show no recovery."""
    said = script("pictures").text_of((DOCS / "pictures" / "crash.svg").read_text("utf-8"))
    lines = [re.sub(r" +#.*", "", line) for line in said.splitlines()]
    (shown,) = re.findall(
        r"```console\n(\$ python answer\.py --crash\n.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    assert "Killed" in lines
    assert "\n".join(lines).endswith(shown.strip())
    assert "(pictures/crash.svg)" in (DOCS / "index.md").read_text("utf-8")


def test_a_file_that_a_page_has_its_reader_write_has_its_name_above_it() -> None:
    """A reader of the site would not know what to call it."""
    page = "<!-- file: a.py -->\n\n```python\nx = 1\n```\n"
    assert script("site_hooks").on_page_markdown(page) == '```python title="a.py"\nx = 1\n```\n'


def test_every_view_with_a_picture_is_on_the_site() -> None:
    """A view would be drawn that no page shows."""
    assert script("site_hooks").VIEWS.keys() == script("pictures").VIEWS.keys()


def test_every_diagram_is_drawn() -> None:
    """A diagram would have changed and its picture not; the site could not be built."""
    diagrams = script("diagrams")
    wanted = diagrams.diagrams()
    assert len(wanted) >= 2
    assert set(wanted) == set((DOCS / "pictures").glob("diagram-*.svg")), "run nox -s pictures"


def test_pictures_and_styles_ask_no_other_host() -> None:
    """A reader's browser would tell another host which page is read."""
    looked = [*(DOCS / "pictures").glob("*.svg"), *(DOCS / "assets").iterdir()]
    assert len(looked) >= 9
    for path in looked:
        hosts = re.findall(r"https?://[^\s\"')]+", path.read_text("utf-8"))
        assert set(hosts) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, path


def test_tables_tell_their_cells_the_column() -> None:
    """On a phone, where a row is a list, nobody would know what a cell says."""
    html = (
        "<table><thead><tr><th>who</th><th><code>what</code></th></tr></thead>"
        "<tbody><tr><td>a</td><td>b</td></tr></tbody></table>"
    )
    shown = script("site_hooks").on_page_content(html)
    assert '<td data-label="who">a</td><td data-label="what">b</td>' in shown


def test_views_and_diagrams_become_pictures_in_boxes_that_scroll() -> None:
    """A page would show a comment, or the source of a diagram, where a picture belongs."""
    hooks = script("site_hooks")
    page = hooks.on_page_markdown((DOCS / "command.md").read_text("utf-8"))
    assert page.count('<div class="scroll terminal" markdown>') == len(hooks.VIEWS)
    page = hooks.on_page_markdown((DOCS / "architecture.md").read_text("utf-8"))
    assert page.count('<div class="scroll diagram" markdown>') == 2
    assert "mermaid" not in page
    with pytest.raises(FileNotFoundError, match="nox -s pictures"):
        hooks.on_page_markdown("```mermaid\nstateDiagram-v2\n```\n")


def test_looking_at_the_site_fails_without_a_chromium(tmp_path: Path) -> None:
    """CI would be green although nobody has looked."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert "none of chromium, chromium-browser, google-chrome is on the PATH" in done.stderr
    assert "apt-get install chromium" in done.stderr
