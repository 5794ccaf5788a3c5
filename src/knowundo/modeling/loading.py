"""What transformers loaded, looked at before anything is computed with it.

transformers only warns where weights are missing, ignores what it does not know, and loads bases
whose config says that they are quantized in its own way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.pytorch_utils import Conv1D

from knowundo.errors import BadInput
from knowundo.modeling.adapters import CONFIG
from knowundo.modeling.fast.oom import ran_out

# What transformers raises at files that it can make nothing of: it checks few of their fields.
UNREADABLE = (
    OSError, ValueError, ImportError, RuntimeError, SafetensorError, TypeError, AttributeError,
    LookupError, ArithmeticError,
)  # fmt: skip
# Modules beside which peft (0.21, tuners_utils) allows no LoRA, in models of these types: their
# fused kernels read the weights without calling the modules.
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_NOT_BESIDE_MAMBA = ("out_proj", "conv1d")
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


def position_limit(model: Any) -> int | None:
    """Positions that a row of this model may have, where more would have no embedding.

    `max_position_embeddings` is a limit where the model holds something for each position: a
    learned embedding (GPT-2; OPT's has two rows more), a table of sines (GPT-J), a mask (GPT-Neo).
    Rotary angles are computed for any position, so there it only tells what the model was trained
    for.

    Args:
        model: A causal LM of transformers, without peft's wrapper.
    """
    config = model.config.get_text_config()
    count, words = getattr(config, "max_position_embeddings", None), model.get_input_embeddings()
    if not isinstance(count, int):
        most = getattr(config, "max_seq_len", None)  # MPT makes its biases for so many
        return most if isinstance(most, int) else None
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not words]
    for table in tables:
        if count <= table.num_embeddings <= count + 2:
            # RoBERTa's positions begin behind the padding's; OPT's table is that much longer.
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            return count - first if table.num_embeddings == count else count
    for module in model.modules():
        held = [*module._buffers.values(), *vars(module).values()]
        shapes = (one.shape for one in held if isinstance(one, torch.Tensor) and one.ndim > 1)
        if not isinstance(module, torch.nn.Embedding) and any(count in shape for shape in shapes):
            return count
    return None


def linear_targets(model: Any) -> tuple[str | list[str], list[str]]:
    """Where a LoRA lies beside every linear layer that can have one.

    Layers of transformers that are linear but return more than their product, such as the routers
    of PhiMoE and Llama 4, cannot, nor can what peft refuses in Mamba models.

    Args:
        model: A causal LM of transformers, without peft's wrapper.

    Returns:
        peft's `all-linear` if that is all of them, else the names of the modules; and what was
        left out, by the last part of its name.
    """
    head, chosen, left = model.get_output_embeddings(), list[str](), set[str]()
    mamba = getattr(model.config, "model_type", None) in _MAMBA
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | Conv1D) or module is head:
            continue
        last = name.rpartition(".")[2]
        if _is_special(module) or (mamba and last in _NOT_BESIDE_MAMBA):
            left.add(last)
        else:
            chosen.append(name)
    return (chosen if left else "all-linear"), sorted(left)


@torch.no_grad()
def _is_special(module: torch.nn.Module) -> bool:
    """True for a linear layer with a forward of its own that does not give one product a token.

    Tried on one token: Falcon's own linear layer is an ordinary one.
    """
    if not isinstance(module, torch.nn.Linear):
        return False
    kind, weight = type(module), module.weight
    own = kind.__module__.partition(".")[0] in ("transformers", "transformers_modules")
    if not own or kind.forward is torch.nn.Linear.forward:
        return False
    token = torch.zeros(1, module.in_features, dtype=weight.dtype, device=weight.device)
    training = module.training
    module.eval()  # no noise
    try:
        output = module(token)
    except Exception as error:  # whatever custom code raises
        if ran_out(error):
            raise
        return True  # it takes something else than tokens, so no LoRA can be added to it
    finally:
        module.train(training)
    return not isinstance(output, torch.Tensor) or output.shape != (1, module.out_features)
