"""Quantization: rounding the weights may round away what unlearning changed."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from knowundo.attacked import Attacked
from knowundo.errors import BadInput
from knowundo.modeling.base_weights import merged_base
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.registry import attack

Format = Literal["int8", "int4", "nf4", "bitsandbytes-nf4"]

# Dettmers et al. 2023 (arXiv:2305.14314), appendix E: quantiles of a normal distribution, scaled to
# [-1, 1], among which is 0.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


@attack(changes="weights")
def quantization(
    attacked: Attacked,
    *,
    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("int8", "int4"),
    block: Annotated[int, Field(ge=2)] = 64,
) -> None:
    """Round the weights of all layers to few bits, as for cheap inference.

    Zhang et al. 2024, arXiv:2410.16454: unlearning moves weights by less than a step of rounding,
    and 4 bits bring back what was forgotten. A LoRA is merged first, as it is before a model is
    quantized. Embeddings, head and norms stay. The numbers are those that a quantized model
    computes with; they are stored as before, so that this runs on a CPU.

    Args:
        attacked: The model.
        formats: `int8`: 255 steps, scaled by the largest weight of each output channel; `int4`: 15
            steps, scaled by that of each block; `nf4`: the 16 values of QLoRA in each block;
            `bitsandbytes-nf4`: the same by bitsandbytes itself, where it is installed.
        block: Weights of a block.

    Raises:
        BadInput: The weights are quantized already, no layers are found, or bitsandbytes is not
            installed.
    """
    model = attacked.model
    for form in formats:
        with merged_base(model) as merged, torch.no_grad():
            inside = {id(p) for layer in layers_of(model) for p in layer.parameters()}
            if not inside:
                raise BadInput(f"attack quantization: no layers of base '{model.base}' were found")
            for name, weight in merged.weights.items():
                if weight.ndim > 1 and id(weight) in inside:
                    transposed = _transposed(model.causal_lm(), name)
                    rows = weight.T if transposed else weight
                    rounded = quantized(rows.float(), form, block).to(weight.dtype)
                    weight.copy_(rounded.T if transposed else rounded)
            attacked.score(form)


def _transposed(net: torch.nn.Module, name: str) -> bool:
    """True for weights that are stored as [in, out]: those of GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    owner = net.get_submodule(name.rpartition(".")[0])
    return isinstance(getattr(owner, "base_layer", owner), Conv1D)


def quantized(weight: torch.Tensor, form: Format, block: int = 64) -> torch.Tensor:
    """A weight after quantization and back.

    Args:
        weight: [..., out, in], float32.
        form: As of the attack.
        block: Weights of a block, in the order of the memory.

    Returns:
        The same shape; of each channel or block, the largest weight is unchanged.
    """
    if form == "bitsandbytes-nf4":
        return _of_bitsandbytes(weight, block)
    if form == "int8":
        return _stepped(weight, 127)
    flat = weight.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    rounded = _stepped(padded, 7) if form == "int4" else _nearest(padded)
    return rounded.reshape(-1)[: len(flat)].view_as(weight)


def _stepped(rows: torch.Tensor, steps: int) -> torch.Tensor:
    """Symmetric rounding: each row's largest weight is `steps` steps."""
    scale = rows.abs().amax(-1, keepdim=True) / steps
    return torch.where(scale > 0, (rows / scale).round() * scale, rows)


def _nearest(rows: torch.Tensor) -> torch.Tensor:
    """The nearest of NF4's values, each scaled by the row's largest weight."""
    values = torch.tensor(NF4, device=rows.device)
    scale = rows.abs().amax(-1, keepdim=True)
    shares = torch.where(scale > 0, rows / scale, torch.zeros_like(rows))
    middles = (values[1:] + values[:-1]) / 2
    return values[torch.bucketize(shares, middles)] * scale


def _of_bitsandbytes(weight: torch.Tensor, block: int) -> torch.Tensor:
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except ImportError:
        raise BadInput(
            "attack quantization: format bitsandbytes-nf4 needs the extra gpu (pip install "
            "'knowundo[gpu]'); nf4 computes the same without it"
        ) from None
    packed, state = quantize_4bit(weight.contiguous(), blocksize=block, quant_type="nf4")
    found: torch.Tensor = dequantize_4bit(packed, state)
    return found
