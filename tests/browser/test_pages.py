"""Every kind of page at three widths, in light and dark: it fits, and nothing is complained of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from browser.conftest import SCHEMES, WIDTHS, opened
from certified import evidence, row
from erasure_facts import erasure_results, results_with, score_tables
from knowundo.certificate.page import render_page
from knowundo.evaluation.result_rows import AVERAGE
from knowundo.recipes.acceptance import Acceptance
from knowundo.reporting.comparison import Difference
from knowundo.reporting.comparison_page import Compared, write_comparison
from knowundo.reporting.erasure import write_erasure_report
from knowundo.reporting.report import write_report
from sample_run import sample

UNFOLD = "document.querySelectorAll('details:not([hidden])').forEach(d => { d.open = true })"
KINDS = ("one model", "sixty models", "erasure", "comparison", "certificate")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    files = {kind: folder / f"{kind}.html" for kind in KINDS}
    write_report(files["one model"], *sample(1))
    write_report(files["sixty models"], *sample(60))
    before, after = score_tables()
    facts = results_with(erasure_results())
    write_erasure_report(files["erasure"], facts, {"memorized": before, "erased": after})
    rows = [
        Difference(
            f"model_{n}", "val", AVERAGE, None, "Average", 50.0, 50.0 + n, n - 2, n + 2, 0.01
        )
        for n in range(-5, 6)
    ]
    compared = Compared("second", [("seed", 0, 1)], rows)
    write_comparison(files["comparison"], "first", [compared])
    given = evidence(row("m", "token_accuracy", 1.0), acceptance=Acceptance(), run="demo")
    files["certificate"].write_text(render_page(given, None), encoding="utf-8")
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_scrolls_sideways_and_nothing_is_refused(
    browser: Any, pages: dict[str, Path], kind: str
) -> None:
    for width in WIDTHS:
        for scheme in SCHEMES:
            with opened(browser, pages[kind], width, scheme) as page:
                page.evaluate(
                    "document.querySelectorAll('details').forEach(d => { d.open = true })"
                )
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (
                    width,
                    scheme,
                )
                background = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (background == "rgb(255, 255, 255)") is (scheme == "light")


@pytest.mark.parametrize("kind", KINDS)
def test_axe_has_no_serious_finding(
    browser: Any, pages: dict[str, Path], kind: str, axe: str
) -> None:
    for width, scheme in ((360, "light"), (1400, "dark")):
        with opened(browser, pages[kind], width, scheme) as page:
            page.evaluate(UNFOLD)
            page.evaluate(axe)
            found = page.evaluate("axe.run()")["violations"]
            serious = {one["id"]: [node["html"][:150] for node in one["nodes"][:3]]
                       for one in found if one["impact"] in ("serious", "critical")}  # fmt: skip
            assert serious == {}


def test_html_is_valid(pages: dict[str, Path]) -> None:
    found = shutil.which("html-validate") or Path("node_modules/.bin/html-validate")
    if not Path(found).is_file():
        pytest.skip("no html-validate found; npm install html-validate")
    config = pages["erasure"].parent / ".htmlvalidate.json"
    config.write_text('{"root": true, "extends": ["html-validate:standard"]}')
    done = subprocess.run(
        [str(found), "--config", str(config), *map(str, pages.values())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_heading_sorts_and_unmeasured_stays_last(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["sixty models"]) as page:
        table = page.locator("table.rows")
        heading = table.get_by_role("button", name="Gap to target")

        def column() -> list[str]:
            cells: list[str] = table.locator("tbody tr td:nth-child(4)").evaluate_all(
                "cells => cells.map(cell => cell.dataset.value)"
            )
            return cells

        heading.click()
        rising = column()
        assert rising[-1] == "–"  # the retain model has no gap to itself
        numbers = [float(value) for value in rising[:-1]]
        assert numbers == sorted(numbers)
        heading.click()
        assert column() == [*rising[-2::-1], "–"] or column()[0] == rising[-2]
        assert column()[-1] == "–"
        assert table.locator("th[aria-sort=descending]").count() == 1


def test_answers_are_filtered_searched_and_shaded(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["sixty models"], 768) as page:
        said = page.locator("[data-filters=answers] output")
        shown = page.locator("#answers > details:visible")
        everything = int(said.inner_text().split()[2])
        assert shown.count() == min(15, everything)
        page.locator("select[name=scope]").select_option("unlearn")
        fewer = int(said.inner_text().split()[2])
        assert 0 < fewer < everything
        assert {one.get_attribute("data-scope") for one in shown.all()} == {"unlearn"}
        page.get_by_role("searchbox").fill("FACT street 3")
        assert 0 < int(said.inner_text().split()[2]) < fewer
        first = shown.first
        assert first.locator(".shaded span").count() == 0  # made when somebody looks
        first.locator("summary").click()
        first.locator(".shaded span").first.wait_for()
        truth = first.locator("tr.retain bdi").inner_text()
        assert first.locator(".shaded").first.inner_text() == truth
