"""Processes of one run: what they exchange, and that they come to what one process comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distributed.launched import SETS
from knowundo.distributed.group import Group, from_main, gathered, group, join, launched
from knowundo.errors import BadInput
from knowundo.pipeline.whole import run_all
from knowundo.results import Results, read_results
from knowundo.storage.integrity import verify
from tiny_run import tiny_run

ROOT = Path(__file__).parents[2]


def launch(count: int, out: Path, base: str, *sets: str) -> list[dict[str, Any]]:
    """What each of so many processes saw, after all of them made one run."""
    script = str(Path(__file__).with_name("launched.py"))
    words = ["torch.distributed.run", "--nproc-per-node", str(count), script, str(out), base, *sets]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "KNOWUNDO_THREADS": str(count)}
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"seen-{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def alone(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    return out, run_all(tiny_run(out, toy_base, *SETS))


@pytest.fixture(scope="module")
def two(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The same run of two."""
    out = tmp_path_factory.mktemp("two") / "out"
    return out, launch(2, out, toy_base)


def test_processes_exchange(two: tuple[Path, Any]) -> None:
    out, (main, other) = two
    assert [main["rank"], other["rank"], main["size"], other["size"]] == [0, 1, 2, 2]
    for seen in (main, other):
        assert seen["gathered"] == [0, 1]
        assert seen["from_main"] == 0
        # 1 + 2; the second has a gradient in one process only; nobody has one of the third.
        assert seen["summed"] == [[3.0, 3.0], [5.0, 5.0, 5.0], None]
        assert seen["in_order"] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert seen["parts"] == {"unlearn": 3.0, "late": 0.5}
        assert seen["refused"] == "the list is empty; give rows"
    assert (out / "only-main.txt").read_text() == "0"


def same(one: Path, other: Path, results: Results) -> None:
    """The runs have the same weights, regions and scores to rounding."""
    files = sorted(file.relative_to(one) for file in one.rglob("adapter_model.safetensors"))
    assert len(files) == 6
    for file in files:
        mine, theirs = load_file(one / file), load_file(other / file)
        assert mine.keys() == theirs.keys()
        moved = torch.cat([mine[name].flatten() for name in mine])
        gap = moved - torch.cat([theirs[name].flatten() for name in mine])
        assert float(gap.norm() / moved.norm()) < 1e-4, file
    for region in sorted((one / "regions").glob("*.json")):
        if region.name not in ("manifest.json", "tensors.json"):
            assert region.read_text() == (other / "regions" / region.name).read_text()
    for row, twin in zip(results.rows, read_results(other / "results.json").rows, strict=True):
        assert (row.variant, row.metric, row.scope) == (twin.variant, twin.metric, twin.scope)
        assert twin.value == (None if row.value is None else pytest.approx(row.value, abs=0.02))


def test_two_processes_make_the_run_of_one(
    alone: tuple[Path, Results], two: tuple[Path, Any]
) -> None:
    same(alone[0], two[0] / "run", alone[1])
    main, other = two[1]
    assert main["values"] == other["values"]


def test_only_the_main_process_wrote(two: tuple[Path, Any]) -> None:
    run = two[0] / "run"
    assert [one for one in verify(run) if one.state != "ok"] == []
    assert not list(run.rglob(".partial.*"))
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_four_processes_make_the_run_of_one(
    alone: tuple[Path, Results], toy_base: str, tmp_path: Path
) -> None:
    launch(4, tmp_path / "out", toy_base)
    same(alone[0], tmp_path / "out" / "run", alone[1])


def test_the_launcher_says_who_is_who() -> None:
    assert launched({}) is None
    assert launched({"WORLD_SIZE": "1", "RANK": "0"}) is None
    told = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert launched(told) == Group(rank=5, size=8, local=1, local_size=4)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"WORLD_SIZE": "2"}, "'RANK' is missing"),
        ({"WORLD_SIZE": "2", "RANK": "one"}, "invalid literal"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 is not below WORLD_SIZE=2"),
    ],
)
def test_a_launch_that_does_not_fit_is_one_line(told: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        launched(told)


def test_one_process_is_alone() -> None:
    assert join() == group() == Group(0, 1, 0, 1)
    assert group().main
    assert gathered("own") == ["own"]
    assert from_main(lambda: 7) == 7
