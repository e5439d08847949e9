"""What may be wrong with a page, found in a Chromium; which pages and why is not known here.

Rules:
- A page asks no other host for anything. It is loaded offline: such a request fails.
- It logs no error, and all that it loads is there.
- Nothing reaches beyond the right edge of the screen, unless it scrolls in a box of its own, and no
  text is cut off in a box that does not scroll. A column of a table is wide enough to read.
- A link within the site leads to a page that is there, and to an anchor that it has.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final
from urllib.parse import unquote, urldefrag, urlsplit

WIDTHS = (390, 900, 1440)
"""A phone, half a screen, a desktop; in pixels."""

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

LOOK = """(narrowest) => {
  const found = [];
  const says = (element) => `<${element.tagName.toLowerCase()}> ${
    (element.textContent || element.alt || '').trim().replace(/\\s+/g, ' ').slice(0, 60)}`;
  const scrolls = (element) => {
    for (let at = element; at && at !== document.body; at = at.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(at).overflowX)) return true;
    return false;
  };
  const content = document.querySelector('.md-content') || document.body;
  if (document.documentElement.scrollWidth > innerWidth + 1) found.push('the page scrolls sideways');
  for (const element of content.querySelectorAll('*')) {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    if (!box.width || !box.height || style.visibility === 'hidden' || element.closest('svg')) continue;
    if (box.right > innerWidth + 1 && !scrolls(element))
      found.push(`reaches beyond the screen: ${says(element)}`);
    else if (['hidden', 'clip'].includes(style.overflowX) && style.position !== 'absolute'
        && element.scrollWidth > element.clientWidth + 1)
      found.push(`is cut off: ${says(element)}`);
    if (element.tagName === 'TD' && box.width < narrowest)
      found.push(`is a column of ${Math.round(box.width)} px: ${says(element)}`);
    if (element.tagName === 'IMG' && !element.naturalWidth)
      found.push(`is no picture: ${element.getAttribute('src')}`);
  }
  return found;
}"""
NARROWEST = 48
"""How wide a column of a table has to be, in pixels."""

ANCHORS = (
    "() => [...document.querySelectorAll('[id], a[name]')].map((each) => each.id || each.name)"
)
LINKS = "() => [...document.querySelectorAll('a[href]')].map((each) => each.href)"


class Complaint(NamedTuple):
    """What is wrong with a page; at which width, if that matters."""

    page: str
    what: str
    width: int | None = None

    def __str__(self) -> str:
        at = "" if self.width is None else f" at {self.width} px"
        return f"{self.page}{at}: {self.what}"


@final
class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and keeps quiet about it."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve a directory on this machine while the block runs; yield the URL of its root."""
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def browsing(chromium: str) -> Iterator[Any]:
    """Start a Chromium with a profile of its own while the block runs."""
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def check(browser: Any, directory: Path, pictures: Path | None = None) -> list[Complaint]:
    """Return all that is wrong with the HTML files below ``directory``.

    Into ``pictures`` goes what each page looks like at each width.
    """
    pages = sorted(str(path.relative_to(directory)) for path in directory.rglob("*.html"))
    complaints: list[Complaint] = []
    links: dict[str, set[str]] = {}
    anchors: dict[str, set[str]] = {}
    with serving(directory) as root, browser.new_context() as context:
        for page in pages:
            found = _look(context, root, page, pictures)
            complaints += found.complaints
            links[page], anchors[page] = found.links, found.anchors
        complaints += _dead(root, links, anchors)
    return complaints


class _Found(NamedTuple):
    complaints: list[Complaint]
    links: set[str]
    anchors: set[str]


def _look(context: Any, root: str, page: str, pictures: Path | None) -> _Found:
    complaints: list[Complaint] = []

    def route(asked: Any) -> None:
        if asked.request.url.startswith((root, "data:", "blob:")):
            asked.continue_()
            return
        complaints.append(Complaint(page, f"asks another host: {asked.request.url}"))
        asked.abort()

    def logged(message: Any) -> None:
        if message.type == "error":
            complaints.append(Complaint(page, f"logs an error: {message.text}"))

    with context.new_page() as tab:
        tab.route("**/*", route)
        tab.on("console", logged)
        tab.on("pageerror", lambda error: complaints.append(Complaint(page, f"raises {error}")))
        tab.goto(root + page, wait_until="load")
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
            found = dict.fromkeys(tab.evaluate(LOOK, NARROWEST))
            complaints += [Complaint(page, each, width) for each in found]
            if pictures is not None:
                name = page.removesuffix("index.html").strip("/").replace("/", "-") or "index"
                tab.screenshot(path=pictures / f"{name}-{width}.png", full_page=True)
        return _Found(complaints, set(tab.evaluate(LINKS)), set(tab.evaluate(ANCHORS)))


def _dead(
    root: str, links: dict[str, set[str]], anchors: dict[str, set[str]]
) -> Iterator[Complaint]:
    """Find the links to pages and anchors of the site that are not there."""
    for page, urls in links.items():
        for url in sorted(urls):
            address, anchor = urldefrag(url)
            if not address.startswith(root):
                continue
            path = unquote(urlsplit(address).path).removeprefix("/")
            target = f"{path}index.html" if not path or path.endswith("/") else path
            if target not in anchors:
                if target.endswith(".html"):
                    yield Complaint(page, f"links to no page: {target}")
            elif anchor and unquote(anchor) not in anchors[target]:
                yield Complaint(page, f"links to no anchor: {target}#{anchor}")
