"""One run: an output directory with the recipe that fills it, its records and its model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowundo.data.encoded import Encoded
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.records import Record, check_records
from knowundo.errors import BadInput
from knowundo.modeling import regions
from knowundo.modeling.hardware import use_threads
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.progress import Reporter
from knowundo.recipes.acceptance import sealed_criteria
from knowundo.recipes.reading import amend, parse_recipe
from knowundo.recipes.schema import Plan, Recipe
from knowundo.runs import inputs, variants
from knowundo.runs.adaptation import open_model
from knowundo.runs.artifact import ArtifactJob
from knowundo.runs.base import Base, NamedBase, base_knows, settle_merge
from knowundo.runs.checks import check, effective
from knowundo.runs.directory import RunDirectory
from knowundo.runs.memory_base import MemoryBase
from knowundo.runs.recipe_file import (
    RECIPE,
    read_recipe_file,
    refuse_other_recipe,
    write_recipe_file,
)
from knowundo.runs.records import build_records, check_retention_scopes
from knowundo.runs.rows import Chosen, EncodedRows
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.environment import surroundings
from knowundo.storage.integrity import seal


class Run(RunDirectory):
    """One output directory with the recipe that fills it.

    Attributes:
        recipe: The recipe, with what it leaves to the base or to the machine.
        given: The keys of the recipe as the user gave them.
        base: Where the base comes from: its files, or a model in memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        given: dict[str, Any] | None = None,
        reporter: Reporter | None = None,
        model: Model | PreTrainedModel | PeftModel | MemoryBase | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """Check the recipe and the records; nothing is written before `claim`.

        Args:
            recipe: What to do.
            out: The directory, created if needed.
            given: The keys as the user gave them, kept beside the effective ones. If `None`, the
                recipe's.
            reporter: Tells the user what happens. If `None`, nobody is told.
            model: The base, if it is in memory already: a causal LM of transformers, which is
                changed in place and takes the place of `model.base`, or the base that the recipe
                names as a `Model`. If `None`, it is loaded when it is first needed.
            tokenizer: The tokenizer of a `PreTrainedModel`.

        Raises:
            BadInput: A name in the recipe, a record or the model is not usable, or the directory
                holds another recipe's run; nothing is written then.
        """
        super().__init__(out)
        self.given = recipe.model_dump(mode="json") if given is None else given
        self.reporter = reporter or Reporter()
        if isinstance(model, PreTrainedModel | PeftModel):
            model = MemoryBase(model, tokenizer)
        recipe = settle_merge(recipe)
        named = NamedBase(recipe.model.base, recipe.model.merge)
        self.base: Base = model if isinstance(model, MemoryBase) else named
        # First: what the base or the machine decides belongs to the recipe that is compared below.
        self.recipe = self.base.settle(recipe, out, self.reporter)
        use_threads(int(self.recipe.model.threads))
        self._model = model.opened if isinstance(model, MemoryBase) else model
        self._rows = EncodedRows(self.recipe, self.reporter)
        check(self.recipe)
        refuse_other_recipe(out, self.effective)
        check_records(self.records)
        check_retention_scopes(self.recipe, self.records)

    @classmethod
    def existing(cls, out: Path, reporter: Reporter | None = None, sets: Sequence[str] = ()) -> Run:
        """The run that a directory holds, with assignments on top that it can take.

        Args:
            out: The directory.
            reporter: Tells the user what happens. If `None`, nobody is told.
            sets: Assignments such as `evaluate.models=[folder]`.

        Raises:
            BadInput: There is no run, or an assignment makes another recipe of it.
        """
        file = out / RECIPE
        if not file.is_file():
            raise BadInput(f"{out}: holds no run (no recipe.yaml); give a recipe with --config")
        held = read_recipe_file(file)
        recipe = parse_recipe(amend(held["effective"], sets), str(file))
        return cls(recipe, out, given=amend(held["given"], sets), reporter=reporter)

    @property
    def effective(self) -> dict[str, Any]:
        """The whole recipe with its defaults, those of methods and localizers too."""
        return effective(self.recipe)

    def claim(self) -> None:
        """Write the recipe into the directory, if it is not there yet, or was amended."""
        if write_recipe_file(self.out, self.given, self.effective):
            self.reporter.say(f"writing to {self.out}")
        seal(self.out, self.out / RECIPE, inputs=inputs.input_files(self))

    @cached_property
    def records(self) -> ResolvedRecords:
        """All records of the benchmark."""
        return build_records(self.recipe)

    @property
    def commits(self) -> dict[str, str]:
        """Commits of the data sets that records were read from on the hub, by repository."""
        return self.records.commits

    @property
    def model(self) -> Model:
        """The base, in memory once; what training may change is decided when it is first asked."""
        if self._model is None:
            self._model = open_model(self)
        return self._model

    def release_model(self) -> None:
        """Let the base leave the memory; it is loaded again when it is next asked for."""
        self._model = None

    def whole_model(self, variant: ModelVariant) -> Model:
        """A given model that is no adapter; the base leaves the memory, if it is still there."""
        self.release_model()
        return variants.whole_model(self, variant)

    def encoded(
        self,
        scope: str | None = None,
        split: str | Sequence[str] | None = None,
        *,
        model: Model | None = None,
        prefix: str | None = None,
        end: bool = True,
    ) -> list[Encoded]:
        """Encoded records of a scope and splits.

        Args:
            scope: If `None`, all scopes.
            split: One or several. If `None`, all splits.
            model: Its tokenizer is used. If `None`, the run's own.
            prefix: Name of what stands before the questions. If `None`, the recipe's.
            end: False where `compat` may take the end of the answer away.
        """
        splits = split if split is None or isinstance(split, str) else tuple(split)
        chosen = Chosen(scope, splits, prefix, end)
        own = model is None or model is self._model
        # Held rows are given without asking for the model: it may be out of the memory by now.
        if own and (held := self._rows.held(chosen)) is not None:
            return held
        rows = self._rows.of(model or self.model, self.records, chosen)
        if own:
            self._rows.hold(chosen, rows)
        return rows

    def encode(
        self,
        records: Sequence[Record],
        *,
        model: Model | None = None,
        prefix: str | None = None,
        end: bool = True,
    ) -> list[Encoded]:
        """Encode records of any origin as this run's are; the options are those of `encoded`."""
        return self._rows.encode(model or self.model, records, prefix, end=end)

    @property
    def start(self) -> ModelVariant:
        """The model that knows both scopes: the base itself, or the one in `memorized`."""
        folder = None if base_knows(self.recipe) else self.memorized
        return ModelVariant("memorized", "memorized", folder)

    def never_saw(self) -> ModelVariant:
        """The model that never saw the unlearn scope: the reference for what unlearning aims at."""
        if self.recipe.memorize.retain_model:
            return ModelVariant("retain", "retain", self.retain)
        return ModelVariant("base", "base")

    def variants(self) -> list[ModelVariant]:
        """Every model to be scored: see `scored_variants`."""
        return variants.scored_variants(self)

    def made_variants(self) -> tuple[list[ModelVariant], list[str]]:
        """The unlearned variants that are there, and the names of the outdated ones."""
        return variants.made_variants(self)

    def given_models(self) -> list[ModelVariant]:
        """The adapters and models of `evaluate.models`, named after their folders."""
        return variants.given_models(self)

    def artifact(
        self,
        path: Path,
        inputs: Sequence[Any],
        *,
        way: Sequence[Any] = (),
        shared: Checkpoint | None = None,
        skipped: str | None = "already there, skipped",
    ) -> ArtifactJob:
        """The job of making an artifact, to be skipped if it is there: see `ArtifactJob`.

        Args:
            path: The artifact's folder, inside `out`.
            inputs: What the artifact depends on.
            way: What its checkpoint depends on beside the inputs.
            shared: Checkpoint of a greater job, which then takes the model's notes too.
            skipped: What is said of an artifact that is there. If `None`, nothing.
        """

        def facts() -> dict[str, Any]:
            return self.common_facts(None if shared else self.model)

        job = ArtifactJob(self, path, inputs, way=way, shared=shared, common_facts=facts)
        if job.done and skipped is not None:
            self.reporter.say(f"{path.name}: {skipped}")
        return job

    def common_facts(self, model: Model | None = None) -> dict[str, Any]:
        """What stands in every manifest.

        Args:
            model: Its notes are told and taken, so that they stand in one manifest. If `None`,
                there are none.
        """
        sealed = sealed_criteria(self.recipe.acceptance)
        facts = {"seed": self.recipe.seed, **sealed, **surroundings()}
        if model is not None:
            model.notes.tell(self.reporter.say)
            if notes := model.notes.take():
                facts["notes"] = notes
        return facts

    def region(self, name: str) -> list[str]:
        """Parameter names of a region: one that localize found, or a JSON file."""
        return regions.read_region(self.region_file(name), self.model.parameters())

    @cached_property
    def _common_inputs(self) -> list[Any]:
        return inputs.common_inputs(self)

    def inputs(self, *further: Any) -> list[Any]:
        """What every artifact depends on, and something more."""
        return [*self._common_inputs, *further]

    def memorize_inputs(self, scopes: Sequence[str]) -> list[Any]:
        """What the memorized model (both scopes) or the retain model is made of."""
        return inputs.memorize_inputs(self, scopes)

    def localize_inputs(self) -> list[Any]:
        """What the regions are made of."""
        return inputs.localize_inputs(self)

    def unlearn_inputs(self, plan: Plan) -> list[Any]:
        """What an unlearned variant is made of."""
        return inputs.unlearn_inputs(self, plan)

    def score_inputs(self, variant: ModelVariant) -> list[Any]:
        """What a variant's scores are made of."""
        return inputs.score_inputs(self, variant)

    def attack_inputs(self, variant: ModelVariant, name: str) -> list[Any]:
        """What the scores of a variant under an attack are made of."""
        return inputs.attack_inputs(self, variant, name)

    def check_current(self) -> None:
        """Refuse artifacts that were made of other rows, settings or weights than there are now."""
        inputs.check_current(self)
