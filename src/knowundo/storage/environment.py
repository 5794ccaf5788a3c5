"""Versions, hardware and commit, which are recorded with every result."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from knowundo.distributed.group import group

_PACKAGES = ("knowundo", "torch", "transformers", "peft", "accelerate", "safetensors", "numpy")


def surroundings() -> dict[str, Any]:
    """Versions, hardware and revision, which are recorded with every result."""
    import torch

    packages = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    hardware = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": group().size,
        "gpu": gpu,
    }
    return {"packages": packages, "hardware": hardware, "revision": _revision()}


@cache
def _revision() -> dict[str, Any]:
    """Commit of the source tree that this package runs from; nulls for an installed wheel."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        if shutil.which("git") is None:
            return None
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    # Only a checkout of this package counts, not a repository that contains the environment.
    if not git("ls-files", "--error-unmatch", "environment.py"):
        return {"commit": None, "dirty": None}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
