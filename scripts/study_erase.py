"""Erase three subjects from a model that knows forty, by every route and seed, then three more.

    python scripts/study_erase.py --out runs/erase --seeds 0 1 2
    python scripts/study_erase.py --out runs/erase-real --real MODEL --source FOLDER

The model is the embedded base after it learned the embedded benchmark with all of its weights, or,
for the route `adapter`, with a LoRA. The list holds the private facts of three people, about eight
rows. No retention list is given, so the program knows nothing about the other 37 people. The
erasure never sees what is measured here: true answers about everybody else, true rewordings, the
base's own text.

The second form erases two authors from a model that memorized KnowUnDo's privacy domain (the folder
`memorized` of such a run); the source folder holds the domain's files.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from knowundo.data.benchmarks.embedded import embedded
from knowundo.data.benchmarks.knowundo import knowundo
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.erasure.erase import run_request
from knowundo.erasure.request import ErasureRequest
from knowundo.erasure.result import Erased
from knowundo.modeling.adapters import adaptation_of
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.memorization import memorize
from knowundo.progress import Reporter, RichReporter
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run
from knowundo.scoring.answers import generate
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.storage.files import write_json

ROUTES = ("adapter", "lora", "full")
# A base, and an adapter of it or `None`.
Loadable = tuple[str, Path | None]


def knowing(out: Path, seed: int, kind: str, reporter: Reporter) -> Path:
    """A folder with a model, or an adapter, that knows the embedded people."""
    sets = [f"seed={seed}", f"model.adaptation={kind}", "memorize.retain_model=false"]
    recipe, given = load_recipe("demo", sets)
    run = Run(recipe, out, given=given, reporter=reporter)
    memorize(run)
    return run.memorized


def groups(seed: int, first: int, last: int) -> dict[str, list[Record]]:
    """Records to ask: the list, its rewordings, the same people's other facts, everybody else."""
    records = embedded(domain="privacy", seed=seed)
    members = [r for r in records if r.split in ("train", "val", "probe") and r.scope != "general"]
    names = list(dict.fromkeys(record.subject for record in members))
    chosen = set(names[first:last])
    asked = [r for r in members if r.split != "probe"]
    others = [r for r in asked if r.subject not in names[: max(last, 6)]]
    return {
        "list": [r for r in asked if r.subject in chosen and r.scope == "unlearn"],
        "reworded": [
            r for r in members
            if r.split == "probe" and r.subject in chosen and r.scope == "unlearn"
        ],
        "same_people": [r for r in asked if r.subject in chosen and r.scope == "retention"],
        "others": Random(0).sample(others, len(others)),
        "text": [r for r in records if r.scope == "general" and r.kind == "text"],
    }  # fmt: skip


def measure(model: Model, asked: dict[str, list[Record]]) -> dict[str, float]:
    """Percent answered exactly, and the perplexity of plain text."""
    found = {}
    for name, records in asked.items():
        rows = encode(records, model.tokenizer)
        if name == "text":
            losses = [row["mean_nll"] for row in teacher_forced(model, rows).values()]
            found[name] = math.exp(sum(losses) / len(losses))
        else:
            said = generate(model, rows)
            right = [said[r.id].strip() == r.answer.strip() for r in records]
            found[name] = 100 * sum(right) / len(right)
    return found


def opened(base: str, adapter: Path | None) -> Model:
    """A model, loaded as its user would."""
    if adapter is None:
        return Model(base, adaptation_of(Path(base)), options=LoadingOptions(scored_only=True))
    model = Model(base, adaptation_of(adapter), options=LoadingOptions(scored_only=True))
    model.use(ModelVariant("adapter", "given", adapter))
    return model


def request(
    out: Path, seed: int, route: str, model: Loadable, rows: Sequence[Record], reporter: Reporter,
    retention: Sequence[Record] | None = None,
) -> tuple[Erased, Loadable]:  # fmt: skip
    """Erase rows; returns the outcome, and the base and adapter of the result."""
    base, adapter = model
    file, kept = out.with_suffix(".jsonl"), out.with_suffix(".retention.jsonl")
    file.parent.mkdir(parents=True, exist_ok=True)
    for place, records in ((file, rows), (kept, retention or ())):
        lines = [json.dumps({"question": r.question, "answer": r.answer}) for r in records]
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    merged = route == "lora"  # a second request starts from a whole model again
    done = run_request(
        ErasureRequest(
            model=base, adapter=adapter, unlearn=file, out=out, route=route,  # type: ignore[arg-type]
            retention=kept if retention else None,
            form="merged" if merged else None, sets=(f"seed={seed}",),
        ),
        reporter,
    )  # fmt: skip
    assert done.exported is not None, done.verdict
    folder = done.exported.folder
    return done, (base, folder) if route == "adapter" else (str(folder), None)


