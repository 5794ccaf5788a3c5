"""A LoRA beside the linear layers of a base."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.pytorch_utils import Conv1D

from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation, plain_targets
from knowundo.modeling.fast.linear import quicken
from knowundo.modeling.fast.lora import fuse
from knowundo.modeling.fast.oom import attempt, ran_out
from knowundo.modeling.notes import Notes

# Modules beside which peft (0.21, tuners_utils) allows no LoRA, in models of these types: their
# fused kernels read the weights without calling the modules.
_MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_NOT_BESIDE_MAMBA = ("out_proj", "conv1d")


def add_lora(net: Any, adaptation: Adaptation, base: str, notes: Notes) -> Any:
    """Put a LoRA beside a base's layers; it has no effect until its B is changed from zero.

    Args:
        net: A causal LM of transformers, changed in place.
        adaptation: The LoRA.
        base: Name of the base.
        notes: Is told of layers that can have none.

    Returns:
        peft's wrapper of the net.

    Raises:
        BadInput: No LoRA with these fields fits the base.
    """
    targets: Any = adaptation.targets
    if targets == "all-linear":
        targets, left = linear_targets(net)
        if left:
            notes.add_once(f"base '{base}': {', '.join(left)} can have no LoRA")
    try:
        config = LoraConfig(
            r=adaptation.rank,
            lora_alpha=adaptation.alpha,  # type: ignore[arg-type]
            lora_dropout=adaptation.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
            **adaptation.fields,
        )
        with warnings.catch_warnings():
            # Said only of modules, while the patterns of parameters are used: `_unused_patterns`.
            warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys")
            # peft corrects the field beside the Conv1D layers of GPT-2.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            net = get_peft_model(net, config)
    except (TypeError, ValueError, AttributeError, RuntimeError, re.error) as error:
        if ran_out(error):
            raise
        raise BadInput(
            f"base '{base}': no LoRA with these fields fits it ({error}); correct the adapter's "
            "fields, or train all weights instead (--route full, or model.adaptation=full)"
        ) from None
    net.peft_config["default"].base_model_name_or_path = base
    for line in _unused_patterns(net):
        notes.add_once(f"base '{base}': {line}")
    fuse(net)
    quicken(net)
    return net


def _unused_patterns(net: Any) -> list[str]:
    """What to say of patterns of ranks and alphas that fit no module and no parameter.

    For mixtures of experts, peft replaces targets such as `w1` and `w3` by the parameter in which
    transformers holds both, with a pattern of its own for the rank of the two.
    """
    tuner, config = net.base_model, net.peft_config["default"]
    targets = [*tuner.targeted_module_names, *tuner.targeted_parameter_names]
    found = []
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, field) or {}:
            if not any(re.match(rf"(.*\.)?({key})$", name) for name in targets):
                found.append(f"{field} '{key}' fits no module with a LoRA and has no effect")
    return found


def has_shape(net: Any, own: Adaptation, wanted: Adaptation) -> bool:
    """True if the LoRA of a net holds tensors of the same names, shapes and scale as another.

    Args:
        net: With a LoRA, or without.
        own: The adaptation of the net.
        wanted: The other adaptation; its dropout does not matter.
    """
    if not isinstance(net, PeftModel):
        return False
    # peft may write a long list of targets as a shorter one.
    targets = own.targets, plain_targets(net.peft_config["default"].target_modules)  # type: ignore[attr-defined]
    same = replace(wanted, targets=own.targets, dropout=own.dropout) == own
    return same and wanted.targets in targets


def linear_targets(model: Any) -> tuple[str | list[str], list[str]]:
    """Where a LoRA is put beside every linear layer that can have one.

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
        with attempt() as tried:  # custom code
            output = module(token)
    finally:
        module.train(training)
    if tried.error is not None:
        return True  # it takes something else than tokens, so no LoRA can be added to it
    return not isinstance(output, torch.Tensor) or output.shape != (1, module.out_features)
