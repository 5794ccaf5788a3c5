"""One process at a time in a run's directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from knowundo.errors import BadInput
from knowundo.progress import Reporter
from knowundo.storage.artifacts import new_folder
from knowundo.storage.integrity import seal
from knowundo.storage.locks import exclusive
from sealed_run import PRIVATE, artifact


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory laid out as a run's, with small files."""
    out = tmp_path / "run"
    for name in ("memorized", "regions", "unlearned/a", "unlearned/b"):
        seal(out, artifact(out / name, weights=name.encode() * 50, curve=b"[]"))
    for name in ("a", "b"):
        with new_folder(out / "scores" / name, ["inputs"]) as aside:
            rows = {
                "scope": ["unlearn", "retention"],
                "question": ["What is her number?", "What is her job?"],
                "answer": [PRIVATE, "Pilot."],
                "said": [PRIVATE, "Pilot."],
                "token_accuracy": [1.0, 1.0],
            }
            pd.DataFrame(rows).to_parquet(aside / "rows.parquet")
        seal(out, out / "scores" / name)
    seal(out, artifact(out / "lists", unlearn=PRIVATE.encode()))
    for name in ("recipe.yaml", "results.json", "report.html"):
        (out / name).write_text(f"{name} {PRIVATE if name == 'report.html' else ''}")
        seal(out, out / name)
    return out


HOLDS = """
import sys, time
from pathlib import Path
from knowundo.storage.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Said(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_the_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    out, said = tmp_path / "run", Said()
    first = subprocess.Popen([sys.executable, "-c", HOLDS, str(out)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    said_of_it = rf"run: in use by process {first.pid} on \S+ \("
    with pytest.raises(BadInput, match=said_of_it), exclusive(out):
        pass
    first.kill()
    first.wait()
    with exclusive(out, said), exclusive(out, said):  # a stage calls another
        pass
    assert len(said.lines) == 1
    assert f"process {first.pid}" in said.lines[0]
    assert "ended before its work was done" in said.lines[0]


def test_what_failed_before_it_wrote_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="row 3"), exclusive(tmp_path / "runs" / "one"):
        raise BadInput("rows.jsonl, row 3: empty")
    assert list(tmp_path.iterdir()) == []
