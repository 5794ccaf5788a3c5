"""A base in memory with its tokenizer: from files, or as its owner loaded it.

Whatever transformers says against a base is shown in one line, and what it only warns of (missing
weights, foreign quantization) is refused (checks.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)

from knowundo.errors import BadInput, first_line
from knowundo.modeling.activation_checkpointing import recompute_activations
from knowundo.modeling.adapter_merge import merge_adapter
from knowundo.modeling.base import base_path
from knowundo.modeling.checks import (
    UNREADABLE,
    check_attention,
    check_loaded,
    check_no_adapter,
    check_numbers,
    check_quantization,
    need_bitsandbytes,
    stored_quantization,
)
from knowundo.modeling.notes import Notes


@dataclass(frozen=True)
class LoadingOptions:
    """How a base is loaded and held.

    Attributes:
        device: `cpu`, `cuda` or another device of torch.
        dtype: Of the weights; a LoRA beside weights of bfloat16 is float32.
        trust_remote_code: Run code from the base's folder.
        quantization: `nf4` holds the base's linear layers in 4 bits. If `None`, the base is held as
            it is stored.
        attention: transformers' name of an attention implementation. If `None`, its own choice.
        gradient_checkpointing: Compute activations again in the backward pass.
        scored_only: Nothing is trained, so 4-bit weights may stand in for all of them.
        tokenizer: A folder whose tokenizer takes the place of the base's, such as an adapter's. If
            `None`, the base's own.
        merge: Folder of an adapter that peft merges into the base once that is loaded. If `None`,
            the base is as it is stored.
        threads: Of torch, in this process. If `None`, one for each physical core, or as many as
            `KNOWUNDO_THREADS` says.
    """

    device: str = "cpu"
    dtype: str = "float32"
    trust_remote_code: bool = False
    quantization: str | None = None
    attention: str | None = None
    gradient_checkpointing: bool = False
    scored_only: bool = False
    tokenizer: str | None = None
    merge: str | None = None
    threads: int | None = None

    def torch_device(self) -> torch.device:
        """The device as torch's.

        Raises:
            BadInput: There is no such device here.
        """
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise BadInput(
                f"model.device '{self.device}': not a device; say auto, cpu, cuda or mps"
            ) from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise BadInput(
                f"model.device '{self.device}': torch finds no GPU here; say cpu, or install a "
                "build of torch for this machine's GPU"
            )
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise BadInput(f"model.device '{self.device}': torch finds no Apple GPU here; say cpu")
        return device


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory.

    Attributes:
        name: What the base is called in manifests and in adapters made of it.
        net: A causal LM of transformers.
        tokenizer: Its tokenizer.
        device: Where its weights are.
        options: How it was loaded; a quantization that the files have is named here.
        stored_in_4_bits: True if the base's own files are quantized.
    """

    name: str
    net: Any
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    options: LoadingOptions
    stored_in_4_bits: bool = False


@dataclass(frozen=True)
class Source:
    """A base whose weights are about to be loaded."""

    name: str
    path: str  # a folder, or a name on the hub
    options: LoadingOptions
    stored_in_4_bits: bool
    notes: Notes


def load_base(
    name: str,
    options: LoadingOptions,
    notes: Notes,
    *,
    trained: bool,
    weights: Callable[[Source], Any] | None = None,
) -> LoadedBase:
    """Load a base and its tokenizer from files.

    Args:
        name: `embedded`, a folder, or a name on the hub.
        options: How it is loaded.
        notes: Gets what a user should know of the files.
        trained: True if all of its weights are to be trained.
        weights: Makes the causal LM. If `None`, its weights are read from the files.

    Raises:
        BadInput: The base cannot be loaded, or not in the way that is asked for.
    """
    device, path = options.torch_device(), base_path(name)
    check_no_adapter(name, path)
    code = {"trust_remote_code": options.trust_remote_code}
    try:
        stored = stored_quantization(AutoConfig.from_pretrained(path, **code), name)
        key = f"model.quantization {options.quantization}"
        if stored is not None:
            options = replace(options, quantization=stored)
            key = f"model.base '{name}', stored in 4 bits"
        if options.quantization is not None:
            check_quantization(key, options.quantization, options.dtype, trained=trained)
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or path, **code)
        source = Source(name, path, options, stored is not None, notes)
        net = (weights or _load_weights)(source)
    except UNREADABLE as error:
        raise BadInput(f"model.base '{name}': cannot be loaded ({_reason(error)})") from None
    if options.gradient_checkpointing:
        recompute_activations(net, name)
    return LoadedBase(name, net, tokenizer, device, options, stored is not None)


