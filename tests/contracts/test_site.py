"""The documentation site builds without a warning, asks nobody for anything, and its code runs."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Call
from knowundo.recipes.reading import load_recipe
from knowundo.results import read_results
from plugin_methods import install
from tiny_run import SETS

ROOT = Path(__file__).parents[2]


def test_the_pages_of_the_registry_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / "scripts" / "build_registry_pages.py"))["pages"]()
    there = {file.name: file.read_text("utf-8") for file in ROOT.glob("docs/registry/*.md")}
    assert there == pages, "run scripts/build_registry_pages.py"
    assert "### npo\n" in pages["methods.md"]
    assert "2404.05868" in pages["papers.md"]


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    listed = re.findall(r": (\S+\.md)$", nav, flags=re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    missing = {page for page in pages if not page.startswith("design/")} - set(listed)
    assert not missing
    assert len(listed) == len(set(listed)) > 20


@pytest.mark.slow
def test_the_site_builds_strictly_and_asks_no_other_server(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    outside = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//")
    for page in pages:
        found = outside.search(page.read_text("utf-8"))
        assert found is None, f"{page.name}: {found}"


def titled(page: Path, title: str) -> str:
    """The fenced block of a page with this title."""
    block = re.search(rf'^```\w+ title="{title}"\n(.*?)^```', page.read_text(), re.M | re.S)
    assert block is not None, title
    return block[1]


@pytest.mark.slow
def test_the_method_of_ten_minutes_is_trained(
    tmp_path: Path, knowundo: Call, toy_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "adding-a-method.md"
    install(titled(page, "mine/gentle_ascent.py"), tmp_path / "mine", monkeypatch)
    (tmp_path / "compare.yaml").write_text(titled(page, "compare.yaml"))
    assert "gentle_ascent" in knowundo("list", "methods").stdout
    small = [one for one in SETS if not one.startswith("unlearn.variants")]
    sets = [word for one in [*small, f"model.base={toy_base}"] for word in ("--set", one)]
    done = knowundo("run", "--config", "compare.yaml", *sets, "--out", "runs/mine")
    assert done.returncode == 0, done.stderr
    variants = {
        one.name: one for one in read_results(tmp_path / "runs/mine" / "results.json").variants
    }
    assert {"memflex", "gentle", "gentler"} <= set(variants)
    plans = {plan.name: plan for plan in load_recipe("compare.yaml")[0].unlearn.variants}
    assert plans["gentler"].arguments == {"gentleness": 0.1}
