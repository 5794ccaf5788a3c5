"""The base, once in memory, and the variants that are swapped on top of it.

A variant is a folder with safetensors: a LoRA in peft's own layout, or all weights in
transformers'. Loading one overwrites tensors in place; the base is never loaded twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from knowundo.artifacts import write_json
from knowundo.errors import BadInput

# One thread count everywhere: the same bytes need the same number of threads.
THREADS = 2
ADAPTER, FULL = "adapter_model.safetensors", "model.safetensors"


def base_path(base: str) -> str:
    """Where transformers finds a base: `embedded` lies in this package."""
    return str(files("knowundo") / "embedded") if base == "embedded" else base


def base_files(base: str) -> list[Path]:
    """Files of a base that lies in a folder, for hashing; none for a name on the hub."""
    folder = Path(base_path(base))
    kinds = (".json", ".safetensors")
    return sorted(f for f in folder.glob("*") if f.suffix in kinds) if folder.is_dir() else []


@dataclass
class Variant:
    """A model to be scored: the base with a folder of tensors on top (none: the base itself)."""

    name: str
    role: str  # base, memorized, retain or unlearned
    folder: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Adaptation:
    """Which weights training may change: a LoRA beside every linear layer, or all of them."""

    kind: str = "lora"
    rank: int = 8
    alpha: int = 16


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
    ) -> None:
        """Load the base.

        Args:
            base: `embedded`, a folder, or a name on the hub.
            adaptation: what training may change.
            seed: of the LoRA's starting weights.
            device: where the model lies.
            dtype: of the weights.
            trust_remote_code: run code from the base's folder; off unless asked.

        Raises:
            BadInput: the base cannot be loaded.
        """
        torch.set_num_threads(THREADS)
        self.base, self.adaptation = base, adaptation or Adaptation()
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise BadInput(f"model.device '{device}': not a device; say cpu or cuda") from None
        path = base_path(base)
        options = {"trust_remote_code": trust_remote_code}
        try:
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, dtype), use_safetensors=True, **options
            )
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise BadInput(f"model.base '{base}': cannot be loaded ({reason})") from None
        torch.manual_seed(seed)
        if self.adaptation.kind == "lora":
            config = LoraConfig(
                r=self.adaptation.rank,
                lora_alpha=self.adaptation.alpha,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(model, config)
            model.peft_config["default"].base_model_name_or_path = base
        self.net: Any = model.to(self.device).eval()
        self.fresh = self.state()

    @property
    def pad(self) -> int:
        """Id that fills rows; masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that this adaptation may train, by name."""
        names = dict(self.net.named_parameters())
        if self.adaptation.kind == "full":
            return names
        return {name: parameter for name, parameter in names.items() if "lora_" in name}

    def causal_lm(self) -> torch.nn.Module:
        """The transformers model inside peft's wrapper."""
        return self.net.get_base_model() if isinstance(self.net, PeftModel) else self.net

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of the trainable tensors."""
        return {name: p.detach().cpu().clone() for name, p in self.parameters().items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Overwrite the trainable tensors in place.

        Raises:
            BadInput: the state belongs to another base or adaptation.
        """
        own = self.parameters()
        if missing := sorted(set(own) ^ set(state)):
            raise BadInput(f"these weights do not fit base '{self.base}': {missing[0]} differs")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != state[name].shape:
                    raise BadInput(f"these weights do not fit base '{self.base}': shape of {name}")
                parameter.copy_(state[name])

    def use(self, variant: Variant) -> None:
        """Make this the given variant."""
        self.restore(self.fresh if variant.folder is None else load_state(self, variant.folder))

    def train_only(self, names: Iterable[str]) -> list[torch.nn.Parameter]:
        """Let gradients reach these parameters and no others; return them.

        The guard of a region: what needs no gradient is in no optimizer.
        """
        chosen = set(names)
        if unknown := chosen - set(self.parameters()):
            raise BadInput(f"region: the model has no parameter '{min(unknown)}'")
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in chosen)
        return [p for p in self.net.parameters() if p.requires_grad]


def _plain(name: str) -> str:
    return name.replace(".default.", ".")


def save_state(model: Model, folder: Path) -> None:
    """Write the current trainable tensors: peft's adapter layout, or transformers' full model."""
    if isinstance(model.net, PeftModel):
        tensors = {_plain(name): value for name, value in model.state().items()}
        save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})
        config = model.net.peft_config["default"].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        config["inference_mode"] = True
        text = json.loads(json.dumps(config, default=lambda v: getattr(v, "value", str(v))))
        write_json(folder / "adapter_config.json", text)
    else:
        model.net.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


def load_state(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """Read what `save_state` wrote, by parameter name.

    Raises:
        BadInput: no weights in the folder, or an adapter of another base.
    """
    file = folder / (ADAPTER if model.adaptation.kind == "lora" else FULL)
    if not file.exists():
        raise BadInput(f"{file}: no such file; name a folder that memorize or unlearn wrote")
    if model.adaptation.kind == "lora":
        config = json.loads((folder / "adapter_config.json").read_text())
        if (owner := config.get("base_model_name_or_path")) != model.base:
            raise BadInput(f"{folder}: an adapter of base '{owner}', not of '{model.base}'")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise BadInput(f"{file}: damaged ({error}); make it again") from None
    names = {_plain(name): name for name in model.parameters()}
    return {names.get(name, name): value for name, value in tensors.items()}


def describe(model: Model) -> dict[str, Any]:
    """What a manifest says of a model."""
    named = model.causal_lm().named_parameters()
    total = sum(p.numel() for name, p in named if "lora_" not in name)
    trainable = sum(p.numel() for p in model.parameters().values())
    return {
        "base": model.base,
        "adaptation": asdict(model.adaptation),
        "parameters": total,
        "trainable": trainable,
    }
