"""An adapter merged into its base, and the proof that the merged model says the same."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from knowundo.errors import BadInput, KnowUndoError
from knowundo.exports.model_card import Form, variant_folder
from knowundo.modeling.adapters import adaptation_of
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import describe
from knowundo.runs.base import BOTH
from knowundo.runs.memory_base import MemoryBase
from knowundo.runs.run import Run

GIB = 2**30
# Beside the weights: tokenizer, configs and card; the largest vocabularies take some 30 MiB.
BESIDE = 2**26

# Rows of each scope, and tokens of each row, that are compared; the logits of all positions stay
# in memory, which with 150,000 words is 20 MB for a row of 32 tokens.
ROWS, TOKENS = 3, 32
PLAIN = (
    "The quick brown fox jumps over the lazy dog.",
    "One, two, three, four, five, six,",
    "Question: what is the largest city of the country?\nAnswer:",
)
# How far logits may move, as a share of the largest one. A merge rounds each weight once more: in
# bfloat16 by up to 2^-9 of its size. Roundings are independent, so they grow like the square root
# of the number of layers: measured 1-2 % behind 4 layers, 2-5 % behind 32. In float32 the same sum
# is below 1e-5; float64 is held to it too, since norms and rotary angles are float32 there.
TOLERANCE = {"bfloat16": 0.1, "float32": 1e-4, "float64": 1e-4}
# And as a share of what the LoRA changes, which shows as five times the rounding or more: a LoRA
# that rounding swallows is lost, however small the difference.
OF_EFFECT = 0.5


def refuse_merge(model: Model, form: str | None) -> None:
    """Refuse to merge into a base whose own files are quantized: there are no floats to add to.

    Raises:
        BadInput: `form` is merged, and the base is stored in 4 bits.
    """
    if form == "merged" and model.stored_in_4_bits:
        raise BadInput(
            f"format merged: base '{model.base}' is stored in 4 bits, which take no LoRA in; say "
            "--format adapter"
        )


def merged_bytes(run: Run, form: Form) -> int:
    """What a folder will hold, a little more rather than less."""
    if form == "adapter":
        tensors = run.model.parameters().values()
        return BESIDE + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    each: torch.dtype = getattr(torch, run.recipe.model.dtype)
    return BESIDE + int(describe(run.model)["parameters"]) * each.itemsize


def need_room(folder: Path, needed: int, place: str) -> None:
    """Refuse a folder on a disk that cannot take so many bytes more.

    Args:
        folder: need not exist; absolute.
        needed: bytes.
        place: what the user said, for the error.

    Raises:
        BadInput: there is less room.
    """
    disk = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise BadInput(
            f"{place}: needs {needed / GIB:.2f} GiB, and {free / GIB:.2f} GiB are free there; "
            "make room or name a folder on another disk"
        )


def probe_rows(run: Run) -> list[list[int]]:
    """Token ids of the texts that are compared."""
    rows = [row for scope in BOTH for row in run.encoded(scope, "train")[:ROWS]]
    texts = [list(run.model.tokenizer(text)["input_ids"]) for text in PLAIN]
    return [*(list(row.ids[:TOKENS]) for row in rows), *texts]


def take_variant(run: Run, variant: ModelVariant, form: Form) -> Model:
    """The variant, out of the run's hands: writing it takes the model apart.

    A base that its owner has loaded cannot be loaded again, so a LoRA is merged into a copy of it.
    """
    model = run.model
    run.release_model()
    if form == "merged" and isinstance(run.base, MemoryBase) and isinstance(model.net, PeftModel):
        model = copy(model)
        model.net = deepcopy(model.net)
    if form == "merged" and model.options.quantization is not None:
        run.reporter.say(
            f"{variant.name}: weights of 4 bits take no LoRA in; it is merged into the base as it "
            "is without them"
        )
        tokenizer = model.tokenizer.name_or_path
        del model
        free_memory()
        keys = ("device", "dtype", "trust_remote_code", "attention", "threads", "merge")
        loading = {key: getattr(run.recipe.model, key) for key in keys}
        options = LoadingOptions(tokenizer=tokenizer, **loading)
        adaptation = adaptation_of(variant_folder(variant))
        model = Model(run.recipe.model.base, adaptation, options=options)
    model.use(variant)
    model.net.eval()
    return model


def load_with_transformers(run: Run, folder: Path) -> Any:
    """A folder as transformers alone loads it."""
    section = run.recipe.model
    options: dict[str, Any] = {"trust_remote_code": section.trust_remote_code}
    if section.attention is not None:
        options["attn_implementation"] = section.attention
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **options)


def free_memory() -> None:
    """Free what nothing refers to any more, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def probe_logits(net: Any, probes: Sequence[list[int]]) -> list[torch.Tensor]:
    """Logits at every position of each probe, [tokens, vocabulary], float32, on the CPU."""
    with torch.no_grad():
        return [
            net(input_ids=torch.tensor([ids], device=net.device)).logits[0].float().cpu()
            for ids in probes
        ]


def _largest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference of a logit; not a number where one of them is not."""
    return float(torch.stack([(a - b).abs().max() for a, b in zip(one, other, strict=True)]).max())


def error_bound(
    model: Model, logits: list[torch.Tensor], probes: Sequence[list[int]], tolerance: float
) -> float:
    """How far a logit may move by rounding."""
    scale = max(float(row.abs().max()) for row in logits)
    if not isinstance(model.net, PeftModel):
        return tolerance * scale
    with model.net.disable_adapter():
        effect = _largest(logits, probe_logits(model.net, probes))
    return min(tolerance * scale, max(OF_EFFECT * effect, TOLERANCE["float32"] * scale))


def compare_merged(
    variant: ModelVariant, before: list[torch.Tensor], after: list[torch.Tensor], bound: float
) -> float:
    """The largest difference of a logit.

    Raises:
        KnowUndoError: it exceeds the bound, or is not a number.
    """
    largest = _largest(before, after)
    if not largest <= bound:
        raise KnowUndoError(
            f"variant {variant.name}: the written model's logits differ from the run's by "
            f"{largest:.2g}, and {bound:.2g} would be rounding; nothing was written"
        )
    return largest


def write_merged(model: Model, folder: Path, shard_size: str) -> None:
    """Write all weights, the LoRA merged into them, with config and tokenizer.

    peft adds its float32 product to a weight of bfloat16 in float32 and rounds the sum once; its
    `safe_merge` would round the product first.
    """
    net = model.net.merge_and_unload() if isinstance(model.net, PeftModel) else model.net
    net.save_pretrained(folder, max_shard_size=shard_size)
    model.tokenizer.save_pretrained(folder)
