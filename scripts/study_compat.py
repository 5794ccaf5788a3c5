"""What each behaviour of the public KnowUnDo code does to the scores, on the embedded base.

    python scripts/study_compat.py runs/compat --seeds 0 1 2 > table.md
    python scripts/study_compat.py runs/compat --seeds 0 --only bfloat16_updates

For each seed it makes a run without any behaviour, one with each alone, and one with all; learning
rates are fixed, so that nothing else changes. Existing runs are reused. It writes Markdown: the
mean over seeds of the change against the run without, and its range; for `bfloat16_updates`, at
these rates and at those of the scripts, the share of the adapter's parameters that change, and the
distance of the update from that in float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from knowundo import Run, load_recipe, run_all
from knowundo.pipeline.comparison import compare
from knowundo.progress import RichReporter
from knowundo.recipes.values import QUIRKS
from knowundo.reporting.comparison import Difference

# Rates of about equal unlearning without any behaviour; 16 rows an optimizer step, as in the paper.
VARIANTS = {
    "gradient_ascent": {"lr": 8e-4, "accumulation": 2},
    "random_label": {"lr": 5.5e-4, "accumulation": 2},
    "adversarial_sample": {"lr": 1.1e-3, "accumulation": 2},
    "ascent_plus_descent": {"lr": 1.1e-3},
    "ascent_plus_kl": {"lr": 1e-3},
    "memflex": {"lr": 1.2e-2},
}
# Models that a behaviour can change; behaviours that are not listed change all.
TOUCHED = {
    "fixed_length": ["ascent_plus_descent"],
    "question_labels": ["random_label"],
    "base_labels": ["adversarial_sample"],
    "soft_kl": ["ascent_plus_kl"],
    "fixed_length+soft_kl": ["ascent_plus_kl"],
    "reference_dropout": ["ascent_plus_kl"],
    "padding_labels": ["adversarial_sample"],
}
# Settings without which a behaviour has no effect; the run that it is compared with has them too.
NEEDED = {"reference_dropout": ["model.dropout=0.1"]}
# Learning rates of the public scripts.
SCRIPTS = {"gradient_ascent": 5e-5, "ascent_plus_descent": 5e-5, "memflex": 3e-4}


def make(
    out: Path,
    compat: object,
    seed: int,
    variants: list[dict[str, object]],
    *,
    start: Path | None = None,
    more: list[str] | None = None,
) -> Path:
    """A run with some behaviours, from another run's memorized model if `start` is given."""
    sets = [
        f"seed={seed}",
        f"compat={json.dumps(compat)}",
        "memorize.retain_model=false",
        "localize.draws=0",
        f"unlearn.variants={json.dumps(variants)}",
        "evaluate.generate=[]",
        "evaluate.resamples=10",
        *(more or []),
    ]
    if start is not None:
        sets.append(f"memorize.adopt={start / 'memorized'}")
    recipe, given = load_recipe("demo", sets)
    run_all(Run(recipe, out, given=given, reporter=RichReporter()))
    return out


def chosen(names: list[str]) -> list[dict[str, object]]:
    """Variants at the rates of this study."""
    return [{"preset": name, **VARIANTS[name]} for name in names]


def changes(folder: Path, seed: int, behaviours: list[str]) -> dict[str, list[Difference]]:
    """Behaviour → differences from the run without any."""
    every = list(VARIANTS)
    found = {}
    for name in behaviours:
        needed, names = NEEDED.get(name, []), TOUCHED.get(name, every)
        if needed:
            plain = folder / f"none-{name}-{seed}"
            make(plain, [], seed, chosen(names), more=needed)
        else:
            plain = make(folder / f"none-{seed}", [], seed, chosen(every))
        compat: object = "original" if name == "original" else name.split("+")
        start = None if name in ("naive_boundary", "original") else plain
        out = folder / f"{name}-{seed}"
        make(out, compat, seed, chosen(names), start=start, more=needed)
        found[name] = compare(plain, out)[1]
    return found


def updates(folder: Path, seed: int) -> list[str]:
    """Table rows, per rate and variant: share of parameters that bfloat16 changes, and distance."""
    plain, low = folder / f"none-{seed}", folder / f"bfloat16_updates-{seed}"
    pairs = {"of this study": (plain, low)}
    variants: list[dict[str, object]] = [{"preset": n, "lr": r} for n, r in SCRIPTS.items()]
    pairs["of the scripts"] = (
        make(folder / f"scripts-none-{seed}", [], seed, variants, start=plain),
        make(
            folder / f"scripts-bfloat16-{seed}", ["bfloat16_updates"], seed, variants, start=plain
        ),
    )
    memorized = load_file(plain / "memorized" / "adapter_model.safetensors")
    lines = []
    for rates, (one, other) in pairs.items():
        for name in SCRIPTS:
            files = [out / "unlearned" / name / "adapter_model.safetensors" for out in (one, other)]
            ends = [load_file(file) for file in files]
            begins = [memorized, {n: v.bfloat16().float() for n, v in memorized.items()}]
            moves = [
                torch.cat([(end[n] - begin[n]).flatten() for n in memorized])
                for begin, end in zip(begins, ends, strict=True)
            ]
            trained = moves[0] != 0
            share = float((moves[1][trained] != 0).double().mean())
            off = float((moves[1] - moves[0]).norm() / moves[0].norm())
            lines.append(f"| {rates} | {name} | {share:.0%} | {off:.0%} |")
    return lines


def spread(values: list[float]) -> str:
    """Mean and range."""
    mean = sum(values) / len(values)
    if max(map(abs, values)) < 0.05:
        return "0"
    if max(map(abs, values)) >= 1000:
        return f"{min(values):+.0e} … {max(values):+.0e}"
    return f"{mean:+.1f} ({min(values):+.1f} … {max(values):+.1f})"


def main() -> None:
    """Make the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    known = [*QUIRKS, "fixed_length+soft_kl", "original"]
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    options = parser.parse_args()
    by_seed = [changes(options.folder, seed, options.only) for seed in options.seeds]
    rows = next(iter(by_seed[0].values()))
    headings = [row.heading for row in rows if row.variant == rows[-1].variant]
    print("| behaviour | model | " + " | ".join(headings) + " |")
    print("|---|---|" + "--:|" * len(headings))
    for name in by_seed[0]:
        models = dict.fromkeys(row.variant for row in by_seed[0][name])
        for model in models:
            if model == "base" or (model == "memorized" and name not in ("original", "end_masked")):
                continue
            cells = []
            for heading in headings:
                values = [
                    row.change
                    for found in by_seed
                    for row in found[name]
                    if (row.variant, row.heading) == (model, heading)
                ]
                cells.append(spread(values) if values else "–")
            print(f"| `{name}` | {model} | " + " | ".join(cells) + " |")
    if "bfloat16_updates" in options.only:
        print("\n| learning rates | model | parameters changed | update differs by |")
        print("|---|---|--:|--:|")
        print("\n".join(updates(options.folder, options.seeds[0])))


if __name__ == "__main__":
    main()
