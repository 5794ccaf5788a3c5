"""Pages in a real browser; skipped with a reason where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTHS, SCHEMES = (360, 768, 1400), ("light", "dark")
# Where `npm install axe-core` was called; the tests ship no copy of it.
AXE = os.environ.get("KNOWUNDO_AXE", "node_modules/axe-core/axe.min.js")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium found; apt-get install chromium")
    with playwright.sync_playwright() as running:
        # Chromium's sandbox does not start for root, as in a container; the pages are our own.
        chromium = running.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe() -> str:
    if not Path(AXE).is_file():
        pytest.skip(f"{AXE}: not there; npm install axe-core")
    return Path(AXE).read_text("utf-8")


Open = Callable[..., Any]


@contextmanager
def opened(browser: Any, file: Path, width: int = 1400, scheme: str = "light") -> Iterator[Any]:
    """A page in its own context; what the console or the policy objects to is an error."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: one.url.startswith("file:") or said.append(one.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert said == []
