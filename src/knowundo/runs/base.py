"""The base of a recipe: how it is loaded, with which tokenizer, and what its records need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from knowundo.distributed.group import from_main
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation, adaptation_of, unmerged_reason
from knowundo.modeling.base import base_files, hub_commit, own_tokenizer, same_base
from knowundo.modeling.dtype import choose
from knowundo.modeling.hardware import (
    THREADS,
    automatic_device,
    automatic_threads,
    physical_cores,
    threads_wanted,
)
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.model_section import ModelSection
from knowundo.recipes.schema import Recipe
from knowundo.runs.file_hashes import input_hash, named_files
from knowundo.runs.recipe_file import RECIPE, read_recipe_file

# Keys of `model` that may be auto, each settled with those before it.
MACHINE = ("device", "threads", "dtype")
TRAIN_VAL, BOTH = ("train", "val"), ("unlearn", "retention")


def base_knows(recipe: Recipe) -> bool:
    """True if the base's own weights know the records: nothing is put on it to begin with."""
    adopted = recipe.memorize.adopt
    return adopted is not None and same_base(adopted, recipe.model.base)


def say_remote_code(section: ModelSection, reporter: Reporter) -> None:
    """Tell plainly where somebody else's code is about to run."""
    if section.trust_remote_code:
        reporter.say(
            f"model.trust_remote_code is on: Python code from '{section.base}' runs on this "
            "machine, with all rights of this user"
        )


def settle_machine(recipe: Recipe, out: Path, reporter: Reporter) -> Recipe:
    """The recipe with device, dtype and threads, where it leaves them to the machine.

    A run that was begun is resumed with those that it began with, because results differ by
    rounding with others: `out` says which.

    Raises:
        BadInput: The base's config cannot be read, or `KNOWUNDO_THREADS` is no number.
    """
    section, file = recipe.model, out / RECIPE
    auto = [key for key in MACHINE if getattr(section, key) == "auto"]
    held = read_recipe_file(file)["effective"].get("model", {}) if file.is_file() else {}
    chosen = {key: held[key] for key in auto if key in held}
    if "threads" in chosen:
        _say_threads(chosen["threads"], reporter)
    for key in auto:
        if key not in chosen:
            chosen[key] = _automatic(key, section.model_copy(update=chosen), reporter)
    return recipe.model_copy(update={"model": section.model_copy(update=chosen)})


def _automatic(key: str, section: ModelSection, reporter: Reporter) -> Any:
    """What `auto` means here for one of `MACHINE`; the section's earlier ones are settled."""
    if key == "device":
        return automatic_device()
    if key == "threads":
        return automatic_threads()
    if section.adaptation == "full":
        # AdamW's small steps would be lost in weights of bfloat16.
        return "float32"
    say_remote_code(section, reporter)
    dtype, why = choose(
        section.base,
        section.device,
        threads=int(section.threads),
        trust_remote_code=section.trust_remote_code,
    )
    if dtype != "float32":
        reporter.say(f"model.dtype auto: {dtype}; {why}")
    return dtype


def _say_threads(held: int, reporter: Reporter) -> None:
    """Tell where a run is resumed with another number of threads than a new one would have."""
    wanted = threads_wanted()
    if (wanted or physical_cores()) != held:
        other = f"{THREADS}={wanted}" if wanted else f"this machine's {physical_cores()} cores"
        reporter.say(
            f"model.threads: {held}, with which this run was begun, not {other}: the same bits "
            "need the same number of threads"
        )


def settle_merge(recipe: Recipe) -> Recipe:
    """The recipe with an adapter to be merged, if `memorize.adopt` is more than LoRA matrices.

    The merged base knows the records then, and is what training starts from.

    Raises:
        BadInput: There would be two adapters to merge.
    """
    adopted, section = recipe.memorize.adopt, recipe.model
    if adopted is None or base_knows(recipe) or unmerged_reason(Path(adopted)) is None:
        return recipe
    adaptation_of(Path(adopted))  # refuses what peft cannot merge
    if section.merge is not None:
        raise BadInput(
            f"memorize.adopt '{adopted}': has to be merged, and model.merge names another adapter; "
            "leave out one of them"
        )
    kind = "lora" if section.adaptation == "auto" else section.adaptation
    model = section.model_copy(update={"merge": adopted, "adaptation": kind})
    memorize = recipe.memorize.model_copy(update={"adopt": section.base})
    return recipe.model_copy(update={"model": model, "memorize": memorize})


