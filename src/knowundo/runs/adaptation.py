"""Which adaptation a run trains: as the recipe says, or a LoRA where the records fit into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from knowundo.data.encoded import Encoded
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.model import Model
from knowundo.runs.base import BOTH, TRAIN_VAL, adopting_model, say_remote_code
from knowundo.runs.inputs import memorize_inputs
from knowundo.runs.variants import given_models
from knowundo.scoring.teacher_forcing import teacher_forced
from knowundo.storage.artifacts import MANIFEST, read_manifest
from knowundo.storage.files import fingerprint

if TYPE_CHECKING:
    from knowundo.runs.run import Run

# What a parameter holds after some dozen exposures, in bits. Allen-Zhu and Li 2024
# (arXiv:2404.05405) find 2 after 1,000 exposures and 1 after 100.
BITS_PER_PARAMETER = 0.5


def open_model(run: Run) -> Model:
    """The base of a run in memory; what training may change is decided here."""
    say_remote_code(run.recipe.model, run.reporter)
    section = run.recipe.model
    if run.recipe.memorize.adopt is not None:
        return adopting_model(run.recipe, run.base)
    lora = Adaptation("lora", section.rank, section.alpha, dropout=section.dropout)
    if section.adaptation == "full":
        return run.base.open(run.recipe, Adaptation("full"))
    if section.adaptation == "lora" or section.quantization:
        return run.base.open(run.recipe, lora)
    # Nothing is trained then: the shape of the given adapters decides, so that they need not be
    # swapped for each other.
    if (adapters := _given_adapters(run)) is not None:
        shape = next(iter(adapters.values()), lora)
        return run.base.open(run.recipe, shape, list(adapters))
    # Measured again, the choice could come out the other way: on another device the base's
    # likelihoods differ in their last bits, and the memorized weights fit one adaptation only.
    if (held := _held_adaptation(run)) is not None:
        return run.base.open(run.recipe, held)
    model = run.base.open(run.recipe, lora)
    # Weights that are stored in 4 bits have no gradients, whatever the records need.
    if _fits(run, model) or model.stored_in_4_bits:
        return model
    return run.base.open(run.recipe, Adaptation("full"))


def _given_adapters(run: Run) -> dict[Path, Adaptation] | None:
    """Adapters of a run that only scores given models; `None` if it trains, or none is given."""
    given = given_models(run)
    if not given or (run.memorized / MANIFEST).exists():
        return None
    found = {v.folder: adaptation_of(v.folder) for v in given if v.folder is not None}
    return {folder: own for folder, own in found.items() if own.kind == "lora"}


def _held_adaptation(run: Run) -> Adaptation | None:
    """What was decided before for the same inputs: the memorized model says it."""
    if not (run.memorized / MANIFEST).exists():
        return None
    manifest = read_manifest(run.memorized)
    if manifest["inputs"] != fingerprint(memorize_inputs(run, BOTH)):
        return None
    return Adaptation(**manifest["model"]["adaptation"])


def _fits(run: Run, model: Model) -> bool:
    """True if a LoRA has room for what the base does not know of the records; tells the user."""
    bits = sum(needed_bits(model, run.encoded(scope, TRAIN_VAL, model=model)) for scope in BOTH)
    room = BITS_PER_PARAMETER * sum(p.numel() for p in model.parameters().values())
    run.reporter.say(
        f"the records hold {bits / 1000:.0f} kbit that the base does not know, a LoRA of rank "
        f"{model.adaptation.rank} has room for {room / 1000:.0f}: training "
        + ("a LoRA" if bits <= room else "all weights")
    )
    return bits <= room


def needed_bits(model: Model, encoded: Sequence[Encoded]) -> float:
    """Information in the answers that the model does not know, in bits."""
    rows = teacher_forced(model, encoded).values()
    # A mean that is not finite is stored as None: no room is enough for such an answer.
    each = (math.inf if row["mean_nll"] is None else row["mean_nll"] for row in rows)
    return sum(nll * (row["tokens"] + 1) for nll, row in zip(each, rows, strict=True)) / math.log(2)
