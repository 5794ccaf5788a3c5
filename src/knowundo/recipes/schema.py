"""The keys of a recipe, with their types, bounds and defaults."""

from __future__ import annotations

import re
from datetime import date as calendar_date
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from knowundo.data.records import TODAY
from knowundo.errors import unknown
from knowundo.recipes.presets import read_preset

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _day(given: Any) -> str:
    """A day as ISO text; YAML reads 2025-01-31 as a date and 20250131 as a number.

    Raises:
        ValueError: It is no day; pydantic adds the key.
    """
    if isinstance(given, datetime):
        given = given.date()
    if isinstance(given, calendar_date):
        return given.isoformat()
    try:
        if isinstance(given, bool) or not isinstance(given, int | str):
            raise ValueError
        return calendar_date.fromisoformat(str(given)).isoformat()
    except ValueError:
        raise ValueError(f"'{given}' is no day; write a day such as 2025-01-31") from None


Split = Literal["train", "val", "probe", "holdout"]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"]
Prefix = Literal["direct", "assistant"]
# Explained in original.py.
Quirk = Literal[
    "mixed_batches", "fixed_length", "question_labels", "base_labels", "soft_kl",
    "naive_boundary", "end_masked", "reference_dropout", "bfloat16_updates", "whole_steps",
    "padding_labels",
]  # fmt: skip
QUIRKS: tuple[Quirk, ...] = get_args(Quirk)
# Names of the models that every run holds beside its variants.
ROLES = ("base", "memorized", "retain")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class Data(_Section):
    """Which records."""

    benchmark: str = "embedded"
    """A registered benchmark: see `knowundo list benchmarks`."""
    domain: str = "privacy"
    """A domain of the benchmark."""
    source: str | None = None
    """Folder of the benchmark's files; none: generated, or from the hub."""
    revision: str | None = None
    """Commit of the benchmark's repository on the hub; none: the newest."""
    general: str | None = None
    """General rows from elsewhere: a dataset on the hub, a folder or a file of texts."""
    general_revision: str | None = None
    """Commit of that dataset on the hub; none: the newest."""
    subjects: int | None = Field(None, ge=1)
    """Keep or draw so many subjects; none: the benchmark's own number."""
    seed: int | None = None
    """Of the records; none: the recipe's seed."""
    encoding: Literal["plain", "chat"] = "plain"
    """Question, blank line, answer; or the tokenizer's own chat template."""
    prefix: Prefix | None = None
    """Put before every question: KnowUnDo's `direct` prompt, or the paper's `assistant` one."""
    max_length: int = Field(512, ge=8)
    """Tokens a row may have."""
    truncate: bool = False
    """Cut the end of a longer row, and count it; else it is refused."""
    date: Annotated[str, BeforeValidator(_day)] = TODAY.isoformat()
    """The day that a chat template is told where it asks for one: any, as long as it stays."""


class ModelSection(_Section):
    """Which base, and what training may change of it."""

    base: str = "embedded"
    """`embedded`, a folder, or a name on the model hub."""
    adaptation: Literal["auto", "lora", "full"] = "auto"
    """Train a LoRA or all weights; auto: a LoRA where the records fit into it."""
    rank: int = Field(8, ge=1)
    """Of the LoRA."""
    alpha: int = Field(16, ge=1)
    """Scale of the LoRA, alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the LoRA's input, while it is trained."""
    device: str = "cpu"
    """Where the model lies: cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float64", "auto"] = "float32"
    """Of the weights; auto: bfloat16 where this machine is faster with it, which is measured."""
    quantization: Literal["nf4"] | None = None
    """Hold the base in 4 bits (bitsandbytes NF4); only a LoRA is trained then."""
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Implementation of attention; none: transformers' choice."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of holding them."""
    optimizer: Literal["adamw", "paged_adamw_32bit"] = "adamw"
    """AdamW of torch, or bitsandbytes' that moves its state out of a full GPU."""
    trust_remote_code: bool = False
    """Run code that comes with the base."""


class Memorize(_Section):
    """Finetuning until the records are known (defaults: KnowUnDo, privacy)."""

    adopt: str | None = None
    """Folder of an adapter, or of a full model, that knows the records: nothing is trained. The
    base's own name: the base itself knows them."""
    epochs: int = Field(10, ge=1)
    """At most so many passes."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(16, ge=1)
    """Rows a micro-step."""
    accumulation: int = Field(4, ge=1)
    """Micro-steps an optimizer step."""
    weight_decay: float = Field(1e-4, ge=0)
    """Of AdamW."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after its rise."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the steps over which it rises."""
    known: float | None = Field(0.99, gt=0, le=1)
    """Stop once this share of an epoch's rows is predicted without a wrong token; none: never."""
    general: bool = True
    """Mix general rows in, so that the base's own knowledge does not wear off."""
    retain_model: bool = True
    """Also train the retain model, which never sees the unlearn scope: the target."""


def _memflex() -> dict[str, dict[str, Any]]:
    return {"memflex": {}}


