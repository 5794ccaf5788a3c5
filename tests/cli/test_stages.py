"""Bad input of a stage is one line with exit code 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "demmo"], "did you mean 'demo'?"),
        (["--config", "gone.yaml"], "gone.yaml: no such file"),
        (["--set", "unlearn.lrr=1"], "did you mean 'unlearn.lr'?"),
        (["--set", "data.domain=privcy"], "did you mean 'privacy'?"),
        (["--set", "data.benchmark=knowundo"], "zjunlp/KnowUnDo: not in the local cache"),
        (
            ["--set", "data.benchmark=knowundo", "--set", "data.source=gone"],
            "no such folder",
        ),
        (["--set", "model.base=./gone"], "model.base './gone': cannot be loaded"),
        (["--set", "data.max_length=10"], "would be cut off; shorten the row, raise"),
        (["--set", "localize.draws=1", "--config", "demo"], "unknown region 'random-2'"),
        (["--set", "localize.localizers={}"], "localize.localizers"),
        (["--set", "unlearn.lr=-1"], "unlearn.lr"),
        (["--set", "model.device=gpu"], "model.device 'gpu': not a device"),
        (["--set", "model.device=cuda"], "torch finds no GPU here"),
        (["--set", "model.optimizer=paged_adamw_32bit"], "on a CPU say adamw"),
        (["--set", "compat=mixed_batch"], "did you mean 'mixed_batches'?"),
        (["--set", "compat=naive_boundary", "--set", "data.encoding=chat"], "needs data.encoding"),
        (["--set", "data.encoding=chat"], "has no chat template; set data.encoding=plain"),
        (["--set", "memorize.adopt=gone"], "gone: no such folder"),
        (["--region", "gone.json"], "gone.json: no such file"),
        pytest.param(
            ["--set", "evaluate.general_tasks=[mmlo]"],
            "did you mean 'mmlu'?",
            marks=pytest.mark.slow,  # reads the harness's index of tasks
        ),
        (["--set", "data.general=gone.txt"], "data.general 'gone.txt': no such file"),
        (["--set", "data.prefix=polite"], "data.prefix"),
        (["--set", "unlearn.variants=[{preset: memflex, ascent: high}]"], "ascent: Input should"),
        (["--set", "unlearn.variants=[{preset: memflex, name: retain}]"], "a model of every run"),
        (["--set", "unlearn.variants=[{preset: memflex, arguments: 3}]"], "is a mapping"),
    ],
)
def test_bad_input(knowundo: Call, tmp_path: Path, words: list[str], said: str) -> None:
    done = knowundo("run", *words, "--out", "run")
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_stage_without_its_input(knowundo: Call) -> None:
    done = knowundo("report", "--out", "run", "--config", "demo")
    assert done.returncode == 2
    assert "run `knowundo evaluate --out run` first" in done.stderr
    done = knowundo("localize", "--out", "run", "--config", "demo")
    assert done.returncode == 2
    assert "run `knowundo memorize --out run` first" in done.stderr
