"""`knowundo doctor`: what this machine has, what follows from it, and what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import AsJson
from knowundo.errors import KnowUndoError, first_line, plain

# Free space below which a run of a model of some GB may not fit, in bytes.
_LITTLE = 10 * 2**30
_REQUIRED = ("torch", "transformers", "peft", "accelerate", "safetensors", "datasets")
# Seconds that the hub has to answer.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Check:
    """One line.

    Attributes:
        subject: What was looked at.
        state: `ok`, `note` (it works, with a limit) or `problem` (something will not work).
        found: What there is.
        do: What the user can do. Empty if there is nothing to do.
    """

    subject: str
    state: str
    found: str
    do: str = ""


def doctor(
    base: Annotated[
        str | None,
        typer.Option("--base", help="A base: its dtype on this machine is chosen as a run would."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Where runs are to be written.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """Say what is installed, which device and dtype a run takes, and what is missing.

    Exit code 1: something will not work.
    """
    found = [*_packages(), *_machine(), _disk(out), _hub()]
    found += [] if base is None else [_dtype(base)]
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        for one in found:
            print(plain(f"{one.state:<8} {one.subject}: {one.found}"))
            if one.do:
                print(plain(f"{'':<8} → {one.do}"))
    problems = [one for one in found if one.state == "problem"]
    if problems:
        raise KnowUndoError(
            f"{len(problems)} of {len(found)} checks found a problem, first {problems[0].subject}"
        )


def _packages() -> Iterator[Check]:
    for name in _REQUIRED:
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "problem", "not installed", "pip install knowundo, into this Python")
    for extra in _extras():
        missing = sorted(name for name in _needs(extra) if not _installed(name))
        if missing:
            do = f"pip install 'knowundo[{extra}]', if you need it"
            yield Check(f"extra {extra}", "note", f"without {', '.join(missing)}", do)
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _extras() -> list[str]:
    """Extras of the package that a user may want."""
    return [name for name in metadata("knowundo").get_all("Provides-Extra") or () if name != "dev"]


def _needs(extra: str) -> list[str]:
    """Packages that an extra asks for."""
    from packaging.requirements import Requirement

    found = []
    for text in metadata("knowundo").get_all("Requires-Dist") or ():
        wanted = Requirement(text)
        marker = wanted.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue  # needed anyway, or on no machine like this one
        if marker.evaluate({"extra": extra}):
            found.append(wanted.name)
    return found


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _machine() -> Iterator[Check]:
    import psutil
    import torch

    from knowundo.modeling.hardware import (
        THREADS,
        automatic_device,
        automatic_threads,
        threads_wanted,
    )

    device = automatic_device()
    if device == "cuda":
        name, memory = torch.cuda.get_device_name(0), torch.cuda.mem_get_info()[1] / 2**30
        half = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
        found = f"cuda: {torch.cuda.device_count()} × {name}, {memory:.0f} GiB, {half}"
        yield Check("device", "ok", found)
    else:
        do = "for models above 1 B parameters use a machine with a GPU"
        yield Check("device", "note", f"{device}: torch {torch.__version__} finds no CUDA GPU", do)
    why = THREADS if threads_wanted() else "physical cores"
    yield Check("threads", "ok", f"{automatic_threads()} ({why})")
    held = psutil.virtual_memory()
    found = f"{held.available / 2**30:.1f} of {held.total / 2**30:.1f} GiB free"
    do = "`knowundo estimate --config RECIPE` says what a run needs"
    yield Check("memory", "ok", found, do)


def _disk(out: Path) -> Check:
    place = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Check("disk", "problem", f"{place} cannot be written", "choose another --out")
    if free < _LITTLE:
        return Check("disk", "note", found, "copies of all weights may not fit; name another --out")
    return Check("disk", "ok", found)


def _hub() -> Check:
    from huggingface_hub import constants, get_token

    cache = f"cache {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        do = "models and data are read from folders and the cache; unset HF_HUB_OFFLINE for the hub"
        return Check("hub", "note", f"offline by HF_HUB_OFFLINE, {cache}", do)
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_PATIENCE):
            pass
    except HTTPError:
        pass  # it answered
    except OSError as error:
        do = "name models and data by local folders; the embedded base needs no network"
        return Check("hub", "note", f"no answer ({first_line(error)}), {cache}", do)
    if get_token() is None:
        do = "`hf auth login`, for gated models such as Llama"
        return Check("hub", "note", f"reached, without a token, {cache}", do)
    return Check("hub", "ok", f"reached, with a token, {cache}")


def _dtype(base: str) -> Check:
    from knowundo.modeling.dtype import choose
    from knowundo.modeling.hardware import automatic_device

    device = automatic_device()
    dtype, why = choose(base, device)
    return Check(f"dtype of {base}", "ok", f"{dtype} on {device}: {why}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(doctor)
