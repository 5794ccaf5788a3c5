"""One process at a time in a run's directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.progress import Reporter
from knowundo.storage.locks import exclusive
from sealed_run import sealed_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return sealed_run(tmp_path)


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
