"""The base, once in memory, and the variants that are swapped on top of it.

A variant is a folder with safetensors: a LoRA in peft's own layout, or all weights in
transformers'. Loading one overwrites tensors in place; the base is never loaded twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.import_utils import is_flash_attn_2_available

from knowundo.adapters import (
    ADAPTER,
    CONFIG,
    TOKENIZER,
    Adaptation,
    adaptation_of,
    file_name,
    foreign,
    plain_targets,
    read_adapter,
)
from knowundo.artifacts import read_json, write_json
from knowundo.errors import BadInput
from knowundo.linear import quicken
from knowundo.loading import (
    UNREADABLE,
    check_loaded,
    check_no_adapter,
    check_numbers,
    linear_targets,
    position_limit,
    stored_quantization,
)
from knowundo.lora import abreast, all_linear, fuse
from knowundo.memory import ran_out

__all__ = [
    "ADAPTER", "CPU_TOKENS", "FULL", "GPU_TOKENS", "SMALL", "THREADS", "Adaptation", "Model",
    "Variant", "adaptation_of", "base_files", "base_path", "describe", "hub_commit", "load_state",
    "need_bitsandbytes", "own_tokenizer", "same_base", "save_state", "size",
]  # fmt: skip

# One thread count everywhere: the same bytes need the same number of threads.
THREADS = 2
# Tokens that one backward pass holds at least, on a CPU and on a GPU; with narrow layers, so many
# that each activation has as many numbers.
CPU_TOKENS, GPU_TOKENS, SMALL = 256, 2048, 2**18
FULL = "model.safetensors"


def base_path(base: str) -> str:
    """Where transformers finds a base: `embedded` lies in this package."""
    return str(files("knowundo") / "embedded") if base == "embedded" else base


def base_files(base: str) -> list[Path]:
    """Files of a base that lies in a folder, for hashing; none for a name on the hub."""
    folder = Path(base_path(base))
    kinds = (".json", ".safetensors", ".jinja", ".model", ".txt", ".py")
    return sorted(f for f in folder.glob("*") if f.suffix in kinds) if folder.is_dir() else []


def same_base(one: str | None, other: str) -> bool:
    """True if two names mean one base: equal, or one folder.

    A relative path that leads nowhere here, such as `../models/Llama-2-7b-chat-hf` in adapters of
    KnowUnDo's code, means the base of that last name.
    """
    if one is None or one == other:
        return one == other
    first, second = Path(base_path(one)), Path(base_path(other))
    if one.startswith(".") and not first.exists():
        return first.name == second.name
    return first.is_dir() and second.is_dir() and first.resolve() == second.resolve()


def own_tokenizer(folder: Path, base: str, trust_remote_code: bool) -> str | None:
    """What sets the tokenizer in an adapter's folder apart from the base's; None if nothing does.

    Args:
        folder: An adapter's.
        base: Of the adapter.
        trust_remote_code: As for `Model`.

    Raises:
        BadInput: One of the tokenizers cannot be loaded.
    """
    if not all((folder / name).is_file() for name in TOKENIZER):
        return None  # a part of a tokenizer is no tokenizer
    found = []
    for path in (base_path(base), str(folder)):
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        except UNREADABLE as error:
            reason = str(error).strip().split("\n")[0]
            raise BadInput(f"{path}: its tokenizer cannot be loaded ({reason})") from None
        ends = tokenizer.eos_token_id, tokenizer.bos_token_id
        words = sorted(tokenizer.get_vocab().items())
        rules = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
        for key in ("truncation", "padding"):  # what a trainer set last; not used here
            rules.pop(key, None)
        found.append(json.dumps([words, ends, tokenizer.chat_template, rules], sort_keys=True))
    return found[1] if found[1] != found[0] else None


def hub_commit(base: str) -> str | None:
    """Commit of a base that lies in the hub's cache; None for a folder, and before it is there."""
    if Path(base_path(base)).is_dir():
        return None
    try:
        file = try_to_load_from_cache(base, "config.json")
    except HFValidationError:
        return None
    return Path(file).parent.name if isinstance(file, str) else None


