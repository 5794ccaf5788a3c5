"""The base, once in memory, and the variants that are swapped on top of it.

A variant is a folder with safetensors: a LoRA in peft's own layout, or all weights in
transformers'. Loading one overwrites tensors in place; the base is never loaded twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.capabilities import Capabilities
from knowundo.modeling.fast.linear import quicken
from knowundo.modeling.hardware import use_threads
from knowundo.modeling.loading import LoadedBase, LoadingOptions, adopt_base, load_base
from knowundo.modeling.lora_layers import add_lora, has_shape
from knowundo.modeling.notes import Notes
from knowundo.modeling.positions import position_limit
from knowundo.modeling.snapshots import INITIAL, Snapshot, Snapshots
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import load_state

# Tokens that one backward pass holds at least, on a CPU and on a GPU; with narrow layers, so many
# that each activation has as many numbers.
CPU_TOKENS, GPU_TOKENS, SMALL = 256, 2048, 2**18


def _drops(net: torch.nn.Module, config: Any) -> bool:
    chances = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    return any(chances) or bool(getattr(config, "attention_dropout", 0.0))


class Model:
    """A causal LM whose trainable tensors can be swapped, with its tokenizer.

    Attributes:
        base: Name of the base: `embedded`, a folder, or a name on the hub.
        adaptation: What training may change.
        net: The transformers model, in peft's wrapper if the adaptation is a LoRA.
        tokenizer: Its tokenizer.
        device: Where its weights are.
        options: How the base was loaded.
        stored_in_4_bits: True if the base's own files are quantized.
        notes: What a user should know of the work done with the model.
        positions: Tokens that a row may have, or `None` if any number.
        embeddings: Rows of the embedding matrix; ids beyond it have no embedding.
        drops: True if something is dropped at random while the model is trained.
    """

    def __init__(
        self,
        base: str | LoadedBase = "embedded",
        adaptation: Adaptation | None = None,
        *,
        seed: int = 0,
        options: LoadingOptions | None = None,
        notes: Notes | None = None,
    ) -> None:
        """Load the base.

        Args:
            base: `embedded`, a folder, a name on the hub, or a base in memory.
            adaptation: What training may change. If `None`, a LoRA beside every linear layer.
            seed: Of the LoRA's starting weights.
            options: How a base is loaded that is not in memory yet. If `None`, as `LoadingOptions`
                says by default.
            notes: Gets what a user should know. If `None`, new ones.

        Raises:
            BadInput: The base cannot be loaded, or not in the way that is asked for.
        """
        given = base.options if isinstance(base, LoadedBase) else options
        use_threads(given.threads if given is not None else None)
        self.adaptation, self.notes = adaptation or Adaptation(), notes or Notes()
        self._capabilities: Capabilities | None = None
        loaded = base
        if not isinstance(loaded, LoadedBase):
            loaded = self._loaded(loaded, options or LoadingOptions())
        self.base, self.tokenizer = loaded.name, loaded.tokenizer
        self.device, self.options = loaded.device, loaded.options
        self.stored_in_4_bits = loaded.stored_in_4_bits
        self.positions = position_limit(loaded.net)
        self.embeddings = len(loaded.net.get_input_embeddings().weight)
        torch.manual_seed(seed)
        self.net: Any = self._adapted(loaded.net).eval()
        self.snapshots = Snapshots()
        # What the trainable tensors were at first. A LoRA's are few; of all weights, only those are
        # copied that something is about to change: see `copy_initial`.
        self.initial = self.snapshots.adopt(INITIAL, {})
        if self.adaptation.kind == "lora":
            self.copy_initial(self.parameters())

    @classmethod
    def from_loaded(
        cls,
        net: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        adaptation: Adaptation | None = None,
        *,
        name: str | None = None,
        seed: int = 0,
        gradient_checkpointing: bool = False,
    ) -> Self:
        """Make a model of a base that is in memory already.

        Args:
            net: A causal LM of transformers. It is changed in place, and stays on its device and in
                its dtype: hand in a copy if it is needed as it is.
            tokenizer: Its tokenizer.
            adaptation: What training may change. If `None`, a LoRA beside every linear layer.
            name: What manifests and adapters call the base. If `None`, the name that transformers
                loaded it by.
            seed: Of the LoRA's starting weights.
            gradient_checkpointing: Compute activations again in the backward pass.

        Raises:
            BadInput: The net has an adapter already, or weights that cannot be trained.
        """
        loaded = adopt_base(
            net, tokenizer, name=name, gradient_checkpointing=gradient_checkpointing
        )
        return cls(loaded, adaptation, seed=seed)

    def _loaded(self, base: str, options: LoadingOptions) -> LoadedBase:
        trained = self.adaptation.kind == "full" and not options.scored_only
        return load_base(base, options, self.notes, trained=trained)

    def _adapted(self, net: Any) -> Any:
        """The base with a LoRA beside it, if the adaptation is one."""
        config = net.config.get_text_config()
        if self.adaptation.kind == "full":
            quicken(net)
        else:
            net = add_lora(net, self.adaptation, self.base, self.notes)
        self.drops = _drops(net, config)
        return net

    def adapt(self, adaptation: Adaptation) -> None:
        """Take the LoRA off the base and put one of another shape there, with no effect yet.

        The dropout stays: it is the recipe's, not the adapter's.
        """
        if "full" in (self.adaptation.kind, adaptation.kind):
            raise BadInput(f"base '{self.base}': all weights and a LoRA cannot be swapped")
        self._capabilities = None
        self.adaptation = replace(adaptation, dropout=self.adaptation.dropout)
        self.net = self._adapted(self.net.unload()).eval()
        self.mark_initial()

    @property
    def capabilities(self) -> Capabilities:
        """What the forward allows, tried when it is first asked for."""
        if self._capabilities is None:
            self._capabilities = Capabilities(self)
        return self._capabilities

    @property
    def config(self) -> Any:
        """The base's config, or that of its text model."""
        return self.causal_lm().config.get_text_config()  # type: ignore[union-attr, operator]

    def longest(self, length: int) -> int:
        """So many tokens, or as many as the model has positions for."""
        return length if self.positions is None else min(length, self.positions)

    @property
    def pad(self) -> int:
        """Id that fills rows; masked everywhere, so any that has an embedding does."""
        ids = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return next((int(i) for i in ids if i is not None and i < self.embeddings), 0)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that this adaptation may train, by name."""
        names = dict(self.net.named_parameters())
        if self.adaptation.kind == "full":
            return names
        return {name: parameter for name, parameter in names.items() if "lora_" in name}

    @property
    def is_fresh(self) -> bool:
        """True for a LoRA without effect yet: every B is zero."""
        second = [p for name, p in self.parameters().items() if "lora_B" in name]
        return bool(second) and not any(bool(p.any()) for p in second)

    @property
    def tokens(self) -> int:
        """Tokens whose activations are held at a time, while nothing asks for fewer.

        Matrix products of so many are as fast as of more, or nearly so (docs/performance.md).
        """
        hidden = int(self.causal_lm().config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
        most = CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS
        return max(most, SMALL // hidden)

    def same_numbers(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """True if two results of this model are the same to the rounding of its numbers.

        Rounding of half precision adds up over the layers; what is computed wrongly is off by more.
        """
        near = 5e-2 if one.dtype in (torch.bfloat16, torch.float16) else 1e-4
        scale = float(other.detach().float().abs().amax())
        return torch.allclose(one, other, rtol=near, atol=near * scale, equal_nan=True)

    def causal_lm(self) -> torch.nn.Module:
        """The transformers model inside peft's wrapper."""
        return self.net.get_base_model() if isinstance(self.net, PeftModel) else self.net

    def state(self, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """A copy of the trainable tensors, or of some of them."""
        own = self.parameters()
        chosen = self._known(own if names is None else names)
        return {name: own[name].detach().cpu().clone() for name in chosen}

    def _known(self, names: Iterable[str]) -> list[str]:
        chosen, own = list(names), self.parameters()
        if unknown := set(chosen) - set(own):
            raise BadInput(f"region: the model has no parameter '{min(unknown)}'")
        return chosen

    def snapshot(self, holder: str, names: Iterable[str]) -> Snapshot:
        """Copy trainable tensors for somebody who will go back to them.

        Raises:
            BadInput: The model has no parameter of such a name.
        """
        own = self.parameters()
        return self.snapshots.take(holder, {name: own[name] for name in self._known(names)})

    def extend_snapshot(self, snapshot: Snapshot, names: Iterable[str]) -> None:
        """Copy those of the named tensors that a snapshot does not have yet.

        Raises:
            BadInput: The model has no parameter of such a name.
        """
        own = self.parameters()
        self.snapshots.extend(snapshot, {name: own[name] for name in self._known(names)})

    def copy_initial(self, names: Iterable[str]) -> None:
        """Copy what these parameters are, before they change for the first time."""
        self.extend_snapshot(self.initial, names)

    def mark_initial(self) -> None:
        """Make the present trainable tensors those that `reset` goes back to."""
        self.initial = self.snapshot(INITIAL, self.parameters())

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Overwrite the trainable tensors in place.

        Raises:
            BadInput: the state belongs to another base or adaptation.
        """
        own = self.parameters()
        if missing := sorted(set(own) ^ set(state)):
            raise BadInput(f"these weights do not fit base '{self.base}': {missing[0]} differs")
        for name, value in state.items():
            if own[name].shape != value.shape:
                raise BadInput(f"these weights do not fit base '{self.base}': shape of {name}")
        uncopied = (name for name in own if name not in self.initial.tensors)
        self.copy_initial(n for n in uncopied if not torch.equal(own[n].cpu(), state[n]))
        self.overwrite(state)

    def overwrite(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite some trainable tensors, whose originals are held or not needed."""
        own = self.parameters()
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)

    def reset(self) -> None:
        """Make every trainable tensor what it was at first."""
        self.overwrite(self.initial.tensors)

    def use(self, variant: ModelVariant) -> None:
        """Make this the given variant; a LoRA of another shape replaces the one that is there."""
        if (folder := variant.weights) is None:
            self.reset()
            return
        wanted = adaptation_of(folder)
        if wanted.kind == "lora" and not has_shape(self.net, self.adaptation, wanted):
            self.adapt(wanted)
        self.restore(load_state(self, folder))

    def train_only(self, names: Iterable[str]) -> list[torch.nn.Parameter]:
        """Let gradients reach these parameters and no others; return them.

        The guard of a region: what needs no gradient is in no optimizer.
        """
        chosen = set(self._known(names))
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in chosen)
        return [p for p in self.net.parameters() if p.requires_grad]
