"""The trainable tensors of a model in files: an adapter in peft's layout, or all weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
)

from knowundo.errors import BadInput, first_line
from knowundo.modeling.adapters import (
    ADAPTER,
    CONFIG,
    file_name,
    foreign,
    plain_targets,
    read_adapter,
)
from knowundo.modeling.base import hub_commit, same_base
from knowundo.modeling.checks import (
    UNREADABLE,
    check_loaded,
    check_numbers,
)
from knowundo.storage.files import read_json, write_json

if TYPE_CHECKING:
    from knowundo.modeling.model import Model

FULL = "model.safetensors"


def _as_json(value: Any) -> Any:
    """A value of peft's config: a set of names as a sorted list, an enum as what it stands for."""
    return sorted(value) if isinstance(value, set) else getattr(value, "value", str(value))


def save_state(model: Model, folder: Path) -> None:
    """Write the current trainable tensors: peft's adapter layout, or transformers' full model."""
    if isinstance(model.net, PeftModel):
        tensors = {file_name(name): value for name, value in model.state().items()}
        save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})
        config = model.net.peft_config["default"].to_dict()
        targets = plain_targets(config["target_modules"])
        config["target_modules"] = targets if isinstance(targets, str) else list(targets)
        config["inference_mode"] = True
        write_json(folder / CONFIG, json.loads(json.dumps(config, default=_as_json)))
    else:
        model.net.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


def load_state(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """Read what `save_state` wrote, by parameter name.

    Raises:
        BadInput: no weights in the folder, or an adapter of another base.
    """
    if model.adaptation.kind == "lora":
        return _adapter_state(model, folder)
    return full_state(model, folder)


def full_state(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder by parameter name, loaded as transformers loads them.

    The names and shapes in a file need not be those of the model: transformers converts many when
    it saves and loads (fused experts, renamed heads), so that only it can read them.

    Raises:
        BadInput: The folder holds no weights, or weights or buffers that this base cannot take.
    """
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder / FULL}: no such file; name a folder with a whole model")
    options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
    options["trust_remote_code"] = model.options.trust_remote_code
    options["dtype"] = model.causal_lm().dtype
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    except UNREADABLE as error:
        raise BadInput(f"{folder}: cannot be loaded ({first_line(error)}); make it again") from None
    whole, info = loaded
    for note in check_loaded(info, str(folder)):
        model.notes.add_once(note)
    check_numbers(whole, str(folder), str(folder))
    _check_buffers(model, whole, folder)
    return {name: weights.detach() for name, weights in whole.named_parameters()}


def _check_buffers(model: Model, whole: torch.nn.Module, folder: Path) -> None:
    """Refuse other saved buffers (an expert's bias, say): only parameters are swapped.

    Raises:
        BadInput: Names a buffer that differs from the base's.
    """
    own, parameters = model.causal_lm().state_dict(), dict(whole.named_parameters())
    for name, value in whole.state_dict().items():
        if name in parameters or name not in own or value.shape != own[name].shape:
            continue
        if not torch.equal(value, own[name].cpu()) and name in dict(whole.named_buffers()):
            raise BadInput(
                f"{folder}: its buffer {name} is not that of base '{model.base}'; name this model "
                "as the base"
            )


def _adapter_state(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by parameter name, each compared with what it will replace.

    A base that was moved keeps its adapters: another recorded name is only noted.

    Raises:
        BadInput: The adapter cannot be read, or is of another base.
    """
    config, own = read_json(folder / CONFIG), model.parameters()
    names = {file_name(name): name for name in own}
    state: dict[str, torch.Tensor] = {}
    owner = config.get("base_model_name_or_path")
    moved = bool(owner) and not same_base(owner, model.base)
    other = f"; it is an adapter of base '{owner}'" if moved else ""
    for name, value in read_adapter(folder).items():
        if name in names:
            state[names[name]] = value
        elif (why := _replaces(model, config, name, value)) is not None:
            raise BadInput(f"{folder / ADAPTER}: {why}{other}")
    place = f"{folder}: does not fit base '{model.base}'"
    if missing := sorted(set(own) - set(state)):
        raise BadInput(f"{place}: it has no {file_name(missing[0])}{other}")
    for name, value in state.items():
        if own[name].shape != value.shape:
            shapes = f"{list(value.shape)}, and {list(own[name].shape)} is needed"
            raise BadInput(f"{place}: {file_name(name)} is of shape {shapes}{other}")
    if moved:
        model.notes.add_once(
            f"{folder}: names base '{owner}', not '{model.base}'; all its shapes fit, so it is "
            "taken for an adapter of this base"
        )
    return state


def _replaces(
    model: Model, config: Mapping[str, Any], name: str, value: torch.Tensor
) -> str | None:
    """Why a tensor that is not the LoRA's cannot be taken; None if the base holds the same.

    peft writes the embeddings beside an adapter that has a LoRA there, or whose base it did not
    find.
    """
    path, _, last = name.rpartition(".")
    named = dict(model.net.named_parameters())
    places = (name, f"{path}.base_layer.{last}")
    base = next((named[place] for place in places if place in named), None)
    # A head that is tied to the embeddings has no parameter of its own.
    if base is None and last == "weight" and path.removesuffix(".base_layer").endswith("lm_head"):
        base = model.causal_lm().get_output_embeddings().weight  # type: ignore[operator]
    if (
        base is not None
        and base.shape == value.shape
        and torch.equal(base.cpu(), value.to(base.dtype))
    ):
        return None
    return foreign(config, name, value, base)


def size(parameter: torch.nn.Parameter) -> int:
    """Numbers in a parameter; one of 4 bits holds two in each element."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else int(packed.shape.numel())


def describe(model: Model) -> dict[str, Any]:
    """What a manifest says of a model."""
    named = model.causal_lm().named_parameters()
    total = sum(size(p) for name, p in named if "lora_" not in name)
    trainable = sum(p.numel() for p in model.parameters().values())
    return {
        "base": model.base,
        "commit": hub_commit(model.base),
        "dtype": str(model.causal_lm().dtype).removeprefix("torch."),
        "adaptation": asdict(model.adaptation),
        "parameters": total,
        "trainable": trainable,
    }
