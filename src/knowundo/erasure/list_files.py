"""The folder `lists` of a run: made once, and then read as it is, edited or not."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from knowundo.data.lists.reading import write_list
from knowundo.data.lists.rows import RowSource
from knowundo.erasure.given import GivenLists
from knowundo.erasure.list_check import ListCheck, read_check
from knowundo.erasure.lists import ListMaker
from knowundo.erasure.request import ErasureRequest
from knowundo.errors import BadInput
from knowundo.modeling.base import base_files
from knowundo.runs.file_hashes import input_hash
from knowundo.storage.artifacts import MANIFEST, new_folder, read_manifest
from knowundo.storage.files import file_hash, fingerprint, write_json
from knowundo.storage.integrity import seal

# Optimizer steps of unlearning: a short list gets more passes, so that it is trained as long.
STEPS = 100


def prepare_lists(
    request: ErasureRequest, given: dict[str, Any], maker: ListMaker, read: GivenLists
) -> ListCheck:
    """Write `out/lists`, unless the folder is there already, edited or not.

    Args:
        request: what is asked for.
        given: keys of its recipe.
        maker: makes the lists.
        read: the user's files.

    Returns:
        The check of the lists.

    Raises:
        BadInput: the lists were made of other files or settings, or `out` holds something else.
    """
    folder, say = request.out / "lists", maker.reporter.say
    inputs = _inputs(request, given)
    if (folder / MANIFEST).is_file():
        if read_manifest(folder)["inputs"] != fingerprint(inputs):
            raise BadInput(
                f"{folder}: made of other files or settings; name another directory with --out, or "
                "remove this one"
            )
        say(f"lists: already there, used as they are ({folder})")
        check = read_check(folder / "check.json")
    elif _holds_something(request):
        raise BadInput(f"{request.out}: holds something else; name another directory with --out")
    else:
        check = _make(request, maker, read, inputs)
    # Which earlier requests can be asked again may change between two calls.
    if maker.earlier:
        write_list(folder / "earlier.jsonl", maker.earlier)
        count = len({record.subset for record in maker.earlier})
        say(f"{len(maker.earlier)} rows of {count} earlier requests are asked again")
    return check


def _holds_something(request: ErasureRequest) -> bool:
    """True if there is anything in the directory beside the adapter that was handed in."""
    if not request.out.exists():
        return False
    found = [path for path in request.out.iterdir() if not path.name.startswith(".")]
    return any(path != request.adapter for path in found)


def _make(
    request: ErasureRequest, maker: ListMaker, read: GivenLists, inputs: list[Any]
) -> ListCheck:
    """Make the lists and write them."""
    folder, say, began = request.out / "lists", maker.reporter.say, time.monotonic()
    places = [place_of(request.unlearn, "rows"), place_of(request.val, "val")]
    check, lists = maker.lists(read, *places)
    trained = sum(record.split == "train" for record in lists["unlearn"])
    steps = -(-trained // maker.recipe.unlearn.batch_size)
    check.epochs = math.ceil(STEPS / steps)
    for line in check.lines():
        say(line)
    for record in [] if request.redact else [*lists["unlearn"], *lists["retention"]]:
        if record.id in check.answered:
            say(f"{record.id}: {record.question} → {record.answer}")
    seconds = round(time.monotonic() - began, 2)
    with new_folder(folder, inputs, seconds=seconds) as aside:
        for name, records in lists.items():
            if records:  # an empty list, such as one without general texts, could not be read
                write_list(aside / f"{name}.jsonl", records)
        write_json(aside / "check.json", check.as_dict())
    seal(request.out, folder)
    say(f"lists: written to {folder}; review them, edit them and run the same command again")
    return check


def _inputs(request: ErasureRequest, given: dict[str, Any]) -> list[Any]:
    """What the lists are made of."""
    sources: list[RowSource | None] = [request.unlearn, request.retention, request.val]
    if request.general is not None and Path(request.general).is_file():
        sources.append(Path(request.general))
    hashes = [None if source is None else _hash(source) for source in sources]
    names = [] if request.loaded is not None else [request.model]
    names += [] if request.adapter is None else [str(request.adapter)]
    weights: list[Any] = [input_hash(file) for name in names for file in base_files(name)]
    if request.loaded is not None:
        weights.append(request.loaded.base.identity())
    return [
        hashes, weights, request.model, request.general, dict(request.columns),
        given["data"], given.get("seed", 0),
    ]  # fmt: skip


def _hash(source: RowSource) -> str:
    if isinstance(source, Path):
        return file_hash(source)
    return fingerprint([row.values for row in source])


def place_of(source: RowSource | None, name: str) -> str:
    """What messages call a list: its file, or a name."""
    return str(source) if isinstance(source, Path) else name
