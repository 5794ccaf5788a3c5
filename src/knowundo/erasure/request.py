"""An erasure request: what is to be erased, from which model, and the recipe that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from knowundo.certificate.keys import read_signing_key
from knowundo.data.lists.rows import RowSource
from knowundo.data.records import Record
from knowundo.erasure.loaded import LoadedModel
from knowundo.errors import BadInput
from knowundo.exports.merging import BESIDE, need_room
from knowundo.exports.model_card import Form
from knowundo.modeling.adapters import unmerged_reason
from knowundo.modeling.model import Model
from knowundo.recipes.presets import read_preset
from knowundo.recipes.reading import amend
from knowundo.recipes.schema import Recipe
from knowundo.unlearning.answers import OWN

Route = Literal["auto", "adapter", "lora", "full"]

# Name of the variant that is exported.
ERASED = "erased"
# Parameters whose gradients are in memory at once where all weights may be trained: about as many
# as one large matrix has.
GRADIENTS_AT_ONCE = 50_000_000


@dataclass(frozen=True)
class ErasureRequest:
    """What is to be erased, and from which model.

    Attributes:
        model: `embedded`, a folder, or a name on the hub; the name of `loaded` if there is one.
        unlearn: file of the rows that must go: .jsonl, .json, .csv or .parquet; or the rows.
        out: directory of the run.
        adapter: folder of an adapter of that model which knows the list. If `None`, the model
            itself knows it.
        retention: file of rows that must stay, or the rows. If `None`, the model itself makes them.
        val: file of other questions about what must go, or the rows. If `None`, the list's
            questions are reworded.
        general: file of texts that must stay as likely as they are. If `None`, the model writes
            some.
        columns: names of the files' columns, for those that are named otherwise.
        route: what is trained: the adapter, a fresh LoRA, or all weights. `auto` trains the
            adapter, or a fresh LoRA if there is none.
        answer_with: what is taught instead: `refusal`, `unknown`, `model` (its own words),
            `instructed` (its own words when told to be somebody else), or a file of answers. If
            `None`, nothing is.
        form: form of the exported model. If `None`, an adapter, or merged weights if all weights
            were trained.
        earlier: directories of earlier requests' runs, if they were moved.
        sets: keys of the recipe to override, such as `unlearn.lr=1e-4`.
        redact: leave the list's answers out of the report.
        loaded: the model, if its owner has loaded it. If `None`, it is loaded by its name.
        accept_damage: export a model even if it lost more of what must stay than
            `unlearn.stop.floor` allows.
        key: the controller's ed25519 private key (PEM), which signs the certificate. If `None`, it
            is not signed.
    """

    model: str
    unlearn: RowSource
    out: Path
    adapter: Path | None = None
    retention: RowSource | None = None
    val: RowSource | None = None
    general: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    route: Route = "auto"
    answer_with: str | None = None
    form: Form | None = None
    earlier: tuple[Path, ...] = ()
    sets: tuple[str, ...] = ()
    redact: bool = False
    loaded: LoadedModel | None = None
    accept_damage: bool = False
    key: Path | None = None

    @property
    def merged(self) -> bool:
        """True if the adapter is merged into the model, and the result is trained."""
        if self.adapter is None:
            return False
        return self.route in ("lora", "full") or unmerged_reason(self.adapter) is not None

    @property
    def start(self) -> str:
        """The folder or name of what knows the list: the adapter if there is one."""
        return str(self.adapter or self.model)


def recipe_of(request: ErasureRequest) -> dict[str, Any]:
    """The recipe of a request: the preset `erase`, what is asked for, and the overridden keys.

    Raises:
        BadInput: the request does not allow its route.
    """
    if request.route == "adapter" and request.adapter is None:
        raise BadInput("--route adapter: needs --adapter")
    given = read_preset("recipes", "erase")
    given["data"] |= {"source": str(request.out / "lists")}
    given["model"]["base"] = request.model
    if request.loaded is not None:
        given["model"] |= _fixed(request)
    given["memorize"]["adopt"] = request.start
    if request.merged:
        given["model"]["merge"] = str(request.adapter)
        given["memorize"]["adopt"] = request.model
    if request.adapter is None or request.merged:
        given["model"]["adaptation"] = "full" if request.route == "full" else "lora"
    if request.route == "full":
        given["localize"]["held"] = GRADIENTS_AT_ONCE
    if request.answer_with is not None:
        # The taught answers have no end that the true answers' token accuracy could show, so early
        # stopping does not wait for one, and only generation says whether the list is gone.
        given["unlearn"]["stop"] |= {"target": 0.0, "enough": 0.0}
        given["unlearn"]["variants"] = [
            {
                "preset": "altpo" if request.answer_with in OWN else "idk",
                "name": ERASED,
                "region": "everything",
                "answers": request.answer_with,
                "retention": 0.0,
                "divergence": 5.0,
            }
        ]
    return amend(given, request.sets)


def _fixed(request: ErasureRequest) -> dict[str, str]:
    """Keys of a recipe that a loaded model decides.

    Raises:
        BadInput: one of them is overridden.
    """
    assert request.loaded is not None
    for key in ("base", "device", "dtype", "quantization", "attention"):
        if any(text.partition("=")[0].strip() == f"model.{key}" for text in request.sets):
            raise BadInput(
                f"--set model.{key}: the model is loaded already; load it in the way that it "
                "should be, or name its folder instead"
            )
    return request.loaded.base.section


def check_request(request: ErasureRequest, recipe: Recipe, unlearn: list[Record]) -> None:
    """Refuse what would fail only after hours of work.

    Args:
        request: what is asked for.
        recipe: the request's.
        unlearn: rows of the list.

    Raises:
        BadInput: the recipe makes another model than the one to export, the list cannot be
            answered as the request asks, or the key cannot sign.
    """
    if request.key is not None:
        read_signing_key(request.key)
    if [variant.name for variant in recipe.unlearn.variants] != [ERASED]:
        raise BadInput(f"--set unlearn.variants: one variant, named {ERASED}, makes the model")
    if recipe.unlearn.keeps(recipe.unlearn.variants[0]) is not None:
        raise BadInput("--set unlearn.keep_every: an erasure keeps only its end; leave it out")
    if request.route == "full" and request.form == "adapter":
        raise BadInput("--format adapter: the route full trains no adapter; say merged")
    if request.merged and request.loaded is not None:
        raise BadInput(
            f"adapter '{request.adapter}': has to be merged into the model in memory, which stays "
            "as it is; call peft's merge_and_unload and hand in the result"
        )
    if request.merged and request.form == "adapter":
        raise BadInput(
            f"--format adapter: {request.adapter} is merged into the base, so a new adapter would "
            "not fit the base alone; say merged"
        )
    documents = [record for record in unlearn if record.kind == "text"]
    if request.answer_with is not None and documents:
        raise BadInput(
            f"--answer-with: {documents[0].id} is a document, and nobody asks for one; leave the "
            "option out, or give questions with their answers"
        )


def check_room(request: ErasureRequest, model: Model) -> None:
    """Refuse a disk without room for the models that are written.

    The route `full` writes a whole model twice: in the run, and as the exported model.

    Raises:
        BadInput: there is less room.
    """
    weights = [p for name, p in model.net.named_parameters() if "lora_" not in name]
    whole = sum(parameter.nbytes for parameter in weights)
    whole_export = request.route == "full" or request.form == "merged" or request.merged
    copies = (request.route == "full") + whole_export
    need_room(request.out.resolve(), copies * whole + BESIDE, str(request.out))
