"""A model that its owner has loaded, as the start of an erasure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowundo.errors import BadInput
from knowundo.modeling.adapters import ADAPTER
from knowundo.modeling.structure import shared_copy
from knowundo.runs.memory_base import MemoryBase, tensors_hash
from knowundo.storage.artifacts import is_done, new_folder
from knowundo.storage.integrity import seal

# Folder, in a run's directory, of the adapter that a PeftModel was handed in with.
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base in memory, with its tokenizer.

    Attributes:
        net: the base as it was handed in, without an adapter; its tensors are the owner's.
        tokenizer: its tokenizer.
        base: the same base for the run, which puts adapters on it.
        copy: False if the result may share the owner's tensors.
    """

    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base: MemoryBase
    copy: bool

    def with_adapter(self, folder: Path) -> PeftModel:
        """The base with the adapter of a folder, in evaluation mode."""
        net = deepcopy(self.net) if self.copy else shared_copy(self.net)
        made: PeftModel = PeftModel.from_pretrained(net, folder)
        return made.eval()


def loaded_model(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    changed: bool,
    copy: bool,
) -> LoadedModel:
    """Take a loaded model without changing it.

    Args:
        model: a causal LM, or peft's wrapper of one, whose adapter is left out.
        tokenizer: its tokenizer.
        changed: True if the run writes into the base's own weights.
        copy: False if that may happen in the owner's tensors, and the result may share them.

    Raises:
        BadInput: there is no tokenizer, or the model cannot be trained as it is.
    """
    if isinstance(model, PeftModel):
        _check_peft(model)
        net = shared_copy(model).unload()
    else:
        net = shared_copy(model)
    if tokenizer is None:
        raise BadInput("tokenizer: a loaded model needs its own; hand it in beside the model")
    own = deepcopy(net) if changed and copy else shared_copy(net)
    return LoadedModel(net, tokenizer, MemoryBase(own, tokenizer), copy)


def _check_peft(model: PeftModel) -> None:
    """Refuse a wrapper whose state is not one adapter beside an untouched base."""
    if len(model.active_adapters) != 1:
        active = ", ".join(model.active_adapters) or "none"
        raise BadInput(
            f"model: one adapter must be active, and these are: {active}; call set_adapter"
        )
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise BadInput("model: its adapter is merged into the base; call unmerge_adapter first")


@contextmanager
def kept_adapter(model: PeftModel, out: Path) -> Iterator[Path]:
    """The active adapter as a folder of the run's directory, within the block and after it.

    It is removed again if the block fails before the run has its lists.

    Args:
        model: its active adapter is written.
        out: directory of the run.

    Raises:
        BadInput: the directory holds another adapter, so it is another model's run.
    """
    folder, (name,) = out / ADAPTER_FOLDER, model.active_adapters
    found = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    tensors = {key: value.detach().cpu().contiguous() for key, value in found.items()}
    config = model.peft_config[name]
    fields = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    inputs = [tensors_hash(fields, tensors)]
    if folder.exists() and not is_done(folder, inputs):
        raise BadInput(f"{folder}: is not the adapter of this model; name another folder with out")
    if not folder.exists():
        with new_folder(folder, inputs) as aside:
            save_file(tensors, aside / ADAPTER, metadata={"format": "pt"})
            config.save_pretrained(str(aside))
    try:
        yield folder
    finally:
        if (out / "lists").exists():
            seal(out, folder)
        else:
            shutil.rmtree(folder)
