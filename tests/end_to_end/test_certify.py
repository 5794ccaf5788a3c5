"""Certificates of models that seem to have forgotten, beside one that was unlearned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from knowundo.certificate.certify import certify
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.whole import run_to_scores
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run

SMALL = (
    "data.subjects=6",
    "memorize.epochs=40",
    "localize.draws=0",
    "evaluate.generate=[train]",
    "evaluate.resamples=20",
    "acceptance={}",
)
# A little training on refusals, and a method that unlearns.
VARIANTS = (
    "unlearn.variants=[{preset: idk, name: refusing, region: everything, lr: 3e-3, epochs: 4}, "
    "{preset: memflex}]"
)


def small(out: Path, *sets: str) -> Run:
    recipe, given = load_recipe("demo", [*SMALL, VARIANTS, *sets])
    return Run(recipe, out, given=given)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with an unlearned model, a refusing one, and the memorized one switched off."""
    out = tmp_path_factory.mktemp("runs") / "small"
    started = small(out)
    memorize(started)
    off = shutil.copytree(started.memorized, out.parent / "off")
    file = off / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 0}))
    whole = small(out, f"evaluate.models=[{off}]")
    run_to_scores(whole)
    return whole


def names(run: Run, variant: str) -> list[str]:
    return [one.name for one in certify(run, variant).evidence.findings]


@pytest.mark.slow
def test_a_refusing_and_a_switched_off_model_are_told_from_one_that_forgot(run: Run) -> None:
    assert "only_unsaid" in names(run, "refusing")
    assert set(names(run, "off")) == {"switched_off", "same_as_base"}
    assert names(run, "memflex") == []
    refusing = certify(run, "refusing").evidence
    assert refusing.outcome == "not_accepted"
    assert "still knows them" in refusing.sentence
    assert refusing.answer("asked").state == "passed"
    assert refusing.answer("latent").state == "failed"
    off = certify(run, "off").evidence
    assert off.outcome == "not_accepted"
    assert off.answer("retention").state == "failed"
