"""Where a base is: its files, its commit on the hub, and its tokenizer."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from knowundo.errors import BadInput, first_line
from knowundo.modeling.adapters import TOKENIZER
from knowundo.modeling.checks import UNREADABLE
from knowundo.storage.files import can_exist


def base_path(base: str) -> str:
    """Where transformers finds a base: `embedded` is a part of this package."""
    return str(files("knowundo") / "embedded") if base == "embedded" else base


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base, without its weights.

    Args:
        base: `embedded`, a folder, or a name on the hub.

    Raises:
        BadInput: It cannot be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_path(base))
    except UNREADABLE as error:
        raise BadInput(
            f"base '{base}': its tokenizer cannot be loaded ({first_line(error)})"
        ) from None
    return tokenizer


def base_folder(base: str) -> Path | None:
    """The folder of a base. `None` for a name on the hub, and for one that no folder can have.

    Adapters name their base in a file that anyone may have written, and `Path.is_dir` raises
    `OSError` for a name that is too long.
    """
    path = base_path(base)
    return Path(path) if can_exist(path) and Path(path).is_dir() else None


def base_files(base: str) -> list[Path]:
    """Files of a base in a folder, for hashing; an empty list for a name on the hub."""
    kinds = (".json", ".safetensors", ".jinja", ".model", ".txt", ".py")
    folder = base_folder(base)
    return [] if folder is None else sorted(f for f in folder.glob("*") if f.suffix in kinds)


def same_base(one: str | None, other: str) -> bool:
    """True if two names mean one base: equal, or one folder.

    A relative path that leads nowhere here, such as `../models/Llama-2-7b-chat-hf` in adapters of
    KnowUnDo's code, means the base of that last name.
    """
    if one is None or one == other:
        return one == other
    first, second = base_folder(one), base_folder(other)
    if one.startswith(".") and first is None:
        return Path(one).name == Path(base_path(other)).name
    return first is not None and second is not None and first.resolve() == second.resolve()


def own_tokenizer(folder: Path, base: str, trust_remote_code: bool) -> str | None:
    """What sets the tokenizer in an adapter's folder apart from the base's; None if nothing does.

    Args:
        folder: An adapter's.
        base: Of the adapter.
        trust_remote_code: As for `Model`.

    Raises:
        BadInput: One of the tokenizers cannot be loaded.
    """
    if not all((folder / name).is_file() for name in TOKENIZER):
        return None  # a part of a tokenizer is no tokenizer
    found = []
    for path in (base_path(base), str(folder)):
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        except UNREADABLE as error:
            raise BadInput(
                f"{path}: its tokenizer cannot be loaded ({first_line(error)})"
            ) from None
        ends = tokenizer.eos_token_id, tokenizer.bos_token_id
        words = sorted(tokenizer.get_vocab().items())
        rules = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
        for key in ("truncation", "padding"):  # what a trainer set last; not used here
            rules.pop(key, None)
        found.append(json.dumps([words, ends, tokenizer.chat_template, rules], sort_keys=True))
    return found[1] if found[1] != found[0] else None


def hub_commit(base: str) -> str | None:
    """Commit of a base in the hub's cache; `None` for a folder, and before it is there."""
    if base_folder(base) is not None:
        return None
    try:
        file = try_to_load_from_cache(base, "config.json")
    except HFValidationError:
        return None
    return Path(file).parent.name if isinstance(file, str) else None