def _reason(error: Exception) -> str:
    """The first line of transformers' message, with what to do about it."""
    reason = first_line(error)
    if "custom code" in reason:
        return reason + "; set model.trust_remote_code to true if you trust it"
    if "pytorch_model" in reason or "no file named" in reason:
        return reason + "; only .safetensors are read: convert the weights"
    return reason


def adopt_base(
    net: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str | None = None,
    gradient_checkpointing: bool = False,
) -> LoadedBase:
    """Take over a causal LM that its owner has loaded.

    Args:
        net: A `PreTrainedModel` with a language model's head. It is changed in place.
        tokenizer: Its tokenizer.
        name: What manifests and adapters call it. If `None`, the name that it was loaded by.
        gradient_checkpointing: Compute activations again in the backward pass.

    Raises:
        BadInput: It has an adapter already, weights that have no gradients, or NaN among them.
    """
    name = name or str(net.config._name_or_path or type(net).__name__)
    if isinstance(net, PeftModel) or getattr(net, "_hf_peft_config_loaded", False):
        raise BadInput(
            f"model.base '{name}': has an adapter already; call merge_and_unload, or hand in the "
            "base and name the adapter's folder"
        )
    stored = stored_quantization(net.config, name)
    check_numbers(net, name, name)
    _settle(net, quantized=stored is not None)
    if gradient_checkpointing:
        recompute_activations(net, name)
    options = LoadingOptions(
        device=str(net.device),
        dtype=str(net.dtype).removeprefix("torch."),
        quantization=stored,
        attention=net.config._attn_implementation,
        gradient_checkpointing=gradient_checkpointing,
    )
    return LoadedBase(name, net, tokenizer, net.device, options, stored is not None)


def _load_weights(source: Source) -> Any:
    """The causal LM on its device.

    peft's prepare_model_for_kbit_training is not called: it makes every tensor that is not
    quantized float32, and the activations with them, which takes twice their memory.
    """
    options = source.options
    check_attention(options.attention)
    asked: dict[str, Any] = {
        "dtype": getattr(torch, options.dtype),
        "trust_remote_code": options.trust_remote_code,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    if options.attention is not None:
        asked["attn_implementation"] = options.attention
    if options.quantization is not None:
        asked |= _in_4_bits(source)
    loaded: Any = AutoModelForCausalLM.from_pretrained(source.path, **asked)
    net, info = loaded
    for note in check_loaded(info, source.name):
        source.notes.add_once(note)
    check_numbers(net, source.name, source.path)
    if options.merge is not None:
        if options.quantization is not None:
            raise BadInput(
                f"model.merge '{options.merge}': weights of 4 bits take no adapter in; leave "
                "model.quantization out"
            )
        net = merge_adapter(net, Path(options.merge), source.name, source.notes)
    _settle(net, quantized=options.quantization is not None)
    return net if options.quantization is not None else net.to(options.torch_device())


def _in_4_bits(source: Source) -> dict[str, Any]:
    """How transformers is asked for a base in 4 bits; one that is stored so says how itself."""
    options = source.options
    on_device = {"device_map": {"": str(options.torch_device())}}
    if source.stored_in_4_bits:
        need_bitsandbytes(f"model.base '{source.name}': its weights are in 4 bits, which")
        return on_device
    need_bitsandbytes(f"model.quantization {options.quantization}")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, options.dtype),
    )
    return on_device | {"quantization_config": config}


def _settle(net: Any, *, quantized: bool) -> None:
    """Switch off what changes weights in place behind the back of whoever trains them."""
    if getattr(net.config, "rescale_every", 0):
        # RWKV halves the weights of its upper layers in place outside training, so that float16
        # does not overflow: no LoRA would be halved with them.
        net.config.rescale_every = 0
    if not quantized:
        return
    # On some CPUs bitsandbytes packs 4-bit weights anew in the first forward without gradients, for
    # a kernel that has no backward: what is trained after that would get wrong gradients.
    for module in net.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
