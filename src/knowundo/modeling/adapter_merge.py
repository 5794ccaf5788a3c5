"""An adapter that is more than LoRA matrices, merged into its base by peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open

from knowundo.errors import BadInput, first_line
from knowundo.modeling.adapters import ADAPTER, CONFIG, read_adapter, unmerged_reason
from knowundo.modeling.base import same_base
from knowundo.modeling.checks import UNREADABLE
from knowundo.modeling.notes import Notes
from knowundo.storage.files import read_json


def merge_adapter(net: Any, folder: Path, base: str, notes: Notes) -> Any:
    """Merge an adapter into a base, as `PeftModel.from_pretrained` and `merge_and_unload` do.

    Args:
        net: A causal LM of transformers, changed in place.
        folder: The adapter's, of any kind of LoRA that peft merges.
        base: Name of the base.
        notes: Is told what was merged, and why.

    Returns:
        The causal LM without peft's wrapper.

    Raises:
        BadInput: The adapter cannot be read, or does not fit the base.
    """
    read_adapter(folder)  # refuses damaged files and NaN
    config = read_json(folder / CONFIG)
    rows = _vocabulary(folder)
    if rows is not None and rows > len(net.get_input_embeddings().weight):
        net.resize_token_embeddings(rows, mean_resizing=False)
    try:
        with warnings.catch_warnings():
            # peft warns that merging a tied head separates it from the embeddings: see `_untie`.
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
            # It says that it corrects a field, which it does.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            net = PeftModel.from_pretrained(net, folder).merge_and_unload()
    except UNREADABLE as error:
        raise BadInput(
            f"{folder}: peft cannot merge it into base '{base}' ({first_line(error)}); name the "
            "base that it was trained on"
        ) from None
    _untie(net)
    why = unmerged_reason(folder) or "another LoRA is trained beside it"
    notes.add_once(f"{folder}: merged into the base by peft ({why})")
    owner = config.get("base_model_name_or_path")
    if owner and not same_base(owner, base):
        notes.add_once(f"{folder}: names base '{owner}', not '{base}'; all its shapes fit")
    return net.requires_grad_(True)


def _vocabulary(folder: Path) -> int | None:
    """Rows of embeddings or of a head that an adapter's file holds whole; `None` if of neither."""
    names = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight")
    with safe_open(folder / ADAPTER, framework="pt") as tensors:
        found = [n for n in tensors.keys() if n.endswith(names) and "lora_" not in n]  # noqa: SIM118
        return max((tensors.get_slice(n).get_shape()[0] for n in found), default=None)


def _untie(net: Any) -> None:
    """Say in the config that head and embeddings differ, if they do.

    Else the head would be left out of a saved model, and tied to the embeddings again on loading.
    """
    head, embeddings = net.get_output_embeddings(), net.get_input_embeddings()
    if head is None or not getattr(net.config.get_text_config(), "tie_word_embeddings", False):
        return
    one, other = head.weight, embeddings.weight
    if one is other:
        return
    if torch.equal(one, other):  # two copies of one tensor: tie them again
        net.tie_weights()
        return
    net.config.tie_word_embeddings = False
    net.config.get_text_config().tie_word_embeddings = False
