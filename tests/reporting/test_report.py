"""The page of a run: what it shows, how large it is, and its figures as files."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from knowundo.errors import BadInput
from knowundo.reporting.figure_files import Format, write_figures
from knowundo.reporting.report import write_report
from sample_run import sample


@pytest.mark.parametrize("models", [1, 60])
def test_a_run_of_any_number_of_models(models: int, tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", *sample(models))
    page = (tmp_path / "r.html").read_text("utf-8")
    assert len(page.encode()) < 3_000_000
    first = re.search(r"<h1[^>]*>([^<]*)", page)
    assert first is not None
    assert first[1].startswith("method_0")
    heads = re.search(r'<table class="rows" data-sortable>.*?</thead>', page, re.DOTALL)
    assert heads is not None
    assert heads[0].count("<th ") == 6
    assert page.count('<tr class="best">') == 1
    assert "style=" not in page  # the policy allows no style but the page's own


def test_answers_carry_their_tokens_and_their_outcome(tmp_path: Path) -> None:
    found, material = sample(3)
    write_report(tmp_path / "r.html", found, material)
    page = (tmp_path / "r.html").read_text("utf-8")
    table = material.scores["memorized"]
    row = table[(table["scope"] == "unlearn") & (table["split"] == "val")].iloc[0]
    ends = " ".join(map(str, row["token_ends"]))
    digits = "".join(str(min(9, p // 10)) for p in row["token_probabilities"])
    assert f'data-ends="{ends}" data-shades="{digits}">{row["answer"]}<' in page
    assert 'data-outcome="answered → gone"' in page
    write_report(tmp_path / "r.html", found, material, redact=True)
    hidden = (tmp_path / "r.html").read_text("utf-8")
    assert row["answer"] not in hidden
    unlearn = hidden.split('data-scope="unlearn"')[1].split("</details>")[0]
    assert "data-shades" not in unlearn


def test_figures_are_files_of_their_own(tmp_path: Path) -> None:
    figures = write_report(tmp_path / "r.html", *sample(3)).all()
    files = write_figures(tmp_path / "figures", figures, [Format.svg, Format.csv])
    names = {path.stem for path in files}
    assert names == {"trade-off", "attacks", "gradients-cosine", "gradients-magnitude",
                     "region-overlap", "evaluation-steps", "learning-rates",
                     "training"}  # fmt: skip
    for path in files:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
            assert "var(--" not in path.read_text("utf-8")
        else:
            assert not pd.read_csv(path).empty
    points = pd.read_csv(tmp_path / "figures" / "trade-off.csv")
    assert dict(zip(points["name"], points["kind"], strict=True))["method_0"] == "best"


def test_png_needs_its_extra_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = write_report(tmp_path / "r.html", *sample(1)).all()
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(BadInput, match=r"pip install 'knowundo\[figures\]'"):
        write_figures(tmp_path / "figures", figures, [Format.svg, Format.png])
    assert not (tmp_path / "figures").exists()


def test_png_has_twice_the_pixels(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="draws PNG; comes with the extra figures")
    figures = write_report(tmp_path / "r.html", *sample(1)).all()
    (file,) = write_figures(tmp_path / "figures", figures[:1], [Format.png])
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(content[16:20]) == 2 * 1080
