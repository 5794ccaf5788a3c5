"""The base, once in memory, and the variants that are swapped on top of it.

A variant is a folder with safetensors: a LoRA in peft's own layout, or all weights in
transformers'. Loading one overwrites tensors in place; the base is never loaded twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from knowundo.errors import BadInput
from knowundo.modeling.adapters import (
    Adaptation,
    adaptation_of,
    plain_targets,
)
from knowundo.modeling.base import base_path, check_attention, check_quantization, need_bitsandbytes
from knowundo.modeling.fast.linear import quicken
from knowundo.modeling.fast.lora import abreast, all_linear, fuse
from knowundo.modeling.fast.oom import ran_out
from knowundo.modeling.loading import (
    UNREADABLE,
    check_loaded,
    check_no_adapter,
    check_numbers,
    linear_targets,
    position_limit,
    stored_quantization,
)
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import load_state

# One thread count everywhere: the same bytes need the same number of threads.
THREADS = 2
# Tokens that one backward pass holds at least, on a CPU and on a GPU; with narrow layers, so many
# that each activation has as many numbers.
CPU_TOKENS, GPU_TOKENS, SMALL = 256, 2048, 2**18


def _keep_packing(model: Any) -> None:
    """Keep 4-bit weights as they are.

    On some CPUs bitsandbytes packs them anew in the first forward without gradients, for a kernel
    that has no backward: what is trained after that would get wrong gradients.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _recompute(model: Any, base: str) -> None:
    """Hold only the inputs of each layer, and compute the layer again in the backward pass.

    transformers' own switch does so in training mode only; localization takes gradients in
    evaluation mode, where there is no dropout.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise BadInput(
            f"model.gradient_checkpointing: base '{base}' has no layers for it; say false"
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)


def _drops(net: torch.nn.Module, config: Any) -> bool:
    chances = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    return any(chances) or bool(getattr(config, "attention_dropout", 0.0))


class Model:
    """A causal LM whose trainable tensors can be swapped, with its tokenizer."""

    def __init__(
        self,
        base: str = "embedded",
        adaptation: Adaptation | None = None,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
        trust_remote_code: bool = False,
        quantization: str | None = None,
        attention: str | None = None,
        gradient_checkpointing: bool = False,
        scored_only: bool = False,
        tokenizer: str | None = None,
    ) -> None:
        """Load the base.

        Args:
            base: `embedded`, a folder, or a name on the hub.
            adaptation: what training may change.
            seed: of the LoRA's starting weights.
            device: where the model lies.
            dtype: of the weights; a LoRA beside weights of bfloat16 is float32.
            trust_remote_code: run code from the base's folder; off unless asked.
            quantization: nf4 holds the base's linear layers in 4 bits.
            attention: transformers' name of an implementation; none: its choice.
            gradient_checkpointing: compute activations again in the backward pass.
            scored_only: nothing is trained, so 4-bit weights may stand in for all of them.
            tokenizer: a folder whose tokenizer takes the place of the base's, such as an
                adapter's. If `None`, the base's own.

        Raises:
            BadInput: the base cannot be loaded, or not in the way that is asked for.
        """
        torch.set_num_threads(THREADS)
        self.base, self.adaptation = base, adaptation or Adaptation()
        self.notes: list[str] = []  # what a user should know of the work done with it
        self._once, self._told = set[str](), 0
        self.lower: Any = None  # stands in for the layers below what is trained (lower.py)
        # What this model's forward allows, tried when it is first asked for: sequence packing
        # (forwards.py), padding on the right and on the left, a head of its own (head.py).
        self.packs: bool | None = None
        self.window = float("inf")  # longest row that is packed, see packing.unseen_window
        self.pads: bool | None = None
        self.left_pads: bool | None = None
        self.own_head: bool | None = None
        self.scaled: list[Any] | None = None  # rotary embeddings that look at the length
        self.abreast = 1  # adapters that a forward is of, see `all_of`
        self.quantization, self.attention = quantization, attention
        self.remote_code = trust_remote_code
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise BadInput(f"model.device '{device}': not a device; say cpu or cuda") from None
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise BadInput(
                f"model.device '{device}': torch finds no GPU here; say cpu, or install a build of "
                "torch for this machine's GPU"
            )
        trained = self.adaptation.kind == "full" and not scored_only
        options = {"trust_remote_code": trust_remote_code}
        model = self._opened(dtype, tokenizer, options, trained=trained)
        if gradient_checkpointing:
            _recompute(model, base)
        # Positions that a row may have, if more would have no embedding; and rows of embeddings.
        self.positions = position_limit(model)
        self.embeddings = len(model.get_input_embeddings().weight)
        torch.manual_seed(seed)
        self.net: Any = self._adapted(model).eval()
        # What the trainable tensors were at first. A LoRA's are few; of all weights, only those are
        # held that something is about to change: see `hold`.
        self.fresh: dict[str, torch.Tensor] = {}
        if self.adaptation.kind == "lora":
            self.hold(self.parameters())

    def _opened(
        self, dtype: str, tokenizer: str | None, options: dict[str, Any], *, trained: bool
    ) -> Any:
        """The base, with its tokenizer set; whatever transformers says against it in one line.

        Args:
            dtype: As for `__init__`.
            tokenizer: As for `__init__`.
            options: Of every call of transformers.
            trained: True if all of the base's weights are to be trained.
        """
        base, path = self.base, base_path(self.base)
        check_no_adapter(base, path)
        try:
            stored = stored_quantization(AutoConfig.from_pretrained(path, **options), base)
            self.stored_in_4_bits = stored is not None  # the base's own files are quantized
            key = f"model.quantization {self.quantization}"
            if stored is not None:
                self.quantization, key = stored, f"model.base '{base}', stored in 4 bits"
            if self.quantization is not None:
                check_quantization(key, self.quantization, dtype, trained=trained)
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                tokenizer or path, **options
            )
            return self._load(path, dtype=getattr(torch, dtype), **options)
        except UNREADABLE as error:
            reason = str(error).strip().split("\n")[0]
            if "custom code" in reason:
                reason += "; set model.trust_remote_code to true if you trust it"
            elif "pytorch_model" in reason or "no file named" in reason:
                reason += "; only .safetensors are read: convert the weights"
            raise BadInput(f"model.base '{base}': cannot be loaded ({reason})") from None

    def _load(self, path: str, **options: Any) -> Any:
        """The base on its device.

        peft's prepare_model_for_kbit_training is not called: it makes every tensor that is not
        quantized float32, and the activations with them, which takes twice their memory.
        """
        check_attention(self.attention)
        if self.attention is not None:
            options["attn_implementation"] = self.attention
        options["use_safetensors"] = True
        options["output_loading_info"] = True
        if self.quantization is not None:
            options |= self._in_4_bits(options["dtype"])
        loaded: Any = AutoModelForCausalLM.from_pretrained(path, **options)
        model, info = loaded
        for note in check_loaded(info, self.base):
            self.note_once(note)
        check_numbers(model, self.base, path)
        if getattr(model.config, "rescale_every", 0):
            # RWKV halves the weights of its upper layers in place outside training, so that
            # float16 does not overflow: no LoRA would be halved with them.
            model.config.rescale_every = 0
        if self.quantization is None:
            return model.to(self.device)
        _keep_packing(model)
        return model

    def _in_4_bits(self, dtype: torch.dtype) -> dict[str, Any]:
        """How transformers is asked for a base in 4 bits; one that is stored so says how itself."""
        on_device = {"device_map": {"": str(self.device)}}
        if self.stored_in_4_bits:
            need_bitsandbytes(f"model.base '{self.base}': its weights are in 4 bits, which")
            return on_device
        need_bitsandbytes(f"model.quantization {self.quantization}")
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        return on_device | {"quantization_config": config}

    def note_once(self, note: str) -> None:
        """Note something that would be noted again with every use of an adapter or a row."""
        if note not in self._once:
            self._once.add(note)
            self.notes.append(note)

    def tell(self, say: Callable[[str], None]) -> None:
        """Say the notes that were not said yet; they stay, for the manifest of what is made."""
        for note in self.notes[self._told :]:
            say(note)
        self._told = len(self.notes)

    def take_notes(self) -> list[str]:
        """The notes so far, which are then no longer held."""
        notes, self.notes, self._told = self.notes, [], 0
        return notes

    def _adapted(self, model: Any) -> Any:
        """The base with a LoRA beside it, if the adaptation is one."""
        net = self._with_lora(model)
        # Is anything dropped at random while the model is trained?
        self.drops = _drops(net, model.config.get_text_config())
        return net

    def _with_lora(self, model: Any) -> Any:
        if self.adaptation.kind == "full":
            quicken(model)
            return model
        targets: Any = self.adaptation.targets
        if targets == "all-linear":
            targets, left = linear_targets(model)
            if left:
                self.note_once(f"base '{self.base}': {', '.join(left)} can have no LoRA")
        try:
            config = LoraConfig(
                r=self.adaptation.rank,
                lora_alpha=self.adaptation.alpha,  # type: ignore[arg-type]
                lora_dropout=self.adaptation.dropout,
                target_modules=targets if isinstance(targets, str) else list(targets),
                task_type="CAUSAL_LM",
                **self.adaptation.fields,
            )
            model = get_peft_model(model, config)
        except (TypeError, ValueError, AttributeError, RuntimeError, re.error) as error:
            if ran_out(error):
                raise
            raise BadInput(
                f"base '{self.base}': no LoRA with these fields fits it ({error}); correct the "
                "adapter's fields, or train all weights instead (--route full, or "
                "model.adaptation=full)"
            ) from None
        model.peft_config["default"].base_model_name_or_path = self.base
        fuse(model)
        quicken(model)
        return model

    def _has_shape(self, adaptation: Adaptation) -> bool:
        """True if the LoRA that is there holds tensors of the same names, shapes and scale."""
        if not isinstance(self.net, PeftModel):
            return False
        own, config = self.adaptation, self.net.peft_config["default"]
        # peft may write a long list of targets as a shorter one.
        targets = own.targets, plain_targets(config.target_modules)  # type: ignore[attr-defined]
        alike = replace(adaptation, targets=own.targets, dropout=own.dropout) == own
        return alike and adaptation.targets in targets

    def adapt(self, adaptation: Adaptation) -> None:
        """Take the LoRA off the base and put one of another shape there, with no effect yet.

        The dropout stays: it is the recipe's, not the adapter's.
        """
        if "full" in (self.adaptation.kind, adaptation.kind):
            raise BadInput(f"base '{self.base}': all weights and a LoRA cannot be swapped")
        self.packs = self.pads = self.left_pads = self.own_head = self.scaled = None
        self.adaptation = replace(adaptation, dropout=self.adaptation.dropout)
        self.net = self._adapted(self.net.unload()).eval()
        self.fresh = self.state()

    @property
    def config(self) -> Any:
        """The base's config, or that of its text model."""
        return self.causal_lm().config.get_text_config()  # type: ignore[union-attr, operator]

    @contextmanager
    def plain_generation(self) -> Iterator[None]:
        """Within it, `generate` follows what it is told, and nothing in generation_config.json.

        transformers fills whatever a call leaves open from the model's own settings (penalties,
        forbidden tokens, beams, stop strings); of these only the special tokens stay.
        """
        net: Any = self.causal_lm()
        own = net.generation_config
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        net.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})
        try:
            yield
        finally:
            net.generation_config = own

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

    def alike(self, one: torch.Tensor, other: torch.Tensor) -> bool:
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

    def hold(self, names: Iterable[str]) -> None:
        """Copy the originals of these parameters before they change for the first time."""
        self.fresh |= self.state(name for name in names if name not in self.fresh)

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
        unheld = (name for name in own if name not in self.fresh)
        self.hold(name for name in unheld if not torch.equal(own[name].cpu(), state[name]))
        self.overwrite(state)

    def overwrite(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite some trainable tensors, whose originals are held or not needed."""
        own = self.parameters()
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)

    def reset(self) -> None:
        """Make every trainable tensor what it was at first."""
        self.overwrite(self.fresh)

    def use(self, variant: ModelVariant) -> None:
        """Make this the given variant; a LoRA of another shape replaces the one that is there."""
        if variant.folder is None:
            self.reset()
            return
        wanted = adaptation_of(variant.folder)
        if wanted.kind == "lora" and not self._has_shape(wanted):
            self.adapt(wanted)
        self.restore(load_state(self, variant.folder))

    def all_linear(self) -> bool:
        """True if the LoRA lies beside linear layers only, whose weights are plain numbers.

        One with more than A and B, such as DoRA's magnitudes, is none.
        """
        return self.adaptation.is_product and all_linear(self.net)

    @contextmanager
    def all_of(self, variants: Sequence[ModelVariant]) -> Iterator[None]:
        """Within it, a forward without gradients is that of several variants (`go_abreast`).

        The rows of the first come first, and so on: `abreast` times as many as were given.

        Args:
            variants: LoRAs of one shape, or the base.
        """
        states = []
        self.use(next((v for v in variants if v.folder is not None), variants[0]))  # the shape
        if len(variants) == 1:
            yield
            return
        for variant in variants:
            self.use(variant)
            states.append(self.state())
        self.abreast = len(variants)
        try:
            with abreast(self.net, states):
                states.clear()
                yield
        finally:
            self.abreast = 1

    def train_only(self, names: Iterable[str]) -> list[torch.nn.Parameter]:
        """Let gradients reach these parameters and no others; return them.

        The guard of a region: what needs no gradient is in no optimizer.
        """
        chosen = set(self._known(names))
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in chosen)
        return [p for p in self.net.parameters() if p.requires_grad]
