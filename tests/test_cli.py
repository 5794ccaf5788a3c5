"""The command line: what it prints, and that bad input is one line, code 2 and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from conftest import Call
from knowundo.cli.options import quiet
from knowundo.version import __version__


def test_version_and_help_need_no_torch(knowundo: Call) -> None:
    assert knowundo("--version").stdout == f"knowundo {__version__}\n"
    code = (
        "import sys, knowundo.cli\n"
        "sys.argv = ['knowundo', '--help']\n"
        "try: knowundo.cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "run", "memorize", "localize", "unlearn", "evaluate", "report", "data"):
        assert command in done.stdout


@pytest.mark.parametrize("kind", ["methods", "localizers", "metrics", "benchmarks", "presets"])
def test_list(knowundo: Call, kind: str) -> None:
    rows = json.loads(knowundo("list", kind, "--json").stdout)
    plain = knowundo("list", kind).stdout
    assert rows
    for row in rows:
        assert row["summary"]
        assert row["name"] in plain


def test_data_export(knowundo: Call, tmp_path: Path) -> None:
    done = knowundo("data", "export", "--out", "out", "--subjects", "3")
    assert done.returncode == 0, done.stderr
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert files == [
        f"out/{domain}/{scope}.json"
        for domain in ("copyright", "privacy")
        for scope in ("retention", "unlearn")
    ]
    again = knowundo("data", "export", "--out", "out", "--subjects", "3")
    assert again.returncode == 2
    assert "add --force" in again.stderr


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
        (["--set", "evaluate.general_tasks=[mmlo]"], "did you mean 'mmlu'?"),
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


def test_only_what_libraries_say_to_programmers_is_kept_off_the_terminal() -> None:
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    said = [
        (FutureWarning, "transformers.modeling_utils", False),
        (DeprecationWarning, "peft", False),
        (FutureWarning, "torch.nn.modules", False),
        (UserWarning, "peft.tuners", True),
        (UserWarning, "knowundo.modeling.model", True),
        (FutureWarning, "knowundo.modeling.model", True),
        (FutureWarning, "torchless", True),
    ]
    try:
        with warnings.catch_warnings(record=True) as shown:
            warnings.resetwarnings()
            quiet()
            for kind, module, _ in said:
                warnings.warn_explicit(module, kind, "file.py", 1, module=module)
            assert not logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    found = [(w.category, str(w.message)) for w in shown]
    assert found == [(kind, module) for kind, module, seen in said if seen]
