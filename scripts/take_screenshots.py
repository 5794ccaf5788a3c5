"""Pictures of pages for README and docs, taken in Chromium.

    python scripts/take_screenshots.py --run runs/demo --answers runs/small --erasure runs/request-1

Without an option, its pictures are left as they are. Needs `pip install playwright` and Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FIRST_ANSWER = "document.querySelector('#answers > details').open = true"


@dataclass(frozen=True)
class Shot:
    """One picture: of which page, how wide and high, and what is done before it is taken."""

    name: str
    page: Path
    width: int
    height: int
    scheme: str = "light"
    script: str = ""
    at: str | None = None  # element at which the picture begins; if `None`, the top


def shots(
    run: Path | None, answers: Path | None, erasure: Path | None, compared: Path | None
) -> list[Shot]:
    """The pictures of those pages that were given."""
    found = []
    if run is not None:
        page = run / "report.html"
        maps = "xpath=//h2[text()='Where the knowledge was looked for']"
        found += [
            Shot("report", page, 1160, 1130),
            Shot("report-dark", page, 1160, 1130, "dark"),
            Shot("report-narrow", page, 360, 1250),
            Shot("report-regions", page, 1160, 640, at=maps),
        ]
    if answers is not None:
        heading = "xpath=//h2[text()='Questions and answers']"
        page = answers / "report.html"
        found.append(Shot("report-answers", page, 1160, 700, script=FIRST_ANSWER, at=heading))
    if erasure is not None:
        found.append(Shot("erasure", erasure / "report.html", 1160, 1000))
    if compared is not None:
        found.append(Shot("comparison", compared, 1160, 900))
    return found


def take(browser: Browser, shot: Shot) -> Path:
    """Take a picture.

    Raises:
        FileNotFoundError: The page is not there.
    """
    if not shot.page.is_file():
        raise FileNotFoundError(f"{shot.page}: no such page; run `knowundo report` first")
    size = {"width": shot.width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=shot.scheme, offline=True)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(shot.page.resolve().as_uri())
    if shot.script:
        page.evaluate(shot.script)
    box = None if shot.at is None else page.locator(shot.at).bounding_box()
    top = 0.0 if box is None else max(0.0, box["y"] - 12)
    height = min(shot.height, page.evaluate("document.documentElement.scrollHeight") - top)
    path = IMAGES / f"{shot.name}.png"
    clip = {"x": 0, "y": top, "width": shot.width, "height": height}
    page.screenshot(path=path, full_page=True, clip=clip)  # type: ignore[arg-type]
    context.close()
    return path


def main() -> None:
    """Take the pictures of the pages that the options name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="directory of a run with a report")
    parser.add_argument("--answers", type=Path, help="directory of a run of few models")
    parser.add_argument("--erasure", type=Path, help="directory of an erasure")
    parser.add_argument("--compare", type=Path, help="a page of `knowundo compare --html`")
    given = parser.parse_args()
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        sys.exit("no Chromium found; apt-get install chromium")
    with sync_playwright() as running:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = running.chromium.launch(executable_path=found, args=flags)
        for shot in shots(given.run, given.answers, given.erasure, given.compare):
            print(take(browser, shot))
        browser.close()


if __name__ == "__main__":
    main()
