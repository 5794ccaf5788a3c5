"""A process of a launch that is killed, and a directory that another process works in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from distributed.launched import VARIANTS
from knowundo.pipeline.whole import run_all
from knowundo.storage.locks import exclusive
from tiny_run import SETS, tiny_run

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc"),
]
MORE = (VARIANTS, "memorize.epochs=30")


def start(count: int, out: Path, base: str) -> subprocess.Popen[str]:
    """`torchrun … -m knowundo run`, as a user would type it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["-m", "knowundo", "run", "--out", str(out)]
    for one in (*SETS, f"model.base={base}", *MORE):
        command += ["--set", one]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "KNOWUNDO_THREADS": str(count)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def workers(launcher: int) -> dict[int, int]:
    """Process ids below a launcher, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            told = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError, ValueError):
            continue
        ranks = [int(one.removeprefix(b"RANK=")) for one in told if one.startswith(b"RANK=")]
        if parent == launcher and ranks:
            found[ranks[0]] = int(folder.name)
    return found


def test_a_killed_process_ends_all_and_the_run_resumes(toy_base: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun = start(2, out, toy_base)
    end = time.monotonic() + 120
    while not (out / "memorized" / "manifest.json").exists():
        assert time.monotonic() < end
        assert begun.poll() is None, begun.communicate()[1][-2000:]
        time.sleep(0.02)
    killed = time.monotonic()
    os.kill(workers(begun.pid)[1], signal.SIGKILL)
    _, said = begun.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert begun.returncode != 0
    assert "exitcode  : -9" in said
    assert not (out / "results.json").exists()
    # Another number of processes goes on with what is there.
    resumed = start(3, out, toy_base)
    _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said[-3000:]
    assert "memorized: already there, skipped" in said
    run_all(tiny_run(tmp_path / "alone", toy_base, *MORE))
    for file in sorted((tmp_path / "alone" / "unlearned").rglob("*.safetensors")):
        mine, theirs = load_file(file), load_file(out / file.relative_to(tmp_path / "alone"))
        gap = max(float((mine[name] - theirs[name]).norm()) for name in mine)
        assert gap < 1e-3 * max(float(mine[name].norm()) for name in mine), file


def test_a_second_launch_into_a_directory_is_refused(toy_base: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with exclusive(out):
        refused = start(2, out, toy_base)
        _, said = refused.communicate(timeout=120)
    assert refused.returncode != 0
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1  # the other process does not say it again
    assert "in use by process" in errors[0]
