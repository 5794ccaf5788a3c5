"""The processes of one run: rank, size, and what they tell each other.

    torchrun --nproc-per-node 2 -m knowundo run --config demo --out runs/demo

Every process runs the same program. A batch, a gradient and a list of rows are divided among them
and put together again, so that each of them holds the same numbers afterwards; everything else is
computed by all. Only the main process, rank 0, writes into the run's directory: see `sink`.

The Trainer and accelerate must not divide the batches once more. So `join` takes the launcher's
variables out of the environment, and to them each process is alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from knowundo.errors import BadInput, KnowUndoError

# What a launcher (torchrun, accelerate) tells each process.
_SIZE, _RANK, _LOCAL, _LOCAL_SIZE = "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
_TAKEN = (_SIZE, _RANK, _LOCAL, _LOCAL_SIZE, "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")
# A process may wait so long for the slowest. One that died is noticed by the launcher at once.
_PATIENCE = timedelta(hours=12)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """This process among those of the run.

    Attributes:
        rank: Its number, from 0.
        size: Number of processes.
        local: Its number on its machine, which is that of its GPU.
        local_size: Number of processes on its machine, which share its cores.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """True for the one process that writes and reports."""
        return self.rank == 0


_joined = Group()
_sinks: list[Path] = []


def group() -> Group:
    """This process among those of the run; alone if it did not `join` others."""
    return _joined


def launched(environment: Mapping[str, str]) -> Group | None:
    """What a launcher says in the environment; `None` if there is only one process.

    Raises:
        BadInput: The variables do not fit each other.
    """
    if environment.get(_SIZE, "1") == "1":
        return None
    try:
        size, rank = int(environment[_SIZE]), int(environment[_RANK])
        local = int(environment.get(_LOCAL, rank))
        found = Group(rank, size, local, int(environment.get(_LOCAL_SIZE, size)))
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"the environment says {_SIZE}={environment[_SIZE]}, and {error} is missing or no "
            f"number; start with torchrun or accelerate launch, or unset {_SIZE}"
        ) from None
    if not 0 <= found.rank < found.size:
        raise BadInput(f"{_RANK}={found.rank} is not below {_SIZE}={found.size}; check the launch")
    return found


def join() -> Group:
    """Join the processes that a launcher started; does nothing where there is only this one.

    Raises:
        BadInput: The launcher's variables do not fit each other.
    """
    global _joined
    if _joined.size > 1 or (found := launched(os.environ)) is None:
        return _joined
    import torch
    from torch import distributed

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(found.local)  # "cuda" means this one from now on
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=_PATIENCE)
    for name in _TAKEN:
        os.environ.pop(name, None)
    _joined = found
    return found


def leave() -> None:
    """Leave the other processes; does nothing where there is only this one."""
    global _joined
    if _joined.size == 1:
        return
    from torch import distributed

    distributed.destroy_process_group()
    _joined = Group()


def barrier() -> None:
    """Wait until every process is here."""
    if _joined.size > 1:
        from torch import distributed

        distributed.barrier()


def gathered(value: Value) -> list[Value]:
    """The values of all processes, in the order of their ranks; every process gets all."""
    if _joined.size == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * _joined.size
    distributed.all_gather_object(found, value)
    return found


def from_main(make: Callable[[], Value]) -> Value:
    """What the main process makes; every process gets it, or the error.

    Args:
        make: Called in the main process only, so it may look at files that this process writes.

    Raises:
        KnowUndoError: `make` raised it. In the other processes it has the attribute `told`: the
            main process tells the user.
        RuntimeError: `make` raised another error, in another process than this one.
    """
    if _joined.size == 1:
        return make()
    from torch import distributed

    told: list[Any] = [None, None]
    if _joined.main:
        try:
            with _by_itself():
                told[0] = make()
        except BaseException as error:
            known = isinstance(error, KnowUndoError)
            told[1] = error if known else RuntimeError(f"the main process failed: {error!r}")
            distributed.broadcast_object_list(told, src=0)
            raise
    distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        told[1].told = True
        raise told[1]
    return told[0]


@contextmanager
def _by_itself() -> Iterator[None]:
    """Within it this process waits for no other: they wait for what it makes."""
    global _joined
    joined, _joined = _joined, Group(local=_joined.local, local_size=_joined.local_size)
    try:
        yield
    finally:
        _joined = joined


def may_write(path: Path) -> bool:
    """True if this process writes a file there: the main process, or what is dropped anyway."""
    return _joined.main or any(folder in path.parents for folder in _sinks)


@contextmanager
def sink() -> Iterator[Path]:
    """A folder of this process alone, for what the main process writes; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="knowundo-"))
    _sinks.append(folder)
    try:
        yield folder
    finally:
        _sinks.remove(folder)
        shutil.rmtree(folder, ignore_errors=True)