@dataclass
class Variant:
    """A model to be scored: the base with a folder of tensors on top (none: the base itself)."""

    name: str
    role: str  # base, memorized, retain, unlearned or given
    folder: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def need_bitsandbytes(key: str) -> None:
    """Raise BadInput, naming the key that asks for it, where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise BadInput(f"{key}: needs bitsandbytes; pip install 'knowundo[gpu]'")


def _check_quantization(key: str, quantization: str, dtype: str, *, trained: bool) -> None:
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


def _check_attention(attention: str | None) -> None:
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise BadInput(
            "model.attention flash_attention_2: needs a GPU and the package flash-attn; install "
            "it, or say sdpa"
        )


def _keep_packing(model: Any) -> None:
    """Keep 4-bit weights as they are.

    On some CPUs bitsandbytes packs them anew in the first forward without gradients, for a kernel
    that has no backward: what is trained after that would get wrong gradients.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _recompute(model: Any, base: str) -> None:
    """Hold only the inputs of each layer, and compute the layer again in the backward pass.

    transformers' own switch does so in training mode only; localization takes gradients in
    evaluation mode, where there is no dropout.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise BadInput(
            f"model.gradient_checkpointing: base '{base}' has no layers for it; say false"
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)


def _drops(net: torch.nn.Module, config: Any) -> bool:
    chances = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    return any(chances) or bool(getattr(config, "attention_dropout", 0.0))


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
        quantization: str | None = None,
        attention: str | None = None,
        gradient_checkpointing: bool = False,
        scored_only: bool = False,
        tokenizer: str | None = None,
    ) -> None:
        """Load the base.

        Args:
            base: `embedded`, a folder, or a name on the hub.
            adaptation: what training may change.
            seed: of the LoRA's starting weights.
            device: where the model lies.
            dtype: of the weights; a LoRA beside weights of bfloat16 is float32.
            trust_remote_code: run code from the base's folder; off unless asked.
            quantization: nf4 holds the base's linear layers in 4 bits.
            attention: transformers' name of an implementation; none: its choice.
            gradient_checkpointing: compute activations again in the backward pass.
            scored_only: nothing is trained, so 4-bit weights may stand in for all of them.
            tokenizer: a folder whose tokenizer takes the place of the base's, such as an
                adapter's. If `None`, the base's own.

        Raises:
            BadInput: the base cannot be loaded, or not in the way that is asked for.
        """
        torch.set_num_threads(THREADS)
        self.base, self.adaptation = base, adaptation or Adaptation()
        self.notes: list[str] = []  # what a user should know of the work done with it
        self._once, self._told = set[str](), 0
        self.lower: Any = None  # stands in for the layers below what is trained (lower.py)
        # What this model's forward allows, tried when it is first asked for: sequence packing
        # (forwards.py), padding on the right and on the left, a head of its own (head.py).
        self.packs: bool | None = None
        self.window = float("inf")  # longest row that is packed, see packing.unseen_window
        self.pads: bool | None = None
        self.left_pads: bool | None = None
        self.own_head: bool | None = None
        self.scaled: list[Any] | None = None  # rotary embeddings that look at the length
        self.abreast = 1  # adapters that a forward is of, see `all_of`
        self.quantization, self.attention = quantization, attention
        self.remote_code = trust_remote_code
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise BadInput(f"model.device '{device}': not a device; say cpu or cuda") from None
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise BadInput(
                f"model.device '{device}': torch finds no GPU here; say cpu, or install a build of "
                "torch for this machine's GPU"
            )
        trained = self.adaptation.kind == "full" and not scored_only
        options = {"trust_remote_code": trust_remote_code}
        model = self._opened(dtype, tokenizer, options, trained=trained)
        if gradient_checkpointing:
            _recompute(model, base)
        # Positions that a row may have, if more would have no embedding; and rows of embeddings.
        self.positions = position_limit(model)
        self.embeddings = len(model.get_input_embeddings().weight)
        torch.manual_seed(seed)
        self.net: Any = self._adapted(model).eval()
        # What the trainable tensors were at first. A LoRA's are few; of all weights, only those are
        # held that something is about to change: see `hold`.
        self.fresh: dict[str, torch.Tensor] = {}
        if self.adaptation.kind == "lora":
            self.hold(self.parameters())

    def _opened(
        self, dtype: str, tokenizer: str | None, options: dict[str, Any], *, trained: bool
    ) -> Any:
        """The base, with its tokenizer set; whatever transformers says against it in one line.

        Args:
            dtype: As for `__init__`.
            tokenizer: As for `__init__`.
            options: Of every call of transformers.
            trained: True if all of the base's weights are to be trained.
        """
        base, path = self.base, base_path(self.base)
        check_no_adapter(base, path)
        try:
            stored = stored_quantization(AutoConfig.from_pretrained(path, **options), base)
            self.stored_in_4_bits = stored is not None  # the base's own files are quantized
            key = f"model.quantization {self.quantization}"
            if stored is not None:
                self.quantization, key = stored, f"model.base '{base}', stored in 4 bits"
            if self.quantization is not None:
                _check_quantization(key, self.quantization, dtype, trained=trained)
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                tokenizer or path, **options
            )
            return self._load(path, dtype=getattr(torch, dtype), **options)
        except UNREADABLE as error:
            reason = str(error).strip().split("\n")[0]
            if "custom code" in reason:
                reason += "; set model.trust_remote_code to true if you trust it"
            elif "pytorch_model" in reason or "no file named" in reason:
                reason += "; only .safetensors are read: convert the weights"
            raise BadInput(f"model.base '{base}': cannot be loaded ({reason})") from None

    def _load(self, path: str, **options: Any) -> Any:
        """The base on its device.

        peft's prepare_model_for_kbit_training is not called: it makes every tensor that is not
        quantized float32, and the activations with them, which takes twice their memory.
        """
        _check_attention(self.attention)
        if self.attention is not None:
            options["attn_implementation"] = self.attention
        options["use_safetensors"] = True
        options["output_loading_info"] = True
        if self.quantization is not None:
            options |= self._in_4_bits(options["dtype"])
        loaded: Any = AutoModelForCausalLM.from_pretrained(path, **options)
        model, info = loaded
        for note in check_loaded(info, self.base):
            self.note_once(note)
        check_numbers(model, self.base, path)
        if getattr(model.config, "rescale_every", 0):
            # RWKV halves the weights of its upper layers in place outside training, so that
            # float16 does not overflow: no LoRA would be halved with them.
            model.config.rescale_every = 0
        if self.quantization is None:
            return model.to(self.device)
        _keep_packing(model)
        return model

    def _in_4_bits(self, dtype: torch.dtype) -> dict[str, Any]:
        """How transformers is asked for a base in 4 bits; one that is stored so says how itself."""
        on_device = {"device_map": {"": str(self.device)}}
        if self.stored_in_4_bits:
            need_bitsandbytes(f"model.base '{self.base}': its weights are in 4 bits, which")
            return on_device
        need_bitsandbytes(f"model.quantization {self.quantization}")
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantization,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        return on_device | {"quantization_config": config}

    def note_once(self, note: str) -> None:
        """Note something that would be noted again with every use of an adapter or a row."""
        if note not in self._once:
            self._once.add(note)
            self.notes.append(note)

    def tell(self, say: Callable[[str], None]) -> None:
        """Say the notes that were not said yet; they stay, for the manifest of what is made."""
        for note in self.notes[self._told :]:
            say(note)
        self._told = len(self.notes)

    def take_notes(self) -> list[str]:
        """The notes so far, which are then no longer held."""
        notes, self.notes, self._told = self.notes, [], 0
        return notes

    def _adapted(self, model: Any) -> Any:
        """The base with a LoRA beside it, if the adaptation is one."""
        net = self._with_lora(model)
        # Is anything dropped at random while the model is trained?
        self.drops = _drops(net, model.config.get_text_config())
        return net

    def _with_lora(self, model: Any) -> Any:
        if self.adaptation.kind == "full":
            quicken(model)
            return model
        targets: Any = self.adaptation.targets
        if targets == "all-linear":
            targets, left = linear_targets(model)
            if left:
                self.note_once(f"base '{self.base}': {', '.join(left)} can have no LoRA")
        try:
            config = LoraConfig(
                r=self.adaptation.rank,
                lora_alpha=self.adaptation.alpha,  # type: ignore[arg-type]
                lora_dropout=self.adaptation.dropout,
                target_modules=targets if isinstance(targets, str) else list(targets),
                task_type="CAUSAL_LM",
                **self.adaptation.fields,
            )
            model = get_peft_model(model, config)
        except (TypeError, ValueError, AttributeError, RuntimeError, re.error) as error:
            if ran_out(error):
                raise
            raise BadInput(
                f"base '{self.base}': no LoRA with these fields fits it ({error}); correct the "
                "adapter's fields, or train all weights instead (--route full, or "
                "model.adaptation=full)"
            ) from None
        model.peft_config["default"].base_model_name_or_path = self.base
        fuse(model)
        quicken(model)
        return model

    def _has_shape(self, adaptation: Adaptation) -> bool:
        """True if the LoRA that is there holds tensors of the same names, shapes and scale."""
        if not isinstance(self.net, PeftModel):
            return False
        own, config = self.adaptation, self.net.peft_config["default"]
        # peft may write a long list of targets as a shorter one.
        targets = own.targets, plain_targets(config.target_modules)  # type: ignore[attr-defined]
        alike = replace(adaptation, targets=own.targets, dropout=own.dropout) == own
        return alike and adaptation.targets in targets

    def adapt(self, adaptation: Adaptation) -> None:
        """Take the LoRA off the base and put one of another shape there, with no effect yet.

        The dropout stays: it is the recipe's, not the adapter's.
        """
        if "full" in (self.adaptation.kind, adaptation.kind):
            raise BadInput(f"base '{self.base}': all weights and a LoRA cannot be swapped")
        self.packs = self.pads = self.left_pads = self.own_head = self.scaled = None
        self.adaptation = replace(adaptation, dropout=self.adaptation.dropout)
        self.net = self._adapted(self.net.unload()).eval()
        self.fresh = self.state()

    @property
    def config(self) -> Any:
        """The base's config, or that of its text model."""
        return self.causal_lm().config.get_text_config()  # type: ignore[union-attr, operator]

    @contextmanager
    def plain_generation(self) -> Iterator[None]:
        """Within it, `generate` follows what it is told, and nothing in generation_config.json.

        transformers fills whatever a call leaves open from the model's own settings (penalties,
        forbidden tokens, beams, stop strings); of these only the special tokens stay.
        """
        net: Any = self.causal_lm()
        own = net.generation_config
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        net.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})
        try:
            yield
        finally:
            net.generation_config = own

    def longest(self, length: int) -> int:
        """So many tokens, or as many as the model has positions for."""
        return length if self.positions is None else min(length, self.positions)

    @property
    def pad(self) -> int:
        """Id that fills rows; masked everywhere, so any that has an embedding does."""
        ids = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return next((int(i) for i in ids if i is not None and i < self.embeddings), 0)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that this adaptation may train, by name."""
        names = dict(self.net.named_parameters())
        if self.adaptation.kind == "full":
            return names
        return {name: parameter for name, parameter in names.items() if "lora_" in name}

    @property
    def is_fresh(self) -> bool:
        """True for a LoRA without effect yet: every B is zero."""
        second = [p for name, p in self.parameters().items() if "lora_B" in name]
        return bool(second) and not any(bool(p.any()) for p in second)

    @property
    def tokens(self) -> int:
        """Tokens whose activations are held at a time, while nothing asks for fewer.

        Matrix products of so many are as fast as of more, or nearly so (docs/performance.md).
        """
        hidden = int(self.causal_lm().config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
        most = CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS
        return max(most, SMALL // hidden)

    def alike(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """True if two results of this model are the same to the rounding of its numbers.

        Rounding of half precision adds up over the layers; what is computed wrongly is off by more.
        """
        near = 5e-2 if one.dtype in (torch.bfloat16, torch.float16) else 1e-4
        scale = float(other.detach().float().abs().amax())
        return torch.allclose(one, other, rtol=near, atol=near * scale, equal_nan=True)

    def causal_lm(self) -> torch.nn.Module:
        """The transformers model inside peft's wrapper."""
        return self.net.get_base_model() if isinstance(self.net, PeftModel) else self.net

    def state(self, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """A copy of the trainable tensors, or of some of them."""
        own = self.parameters()
        chosen = self._known(own if names is None else names)
        return {name: own[name].detach().cpu().clone() for name in chosen}

    def _known(self, names: Iterable[str]) -> list[str]:
        chosen, own = list(names), self.parameters()
        if unknown := set(chosen) - set(own):
            raise BadInput(f"region: the model has no parameter '{min(unknown)}'")
        return chosen

    def hold(self, names: Iterable[str]) -> None:
        """Copy the originals of these parameters before they change for the first time."""
        self.fresh |= self.state(name for name in names if name not in self.fresh)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Overwrite the trainable tensors in place.

        Raises:
            BadInput: the state belongs to another base or adaptation.
        """
        own = self.parameters()
        if missing := sorted(set(own) ^ set(state)):
            raise BadInput(f"these weights do not fit base '{self.base}': {missing[0]} differs")
        for name, value in state.items():
            if own[name].shape != value.shape:
                raise BadInput(f"these weights do not fit base '{self.base}': shape of {name}")
        unheld = (name for name in own if name not in self.fresh)
        self.hold(name for name in unheld if not torch.equal(own[name].cpu(), state[name]))
        self.overwrite(state)

    def overwrite(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite some trainable tensors, whose originals are held or not needed."""
        own = self.parameters()
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)

    def reset(self) -> None:
        """Make every trainable tensor what it was at first."""
        self.overwrite(self.fresh)

    def use(self, variant: Variant) -> None:
        """Make this the given variant; a LoRA of another shape replaces the one that is there."""
        if variant.folder is None:
            self.reset()
            return
        wanted = adaptation_of(variant.folder)
        if wanted.kind == "lora" and not self._has_shape(wanted):
            self.adapt(wanted)
        self.restore(load_state(self, variant.folder))

    def all_linear(self) -> bool:
        """True if the LoRA lies beside linear layers only, whose weights are plain numbers.

        One with more than A and B, such as DoRA's magnitudes, is none.
        """
        return self.adaptation.is_product and all_linear(self.net)

    @contextmanager
    def all_of(self, variants: Sequence[Variant]) -> Iterator[None]:
        """Within it, a forward without gradients is that of several variants (`go_abreast`).

        The rows of the first come first, and so on: `abreast` times as many as were given.

        Args:
            variants: LoRAs of one shape, or the base.
        """
        states = []
        self.use(next((v for v in variants if v.folder is not None), variants[0]))  # the shape
        if len(variants) == 1:
            yield
            return
        for variant in variants:
            self.use(variant)
            states.append(self.state())
        self.abreast = len(variants)
        try:
            with abreast(self.net, states):
                states.clear()
                yield
        finally:
            self.abreast = 1

    def train_only(self, names: Iterable[str]) -> list[torch.nn.Parameter]:
        """Let gradients reach these parameters and no others; return them.

        The guard of a region: what needs no gradient is in no optimizer.
        """
        chosen = set(self._known(names))
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in chosen)
        return [p for p in self.net.parameters() if p.requires_grad]


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
    return _full_state(model, folder)


def _full_state(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder by parameter name, loaded as transformers loads them.

    The names and shapes in a file need not be those of the model: transformers converts many when
    it saves and loads (fused experts, renamed heads), so that only it can read them.

    Raises:
        BadInput: The folder holds no weights, or weights or buffers that this base cannot take.
    """
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder / FULL}: no such file; name a folder with a whole model")
    options: dict[str, Any] = {"trust_remote_code": model.remote_code, "use_safetensors": True}
    options |= {"dtype": model.causal_lm().dtype, "output_loading_info": True}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    except UNREADABLE as error:
        reason = str(error).strip().split("\n")[0]
        raise BadInput(f"{folder}: cannot be loaded ({reason}); make it again") from None
    whole, info = loaded
    for note in check_loaded(info, str(folder)):
        model.note_once(note)
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
        model.note_once(
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
