"""What `auto` means: the device, and one thread for each physical core that may be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.modeling import hardware
from knowundo.modeling.hardware import (
    automatic_device,
    automatic_threads,
    count_cores,
    cpu_quota,
    physical_cores,
    use_threads,
)


def cpuinfo(places: Collection[tuple[int, int]]) -> str:
    """The text of two sockets or more: a place is a socket and its core."""
    blocks = (
        f"processor\t: {number}\nmodel name\t: A: B\nphysical id\t: {socket}\ncore id\t\t: {core}\n"
        for number, (socket, core) in enumerate(places)
    )
    return "\n".join(blocks)


TWO_THREADS_EACH = cpuinfo([(0, 0), (0, 1), (0, 0), (0, 1)])
TWO_SOCKETS = cpuinfo([(0, 0), (0, 1), (1, 0), (1, 1)])
ARM = "processor\t: 0\nBogoMIPS\t: 50\n\nprocessor\t: 1\nBogoMIPS\t: 50\n"


@pytest.mark.parametrize(
    ("text", "allowed", "cores"),
    [
        (TWO_THREADS_EACH, {0, 1, 2, 3}, 2),
        (TWO_THREADS_EACH, {0, 2}, 1),
        (TWO_THREADS_EACH, {1, 2}, 2),
        (TWO_SOCKETS, {0, 1, 2, 3}, 4),
        (TWO_SOCKETS, {2}, 1),
        (ARM, {0, 1}, 2),
        ("", {0, 5}, 2),
    ],
)
def test_cores_are_counted_once(text: str, allowed: set[int], cores: int) -> None:
    assert count_cores(text, allowed) == cores


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_has_a_quota(
    files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("290000", 2), ("900000", 4)])
def test_a_quota_bounds_the_cores(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000")
    (tmp_path / "cpuinfo").write_text(TWO_SOCKETS)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert physical_cores() == cores


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KNOWUNDO_THREADS", raising=False)
    assert automatic_threads() == physical_cores()
    monkeypatch.setenv("KNOWUNDO_THREADS", "3")
    assert automatic_threads() == 3


@pytest.mark.parametrize("text", ["0", "-2", "two", "1.5", "99999"])
def test_what_is_no_number_of_threads_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOWUNDO_THREADS", text)
    with pytest.raises(BadInput, match=f"KNOWUNDO_THREADS '{text}': not a number of threads"):
        automatic_threads()


def test_threads_are_set_in_the_process() -> None:
    code = "import torch; from knowundo.modeling.hardware import use_threads; use_threads({}); "
    code += "print(torch.get_num_threads())"
    for number, said in (("None", "3"), ("1", "1")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(number)],
            env=os.environ | {"KNOWUNDO_THREADS": "3"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == said


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_a_gpu_is_taken_if_there_is_one(
    cuda: bool, mps: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert automatic_device() == device


def test_a_number_that_is_given_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = list[int]()
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setenv("KNOWUNDO_THREADS", "5")
    use_threads(None)
    use_threads(7)
    assert used == [5, 7]
