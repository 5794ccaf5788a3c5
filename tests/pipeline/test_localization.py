"""The stage localize: located and control regions, found once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
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