class Localize(_Section):
    """Search for the region that holds the unlearn scope."""

    adopt: str | None = None
    """JSON list of parameter names, as KnowUnDo writes it: taken as the region, not searched."""
    localizers: dict[str, dict[str, Any]] = Field(default_factory=_memflex, min_length=1)
    """Registered localizers and their arguments; the region carries the localizer's name."""
    splits: tuple[Split, ...] = ("train",)
    """Rows that are looked at. KnowUnDo takes train and val; here val chooses nothing."""
    copies: int = Field(3, ge=1)
    """Noisy copies of each row."""
    batch_size: int = Field(32, ge=1)
    """Rows a backward pass."""
    draws: int = Field(3, ge=0)
    """Random regions with as many parameters as the located one."""
    held: int | None = Field(None, ge=1)
    """Parameters whose gradients are in memory at a time; none: all. Fewer take more passes."""


class Plan(_Section):
    """One method in one region. What is not set here is taken from its preset, then `unlearn`."""

    name: str
    method: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    region: str = "everything"
    """`everything`, a localizer's name, `random-<n>`, or a JSON file of parameter names."""
    retain_on: Literal["retention", "general"] = "retention"
    """Which rows fill the retention half of a step."""
    lr: Rate | None = None
    guess: float | None = Field(None, gt=0)
    """The rate that `lr: auto` tries second; a good guess saves attempts, a bad one costs one."""
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    accumulation: int | None = Field(None, ge=1)
    retained: int | None = Field(None, ge=1)
    keep_every: int | None = Field(None, ge=1)

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
        arguments = given.pop("arguments", {})
        if not isinstance(arguments, dict):
            raise ValueError("arguments is a mapping such as {ascent: 0.4}")
        arguments = dict(arguments)
        for key in [key for key in given if key not in cls.model_fields]:
            arguments[key] = given.pop(key)
        return given | {"arguments": arguments}


class Stop(_Section):
    """Looks at train rows during unlearning: it may end early, and the best moment is kept."""

    target: Annotated[float, Field(ge=0, le=1)] | Literal["unknown"] = "unknown"
    """Token accuracy on unlearn rows that is low enough; unknown: that on rows alike which the
    model cannot know, such as the same questions about invented people."""
    floor: float = Field(5.0, gt=0, le=100)
    """Points of token accuracy that retention may lose."""
    patience: int = Field(5, ge=1)
    """Looks below the floor that end training; those at which a dip heals do not count."""
    looks: int = Field(20, ge=1)
    """How many, spread evenly over training."""
    share: float = Field(0.1, gt=0, lt=1)
    """Of the retention train rows, set aside for looking; nothing is trained on them."""
    aside: Literal["retention", "both"] = "retention"
    """both: as many unlearn rows too, which are then not unlearned on, so that forgetting is seen
    on rows that training did not touch. Else what is watched of them is what is trained on."""


class Unlearn(_Section):
    """Settings of all variants (defaults: KnowUnDo), and the variants."""

    lr: Rate = 5e-5
    """Peak learning rate; auto: the one that forgets train rows just to the target's level, or,
    with `stop`, one found by raising and lowering."""
    epochs: int = Field(2, ge=1)
    """Passes over the unlearn rows."""
    batch_size: int = Field(16, ge=1)
    """Unlearn rows a micro-step."""
    accumulation: int = Field(1, ge=1)
    """Micro-steps an optimizer step."""
    retained: int | None = Field(None, ge=1)
    """Retention rows a micro-step; none: as many as unlearn rows."""
    stop: Stop | None = None
    """When training may end early; none: never, and its last step is what is kept."""
    keep_every: int | None = Field(None, ge=1)
    """Keep each variant after every so many optimizer steps too, as models of their own that are
    scored, named after variant and step, such as `memflex.step-20`. If `None`, only its end is
    kept."""
    variants: list[Plan] = Field(
        default_factory=lambda: [Plan.model_validate({"preset": "memflex"})]
    )
    """Methods, each with a region."""

    def settings(self, plan: Plan) -> dict[str, Any]:
        """lr, epochs, batch_size, accumulation and retained of a variant."""
        names = ("lr", "epochs", "batch_size", "accumulation", "retained")
        own = {name: getattr(plan, name) for name in names}
        return {n: getattr(self, n) if value is None else value for n, value in own.items()}

    def keeps(self, plan: Plan) -> int | None:
        """`keep_every` of a variant."""
        return self.keep_every if plan.keep_every is None else plan.keep_every


class Evaluate(_Section):
    """What is scored."""

    generate: tuple[Split, ...] = ("train", "val", "probe", "holdout")
    """Splits whose questions are also answered freely."""
    resamples: int = Field(1000, ge=10)
    """Draws of subjects behind every interval."""
    models: tuple[str, ...] = ()
    """Folders of further adapters of the base, or of whole models, to be scored too."""
    prefixes: tuple[Prefix, ...] = ()
    """Score val rows once more with each of these before the question."""
    general_tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, such as mmlu or arc_challenge."""
    general_folder: str | None = None
    """Folder of task files (YAML) that lm-evaluation-harness reads beside its own."""
    general_limit: int | None = Field(None, ge=1)
    """Questions of each task; none: all."""
    general_shots: int | None = Field(None, ge=0)
    """Solved examples before each question; none: the task's own number."""


class Recipe(_Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)
    seed: int = 0
    """Of everything random."""
    compat: Literal["original"] | tuple[Quirk, ...] = ()
    """`original`: what the public KnowUnDo code does otherwise than the paper; or some of it."""

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

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """Behaviours of the public KnowUnDo code that this run shows."""
        return QUIRKS if self.compat == "original" else self.compat

    @property
    def data_seed(self) -> int:
        """Seed of the records."""
        return self.seed if self.data.seed is None else self.data.seed