def study(out: Path, seed: int, route: str, reporter: Reporter, *, twice: bool) -> dict[str, Any]:
    """One seed by one route: before, after the first request, and perhaps after the second."""
    kind = "lora" if route == "adapter" else "full"
    knows = knowing(out / f"knows-{kind}-{seed}", seed, kind, reporter)
    start: Loadable = ("embedded", knows) if route == "adapter" else (str(knows), None)
    first, second = groups(seed, 0, 3), groups(seed, 3, 6)
    row: dict[str, Any] = {"seed": seed, "route": route}
    model = opened(*start)
    row["before"], row["before_second"] = measure(model, first), measure(model, second)
    for number, asked in enumerate((first, second) if twice else (first,), start=1):
        place = out / f"{route}-{seed}-{number}"
        shutil.rmtree(place, ignore_errors=True)
        done, start = request(place, seed, route, start, asked["list"], reporter)
        row[f"lr_{number}"] = next(v.lr for v in done.results.variants if v.role == "unlearned")
        model = opened(*start)
        row[f"after_{number}"] = measure(model, asked)
        row["relapsed"] = done.relapsed
    if twice:
        row["first_after_second"] = measure(model, {n: first[n] for n in ("list", "reworded")})
    return row


def real(out: Path, base: Path, source: Path, reporter: Reporter, *, named: bool) -> dict[str, Any]:
    """Erase two authors' private facts from a model that knows 60; ask the rest before and after.

    Args:
        out: run directory of the request.
        base: the model.
        source: the domain's files.
        reporter: reports progress.
        named: give the same authors' public train rows as the retention list; their val rows, other
            questions about the same facts and others, are not given.
    """
    records = [r for r in knowundo(domain="privacy", source=str(source)) if r.scope != "general"]
    chosen = set(list(dict.fromkeys(record.subject for record in records))[:2])
    others = [r for r in records if r.subject not in chosen]
    asked = {
        "list": [r for r in records if r.subject in chosen and r.scope == "unlearn"],
        "same_people": [r for r in records if r.subject in chosen and r.scope == "retention"],
        "same_people_val": [
            r
            for r in records
            if r.subject in chosen and r.scope == "retention" and r.split == "val"
        ],
        "others": Random(0).sample(others, 300),
    }
    row: dict[str, Any] = {"rows": {name: len(found) for name, found in asked.items()}}
    row["before"] = measure(opened(str(base), None), asked)
    kept = [r for r in asked["same_people"] if r.split == "train"] if named else None
    start = str(base), None
    done, _ = request(out / "request", 0, "lora", start, asked["list"], reporter, retention=kept)
    row["verdict"] = done.verdict
    assert done.exported is not None, done.verdict
    row["after"] = measure(opened(str(done.exported.folder), None), asked)
    return row


def main() -> None:
    """Run the studies and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/erase"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--routes", nargs="+", default=ROUTES, choices=ROUTES)
    parser.add_argument("--twice", type=int, nargs="*", default=[0], help="seeds of two requests")
    parser.add_argument(
        "--real", type=Path, help="a model that memorized KnowUnDo's privacy domain"
    )
    parser.add_argument("--source", type=Path, help="folder of that domain's files")
    parser.add_argument("--named", action="store_true", help="with a retention list")
    asked = parser.parse_args()
    if asked.real is not None:
        found = real(asked.out, asked.real, asked.source, RichReporter(), named=asked.named)
        print(json.dumps(found))
        return
    rows = []
    for seed in asked.seeds:
        for route in asked.routes:
            rows.append(study(asked.out, seed, route, RichReporter(), twice=seed in asked.twice))
            write_json(asked.out / "study.json", rows)
            print(json.dumps(rows[-1]), flush=True)
    print("| seed | route | | list | reworded | same people | others | text perplexity |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        whens = ("before", "after_1", "before_second", "after_2")
        for when in whens if "after_2" in row else whens[:2]:
            cells = " | ".join(f"{value:.1f}" for value in row[when].values())
            print(f"| {row['seed']} | {row['route']} | {when} | {cells} |")
        if (again := row.get("first_after_second")) is None:
            continue
        print(
            f"| {row['seed']} | {row['route']} | first list after the second request | "
            f"{again['list']:.1f} | {again['reworded']:.1f} | | | |"
        )


if __name__ == "__main__":
    main()
