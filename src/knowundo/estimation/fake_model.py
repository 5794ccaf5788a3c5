"""A model without weights: fake tensors have shapes, dtypes and a graph, and take no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from knowundo.errors import BadInput
from knowundo.modeling.activation_checkpointing import recompute_activations
from knowundo.modeling.base import base_path
from knowundo.modeling.checks import stored_quantization
from knowundo.modeling.loading import (
    LoadedBase,
    LoadingOptions,
    Source,
    load_base,
)
from knowundo.modeling.model import Model
from knowundo.modeling.structure import meta_copy


class _UnpackedMatmul(torch.autograd.Function):
    """A matmul with a 4-bit weight, which is dequantized for the forward and the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: torch.Tensor, shape: Any) -> torch.Tensor:
        ctx.save_for_backward(packed)
        ctx.shape = shape
        return torch.nn.functional.linear(x, x.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0] @ grads[0].new_empty(ctx.shape), None, None


class _Nf4Linear(torch.nn.Linear):
    """The size of bitsandbytes' NF4 layer with double quantization: 0.516 bytes a weight.

    Each weight takes half a byte, each block of 64 weights one byte for its scale, and each block
    of 256 scales 4 bytes for theirs (Dettmers et al. 2023, QLoRA, section 3).
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        count = layer.weight.numel()
        packed = torch.empty(-(-count // 2), dtype=torch.uint8, device="meta")
        scales = -(-count // 64) + 4 * -(-count // (64 * 256))
        self.bias, self.shape = layer.bias, layer.weight.shape
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8, device="meta"))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = _UnpackedMatmul.apply(input, self.weight, self.shape)
        return output if self.bias is None else output + self.bias


class FakeModel(Model):
    """A base of fake tensors; only its config.json and tokenizer are read.

    Its device is the CPU whatever the recipe says: a CPU's operations save the same tensors for
    the backward pass as a GPU's.

    Attributes:
        total: number of parameters of the base.
    """

    total = 0

    def _loaded(self, base: str, options: LoadingOptions) -> LoadedBase:
        trained = self.adaptation.kind == "full"
        return load_base(base, options, self.notes, trained=trained, weights=self._shapes)

    def _shapes(self, source: Source) -> Any:
        given, code = source.options, {"trust_remote_code": source.options.trust_remote_code}
        asked: dict[str, Any] = {"dtype": getattr(torch, given.dtype)} | code
        if given.attention is not None:
            # FlashAttention runs on no fake tensor; SDPA's fused kernels hold the same.
            flash = given.attention == "flash_attention_2"
            asked["attn_implementation"] = "sdpa" if flash else given.attention
        config = AutoConfig.from_pretrained(source.path, **code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **asked)
        self.total = _count(model)
        if given.quantization is not None:
            _quantize(model)
        return model

    def same_numbers(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """True: fake tensors hold no numbers to compare."""
        return True

    def _adapted(self, model: Any) -> Any:
        self.total = self.total or _count(model)
        with torch.device("meta"):
            return _faked(super()._adapted(model))

    @property
    def vocabulary(self) -> int:
        """Width of the logits, which may exceed the tokenizer's vocabulary."""
        head: Any = self.causal_lm().get_output_embeddings()  # type: ignore[operator]
        return int(head.weight.shape[0])


def _count(model: Any) -> int:
    """Number of parameters, before any is packed or added."""
    return sum(parameter.numel() for parameter in model.parameters())


def fake_base(
    net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: LoadingOptions
) -> LoadedBase:
    """The modules of a loaded model without its weights, as the base of a `FakeModel`.

    Args:
        net: a causal LM; not changed.
        tokenizer: its tokenizer.
        options: how the recipe holds the base.

    Raises:
        BadInput: its weights are quantized, so that their shapes are not the layers'.
    """
    name = str(net.config._name_or_path or type(net).__name__)
    if stored_quantization(net.config, name) is not None:
        raise BadInput(
            f"model.base '{name}': was loaded in 4 bits; name its folder in model.base, with "
            "model.quantization=nf4"
        )
    bare = meta_copy(net)
    if options.quantization is not None:
        _quantize(bare)
    if options.gradient_checkpointing:
        recompute_activations(bare, name)
    return LoadedBase(name, bare, tokenizer, torch.device("cpu"), options)


def _quantize(model: Any) -> None:
    """Replace the layers that transformers quantizes: all linear ones except the head."""
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is torch.nn.Linear and layer is not head:
            model.set_submodule(name, _Nf4Linear(layer))


def _faked(net: Any) -> Any:
    """Fake tensors in place of meta ones: they have a storage, whose bytes can be counted."""
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the old ones too, so that ids stay

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, torch.nn.Parameter):
                empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
            made[id(tensor)] = tensor, empty
        return made[id(tensor)][1]

    # Batches stay real, so that code may read lengths and ids.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in net.modules():
            for place in (module._parameters, module._buffers, vars(module)):
                for name, value in place.items():
                    if isinstance(value, torch.Tensor):
                        place[name] = fake(value)
    return net


def local_base(base: str) -> str:
    """Folder of a base's config and tokenizer: a folder of the user, or one in the hub's cache.

    Args:
        base: `embedded`, a folder, or a name on the hub. Nothing is downloaded.

    Raises:
        BadInput: the files are in neither place.
    """
    folder = Path(base_path(base))
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(base, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            raise BadInput(
                f"model.base '{base}': neither a folder nor in the hub's cache; run "
                f"`hf download {base} --include '*.json' 'tokenizer*'`"
            ) from None
    if not (folder / "config.json").is_file():
        raise BadInput(f"model.base '{base}': no config.json in {folder}; name another folder")
    return str(folder)
