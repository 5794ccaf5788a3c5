"""The keys of a recipe, with their types, bounds and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from knowundo.errors import unknown
from knowundo.recipes.acceptance import Acceptance
from knowundo.recipes.data_section import Data, Section
from knowundo.recipes.model_section import ModelSection
from knowundo.recipes.presets import named_or_all, read_preset
from knowundo.recipes.stop_section import Stop
from knowundo.recipes.values import QUIRKS, Prefix, Quirk, Rate, RetainedScopes, Split


class Memorize(Section):
    """Finetuning until the records are known (defaults: KnowUnDo, privacy)."""

    adopt: str | None = None
    """Folder of an adapter, or of a full model, that already knows the records; nothing is trained
    then. The base's own name says that the base itself knows them."""
    epochs: int = Field(10, ge=1)
    """Maximum number of epochs."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(16, ge=1)
    """Rows per gradient accumulation step."""
    accumulation: int = Field(4, ge=1)
    """Gradient accumulation steps per optimizer step."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of AdamW."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Schedule of the learning rate after warmup."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""
    known: float | None = Field(0.99, gt=0, le=1)
    """Stop once this share of an epoch's rows is predicted without a wrong token. If null, do not
    stop early."""
    general: bool = True
    """Mix general rows in, so that the base's own knowledge is not forgotten."""
    retain_model: bool = True
    """Also train the retain model, which never sees the unlearn scope: the target of unlearning."""


def _memflex() -> dict[str, dict[str, Any]]:
    return {"memflex": {}}


class Localize(Section):
    """Search for the region that stores the unlearn scope."""

    adopt: str | None = None
    """JSON list of parameter names, as KnowUnDo writes it; used as the region, without a search."""
    localizers: dict[str, dict[str, Any]] = Field(default_factory=_memflex, min_length=1)
    """Registered localizers and their arguments; the region is named after the localizer."""
    splits: tuple[Split, ...] = ("train",)
    """Splits whose gradients are used. KnowUnDo uses train and val; here val chooses nothing."""
    copies: int = Field(3, ge=1)
    """Number of noisy copies of each row."""
    batch_size: int = Field(32, ge=1)
    """Rows per backward pass."""
    draws: int = Field(3, ge=0, le=1000)
    """Number of random regions of as many parameters as the located one."""
    held: int | None = Field(None, ge=1)
    """Number of parameters whose gradients are in memory at a time. If null, all. Fewer need more
    passes."""


class Plan(Section):
    """One method in one region. Keys not set here come from its preset, then from `unlearn`."""

    name: str
    method: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    region: str = "everything"
    """`everything`, a localizer's name, `random-<n>`, or a JSON file of parameter names."""
    retain_on: RetainedScopes = "retention"
    """Which rows fill the retention half of a step; of several, a row of each in turn. siblings:
    what else the memorized model knows of the subjects of retention rows."""
    gradients: str | dict[str, Any] = "sum"
    """How the gradients of unlearning and retention become one: sum, or one of `knowundo list
    combinations`, such as project, or {name: sam, rho: 0.01} with its arguments."""
    lr: Rate | None = None
    guess: float | None = Field(None, gt=0)
    """Learning rate that `lr: auto` tries second; a good guess saves attempts."""
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    accumulation: int | None = Field(None, ge=1)
    retained: int | None = Field(None, ge=1)
    keep_every: int | None = Field(None, ge=1)
    then: tuple[Plan, ...] = ()
    """Methods that follow, each from the weights that the one before left: [{preset: undo}]. Their
    keys are their own; only the region is the same if they name none."""

    @property
    def further(self) -> tuple[Plan, ...]:
        """The methods that follow, each with its region and the name of the whole before it."""
        named = [{"name": f"{self.name}, then {one.name}"} for one in self.then]
        regions = [
            {} if "region" in one.model_fields_set else {"region": self.region} for one in self.then
        ]
        pairs = zip(self.then, named, regions, strict=True)
        return tuple(one.model_copy(update=name | region) for one, name, region in pairs)

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        """Put the preset underneath, and every key that is not ours into `arguments`."""
        if not isinstance(given, dict):
            raise ValueError("a variant is a mapping such as {preset: memflex}")
        given = dict(given)
        preset = given.pop("preset", None)
        if preset is not None:
            given = {"name": preset} | read_preset("methods", str(preset)) | given
        given.setdefault("name", given.get("method"))
        if not isinstance(given.get("then", []), list | tuple):
            raise ValueError("then is a list such as [{preset: undo}]")
        arguments = given.pop("arguments", {})
        if not isinstance(arguments, dict):
            raise ValueError("arguments is a mapping such as {ascent: 0.4}")
        arguments = dict(arguments)
        for key in [key for key in given if key not in cls.model_fields]:
            arguments[key] = given.pop(key)
        return given | {"arguments": arguments}


