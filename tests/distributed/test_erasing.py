"""An erasure by several processes: lists, search, verdict, export and certificate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from knowundo.data.benchmarks.embedded import general_records
from knowundo.results import read_results
from knowundo.storage.integrity import verify

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_erase(tmp_path: Path) -> None:
    facts = [r for r in general_records(0) if r.subset == "facts" and r.question.endswith("?")]
    rows = [{"question": r.question, "answer": r.answer} for r in facts[:4]]
    listed, out = tmp_path / "list.jsonl", tmp_path / "run"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    command += ["knowundo", "erase", "--model", "embedded", "--unlearn", str(listed)]
    command += ["--out", str(out), "--set", "unlearn.lr=4e-3", "--set", "unlearn.epochs=50"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "KNOWUNDO_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    erasure = read_results(out / "results.json").erasure
    assert erasure is not None
    assert erasure.sentence.startswith("erased: 0.0 %")
    assert [one for one in verify(out) if one.bad] == []
    assert (out / "model" / "README.md").is_file()
    assert (out / "certificate" / "erased" / "evidence.json").is_file()
