"""The stage localize: located and control regions, found once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.modeling.region_masks import mask_file, read_masks
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.unlearning import unlearn
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from knowundo.storage.files import read_json
from tiny_run import Said, tiny_run


@pytest.fixture(scope="module")
def done(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("runs") / "run", toy_base)
    memorize(run)
    localize(run)
    return run


def test_regions_are_found_once(done: Run) -> None:
    said = Said()
    localize(Run.existing(done.out, said))
    assert said.lines == ["regions: already there, skipped"]
    assert {"memflex.json", "random-1.json", "everything.json"} <= {
        file.name for file in done.regions.iterdir()
    }
    assert set(done.region("memflex")) <= set(done.region("everything"))
    assert read_manifest(done.regions)["parameters"]["memflex"] > 0


def test_a_given_region_is_not_searched(done: Run, tmp_path: Path) -> None:
    file = tmp_path / "region.json"
    file.write_text(json.dumps(done.region("everything")[:2]))
    run = Run.existing(done.out, sets=[f"localize.adopt={file}"])
    localize(run)
    assert run.region("memflex") == done.region("everything")[:2]
    assert read_json(run.regions / "tensors.json") == []


def test_nothing_is_located_in_a_model_that_is_not_there(toy_base: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="memorized: not there; run `knowundo memorize"):
        localize(tiny_run(tmp_path, toy_base))


def test_training_in_rows_changes_no_other_row(toy_base: str, tmp_path: Path) -> None:
    """A region of rows has masks beside its names, and training keeps all bits outside them."""
    sets = (
        "localize.localizers={snip: {share: 0.3, granularity: row}}",
        "unlearn.variants=[{method: gradient_ascent, region: snip}]",
    )
    run = tiny_run(tmp_path, toy_base, *sets)
    memorize(run)
    localize(run)
    parameters = run.model.parameters()
    masks = read_masks(run.region_file("snip"), parameters)
    assert set(masks) == set(run.region("snip"))
    control = read_masks(run.region_file("random-1"), parameters)
    counts = [sum(int(mask.sum()) for mask in found.values()) for found in (masks, control)]
    assert counts[0] == counts[1] == read_manifest(run.regions)["parameters"]["snip"]
    run.model.use(run.start)
    before = run.model.state()
    unlearn(run)
    assert read_manifest(run.unlearned("gradient_ascent"))["parameters"] == counts[0]
    run.model.use(ModelVariant("a", "unlearned", run.unlearned("gradient_ascent")))
    moved = 0
    for name, now in run.model.state().items():
        outside = ~masks.get(name, torch.zeros(now.shape, dtype=torch.bool))
        assert torch.equal(now[outside], before[name][outside]), name
        moved += int((now != before[name]).sum())
    assert moved > counts[0] / 2
    given = tmp_path / "given.json"
    given.write_bytes(run.region_file("snip").read_bytes())
    mask_file(given).write_bytes(mask_file(run.region_file("snip")).read_bytes())
    again = Run.existing(run.out, sets=[f"localize.adopt={given}"])
    localize(again)
    assert read_manifest(again.regions)["parameters"]["snip"] == counts[0]