def model_options(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `Model` that say how a recipe's base is loaded and held."""
    names = (
        "device", "dtype", "trust_remote_code",
        "quantization", "attention", "gradient_checkpointing", "threads", "merge",
    )  # fmt: skip
    asked = {name: getattr(recipe.model, name) for name in names}
    if unsettled := [name for name in MACHINE if asked[name] == "auto"]:
        raise ValueError(f"model.{unsettled[0]} is auto; call settle_machine first")
    loading = LoadingOptions(**asked)
    return {"seed": recipe.seed, "options": loading}


class Base(Protocol):
    """Where the base of a run comes from."""

    def settle(self, recipe: Recipe, out: Path, reporter: Reporter) -> Recipe:
        """The recipe with what it leaves to the base or to this machine."""

    def open(self, recipe: Recipe, adaptation: Adaptation, adapters: Sequence[Path] = ()) -> Model:
        """The base in memory, ready for training what `adaptation` says.

        Args:
            recipe: How it is loaded.
            adaptation: What training may change.
            adapters: Folders of adapters that are used with it and may bring a tokenizer.
        """

    def identity(self) -> list[Any]:
        """What tells this base from others, for the inputs of artifacts."""

    def files(self) -> list[Path]:
        """Files that it was read from, if the user keeps them in a folder."""


class NamedBase:
    """A base that is loaded by its name: `embedded`, a folder, or a name on the hub."""

    def __init__(self, name: str, merge: str | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            name: Of the base.
            merge: Folder of an adapter that is merged into it. If `None`, there is none.
        """
        self.name, self._merge = name, merge

    def settle(self, recipe: Recipe, out: Path, reporter: Reporter) -> Recipe:
        """The recipe with device, dtype and threads: see `settle_machine`."""
        # The speed of a dtype is measured: every process must come to the same.
        return from_main(lambda: settle_machine(recipe, out, reporter))

    def open(self, recipe: Recipe, adaptation: Adaptation, adapters: Sequence[Path] = ()) -> Model:
        """Load the base, with the tokenizer that adapters bring if they do."""
        options = model_options(recipe)
        if recipe.model.merge is not None:
            adapters = [Path(recipe.model.merge), *adapters]
        if adapters:
            return model_with_adapters(self.name, adaptation, adapters, options)
        return Model(self.name, adaptation, **options)

    def identity(self) -> list[Any]:
        """Hashes of its files, or its commit on the hub."""
        files = base_files(self.name) + (base_files(self._merge) if self._merge else [])
        return [*(input_hash(file) for file in files), hub_commit(self.name)]

    def files(self) -> list[Path]:
        """Its files, if it is a folder."""
        return named_files(self.name) + (named_files(self._merge) if self._merge else [])


def adopted_adaptation(recipe: Recipe) -> Adaptation:
    """What is trained of a model that is taken over.

    Beside a base that knows the records itself there is a fresh LoRA, unless all weights are asked
    for.

    Args:
        recipe: Has `memorize.adopt`.

    Raises:
        BadInput: What is taken over is not there.
    """
    section = recipe.model
    # An adopted adapter fixes the shape: unlearning changes the very tensors that know the records.
    # Where the base itself knows them, nothing is fixed, and the recipe says what is trained.
    if base_knows(recipe):
        kind = "lora" if section.adaptation == "auto" else section.adaptation
        known = Adaptation(kind, section.rank, section.alpha)
    else:
        known = adaptation_of(Path(str(recipe.memorize.adopt)))
    return replace(known, dropout=section.dropout)


def adopting_model(recipe: Recipe, base: Base | None = None) -> Model:
    """The base of a recipe that takes over a model which knows the records.

    Args:
        recipe: Has `memorize.adopt`.
        base: Where the base comes from. If `None`, it is loaded by the recipe's name.

    Raises:
        BadInput: What is taken over is not what the recipe would train.
    """
    section, adopted = recipe.model, str(recipe.memorize.adopt)
    known = adopted_adaptation(recipe)
    if section.adaptation not in ("auto", known.kind):
        raise BadInput(
            f"memorize.adopt '{adopted}': not what model.adaptation '{section.adaptation}' "
            f"trains; set it to {known.kind} or auto"
        )
    brought = known.kind == "lora" and not base_knows(recipe)
    folders = [Path(adopted)] if brought else []
    return (base or NamedBase(section.base, section.merge)).open(recipe, known, folders)


def tokenizer_of(
    base: str, adapters: Sequence[Path], *, trust_remote_code: bool = False
) -> tuple[str | None, str | None]:
    """The folder whose tokenizer is used where a base has adapters, and what is to be said of it.

    Trainers save it beside the adapter: with tokens that they added, or a chat template of their
    own. If adapters bring different ones, the base's is taken.

    Args:
        base: As for `Model`.
        adapters: Folders of adapters.
        trust_remote_code: As for `Model`.

    Returns:
        Twice `None` where the base's own is used and no adapter brings another.
    """
    # All of them are read: two adapters may bring the same tokenizer, which is then no conflict.
    found = {folder: own_tokenizer(folder, base, trust_remote_code) for folder in adapters}
    taken = next((folder for folder, kind in found.items() if kind is not None), None)
    if taken is None:
        return None, None
    if (
        len(set(found.values())) == 1
    ):  # also no adapter without one: those were trained with the base's
        return str(taken), f"{taken}: its own tokenizer and chat template are used, not the base's"
    return None, (
        f"{taken}: has a tokenizer or chat template of its own, and other adapters have others; "
        "the base's is taken for all of them: score them one at a time to use their own"
    )


def model_with_adapters(
    base: str, adaptation: Adaptation, adapters: Sequence[Path], options: Mapping[str, Any]
) -> Model:
    """A base with the tokenizer that its adapters were trained with: see `tokenizer_of`.

    Args:
        base: As for `Model`.
        adaptation: As for `Model`.
        adapters: Folders of adapters.
        options: Further arguments of `Model`.
    """
    loading: LoadingOptions = options.get("options") or LoadingOptions()
    code = loading.trust_remote_code
    tokenizer, note = tokenizer_of(base, adapters, trust_remote_code=code)
    own = {"options": replace(loading, tokenizer=tokenizer)}
    model = Model(base, adaptation, **{**options, **own})
    if note is not None:
        model.notes.add_once(note)
    return model
