"""Adapters as people have them: what a folder of peft's adapts, and in which form its tensors lie.

Fields of peft's LoraConfig are handed on where peft then computes the same as
`PeftModel.from_pretrained` (0.21); a field that needs more than LoRA tensors is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from knowundo.errors import BadInput
from knowundo.storage.files import read_json

ADAPTER, PICKLED, CONFIG = "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"
# Files of a tokenizer; without the first two there is none.
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")

# Fields that change which modules have a LoRA or how it computes, and nothing of the base.
_HANDED_ON = (
    "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern",
    "layers_to_transform", "layers_pattern", "exclude_modules", "target_parameters",
)  # fmt: skip
# A LoRA with one of these is more than x·Wᵀ + s·(x·Aᵀ)·Bᵀ.
_MORE_THAN_A_PRODUCT = ("use_dora", "lora_bias")
# Read on their own, or without effect on trained weights. `fan_in_fan_out` follows from the layer.
# What `bias` trained lies in the file: see `base_tensor`.
_ELSEWHERE = (
    "r", "lora_alpha", "target_modules", "lora_dropout", "init_lora_weights", "peft_type", "bias",
    "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "peft_version", "fan_in_fan_out", "runtime_config", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "megatron_core", "qalora_group_size",
)  # fmt: skip
# Initializations that leave the base's weights alone. The others (PiSSA, OLoRA, CorDA, LoftQ,
# LoRA-GA) subtract something from them, which peft does again whenever it loads the adapter.
_PLAIN_STARTS = ("true", "false", "gaussian", "eva", "orthogonal")
# Of the others, those that peft computes from the base's weights alone and always in the same way:
# what it loads and merges is what was trained.
_MERGED_STARTS = ("pissa", "olora")
# Fields that train weights of the base beside the LoRA.
_MERGED = ("modules_to_save", "trainable_token_indices", "ensure_weight_tying")


@dataclass(frozen=True)
class Adaptation:
    """Which weights training may change: a LoRA beside linear layers, or all of them."""

    kind: str = "lora"
    rank: int = 8
    alpha: float = 16  # peft's lora_alpha, most often a whole number
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = 0.0  # of the LoRA's input, while it is trained
    extra: str = ""  # further fields of peft's LoraConfig, as a JSON object with sorted keys

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", plain_targets(self.targets))  # JSON has no tuples

    @property
    def fields(self) -> dict[str, Any]:
        """Further fields of peft's LoraConfig."""
        found: dict[str, Any] = json.loads(self.extra or "{}")
        return found

    @property
    def is_product(self) -> bool:
        """True if all that the LoRA adds to a layer is s·(x·Aᵀ)·Bᵀ."""
        return not any(self.fields.get(key) for key in _MORE_THAN_A_PRODUCT)


def unmerged_reason(folder: Path) -> str | None:
    """Why an adapter has to be merged into its base before another LoRA is trained.

    Args:
        folder: With weights of any kind.

    Returns:
        What it changes beside LoRA matrices, such as `modules_to_save`; `None` if nothing, and for
        what is not an adapter.
    """
    file = folder / CONFIG
    config = read_json(file) if file.is_file() else None
    if not isinstance(config, dict):
        return None
    for key in _MERGED:
        if _is_set(config.get(key)):
            return key
    start = str(config.get("init_lora_weights", True)).lower()
    if start in _MERGED_STARTS:
        return f"init_lora_weights {start}"
    if config.get("bias", "none") != "none" and (folder / ADAPTER).is_file():
        try:
            with safe_open(folder / ADAPTER, framework="pt") as tensors:
                names = list(tensors.keys())
        except SafetensorError:
            return None  # `read_adapter` says what is wrong with it
        if any(name.endswith(".bias") and ".lora_" not in name for name in names):
            return f"bias {config['bias']}"
    return None


def plain_targets(value: Any) -> str | tuple[str, ...]:
    """Target modules in one form: a pattern or shorthand as it is, names sorted."""
    return value if isinstance(value, str) else tuple(sorted(value))


