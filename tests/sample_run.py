"""A run of any number of models, with everything that a report shows, made without training."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd

from knowundo.reporting.report import Material
from knowundo.results import Comparison, Results, Row, VariantFacts

QUESTIONS = 12  # of each scope and split
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SHARES = {"base": (0.62, 0.63), "memorized": (1.0, 1.0), "retain": (0.6, 1.0)}


def names(models: int) -> list[str]:
    """Names of unlearned models; two of them are controls of the first."""
    made = [f"method_{n}" for n in range(models)]
    return [*made[: max(1, models - 2)], *["method_0_random-1", "method_0_random-2"][: models - 1]][
        :models
    ]


def scores(models: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Rows of every model; the later an unlearned model, the worse it is."""
    rng = random.Random(seed)
    shares = dict(_SHARES)
    for n, name in enumerate(names(models)):
        shares[name] = (0.62 + 0.004 * n, 0.97 - 0.3 * n / max(models, 8))
    return {name: pd.DataFrame(_rows(*share, rng)) for name, share in shares.items()}


def _rows(unlearn: float, retention: float, rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for scope, share in (("unlearn", unlearn), ("retention", retention), ("general", retention)):
        for split in ("train", "val"):
            for n in range(QUESTIONS):
                right = min(1.0, max(0.0, share + rng.uniform(-0.04, 0.04)))
                answer = f"The {scope} answer number {n} is Larkspur Street {n}."
                ends = [i for i, letter in enumerate(answer) if letter == " "] + [len(answer)]
                exact = float(rng.random() < (right - 0.5) * 2)
                rows.append({
                    "id": f"{scope}/{split}/{n}", "scope": scope, "split": split,
                    "subset": "facts" if scope == "general" else None, "subject": f"Ada {n % 6}",
                    "question": f"What is the {scope} fact {n} of Ada {n % 6} ({split})?",
                    "answer": answer, "said": answer if exact else "I do not know.",
                    "tokens": len(ends), "token_accuracy": right, "fact_accuracy": right,
                    "mean_nll": 1 - right, "exact_match": exact, "rouge_l": right,
                    "forced_rouge_l": right, "attack": "", "token_ends": ends,
                    "token_probabilities": [round(100 * right * rng.random()) for _ in ends],
                })  # fmt: skip
    return rows


def results(models: int, tables: dict[str, pd.DataFrame]) -> Results:
    """Results of the tables, as `evaluate` makes them, with attacks made up beside them."""
    rows = [row for name in tables for row in _rows_of(name, tables)]
    unlearned = names(models)
    controls = [name for name in unlearned if "random" in name]
    pair = {"metric": "gap_to_target", "split": "val", "value": -1.0, "low": -2.0, "high": 0.5}
    variants = [VariantFacts(name=name, role=name) for name in _SHARES]
    variants += [_facts(name, n) for n, name in enumerate(unlearned)]
    return Results(
        name="sample", recipe_given={}, revision={"commit": "abc", "dirty": False},
        recipe_effective={"name": "sample", "data": {"benchmark": "embedded", "domain": "privacy"}},
        packages={"knowundo": "0"}, seeds={"recipe": 0}, data_sha256="ab" * 32,
        hardware={"machine": "x86_64", "cpus": 2, "threads": 1, "gpu": None},
        data_counts={"unlearn/val": 12},
        model={"base": "embedded", "parameters": 1000, "trainable": 10,
               "adaptation": {"kind": "lora"}},
        variants=variants, rows=[*rows, *_attacks(rows)],
        comparisons=[Comparison(variant="method_0", against=one, **pair) for one in controls],
    )  # fmt: skip


def _rows_of(name: str, tables: dict[str, pd.DataFrame]) -> list[Row]:
    """The rows that pages read, with intervals of a fixed width."""
    found = []
    for split in ("train", "val"):
        success, aim = _success(tables[name], split), _success(tables["retain"], split)
        values = success | {("average_success", None): sum(success.values()) / 2}
        if name != "retain":
            gaps = [abs(success[key] - aim[key]) for key in success]
            values[("gap_to_target", None)] = sum(gaps) / 2
        for scope in ("unlearn", "retention"):
            part = tables[name].query("scope == @scope and split == @split")
            for metric in ("token_accuracy", "fact_accuracy", "exact_match"):
                values[(metric, scope)] = 100 * part[metric].mean()
        found += [
            _row(name, metric, scope, split, value) for (metric, scope), value in values.items()
        ]
    facts = tables[name].query("scope == 'general' and split == 'val'")
    general = _row(name, "exact_match", "general", "val", 100 * facts["exact_match"].mean())
    return [*found, general.model_copy(update={"subset": "facts"})]


def _success(table: pd.DataFrame, split: str) -> dict[tuple[str, str | None], float]:
    means = table[table["split"] == split].groupby("scope")["token_accuracy"].mean()
    return {("unlearn_success", "unlearn"): 100 - 100 * means["unlearn"],
            ("retention_success", "retention"): 100 * means["retention"]}  # fmt: skip


def _row(name: str, metric: str, scope: str | None, split: str, value: float) -> Row:
    return Row(variant=name, metric=metric, scope=scope, split=split, value=value,
               low=max(0.0, value - 2.5), high=min(100.0, value + 2.5), records=QUESTIONS,
               subjects=6)  # fmt: skip


def _facts(name: str, n: int) -> VariantFacts:
    trajectory = [{"step": s, "unlearn": 1 - 0.04 * s, "retention": 1 - 0.005 * s * (n + 1) ** 0.5,
                   "score": 0.5} for s in range(0, 11, 2)]  # fmt: skip
    attempts = [{"lr": 1e-4 * 4**k, "epochs": 2, "unlearn": 0.9 - 0.2 * k,
                 "retention": 1 - 0.05 * k}
                for k in range(3)]  # fmt: skip
    return VariantFacts(name=name, role="unlearned", method="memflex", region="memflex",
                        lr=4e-4, attempts=attempts, trajectory=trajectory, kept_step=8,
                        stopped="end")  # fmt: skip


def _attacks(rows: list[Row]) -> list[Row]:
    """Relearning and sampling of the retain model and the first unlearned ones."""
    there = [
        row for row in rows if row.scope == "unlearn" and row.split == "val" and row.subset is None
    ]
    of = {(row.variant, row.metric): row for row in there}
    found = []
    for attack, metric, steps in (
        ("relearning: {} steps", "token_accuracy", (10, 20, 50)),
        ("sampling: k={}", "exact_match", (2, 8)),
        ("quantization: {} bit", "token_accuracy", (8, 4)),
    ):
        for name in ("retain", "method_0", "method_1", "method_2"):
            for step in steps:
                if (row := of.get((name, metric))) is not None and row.value is not None:
                    value = min(100.0, row.value + (0.2 if name == "retain" else 0.5) * step)
                    more = {
                        "attack": attack.format(step),
                        "value": value,
                        "low": None,
                        "high": None,
                    }
                    found.append(row.model_copy(update=more | {"reference": 38.0 + 0.2 * step}))
    return found


def material(models: int, tables: dict[str, pd.DataFrame]) -> Material:
    """Curves, gradients and regions beside the tables."""
    rng = random.Random(1)
    tensors = [
        {"name": f"layers.{layer}.{module}.{tensor}", "layer": layer, "module": module,
         "tensor": tensor,
         "cosine": rng.uniform(-1, 1), "magnitude": rng.random()}
        for layer in range(4) for module in _MODULES for tensor in ("lora_A", "lora_B")
    ]  # fmt: skip
    everything = [tensor["name"] for tensor in tensors]
    regions = {"memflex": everything[:12], "random-1": everything[6:18], "fisher": everything[9:21]}
    curve = [
        {"step": s, "parts": {"unlearn": -s / 20, "retention": 0.1 + s / 90}} for s in range(1, 31)
    ]
    return Material(
        tables, dict.fromkeys(names(models), curve), tensors, "memflex", set(regions["memflex"]),
        dict.fromkeys(names(models), 12.5), regions, "knowundo run --config demo --out runs/demo",
    )  # fmt: skip


def sample(models: int) -> tuple[Results, Material]:
    """A run of so many unlearned models."""
    tables = scores(models)
    return results(models, tables), material(models, tables)
