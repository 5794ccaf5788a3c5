"""An adapter that plain peft loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from safetensors import safe_open

from knowundo.errors import KnowUndoError
from knowundo.modeling.adapters import ADAPTER
from knowundo.modeling.base import base_path, hub_commit
from knowundo.modeling.model import Model
from knowundo.modeling.weights import save_state
from knowundo.storage.files import read_json, write_json


def write_adapter(model: Model, folder: Path) -> Any:
    """Write a LoRA with its tokenizer, and load it on the same base as plain peft does."""
    save_state(model, folder)
    model.tokenizer.save_pretrained(folder)
    file = folder / "adapter_config.json"
    path = base_path(model.base)
    local = Path(path).is_dir()
    config = read_json(file) | {
        "base_model_name_or_path": str(Path(path).resolve()) if local else path,
        "revision": hub_commit(model.base),
        "target_modules": _target_modules(model.causal_lm()),
    }
    write_json(file, config)
    # Others are for peft, which reads them below, and not for vLLM.
    if not model.adaptation.extra and not any("lora_embedding" in n for n in model.parameters()):
        check_adapter(folder)
    return PeftModel.from_pretrained(model.net.unload(), folder)


def _target_modules(net: torch.nn.Module) -> list[str]:
    """Names by which peft finds the modules with a LoRA: their last part, or else all of it.

    peft takes every module whose name ends in a given one, so the last part does only where all
    modules of that name have a LoRA.
    """
    names = [name for name, _ in net.named_modules() if ".lora_" not in name]
    # A LoRA on a parameter of a module that is no layer, such as fused experts, is no module's:
    # `target_parameters` names it, and peft refuses the module.
    adapted = [
        name
        for name, module in net.named_modules()
        if hasattr(module, "lora_A") and not isinstance(module, ParamWrapper)
    ]
    last = {name.rpartition(".")[2] for name in adapted}
    # Beside a LoRA the plain module is called base_layer, so these are all of that name.
    found = [name for name in names if name.rpartition(".")[2] in last]
    return sorted(last) if sorted(found) == sorted(adapted) else sorted(adapted)


_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What vLLM's loader refuses, or ignores and would compute without.
_PLAIN_LORA = (
    "modules_to_save", "use_dora", "use_rslora", "lora_bias", "rank_pattern", "alpha_pattern",
    "layer_replication", "target_parameters", "trainable_token_indices",
)  # fmt: skip


def check_adapter(folder: Path) -> None:
    """Check that a folder is a LoRA as vLLM's loader reads it (vllm/lora: peft_helper, lora_model).

    Tensors are `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r];
    the config holds r, lora_alpha and a list of target modules, and nothing beside a plain LoRA.

    Raises:
        KnowUndoError: names what is otherwise.
    """
    config = read_json(folder / "adapter_config.json")
    wrong = [key for key in _PLAIN_LORA if config.get(key)]
    wrong += ["bias"] if config.get("bias", "none") != "none" else []
    wrong += [key for key in ("r", "lora_alpha") if not isinstance(config.get(key), int)]
    targets = config.get("target_modules")
    if config.get("peft_type") != "LORA" or wrong or not isinstance(targets, list):
        named = wrong[0] if wrong else "peft_type or target_modules"
        raise KnowUndoError(f"{folder}: not a plain LoRA ({named} in adapter_config.json)")
    sides: dict[str, set[str]] = {}
    with safe_open(folder / ADAPTER, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise KnowUndoError(f"{folder}: no LoRA tensor is named {name}")
            module, side = match.groups()
            if tensors.get_slice(name).get_shape()[side == "B"] != config["r"]:
                raise KnowUndoError(f"{folder}: {name} is not of rank {config['r']}")
            if not {module, module.rpartition(".")[2]} & set(targets):
                raise KnowUndoError(f"{folder}: {module} is not among target_modules")
            sides.setdefault(module, set()).add(side)
    if not sides or any(len(found) < 2 for found in sides.values()):
        raise KnowUndoError(f"{folder}: a module lacks one of lora_A and lora_B")
