"""A base that its owner has loaded already, with its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.hardware import use_threads
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.model_section import ModelSection
from knowundo.recipes.schema import Recipe
from knowundo.runs.base import settle_machine
from knowundo.storage.files import fingerprint


class MemoryBase:
    """A loaded `PreTrainedModel` and its tokenizer as the base of a run.

    Attributes:
        name: What manifests and adapters call it: the name that transformers loaded it by, or its
            class.
        section: Keys of a recipe's `model` that the model in memory decides.
        opened: The model that was made of it last; a run takes it over. `None` before the first.
    """

    def __init__(
        self, net: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        """Hash the weights, before anything changes them.

        Args:
            net: A causal LM. It is changed in place, and stays on its device and in its dtype.
            tokenizer: Its tokenizer.

        Raises:
            BadInput: There is no tokenizer, the dtype is none that is trained in, or weights are
                offloaded.
        """
        if tokenizer is None:
            raise BadInput("a model in memory needs its tokenizer; give tokenizer=…")
        self.section = loaded_section(net)
        self.name = self.section["base"]
        self._net: Any = net
        self._tokenizer = tokenizer
        self._identity = [_weights_hash(net), _tokenizer_hash(tokenizer)]
        self.opened: Model | None = None

    def settle(self, recipe: Recipe, out: Path, reporter: Reporter) -> Recipe:
        """The recipe with name, device and dtype of the model, and a number of threads.

        Raises:
            BadInput: An adapter is to be merged into it.
        """
        if recipe.model.merge is not None:
            raise BadInput(
                f"adapter '{recipe.model.merge}': has to be merged into the model in memory, which "
                "stays as it is; call peft's merge_and_unload and hand in the result"
            )
        section = recipe.model.model_copy(update=self.section)
        return settle_machine(recipe.model_copy(update={"model": section}), out, reporter)

    def open(self, recipe: Recipe, adaptation: Adaptation, adapters: Sequence[Path] = ()) -> Model:
        """The base as it was handed in, ready for training what `adaptation` says.

        Args:
            recipe: Its seed and gradient checkpointing are used.
            adaptation: What training may change.
            adapters: Not used: the tokenizer that was handed in stays.
        """
        # Switched on once: it wraps the layers of the net, which is the same one each time.
        checkpointing = recipe.model.gradient_checkpointing and self.opened is None
        if self.opened is not None:
            # The same weights were trained or adapted before: back to what they were at first.
            self.opened.reset()
            used = self.opened.net
            self._net = used.unload() if isinstance(used, PeftModel) else used
        self.opened = Model.from_loaded(
            self._net,
            self._tokenizer,
            adaptation,
            name=self.name,
            seed=recipe.seed,
            gradient_checkpointing=checkpointing,
        )
        threads = recipe.model.threads
        use_threads(None if threads == "auto" else threads)
        return self.opened

    def identity(self) -> list[Any]:
        """Hashes of the weights with the config, and of the tokenizer."""
        return ["in memory", *self._identity]

    def files(self) -> list[Path]:
        """No files: whatever it was read from may have changed in memory."""
        return []


def loaded_section(net: PreTrainedModel | PeftModel) -> dict[str, str]:
    """Keys of a recipe's `model` that a loaded model decides: name, device and dtype.

    Args:
        net: A causal LM, without an adapter.

    Raises:
        BadInput: It has an adapter, a dtype that is none to train in, or offloaded weights.
    """
    if isinstance(net, PeftModel):
        raise BadInput(
            "model: has an adapter already; hand in its base (peft: unload), and name the folder "
            "of the adapter in memorize.adopt"
        )
    name = str(net.config._name_or_path or type(net).__name__)
    dtype = str(net.dtype).removeprefix("torch.")
    known = get_args(ModelSection.model_fields["dtype"].annotation)
    if dtype not in known or dtype == "auto":
        raise BadInput(
            f"model.base '{name}': its weights are {dtype}; call .to(torch.bfloat16) or "
            ".to(torch.float32)"
        )
    if any(parameter.is_meta for parameter in net.parameters()):
        raise BadInput(
            f"model.base '{name}': some of its weights are offloaded and not in memory; load it "
            "without device_map='auto', or in 4 bits"
        )
    return {"base": name, "device": str(net.device), "dtype": dtype}


def _weights_hash(net: Any) -> str:
    """sha256 of config and weights."""
    settings = net.config.to_dict()
    # Where it was loaded from, and by which version, changes nothing that it computes.
    for name in ("_name_or_path", "transformers_version"):
        settings.pop(name, None)
    return tensors_hash(settings, net.state_dict())


def tensors_hash(settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 (hex) of settings and tensors, in the order of their names."""
    digest = hashlib.sha256(fingerprint(settings).encode())
    # Tensors are hashed one by one: a copy of all of them on the CPU may not fit.
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    # A slow tokenizer has its rules in Python; its words and special tokens are all there is.
    rules = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else None
    words = sorted(tokenizer.get_vocab().items())
    special = tokenizer.special_tokens_map
    return fingerprint([words, special, tokenizer.chat_template, rules])