def adaptation_of(folder: Path) -> Adaptation:
    """What a folder of weights adapts: peft's LoRA, or else all weights.

    An adapter that is more than LoRA matrices (`unmerged_reason`) counts as all weights.

    Raises:
        BadInput: There are no weights, or an adapter with a field that is not supported.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; name an adapter's or a model's")
    file = folder / CONFIG
    if not file.is_file():
        if not any(folder.glob("*.safetensors")):
            raise BadInput(f"{folder}: {_without_weights(folder)}")
        return Adaptation("full")
    config = read_json(file)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadInput(f"{file}: not a LoRA; merge the adapter and name the merged model")
    _check_fields(file, config)
    if unmerged_reason(folder) is not None:
        return Adaptation("full")
    if not isinstance(config.get("base_model_name_or_path", ""), str | None):
        raise BadInput(f"{file}: base_model_name_or_path is no text; write the base's name")
    try:
        rank, alpha = _number(config["r"]), _number(config["lora_alpha"])
        if not isinstance(rank, int):
            raise ValueError(f"r is {rank}")
        # peft writes null where there are parameters only.
        targets = config["target_modules"]
        if targets is None and config.get("target_parameters"):
            targets = []
        fields = {key: config[key] for key in _HANDED_ON if _is_set(config.get(key))}
        extra = json.dumps(fields, sort_keys=True) if fields else ""
        return Adaptation("lora", rank, alpha, targets, extra=extra)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{file}: malformed ({error!r}); save the adapter again") from None


def _number(value: Any) -> int | float:
    """A number of peft's config; alpha may be a fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return int(value) if value == int(value) else value


def _is_set(value: Any) -> bool:
    return value is not None and value is not False and value not in ("", [], {})


def _without_weights(folder: Path) -> str:
    """What is wrong with a folder that holds neither weights nor an adapter, and what to do."""
    below = sorted(file.parent for file in folder.glob(f"*/{CONFIG}"))
    if len(below) == 1:
        return f"holds no weights, but an adapter lies in {below[0]}; name that folder"
    if below:  # a Trainer's checkpoints
        names = ", ".join(path.name for path in below[:5]) + (", …" if len(below) > 5 else "")
        return f"holds no weights, but {len(below)} adapters below it ({names}); name one of them"
    return "holds no .safetensors; save the weights in that form"


def _check_fields(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse, by name, a field that would make the adapter another one than peft's."""
    start = str(config.get("init_lora_weights", True)).lower()
    if start not in _PLAIN_STARTS + _MERGED_STARTS:
        raise BadInput(
            f"{file}: init_lora_weights {start} also changes the base's weights; convert it to a "
            "plain LoRA where it was trained (peft: save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)), or merge it into its base and name "
            "the merged model"
        )
    usual = LoraConfig().to_dict()
    for key, value in config.items():
        if key in _ELSEWHERE + _HANDED_ON + _MERGED or not _is_set(value):
            continue
        if value != usual.get(key):
            raise BadInput(
                f"{file}: {key} is not supported; merge the adapter into its base (peft: "
                "merge_and_unload) and name the merged model"
            )


def file_name(parameter: str) -> str:
    """The name that peft's file gives to a parameter of the adapter `default`.

    A linear layer's A and B are modules and keep `.weight`; the magnitude of DoRA and the A and B
    of an embedding are written without.
    """
    if ".lora_magnitude_vector.default." in parameter:
        return parameter.removesuffix(".default.weight")
    return parameter.removesuffix(".default").replace(".default.", ".")


def read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by their names in the file.

    Raises:
        BadInput: There is no such file, it is damaged, or a tensor holds NaN or infinity.
    """
    file = folder / ADAPTER
    if not file.exists():
        if (folder / PICKLED).exists():
            raise BadInput(
                f"{file}: no such file, and {PICKLED}, a pickle, is not read; convert the adapter "
                "to .safetensors (load it with peft and call save_pretrained)"
            )
        raise BadInput(f"{file}: no such file; save the adapter again, with peft's save_pretrained")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise BadInput(f"{file}: damaged ({error}); make it again") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadInput(
                f"{file}: {name} holds NaN or infinity, so its training diverged; name an earlier "
                "checkpoint of it"
            )
    return tensors


def foreign(config: Mapping[str, Any], name: str, value: torch.Tensor, base: Any) -> str:
    """Why a tensor of an adapter's file that is no LoRA's cannot be taken, and what to do.

    Args:
        config: The adapter's.
        name: Of the tensor in the file.
        value: The tensor.
        base: The tensor of the base that it would replace, or `None` if there is none.
    """
    fix = "merge the adapter into its base (peft: merge_and_unload) and name the merged model"
    grown = base is not None and base.ndim == 2 and base.shape[1:] == value.shape[1:]
    if grown and len(base) != len(value):
        return (
            f"{name} holds embeddings of another vocabulary ({len(value)} rows, the base has "
            f"{len(base)}); load the base, call resize_token_embeddings({len(value)}), "
            f"{fix} with its tokenizer"
        )
    if name.endswith(".bias") and config.get("bias", "none") != "none":
        return f"bias {config['bias']}: {name} was trained too, which is not supported; {fix}"
    if base is not None:
        return f"{name} replaces weights of the base, which is not supported; {fix}"
    return f"{name} is no tensor that this base can take; name the base that it was trained on"