class Unlearn(Section):
    """Settings of all planned variants (defaults: KnowUnDo), and the variants."""

    lr: Rate = 5e-5
    """Peak learning rate. auto: the one that unlearns train rows just to the target's level; with
    `stop`, one that a search finds."""
    epochs: int = Field(2, ge=1)
    """Epochs over the unlearn rows."""
    batch_size: int = Field(16, ge=1)
    """Unlearn rows per gradient accumulation step."""
    accumulation: int = Field(1, ge=1)
    """Gradient accumulation steps per optimizer step."""
    retained: int | None = Field(None, ge=1)
    """Retention rows per gradient accumulation step. If null, as many as unlearn rows."""
    stop: Stop | None = None
    """Early stopping. If null, training never ends early and its last weights are the result."""
    keep_every: int | None = Field(None, ge=1)
    """Also save each variant after every so many optimizer steps, as models of their own that are
    scored, named after variant and step, such as `memflex.step-20`. If null, only the last weights
    are saved."""
    variants: list[Plan] = Field(
        default_factory=lambda: [Plan.model_validate({"preset": "memflex"})]
    )
    """Methods, each with a region. `{preset: all}` is every preset that no other variant names, but
    for those in its list `except`."""

    @field_validator("variants", mode="before")
    @classmethod
    def _all(cls, given: Any) -> Any:
        return named_or_all(given) if isinstance(given, list) else given

    def settings(self, plan: Plan) -> dict[str, Any]:
        """lr, epochs, batch_size, accumulation and retained of a variant."""
        names = ("lr", "epochs", "batch_size", "accumulation", "retained")
        own = {name: getattr(plan, name) for name in names}
        return {n: getattr(self, n) if value is None else value for n, value in own.items()}

    def keeps(self, plan: Plan) -> int | None:
        """`keep_every` of a variant."""
        return self.keep_every if plan.keep_every is None else plan.keep_every


class AttackPlan(Section):
    """Which models an attack is tried on, which rows are scored, and its own arguments."""

    variants: tuple[str, ...] | None = None
    """Names of the models. If null, the unlearned variants, and the retain model as the control."""
    splits: tuple[Split, ...] = ("train", "val", "probe")
    """Splits that are scored, of both scopes."""
    limit: int | None = Field(40, ge=1)
    """Rows of each scope and split that are scored, drawn by the seed. If null, all."""
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_keys(cls, given: Any) -> Any:
        """Put every key that is not ours into `arguments`."""
        if given is None:
            return {}
        if not isinstance(given, dict) or not isinstance(given.get("arguments", {}), dict):
            raise ValueError("an attack is a mapping of its arguments such as {steps: [20]}")
        own = {key: value for key, value in given.items() if key in cls.model_fields}
        rest = {key: value for key, value in given.items() if key not in cls.model_fields}
        return own | {"arguments": own.get("arguments", {}) | rest}


def _by_name(given: Any) -> Any:
    """Attacks by name; a list of names, or of names with arguments, means the same."""
    if not isinstance(given, list | tuple):
        return given
    found: dict[Any, Any] = {}
    for one in given:
        named = {one: {}} if isinstance(one, str) else one
        if not isinstance(named, dict) or len(named) != 1 or set(named) & set(found):
            raise ValueError("a list of different names such as [relearning, sampling]")
        found |= named
    return found


class Evaluate(Section):
    """What is scored."""

    generate: tuple[Split, ...] = ("train", "val", "probe", "holdout")
    """Splits whose questions are also answered freely."""
    resamples: int = Field(1000, ge=10)
    """Number of resamples of the subjects for every interval."""
    metrics: tuple[str, ...] = ()
    """Metrics that need forward passes of their own (truth_ratio); others are always there."""
    models: tuple[str, ...] = ()
    """Folders of more adapters of the base, or of whole models, that are scored too."""
    prefixes: tuple[Prefix, ...] = ()
    """Score val rows once more with each of these before the question."""
    attacks: Annotated[dict[str, AttackPlan], BeforeValidator(_by_name)] = Field(
        default_factory=dict
    )
    """Attacks that are tried and scored, as a list of names or with arguments: {relearning: {steps:
    [20]}}. `knowundo list attacks` has them."""
    general_tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, such as mmlu or arc_challenge."""
    general_folder: str | None = None
    """Folder of task files (YAML) that lm-evaluation-harness reads beside its own."""
    general_limit: int | None = Field(None, ge=1)
    """Number of questions of each task. If null, all."""
    general_shots: int | None = Field(None, ge=0)
    """Number of solved examples before each question. If null, the task's own number."""


class Recipe(Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)
    seed: int = 0
    """Seed of everything random."""
    compat: Literal["original"] | tuple[Quirk, ...] = ()
    """`original`: all that the public KnowUnDo code does unlike the paper; or a list of it."""

    @field_validator("compat", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if given == "original":
            return given
        names = [given] if isinstance(given, str) else given
        for name in names if isinstance(names, list | tuple) else ():
            if name not in QUIRKS:
                raise ValueError(str(unknown("behaviour", str(name), ("original", *QUIRKS))))
        return names

    data: Data = Field(default_factory=Data)
    model: ModelSection = Field(default_factory=ModelSection)
    memorize: Memorize = Field(default_factory=Memorize)
    localize: Localize = Field(default_factory=Localize)
    unlearn: Unlearn = Field(default_factory=Unlearn)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    acceptance: Acceptance | None = None
    """What counts as forgotten, for the certificate. If null, it gives no verdict."""

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """Behaviours of the public KnowUnDo code that this run reproduces."""
        return QUIRKS if self.compat == "original" else self.compat

    @property
    def data_seed(self) -> int:
        """Seed of the records."""
        return self.seed if self.data.seed is None else self.data.seed
