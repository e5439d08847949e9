"""``python -m tests.browser SITE [PICTURES]``: look at a built site in a Chromium, or say why not.

Before it looks at the site it looks at pages with planted faults: a check that does not see its
fault fails the run. ``PICTURES`` is a directory for what each page looks like.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.browser.checks import WIDTHS, browsing, check
from tests.browser.planted import FAULTS, plant

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


def main(arguments: list[str]) -> str | None:
    """Look at the site; return what is wrong with it, or with this machine."""
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if chromium is None:
        return (
            f"tests.browser: no Chromium: none of {', '.join(CHROMIUMS)} is on the PATH. "
            "Install one (on Debian and Ubuntu: apt-get install chromium) and run this again"
        )
    site, *more = map(Path, arguments)
    if not (site / "index.html").exists():
        return f"tests.browser: {site} holds no site; build it first (nox -s browser does)"
    for pictures in more:
        pictures.mkdir(parents=True, exist_ok=True)
    with browsing(chromium) as browser:
        blind = unseen(browser)
        if blind:
            return "tests.browser: the checks are blind to: " + ", ".join(blind)
        complaints = check(browser, site, *more)
    pages = len(list(site.rglob("*.html")))
    if not complaints:
        print(f"{pages} pages at {', '.join(map(str, WIDTHS))} px: nothing to complain of")
        return None
    return "\n".join([*map(str, complaints), f"{len(complaints)} complaints"])


def unseen(browser: Any) -> list[str]:
    """Return the planted faults that the checks do not see, and what they wrongly complain of."""
    with TemporaryDirectory() as directory:
        plant(Path(directory))
        complaints = check(browser, Path(directory))
    seen = {
        name
        for name, (_, what) in FAULTS.items()
        if any(each.page == f"{name}.html" and each.what.startswith(what) for each in complaints)
    }
    wrong = [str(each) for each in complaints if each.page == "sound.html"]
    return [name for name in FAULTS if name not in seen] + wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
