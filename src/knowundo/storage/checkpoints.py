"""Checkpoints: how far a long job got, so that a process killed at any moment loses seconds.

    checkpoint = Checkpoint(out / "checkpoints" / "memorized", inputs)
    if (held := checkpoint.read()) is not None:
        ...                               # go on from held.facts and held.tensors
    if checkpoint.due():
        checkpoint.write(facts, tensors)  # what is needed to go on to the same bits
    checkpoint.clear()                    # once the artifact itself is there

Two files: the tensors, then a JSON file that names them with their sha256. The older pair goes when
the newer is whole, so there is one at every moment. No pickle: safetensors and JSON only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from knowundo.distributed.group import barrier, from_main, group
from knowundo.errors import BadInput
from knowundo.storage.files import file_hash, fingerprint, new_file, read_json, write_json

# Seconds between two checkpoints, and the share of the time that writing them may take.
EVERY, SHARE = 5.0, 0.05


@dataclass
class State:
    """What JSON can hold, and tensors."""

    facts: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class Checkpoint:
    """The newest state of one job, in a folder of its own."""

    def __init__(self, folder: Path, inputs: Any) -> None:
        """Nothing is read or written yet.

        Args:
            folder: made when the first state is written.
            inputs: what the job depends on; a state of other inputs is not resumed from.
        """
        self.folder, self.inputs = folder, fingerprint(inputs)
        self._began = self._last = time.monotonic()
        self._cost = self._before = 0.0

    @property
    def seconds(self) -> float:
        """Time that the job has taken, in all processes together."""
        return self._before + time.monotonic() - self._began

    def within(self, name: str, inputs: Any = None) -> Checkpoint:
        """The checkpoint of a part of the job."""
        return Checkpoint(self.folder / name, [self.inputs, inputs])

    def _newest(self) -> Path | None:
        if not self.folder.is_dir():
            return None
        numbers = [int(p.stem) for p in self.folder.glob("*.json") if p.stem.isdigit()]
        return self.folder / f"{max(numbers)}.json" if numbers else None

    def read(self) -> State | None:
        """The newest state; None if there is none, or only one of other inputs, which is removed.

        Raises:
            BadInput: a file is damaged.
        """
        if (file := from_main(self._current)) is None:
            return None
        found = self._read(file)
        barrier()  # before the main process writes the next state, and removes this one
        return found

    def _current(self) -> Path | None:
        """File of the newest state; that of other inputs is removed."""
        if (file := self._newest()) is None:
            return None
        held = read_json(file)
        wanted = {"inputs": str, "tensors": str, "seconds": float, "facts": dict}
        if not isinstance(held, dict) or any(
            not isinstance(held.get(name), kind) for name, kind in wanted.items()
        ):
            raise BadInput(f"{file}: not a checkpoint; remove {self.folder} to begin again there")
        if held["inputs"] != self.inputs:
            self.clear()
            return None
        return file

    def _read(self, file: Path) -> State:
        held = read_json(file)
        tensors = file.with_suffix(".safetensors")
        facts = {key: value for key, value in held.items() if key != "sha256"}
        if (
            held.get("sha256") != fingerprint(facts)
            or not tensors.is_file()
            or file_hash(tensors) != held["tensors"]
        ):
            raise BadInput(
                f"{file}: changed since it was written, or its tensors were; remove {self.folder} "
                "to begin again there"
            )
        self._before = held["seconds"]
        return State(held["facts"], load_file(tensors))

    def due(self) -> bool:
        """Is it time for the next state? Only the main process writes any."""
        return group().main and time.monotonic() - self._last >= max(EVERY, self._cost / SHARE)

    def write(self, facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Make this the newest state.

        Raises:
            NoRoom: the disk is full; the state before this one is still there.
        """
        if not group().main:
            return
        began, newest = time.monotonic(), self._newest()
        number = int(newest.stem) + 1 if newest else 1
        file = self.folder / f"{number}.json"
        with new_file(file.with_suffix(".safetensors")) as aside:
            save_file({name: value.contiguous() for name, value in tensors.items()}, aside)
        held = {
            "inputs": self.inputs,
            "tensors": file_hash(file.with_suffix(".safetensors")),
            "seconds": self.seconds,
            "facts": dict(facts),
        }
        write_json(file, held | {"sha256": fingerprint(held)})
        for old in self.folder.iterdir():
            if old.is_file() and old.stem.isdigit() and old.stem != file.stem:
                old.unlink()
        self._last = time.monotonic()
        self._cost = self._last - began

    def clear(self) -> None:
        """Remove all of it, and the parts' too."""
        if not group().main:
            return
        shutil.rmtree(self.folder, ignore_errors=True)


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under names that `under` finds again."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those tensors that `prefixed` named so."""
    start = f"{prefix}/"
    return {n.removeprefix(start): value for n, value in tensors.items() if n.startswith(start)}


def packed(parts: Iterable[State]) -> State:
    """Several states as one."""
    whole = State({"parts": []})
    for number, part in enumerate(parts):
        whole.facts["parts"].append(part.facts)
        whole.tensors |= prefixed(str(number), part.tensors)
    return whole


def unpacked(whole: State) -> list[State]:
    """The states that `packed` made one of."""
    return [
        State(facts, under(str(number), whole.tensors))
        for number, facts in enumerate(whole.facts["parts"])
    ]
