"""One output directory: its recipe, its records, its model, and where its artifacts lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from knowundo.data.chat_template import writes_date
from knowundo.data.encoded import Encoded
from knowundo.data.general import read_general
from knowundo.data.hub_files import RESOLVED
from knowundo.data.records import Record, check_records, data_hash, select
from knowundo.errors import BadInput
from knowundo.modeling import regions
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.base import base_files, hub_commit
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.progress import Reporter
from knowundo.recipes.reading import amend, differing_keys, parse_recipe
from knowundo.recipes.schema import Plan, Recipe
from knowundo.recipes.values import ROLES
from knowundo.registry import get
from knowundo.runs.artifact import ArtifactJob
from knowundo.runs.base import (
    BITS_PER_PARAMETER,
    adopting_model,
    base_knows,
    model_options,
    model_with_adapters,
    needed_bits,
    say_remote_code,
    settle_dtype,
)
from knowundo.runs.checks import check, effective
from knowundo.runs.directory import RunDirectory
from knowundo.runs.inputs import input_hash
from knowundo.runs.recipe_file import amended_recipe, read_recipe_file
from knowundo.runs.rows import encode_for
from knowundo.scoring.table import VERSION as SCORES_VERSION
from knowundo.storage.artifacts import kept_name, read_manifest
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.environment import surroundings
from knowundo.storage.files import file_hash, fingerprint, write_text
from knowundo.storage.integrity import seal
from knowundo.unlearning.original.rows import mask_end

TRAIN_VAL, BOTH = ("train", "val"), ("unlearn", "retention")
# The stage that makes a model of a role.
_STAGES = {"memorized": "memorize", "retain": "memorize", "unlearned": "unlearn"}


class Run(RunDirectory):
    """One output directory with the recipe that fills it."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        given: dict[str, Any] | None = None,
        reporter: Reporter | None = None,
        model: Model | None = None,
    ) -> None:
        """Check the recipe and the records; nothing is written before `claim`.

        Args:
            recipe: what to do.
            out: created if needed.
            given: the keys as the user gave them, kept beside the effective ones.
            reporter: tells the user what happens.
            model: the base, if it is in memory already.

        Raises:
            BadInput: a name in the recipe, a record, or a directory that holds another recipe's
                run; nothing is written then.
        """
        super().__init__(out)
        self.given = recipe.model_dump(mode="json") if given is None else given
        self.reporter = reporter or Reporter()
        self.recipe = settle_dtype(recipe, out, self.reporter)
        self._encoded: dict[tuple[Any, ...], list[Encoded]] = {}
        self._dated = False  # whether it was said which date a chat template writes
        if model is not None:
            self.__dict__["model"] = model
        check(recipe)
        self._refuse_other_recipe()
        check_records(self.records)
        self._check_scopes()

    def _check_scopes(self) -> None:
        for variant in self.recipe.unlearn.variants:
            if not select(self.records, scope=variant.retain_on, split="train"):
                raise BadInput(
                    f"variant {variant.name}: there are no {variant.retain_on}/train rows to "
                    "retain on; name general ones with data.general"
                )

    @classmethod
    def existing(cls, out: Path, reporter: Reporter | None = None, sets: Sequence[str] = ()) -> Run:
        """The run that a directory holds, with assignments on top that it can take."""
        file = out / "recipe.yaml"
        if not file.is_file():
            raise BadInput(f"{out}: holds no run (no recipe.yaml); give a recipe with --config")
        held = read_recipe_file(file)
        recipe = parse_recipe(amend(held["effective"], sets), str(file))
        return cls(recipe, out, given=amend(held["given"], sets), reporter=reporter)

    def _refuse_other_recipe(self) -> None:
        file = self.out / "recipe.yaml"
        if self.out.exists() and not self.out.is_dir():
            raise BadInput(f"{self.out}: is a file; choose another directory with --out")
        if not file.exists():
            return
        held = amended_recipe(read_recipe_file(file)["effective"], self.effective)
        for key, was, now in differing_keys(held, self.effective):
            different = f"{key} differs" if isinstance(was, list) else f"{key} is {was}, not {now}"
            raise BadInput(
                f"{self.out}: holds a run of another recipe ({different}); "
                "choose another directory with --out, or remove this one"
            )

    @property
    def effective(self) -> dict[str, Any]:
        """The whole recipe with its defaults, those of methods and localizers too."""
        return effective(self.recipe)

    def claim(self) -> None:
        """Write the recipe into the directory, if it is not there yet, or was amended."""
        file = self.out / "recipe.yaml"
        if not file.exists() or read_recipe_file(file)["effective"] != self.effective:
            text = yaml.safe_dump(
                {"given": self.given, "effective": self.effective}, sort_keys=False
            )
            write_text(file, text)
            self.reporter.say(f"writing to {self.out}")
        seal(self.out, file, inputs=self._input_files())

    def _input_files(self) -> dict[str, str]:
        """Local files that the run reads, the base's among them, by their sha256."""
        section, found = self.recipe.model, list[Path]()
        for base in {section.base, self.recipe.memorize.adopt}:
            if base is not None and Path(base).is_dir():
                found += base_files(base)
        if (source := self.recipe.data.source) is not None and Path(source).exists():
            place = Path(source)
            found += [place] if place.is_file() else sorted(place.rglob("*"))
        own = self.out.resolve()
        files = {file.resolve() for file in found if file.is_file()}
        return {str(f): input_hash(f) for f in sorted(files) if own not in f.parents}

    @cached_property
    def records(self) -> list[Record]:
        """All records of the benchmark."""
        data = self.recipe.data
        RESOLVED.clear()
        arguments = {"domain": data.domain, "seed": self.recipe.data_seed}
        for name in ("source", "subjects", "revision"):
            if (value := getattr(data, name)) is not None:
                arguments[name] = value
        entry = get("benchmark", data.benchmark)
        built: list[Record] = entry(**entry.bind(arguments))
        if data.general is not None:
            general = read_general(data.general, revision=data.general_revision)
            built = [r for r in built if r.scope != "general"] + general
        self.commits = dict(RESOLVED)
        if data.general is not None or self.recipe.model.base == "embedded":
            return built
        if data.benchmark not in ("embedded", "knowundo"):
            return built
        # The benchmarks' general facts are what the embedded base knows; no other base knows them.
        return [r for r in built if (r.scope, r.subset) != ("general", "facts")]

    @cached_property
    def model(self) -> Model:
        """The base, in memory once; what training may change is decided here."""
        say_remote_code(self.recipe, self.reporter)
        section, options = self.recipe.model, model_options(self.recipe)
        lora = Adaptation("lora", section.rank, section.alpha, dropout=section.dropout)
        if self.recipe.memorize.adopt is not None:
            return adopting_model(self.recipe)
        if section.adaptation == "lora" or (section.adaptation == "auto" and section.quantization):
            return Model(section.base, lora, **options)
        if section.adaptation == "full":
            return Model(section.base, Adaptation("full"), **options)
        if given := self.given_models():
            adapters = {v.folder: adaptation_of(v.folder) for v in given if v.folder is not None}
            kinds = {folder: own for folder, own in adapters.items() if own.kind == "lora"}
            if not (self.memorized / "manifest.json").exists():  # nothing is trained here
                shape = next(iter(kinds.values()), lora)
                return model_with_adapters(section.base, shape, list(kinds), options)
        if (self.memorized / "manifest.json").exists():  # decided before, for the same inputs
            manifest = read_manifest(self.memorized)
            if manifest["inputs"] == fingerprint(self.memorize_inputs(BOTH)):
                held = Adaptation(**manifest["model"]["adaptation"])
                return Model(section.base, held, **options)
        model = Model(section.base, lora, **options)
        bits = needed_bits(model, self.encoded("unlearn", TRAIN_VAL, model=model))
        bits += needed_bits(model, self.encoded("retention", TRAIN_VAL, model=model))
        room = BITS_PER_PARAMETER * sum(p.numel() for p in model.parameters().values())
        fits = bits <= room
        self.reporter.say(
            f"the records hold {bits / 1000:.0f} kbit that the base does not know, a LoRA of rank "
            f"{lora.rank} has room for {room / 1000:.0f}: training "
            + ("a LoRA" if fits else "all weights")
        )
        if model.stored_in_4_bits:
            return model
        return model if fits else Model(section.base, Adaptation("full"), **options)

    def whole_model(self, variant: ModelVariant) -> Model:
        """A given model that is no adapter; the base leaves the memory, if it is still there."""
        self.__dict__.pop("model", None)
        given = model_options(self.recipe)
        options = replace(given["options"], scored_only=True)
        return Model(
            str(variant.folder), Adaptation("full"), seed=self.recipe.seed, options=options
        )

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
            scope: none: all.
            split: none: all.
            model: whose tokenizer; none: the run's own.
            prefix: name of what stands before the questions; none: the recipe's.
            end: False where `compat` may take the end of the answer away.
        """
        own = model is None or model is self.__dict__.get("model")
        key = scope, split if split is None else tuple(split), prefix, end
        if own and key in self._encoded:
            return list(self._encoded[key])
        rows = self._encode(model or self.model, scope, split, prefix, end)
        if own:
            self._encoded[key] = rows
        return list(rows)

    def _encode(
        self,
        model: Model,
        scope: str | None,
        split: str | Sequence[str] | None,
        prefix: str | None,
        end: bool,
    ) -> list[Encoded]:
        rows = self.encode(
            select(self.records, scope=scope, split=split), model=model, prefix=prefix
        )
        return rows if end or "end_masked" not in self.recipe.quirks else mask_end(rows)

    def encode(
        self, records: Sequence[Record], *, model: Model | None = None, prefix: str | None = None
    ) -> list[Encoded]:
        """Encode any records in the way that this run's are.

        Args:
            records: of any origin.
            model: whose tokenizer; none: the run's own.
            prefix: name of what stands before the questions; none: the recipe's.
        """
        model = model or self.model
        if self.recipe.data.encoding == "chat" and not self._dated and writes_date(model.tokenizer):
            self._dated = True
            self.reporter.say(
                f"the chat template writes the date: every prompt has {self.recipe.data.date} "
                "(data.date), so that scores do not change from day to day"
            )
        return encode_for(self.recipe, records, model, prefix=prefix)

    @property
    def start(self) -> ModelVariant:
        """The model that knows both scopes: the base itself, or what lies in `memorized`."""
        folder = None if base_knows(self.recipe) else self.memorized
        return ModelVariant("memorized", "memorized", folder)

    def never_saw(self) -> ModelVariant:
        """The model that shows what never having seen the unlearn scope looks like."""
        if self.recipe.memorize.retain_model:
            return ModelVariant("retain", "retain", self.retain)
        return ModelVariant("base", "base")

    def variants(self) -> list[ModelVariant]:
        """Every model to be scored, in the order of the report; stale ones are left out.

        Raises:
            BadInput: a variant is older than what it would be made of now.
        """
        given = self.given_models()
        found = [] if base_knows(self.recipe) else [ModelVariant("base", "base")]
        if not given or (self.memorized / "manifest.json").exists():
            found.append(self.start)
            if self.recipe.memorize.retain_model:
                found.append(ModelVariant("retain", "retain", self.retain))
        made, outdated = self.made_variants()
        if outdated:
            raise BadInput(
                f"{self.unlearned(outdated[0])}: made of other inputs than are there now; run "
                f"`knowundo unlearn --out {self.out}` again"
            )
        return found + made + given

    def made_variants(self) -> tuple[list[ModelVariant], list[str]]:
        """The unlearned variants that are there, in the order of the recipe.

        Returns:
            Those that are made of what is there now, and the names of the outdated ones.
        """
        made, outdated = list[ModelVariant](), list[str]()
        for plan in self.recipe.unlearn.variants:
            folder = self.unlearned(plan.name)
            if not (folder / "manifest.json").exists():
                continue
            inputs = self.unlearn_inputs(plan)
            if self.done(folder, inputs):
                made += self._kept_steps(plan.name, inputs)
                made.append(ModelVariant(plan.name, "unlearned", folder))
            else:
                outdated.append(plan.name)
        return made, outdated

    def _kept_steps(self, name: str, inputs: Sequence[Any]) -> list[ModelVariant]:
        """What a variant was on the way, as far as that was kept and is still there."""
        found = []
        for step in read_manifest(self.unlearned(name)).get("kept_steps", []):
            kept = kept_name(name, step)
            if self.done(self.unlearned(kept), [*inputs, step]):
                found.append(ModelVariant(kept, "unlearned", self.unlearned(kept)))
        return found

    def given_models(self) -> list[ModelVariant]:
        """The adapters and models of `evaluate.models`, named after their folders."""
        planned = (variant.name for variant in self.recipe.unlearn.variants)
        taken = {*ROLES, *(name for name in planned if self.unlearned(name).exists())}
        found = []
        for path in map(Path, self.recipe.evaluate.models):
            folder = path.resolve()
            names = [folder.name, f"{folder.parent.name}_{folder.name}"]
            names += [f"{names[1]}_{number}" for number in range(2, 100)]
            safe = (re.sub(r"[^\w.-]", "_", name) for name in names)
            name = next(name for name in safe if name not in taken)
            taken.add(name)
            found.append(ModelVariant(name, "given", path))
        return found

    def artifact(
        self,
        path: Path,
        inputs: Sequence[Any],
        *,
        way: Sequence[Any] = (),
        shared: Checkpoint | None = None,
        skipped: str | None = "already there, skipped",
    ) -> ArtifactJob:
        """The job of making an artifact, which is there and skipped if its inputs are the same.

        Args:
            path: The artifact's folder, inside `out`.
            inputs: As for `ArtifactJob`.
            way: As for `ArtifactJob`.
            shared: As for `ArtifactJob`. What happened to the model on the way is then left to
                whoever holds the checkpoint.
            skipped: What is said of an artifact that is there. If `None`, nothing.

        Raises:
            BadInput: A file of the artifact was changed, or it is not the one that this run made.
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
        facts = {"seed": self.recipe.seed, **surroundings()}
        if model is not None:
            model.notes.tell(self.reporter.say)
            if notes := model.notes.take():
                facts["notes"] = notes
        return facts

    def region(self, name: str) -> list[str]:
        """Parameter names of a region: one that localize found, or a JSON file."""
        file = Path(name) if name.endswith(".json") else self.regions / f"{name}.json"
        return regions.read_region(file, self.model.parameters())

    def controls(self, located: str) -> list[str]:
        """Names of the regions that a located one is measured against."""
        prefix = "random" if len(self.recipe.localize.localizers) == 1 else f"random-{located}"
        draws = range(1, self.recipe.localize.draws + 1)
        return [*(f"{prefix}-{n}" for n in draws), regions.EVERYTHING]

    def memorize_inputs(self, scopes: Sequence[str]) -> list[Any]:
        """What the memorized model (both scopes) or the retain model is made of."""
        section = self.recipe.memorize
        if base_knows(self.recipe) and list(scopes) == list(BOTH):
            return self.inputs("adopt", "base")
        if section.adopt is not None and list(scopes) == list(BOTH):
            return self.inputs("adopt", [input_hash(file) for file in base_files(section.adopt)])
        settings = section.model_dump(exclude={"retain_model", "adopt"})
        return self.inputs("memorize", settings, list(scopes))

    def localize_inputs(self) -> list[Any]:
        """What the regions are made of."""
        section = self.effective["localize"]
        code: list[Any] = [get("localizer", name).source for name in section["localizers"]]
        if section["adopt"] is not None:
            code = [regions.read_names(Path(section["adopt"]))]
        return self.inputs("localize", section, code, self.made(self.memorized, "memorize"))

    def score_inputs(self, variant: ModelVariant) -> list[Any]:
        """What a variant's scores are made of."""
        section = self.recipe.evaluate
        weights: dict[str, str] | None = None
        if variant.role == "given" and variant.folder is not None:
            weights = {file.name: file_hash(file) for file in base_files(str(variant.folder))}
        elif variant.folder is not None:
            weights = self.made(variant.folder, _STAGES[variant.role])
        general = [
            section.general_tasks,
            [file_hash(file) for file in sorted(Path(section.general_folder).rglob("*.*"))]
            if section.general_folder
            else None,
            section.general_limit,
            section.general_shots,
        ]
        quirks = "end_masked" in self.recipe.quirks
        asked = section.generate, section.prefixes
        return self.inputs("score", SCORES_VERSION, weights, *asked, general, quirks)

    def unlearn_inputs(self, plan: Plan) -> list[Any]:
        """What an unlearned variant is made of."""
        method = get("method", plan.method)
        # What is kept on the way does not change the way.
        settings = plan.model_dump(exclude={"name", "keep_every"})
        settings |= self.recipe.unlearn.settings(plan)
        if self.recipe.unlearn.stop is not None:
            settings["stop"] = self.recipe.unlearn.stop.model_dump()
        settings["arguments"] = method.bind(plan.arguments)
        start = self.made(self.memorized, "memorize")
        aim = self.never_saw().folder
        target = self.made(aim, "memorize") if aim and settings["lr"] == "auto" else None
        region = self.region(plan.region)
        texts = [v for v in settings["arguments"].values() if isinstance(v, str)]
        settings["files"] = [file_hash(Path(text)) for text in texts if Path(text).is_file()]
        quirks = sorted(self.recipe.quirks)
        return self.inputs("unlearn", settings, method.source, region, start, target, quirks)

    @cached_property
    def _common(self) -> list[Any]:
        section = self.recipe.model.model_dump()
        base: list[Any] = [input_hash(file) for file in base_files(self.recipe.model.base)]
        base.append(hub_commit(self.recipe.model.base))
        # Which rows there are is in their hash; the rest is how they are read.
        reading = self.recipe.data.model_dump(
            include={"max_length", "encoding", "prefix", "truncate"}
        )
        if self.recipe.data.encoding == "chat":  # elsewhere nothing asks for it
            reading["date"] = self.recipe.data.date
        return [self.recipe.seed, section, base, data_hash(self.records), reading]

    def inputs(self, *further: Any) -> list[Any]:
        """What every artifact depends on, and something more."""
        return [*self._common, *further]

    def check_current(self) -> None:
        """Refuse artifacts that were made of other rows, settings or weights than there are now.

        Raises:
            BadInput: names the artifact and the stage that makes it again.
        """
        checks = [(self.memorized, "memorize", lambda: self.memorize_inputs(BOTH))]
        if self.recipe.memorize.retain_model:
            checks.append((self.retain, "memorize", lambda: self.memorize_inputs(("retention",))))
        if (self.regions / "manifest.json").exists():
            checks.append((self.regions, "localize", self.localize_inputs))
        for folder, stage, inputs in checks:
            self.made(folder, stage)
            if not self.done(folder, inputs()):
                raise BadInput(
                    f"{folder}: made of other inputs than are there now; run "
                    f"`knowundo {stage} --out {self.out}` again"
                )
