"""A guard in a folder: its settings and what it learned; its assistant in a folder inside."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from knowundo.errors import BadInput
from knowundo.modeling.guard import Guard
from knowundo.registry import get
from knowundo.storage.files import read_json, write_json

GUARD, TENSORS, ASSISTANT = "guard.json", "guard.safetensors", "assistant"


def is_guard(folder: Path) -> bool:
    """True if a folder holds a guard."""
    return (folder / GUARD).is_file()


def write_guard(guard: Guard, folder: Path) -> None:
    """Write a guard's settings and what it learned."""
    tensors = {k: v.contiguous() for k, v in guard.learned.items() if isinstance(v, torch.Tensor)}
    write_json(
        folder / GUARD,
        {
            "guard": guard.entry.name,
            "changes": guard.changes,
            "arguments": dict(guard.bound),
            "learned": {k: v for k, v in guard.learned.items() if k not in tensors},
        },
    )
    if tensors:
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})


def copy_guard(folder: Path, into: Path) -> None:
    """Copy a guard, with its assistant, beside other files."""
    for name in (GUARD, TENSORS):
        if (folder / name).is_file():
            shutil.copy(folder / name, into / name)
    if (folder / ASSISTANT).is_dir():
        shutil.copytree(folder / ASSISTANT, into / ASSISTANT)


def read_guard(
    folder: Path, *, device: torch.device | str = "cpu", positions: int | None = None
) -> Guard:
    """Read what `write_guard` wrote.

    Args:
        folder: With a guard.
        device: Where its tensors go.
        positions: Tokens that a prompt may have. If `None`, any number.

    Raises:
        BadInput: There is no such file, it is damaged, or no such guard is known.
    """
    file = folder / GUARD
    held = read_json(file)
    kinds = {"guard": str, "arguments": dict, "learned": dict}
    if not isinstance(held, dict) or any(not isinstance(held.get(k), t) for k, t in kinds.items()):
        raise BadInput(f"{file}: not a guard; make it again")
    entry = get("guard", held["guard"])
    tensors = {}
    if (folder / TENSORS).is_file():
        try:
            tensors = load_file(folder / TENSORS, device=str(device))
        except SafetensorError as error:
            raise BadInput(f"{folder / TENSORS}: damaged ({error}); make it again") from None
    return Guard(entry, entry.bind(held["arguments"]), held["learned"] | tensors, positions)
