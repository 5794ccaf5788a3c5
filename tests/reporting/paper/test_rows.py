"""Rows and columns of a run in the layout of the paper's tables."""

from __future__ import annotations

from typing import Any

import pytest

from knowundo.reporting.paper.rendering import paper_table
from paper_results import HOSTILE, LLAMA, PRIVACY, QWEN, ours, results, row, sources, task


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
