"""What transformers loaded, looked at before anything is computed with it.

transformers only warns where weights are missing, ignores what it does not know, and loads bases
whose config says that they are quantized in its own way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils.import_utils import is_flash_attn_2_available

from knowundo.errors import BadInput
from knowundo.modeling.adapters import CONFIG

# What transformers raises at files that it can make nothing of: it checks few of their fields.
UNREADABLE = (
    OSError, ValueError, ImportError, RuntimeError, SafetensorError, TypeError, AttributeError,
    LookupError, ArithmeticError,
)  # fmt: skip
# Names of so many tensors are said.
_NAMED = 3


def check_no_adapter(base: str, path: str) -> None:
    """Refuse an adapter's folder in place of a base: transformers would load both as one.

    Raises:
        BadInput: The folder holds an adapter.
    """
    if (Path(path) / CONFIG).is_file():
        raise BadInput(
            f"model.base '{base}': holds an adapter; name its base as the model and the folder as "
            "the adapter, or move the adapter's files away"
        )


def stored_quantization(config: Any, base: str) -> str | None:
    """How the weights of a base are quantized in its folder: `nf4` for 4 bits of bitsandbytes.

    Args:
        config: transformers' config of the base.
        base: Its name, for the error.

    Returns:
        `None` if they are not quantized.

    Raises:
        BadInput: They are, by a method whose weights have no gradients here.
    """
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    fields = found if isinstance(found, Mapping) else found.to_dict()
    method = str(getattr(fields.get("quant_method"), "value", fields.get("quant_method")))
    if "bitsandbytes" in method and fields.get("load_in_4bit"):
        return "nf4"
    method = "bitsandbytes in 8 bits" if "bitsandbytes" in method else method
    raise BadInput(
        f"model.base '{base}': its weights are quantized ({method}), which is not supported; name "
        "the base as it was before that, and say model.quantization=nf4 to hold it in 4 bits"
    )


def check_loaded(info: Mapping[str, Any], base: str) -> list[str]:
    """Compare what a base's files held with what its model needs.

    Args:
        info: transformers' loading info (`output_loading_info`); tied weights are not in it.
        base: Its name, for the error.

    Returns:
        Notes: tensors of the files that the model has no place for.

    Raises:
        BadInput: Weights are not in the files; transformers has made random ones.
    """
    missing = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    unexpected = sorted(info["unexpected_keys"])
    if missing:
        beside = f" (there are others, such as {unexpected[0]})" if unexpected else ""
        raise BadInput(
            f"model.base '{base}': its files lack {_some(missing)}{beside}, and random weights "
            "would stand there; save the model again under transformers' own names"
        )
    if unexpected:
        return [f"base '{base}': its files hold {_some(unexpected)}, which the model does not use"]
    return []


def _some(names: Collection[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(list(names)[:_NAMED]) + (f" and {more} more weights" if more > 0 else "")


@torch.no_grad()
def check_numbers(model: torch.nn.Module, base: str, path: str) -> None:
    """Refuse NaN and infinity among a base's weights.

    The least and the greatest number of each tensor tell, in one pass over the memory and without
    a copy: both are NaN if any number is.

    Args:
        model: As loaded.
        base: Its name, for the error.
        path: Its folder, or its name on the hub.

    Raises:
        BadInput: Names the file and the tensor.
    """
    for name, weights in model.named_parameters():
        if not weights.is_floating_point() or not weights.numel():
            continue
        if not all(bool(torch.isfinite(end)) for end in torch.aminmax(weights)):
            place = _file_of(name, Path(path)) or f"model.base '{base}'"
            raise BadInput(
                f"{place}: {name} holds NaN or infinity; download or convert the model again"
            )


def _file_of(name: str, folder: Path) -> Path | None:
    """The file of a folder that holds a tensor."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                if name in tensors.keys():  # noqa: SIM118 - not a mapping
                    return file
        except SafetensorError:
            continue  # no file of this model: it was loaded from the others
    return None


def need_bitsandbytes(key: str) -> None:
    """Raise BadInput, naming the key that asks for it, where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise BadInput(f"{key}: needs bitsandbytes; pip install 'knowundo[gpu]'")


def check_quantization(key: str, quantization: str, dtype: str, *, trained: bool) -> None:
    """Refuse what 4-bit weights cannot do; `key` names where they come from."""
    if quantization != "nf4":
        raise BadInput(f"{key}: no such form; say nf4")
    if trained:
        raise BadInput(
            f"{key}: weights of 4 bits cannot be trained; set model.adaptation to lora, or leave "
            "--route full out"
        )
    if dtype == "float64":
        raise BadInput(f"{key}: computes in bfloat16 or float32; set model.dtype to one of them")


def check_attention(attention: str | None) -> None:
    """Refuse FlashAttention where it is not installed."""
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise BadInput(
            "model.attention flash_attention_2: needs a GPU and the package flash-attn; install "
            "it, or say sdpa"
        )
