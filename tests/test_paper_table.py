"""The paper's table: the published figures, whose they are, and three formats that hold."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from knowundo.cli import main, stages
from knowundo.errors import BadInput
from knowundo.pipeline.reporting import paper_report
from knowundo.progress import Reporter
from knowundo.recipes.presets import presets
from knowundo.reporting.paper import figures as paper
from knowundo.reporting.paper import rendering
from knowundo.reporting.paper.figures import (
    PaperRow,
    best_gain,
    mean_gain,
    published,
    published_columns,
)
from knowundo.reporting.paper.rendering import paper_table
from knowundo.reporting.paper.rows import paper_rows
from knowundo.results import Results, Row, VariantFacts, write_results
from knowundo.storage.artifacts import new_folder
from knowundo.storage.integrity import seal

# Where a published mean is not that of the figures beside it.
SLIPS = {
    ("copyright/qwen1.5-7b", "memorized", "average_success"),
    ("privacy/llama2-7b", "ascent_plus_descent_general", "general_mean"),
}
TASKS = ("mmlu", "arc_challenge", "truthfulqa_mc1", "social_iqa", "race")
MEANS = {"average_success": ("unlearn_success", "retention_success"), "general_mean": TASKS}
HOSTILE = "a_b&%$#{}|<script>[x]*\\^~ _y_"
LLAMA, QWEN = "meta-llama/Llama-2-7b-chat-hf", "Qwen/Qwen1.5-7B-Chat"
PRIVACY = "knowundo-privacy-llama2-7b"


def row(variant: str, metric: str, scope: str | None, value: float | None, **more: Any) -> Row:
    fields: dict[str, Any] = {"split": "val", "records": 1, "subjects": 1} | more
    return Row(variant=variant, metric=metric, scope=scope, value=value, **fields)


def task(variant: str, name: str, value: float | None, subset: str = "acc") -> Row:
    return row(variant, name, "general", value, split=None, subset=subset)


def results(
    *rows: Row,
    name: str = PRIVACY,
    base: str = LLAMA,
    domain: str = "privacy",
    tasks: Sequence[str] = (),
    **data: Any,
) -> Results:
    """Results of a base, a memorized model, memflex and a variant of a hostile name."""
    facts = [VariantFacts(name=role, role=role) for role in ("base", "memorized")]
    facts += [VariantFacts(name=n, role="unlearned") for n in ("memflex", HOSTILE)]
    effective = {
        "name": name,
        "model": {"base": base},
        "data": {"benchmark": "knowundo", "domain": domain, "subjects": None} | data,
        "evaluate": {"general_tasks": tasks},
    }
    return Results(
        name=name, recipe_given={}, recipe_effective=effective, revision={}, packages={},
        hardware={}, seeds={"recipe": 7}, data_sha256="0123456789abcdef", data_counts={}, model={},
        variants=facts, rows=list(rows), comparisons=[],
    )  # fmt: skip


def ours(found: Results, variant: str = "memflex", **seconds: float | None) -> PaperRow:
    rows = paper_rows(found, dict(seconds))
    return next(r for r in rows if (r.variant, r.source) == (variant, "ours"))


def sources(found: Results) -> list[tuple[str, str]]:
    return [(r.variant, r.source) for r in paper_rows(found, {})]


def test_headline_arithmetic_of_the_paper() -> None:
    gains = {column: round(best_gain(column), 2) for column in published_columns()}
    assert gains == {
        "privacy/llama2-7b": 4.17,
        "copyright/llama2-7b": 8.34,
        "privacy/qwen1.5-7b": 7.30,
        "copyright/qwen1.5-7b": 12.08,
    }
    assert round(mean_gain(), 2) == 7.97


def test_headline_time_of_the_paper() -> None:
    rows = published("privacy", "llama2-7b")
    seconds = {name: r["seconds_per_step"] for name, r in rows.items() if "seconds_per_step" in r}
    mine = float(seconds.pop("memflex") or 0)
    fastest = min(float(value or 0) for value in seconds.values())
    assert round(100 * (1 - mine / fastest), 2) == 11.76


@pytest.mark.parametrize("column", published_columns())
def test_published_rows_agree_with_themselves(column: str) -> None:
    rows = published(*column.split("/"))
    assert set(rows) == {*presets("methods"), "memorized"} & set(rows)
    assert len(rows) == 9
    for name, figures in rows.items():
        for key, value in figures.items():
            assert value == ">1e10" or isinstance(value, int | float), (name, key)
            if not key.endswith(("perplexity", "per_step", "gib")):
                assert 0 <= float(value) <= 100, (name, key)
        for key, parts in MEANS.items():
            if set(parts) <= set(figures) and (column, name, key) not in SLIPS:
                mean = sum(float(figures[part] or 0) for part in parts) / len(parts)
                assert figures[key] == pytest.approx(mean, abs=0.0101), (name, key)


def test_average_is_made_of_both_where_none_is_published() -> None:
    both = {"unlearn_success": 90.0, "retention_success": 60.0}
    assert paper._average(both | {"average_success": None}) == 75.0
    assert paper._average(both | {"average_success": 74.0}) == 74.0


def test_unknown_setting_is_bad_input() -> None:
    with pytest.raises(BadInput, match="privacy/llama2-7b"):
        published("privacy", "llama2-7")
    with pytest.raises(BadInput, match="did you mean 'latex'"):
        paper_table(results(), {}, format="latx")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "base", "domain"),
    [
        (PRIVACY, LLAMA, "privacy"),
        (PRIVACY, "/models/Llama-2-7b-chat-hf/", "privacy"),
        ("knowundo-copyright-llama2-7b", LLAMA, "copyright"),
        ("knowundo-privacy-qwen1.5-7b", QWEN, "privacy"),
        ("knowundo-copyright-qwen1.5-7b", "models/Qwen1.5-7B-Chat", "copyright"),
    ],
)
def test_paper_rows_stand_below_ours(name: str, base: str, domain: str) -> None:
    found = results(name=name, base=base, domain=domain)
    assert sources(found) == [
        ("base", "ours"),
        ("memorized", "ours"),
        ("memorized", "paper"),
        ("memflex", "ours"),
        ("memflex", "paper"),
        (HOSTILE, "ours"),
    ]
    assert "paper: Tian et al. 2024" in paper_table(found, {})
    assert "paper: Tian et al. 2024" in paper_table(found, {}, format="latex")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "demo"}, "the recipe is named demo"),
        ({"base": "embedded"}, "the base is embedded, not the paper's Llama-2-7b-chat-hf"),
        ({"base": QWEN}, "not the paper's Llama-2-7b-chat-hf"),
        ({"base": LLAMA + "-other"}, "not the paper's Llama-2-7b-chat-hf"),
        ({"domain": "copyright"}, "not the privacy domain of knowundo"),
        ({"benchmark": "embedded"}, "not the privacy domain of knowundo"),
        ({"subjects": 10}, "cut to 10 subjects"),
    ],
)
def test_no_paper_rows_beside_another_run(change: dict[str, Any], reason: str) -> None:
    found = results(**change)
    assert {source for _, source in sources(found)} == {"ours"}
    for text in (paper_table(found, {}), paper_table(found, {}, format="latex")):
        assert reason in text
        assert "82.37" not in text
        assert "Tian" not in text


def test_published_figures_stand_in_their_columns() -> None:
    table = list(csv.DictReader(io.StringIO(paper_table(results(), {}, format="csv"))))
    line = next(r for r in table if (r["variant"], r["source"]) == ("memflex", "paper"))
    assert line == {
        "variant": "memflex", "source": "paper",
        "unlearn_success": "82.95", "unlearn_perplexity": ">1e10",
        "unlearn_forced_rouge_l": "7.75", "unlearn_rouge_l": "",
        "retention_success": "81.80", "retention_perplexity": "72.50",
        "retention_forced_rouge_l": "64.33", "retention_rouge_l": "",
        "average_success": "82.37", "mmlu": "44.35", "arc_challenge": "67.76",
        "truthfulqa_mc1": "26.44", "social_iqa": "32.86", "race": "42.58",
        "general_mean": "42.79", "seconds_per_step": "3.00",
    }  # fmt: skip


def test_our_figures_come_from_val_rows_without_an_attack() -> None:
    found = results(
        row("memflex", "unlearn_success", "unlearn", 1.0, split="train"),
        row("memflex", "unlearn_success", "unlearn", 2.0, attack="relearn"),
        row("memflex", "unlearn_success", "unlearn", 3.0),
        row("base", "unlearn_success", "unlearn", 4.0),
        row("memflex", "retention_success", "retention", 5.0),
        row("memflex", "average_success", None, 6.0),
        row("memflex", "perplexity", "unlearn", 7e10),
        row("memflex", "perplexity", "retention", 8.0),
        row("memflex", "forced_rouge_l", "unlearn", 9.0),
        row("memflex", "rouge_l", "unlearn", 10.0),
        row("memflex", "rouge_l", "retention", None),
    )
    figures = ours(found, memflex=0.25).figures
    assert {key: value for key, value in figures.items() if value is not None} == {
        "unlearn_success": 3.0,
        "retention_success": 5.0,
        "average_success": 6.0,
        "unlearn_perplexity": 7e10,
        "retention_perplexity": 8.0,
        "unlearn_forced_rouge_l": 9.0,
        "unlearn_rouge_l": 10.0,
        "seconds_per_step": 0.25,
    }


def test_general_tasks_their_order_and_their_mean() -> None:
    found = results(
        task("memflex", "piqa", 80.0),
        task("memflex", "race", 41.0, "acc_norm"),
        task("memflex", "race", 40.0),
        task("memflex", "mmlu", 30.0),
        task("memflex", "mmlu_anatomy", 0.0),  # a part of mmlu
        task("base", "mmlu", 35.0),
        row("memflex", "exact_match", "general", 99.0),  # of a benchmark, not a task
        tasks=["piqa", "race", "mmlu"],
    )
    header = paper_table(found, {}, format="csv").splitlines()[0].split(",")
    assert header[-8:] == [
        "mmlu", "arc_challenge", "truthfulqa_mc1", "social_iqa", "race", "piqa", "general_mean",
        "seconds_per_step",
    ]  # fmt: skip
    assert ours(found).figures["race"] == 40.0
    assert ours(found).figures["general_mean"] == 50.0
    # The base lacks two of the three tasks: a mean over one would compare with nothing.
    assert ours(found, "base").figures["general_mean"] is None
    assert "of the tasks of this run (mmlu, race, piqa)" in paper_table(found, {})


def test_a_tag_is_shown_by_its_tasks_and_a_group_by_itself() -> None:
    names = ("arc_easy", "arc_challenge", "mmlu", "mmlu_anatomy", "mmlu_stem")
    rows = (task("memflex", name, 10.0 * n) for n, name in enumerate(names))
    found = results(*rows, tasks=["ai2_arc", "mmlu"])
    assert "(mmlu, arc_challenge, arc_easy)" in paper_table(found, {})
    assert ours(found).figures["general_mean"] == 10.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (">1e10", ">1e10"),
        (0.0, "0.00"),
        (82.374, "82.37"),
        (100.0, "100.00"),
        (999.996, "1000"),
        (7843.2, "7843"),
        (9999.7, "1e4"),
        (1.6e6, "2e6"),
        (2e10, ">1e10"),
        (float("inf"), ">1e10"),
    ],
)
def test_numbers(value: float | str | None, text: str) -> None:
    assert rendering._text(value, "–") == text


def test_csv_is_read_back() -> None:
    found = results(row(HOSTILE, "unlearn_success", "unlearn", 12.344))
    table = list(csv.reader(io.StringIO(paper_table(found, {}, format="csv"))))
    assert {len(line) for line in table} == {len(table[0])}
    assert table[-1][:3] == [HOSTILE, "ours", "12.34"]
    assert set(table[-1][3:]) == {""}


def test_markdown_has_equal_columns_and_no_live_markup() -> None:
    text = paper_table(results(), {})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
    assert "<script>" not in text
    assert r"| a_b&amp;%\$#{}&#124;&lt;script>\[x\]\*\\^\~ \_y\_ | ours | – |" in text
    assert "seed 7, data 0123456789ab" in text


def test_latex_is_balanced_and_escaped() -> None:
    text = paper_table(results(name="a_b"), {}, format="latex")
    escaped = re.sub(r"\\[_&%$#{}]", "", text)
    assert escaped.count("{") == escaped.count("}")
    body = escaped.split("\n", 1)[1]  # the first line is a comment
    assert not re.search(r"[_%#<>|~^]", body)
    assert body.count("$") % 2 == 0
    assert (
        r"a\_b\&\%\$\#\{\}\textbar{}\textless{}script\textgreater{}{[}x]{*}\textbackslash{}"
        r"\textasciicircum{}\textasciitilde{} \_y\_ & ours & -- &"
    ) in text
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    width = len(re.search(r"\{(llr+)\}", text)[1])  # type: ignore[index]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {width - 1}
    assert "seed 7, data 0123456789ab" in text


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_task_of_any_name_is_escaped(form: Any) -> None:
    text = paper_table(results(task("memflex", HOSTILE, 1.0), tasks=[HOSTILE]), {}, format=form)
    if form == "csv":
        assert HOSTILE in next(csv.reader(io.StringIO(text)))
    else:
        assert "<script>" not in text


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A run's directory with results and one trained variant, as the command line opens it."""
    found = results(base="embedded")
    found.variants = [v for v in found.variants if v.name != HOSTILE]
    run = SimpleNamespace(
        out=tmp_path,
        unlearned=lambda name: tmp_path / "unlearned" / name,
        reporter=Reporter(),
        seal=partial(seal, tmp_path),
    )
    with new_folder(run.unlearned("memflex"), {}, seconds=5.0, optimizer_steps=4):
        pass
    write_results(found, tmp_path / "results.json")
    monkeypatch.setattr(stages, "open_run", lambda *given: run)
    return run


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["knowundo", "report", "--style", "paper", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_command_writes_three_files_and_prints_one(
    opened: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "--json")
    files = {form: Path(path) for form, path in json.loads(capsys.readouterr().out).items()}
    names = {form: path.name for form, path in files.items()}
    assert names == {
        "markdown": "paper-table.md",
        "latex": "paper-table.tex",
        "csv": "paper-table.csv",
    }
    for words, form in (((), "markdown"), (("--format", "latex"), "latex")):
        call(monkeypatch, *words)
        assert capsys.readouterr().out == files[form].read_text("utf-8")
    line = list(csv.DictReader(files["csv"].open(encoding="utf-8")))[-1]
    assert (line["variant"], line["seconds_per_step"]) == ("memflex", "1.25")


def test_table_before_evaluation_is_bad_input(opened: SimpleNamespace) -> None:
    (opened.out / "results.json").unlink()
    with pytest.raises(BadInput, match="run `knowundo evaluate"):
        paper_report(opened)  # type: ignore[arg-type]
    assert not list(opened.out.glob("paper-table*"))


def test_format_without_the_paper_style_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["knowundo", "report", "--format", "csv"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err == "error: --format: report.html has one only; add --style paper\n"
    )
