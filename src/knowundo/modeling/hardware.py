"""What `auto` means on this machine: the device, and the number of torch's threads.

Sums of matrix products are split over the threads, so the same bits need the same number of them:
it is chosen once for a run and recorded.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import torch

from knowundo.distributed.group import group
from knowundo.errors import BadInput

# Environment variable that says how many threads a new run has.
THREADS = "KNOWUNDO_THREADS"
CPUINFO, CGROUP = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup")


def automatic_device() -> str:
    """`cuda` if torch finds such a GPU, else `mps` (Apple's GPU), else `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def automatic_threads() -> int:
    """Threads of a new run: `KNOWUNDO_THREADS`, or else one for each physical core.

    Raises:
        BadInput: The environment variable is not a number of threads.
    """
    return threads_wanted() or physical_cores()


def threads_wanted() -> int | None:
    """The number that `KNOWUNDO_THREADS` says; `None` if it is not set.

    Raises:
        BadInput: It is not a number of threads.
    """
    text = os.environ.get(THREADS, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 4096):
        raise BadInput(f"{THREADS} '{text}': not a number of threads; say 1 or more, or unset it")
    return int(text)


def use_threads(number: int | None) -> None:
    """Set the number of torch's threads in this process.

    Args:
        number: Of all processes of the run on this machine together. If `None`, see
            `automatic_threads`.
    """
    torch.set_num_threads(max(1, (number or automatic_threads()) // group().local_size))


def physical_cores() -> int:
    """Physical cores that this process may use, at least 1.

    Two logical cores of one physical core share its units for floating point, so that a second
    thread there gains nothing. The affinity mask and a container's CPU quota are respected.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed: Collection[int] = os.sched_getaffinity(0)
    else:
        allowed = range(os.cpu_count() or 1)
    cores = len(allowed)
    if CPUINFO.is_file():
        cores = count_cores(CPUINFO.read_text(encoding="utf-8", errors="replace"), allowed)
    quota = cpu_quota(CGROUP)
    return max(1, cores if quota is None else min(cores, int(quota)))


def count_cores(cpuinfo: str, allowed: Collection[int]) -> int:
    """Physical cores among logical ones.

    Args:
        cpuinfo: Text of `/proc/cpuinfo`. Where it names no cores, as on ARM, each logical core
            counts.
        allowed: Numbers of the logical cores.
    """
    place: dict[int, tuple[str, str]] = {}
    for block in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if fields.get("processor", "").isdigit() and "core id" in fields:
            place[int(fields["processor"])] = fields.get("physical id", "0"), fields["core id"]
    return len({place.get(number, ("logical", str(number))) for number in allowed})


def cpu_quota(folder: Path) -> float | None:
    """CPUs that a control group allows on average (versions 2 and 1); `None` if all.

    Args:
        folder: Where the file system of control groups is mounted.
    """
    second = folder / "cpu.max"
    first = [folder / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
    if second.is_file():
        words = second.read_text(encoding="utf-8").split()
    elif all(file.is_file() for file in first):
        words = [file.read_text(encoding="utf-8").strip() for file in first]
    else:
        return None
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return None  # `max`, or -1: no limit
    return int(words[0]) / int(words[1])
