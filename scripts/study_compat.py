"""What each behaviour of the public KnowUnDo code does to the scores, on the embedded base.

    python scripts/study_compat.py runs/compat --seeds 0 1 2 > table.md

A run without any behaviour, one with each alone, and one with all, per seed; rates are fixed, so
that nothing else moves. Runs that are there are not made again. Writes Markdown: the mean over
seeds of the change against the run without, and its range.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from knowundo import Run, load_recipe, run_all
from knowundo.pipeline import compare
from knowundo.progress import RichReporter
from knowundo.recipe import QUIRKS
from knowundo.reporting.comparison import Difference

# Rates of about equal forgetting without any behaviour; 16 rows an optimizer step, as in the paper.
VARIANTS = {
    "gradient_ascent": {"lr": 8e-4, "accumulation": 2},
    "random_label": {"lr": 5.5e-4, "accumulation": 2},
    "adversarial_sample": {"lr": 1.1e-3, "accumulation": 2},
    "ascent_plus_descent": {"lr": 1.1e-3},
    "ascent_plus_kl": {"lr": 1e-3},
    "memflex": {"lr": 1.2e-2},
}
# Models that a behaviour alone can touch; the others touch all.
TOUCHED = {
    "fixed_length": ["ascent_plus_descent"],
    "question_labels": ["random_label"],
    "base_labels": ["adversarial_sample"],
    "soft_kl": ["ascent_plus_kl"],
    "fixed_length+soft_kl": ["ascent_plus_kl"],
}


def make(out: Path, compat: object, seed: int, names: list[str], start: Path | None) -> Path:
    """A run with some behaviours; from another run's memorized model, where that is the same."""
    variants = [{"preset": name} | VARIANTS[name] for name in names]
    sets = [
        f"seed={seed}",
        f"compat={json.dumps(compat)}",
        "memorize.retain_model=false",
        "localize.draws=0",
        f"unlearn.variants={json.dumps(variants)}",
        "evaluate.generate=[]",
        "evaluate.resamples=10",
    ]
    if start is not None:
        sets.append(f"memorize.adopt={start / 'memorized'}")
    recipe, given = load_recipe("demo", sets)
    run_all(Run(recipe, out, given=given, reporter=RichReporter()))
    return out


def changes(folder: Path, seed: int) -> dict[str, list[Difference]]:
    """Behaviour → differences from the run without any."""
    every = list(VARIANTS)
    plain = make(folder / f"none-{seed}", [], seed, every, None)
    found = {}
    for name in (*QUIRKS, "fixed_length+soft_kl", "original"):
        compat: object = "original" if name == "original" else name.split("+")
        start = None if name in ("naive_boundary", "original") else plain
        out = make(folder / f"{name}-{seed}", compat, seed, TOUCHED.get(name, every), start)
        found[name] = compare(plain, out)[1]
    return found


def spread(values: list[float]) -> str:
    """Mean and range."""
    mean = sum(values) / len(values)
    if max(map(abs, values)) < 0.05:
        return "0"
    if max(map(abs, values)) >= 1000:
        return f"{min(values):+.0e} … {max(values):+.0e}"
    return f"{mean:+.1f} ({min(values):+.1f} … {max(values):+.1f})"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    by_seed = [changes(options.folder, seed) for seed in options.seeds]
    headings = [row.heading for row in by_seed[0]["original"] if row.variant == "memflex"]
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


if __name__ == "__main__":
    main()
