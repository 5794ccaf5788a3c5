"""export(): one model of a run, handed over as a folder that plain peft or transformers loads.

adapter: peft's LoRA layout, which vLLM's loader reads too; the base is named, not copied.
merged:  the LoRA added to the base's weights, or all weights where they were trained, in shards.

Before the folder gets its name, those libraries load what was written, and its logits are compared
with those of the run's own model.
"""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from jinja2 import Environment, PackageLoader, StrictUndefined
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM

from knowundo.artifacts import (
    MANIFEST,
    new_folder,
    read_json,
    read_manifest,
    surroundings,
    write_json,
    write_text,
)
from knowundo.encoding import SEPARATOR, prefix_text
from knowundo.errors import BadInput, KnowUndoError, unknown
from knowundo.locks import alone
from knowundo.models import (
    ADAPTER,
    Model,
    Variant,
    adaptation_of,
    base_path,
    describe,
    hub_commit,
    save_state,
)
from knowundo.recipe import differing_keys
from knowundo.records import data_hash
from knowundo.reporting.tables import COLUMNS, Cell, cell
from knowundo.results import Results, read_results
from knowundo.runs import BOTH, Run
from knowundo.seals import seal

Form = Literal["adapter", "merged"]

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


class Exported(NamedTuple):
    """What was handed over."""

    folder: Path
    form: Form
    files: list[str]  # in the folder, sorted
    largest_difference: float  # of any logit, between the run's model and the written one
    probes: int  # texts that were compared
    url: str | None  # of the repository on the hub


@alone
def export(
    run: Run,
    variant: str,
    to: Path,
    *,
    form: Form | None = None,
    shard_size: str = "5GB",
    push_to_hub: str | None = None,
    beside: Callable[[Path], None] | None = None,
) -> Exported:
    """Write one model of a run into a folder of its own, with a model card.

    The run's model leaves the memory, so that the base is there only once; a later stage loads it
    again. Weights are written in the run's `model.dtype`. A LoRA that was trained beside a base
    of 4 bits is merged into the base as it is without them, which is then what it is compared with.

    Args:
        run: a run whose model is made.
        variant: memorized, retain, or an unlearned variant.
        to: the folder; an earlier export there is replaced, anything else is left alone.
        form: none: adapter for a LoRA, merged for all weights.
        shard_size: most bytes of one file of merged weights, such as 500MB or 5GB.
        beside: writes further files into the folder, once the model is in it.
        push_to_hub: id of a repository; made private if it does not exist, and uploaded to.

    Raises:
        BadInput: no such model, or not in that form; no room; the folder is not ours; no upload.
        KnowUndoError: what was written says something else than the run's model. Nothing is left.
    """
    _check_words(form, shard_size, push_to_hub)
    target = to.resolve()  # a link stays; what it leads to is replaced
    _check_place(target)
    chosen = _chosen(run, variant)
    form = _form(chosen, form)
    refuse_merge(run.model, form)
    need_room(target, _bytes(run, form), f"--to {to}")
    results = _results(run, variant)
    probes = _probes(run)
    facts = {"exported": {"variant": variant, "form": form}, **surroundings()}
    inputs = [read_manifest(_folder(chosen))["outputs"], form, shard_size]
    try:
        with new_folder(target, inputs, **facts) as aside:
            largest = _write(run, chosen, form, aside, probes, shard_size)
            card = render_card(run, chosen, form, results, largest, len(probes), push_to_hub)
            write_text(aside / "README.md", card)
            if beside is not None:
                beside(aside)
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise BadInput(f"--to {to}: cannot be written ({reason}); nothing was written") from None
    if run.out.resolve() in target.parents:
        seal(run.out.resolve(), target)
    url = None if push_to_hub is None else _push(target, push_to_hub)
    files = sorted(str(file.relative_to(target)) for file in target.rglob("*") if file.is_file())
    return Exported(to, form, files, largest, len(probes), url)


def _check_words(form: str | None, shard_size: str, push_to_hub: str | None) -> None:
    """Refuse arguments that would only fail after minutes of work."""
    if form is not None and form not in get_args(Form):
        raise unknown("format", form, get_args(Form))
    if not re.fullmatch(r"(?i)[1-9]\d*[KMGT]B", shard_size):
        raise BadInput(f"--shard-size {shard_size}: not a size; say 500MB or 5GB")
    if push_to_hub is not None:
        try:
            validate_repo_id(push_to_hub)
        except HFValidationError as error:
            reason = str(error).split("\n")[0]
            raise BadInput(f"--push-to-hub {push_to_hub}: not an id ({reason})") from None


def _check_place(to: Path) -> None:
    """Refuse a folder that holds a file which no export wrote: it would be deleted."""
    if not to.exists():
        return
    if not to.is_dir():
        raise BadInput(f"--to {to}: is a file; name a folder that does not exist yet")
    here = {str(file.relative_to(to)) for file in to.rglob("*") if not file.is_dir()}
    if not here:
        return
    manifest = read_json(to / MANIFEST) if MANIFEST in here else None
    if isinstance(manifest, dict) and "exported" in manifest:
        here -= {MANIFEST, *manifest["outputs"]}
    if here:
        raise BadInput(
            f"--to {to}: holds {min(here)}, which no export wrote; name a folder that does "
            "not exist yet"
        )


def _chosen(run: Run, name: str) -> Variant:
    """The variant of that name, made of what the run holds now."""
    run.check_current()
    found = {v.name: v for v in run.variants() if v.role in ("memorized", "retain", "unlearned")}
    if name in found:
        if found[name].folder is None:
            raise BadInput(f"variant {name}: the base itself; there is nothing to hand over")
        return found[name]
    if name in {planned.name for planned in run.recipe.unlearn.variants}:
        raise BadInput(
            f"{run.unlearned(name)}: not there; run `knowundo unlearn --out {run.out}` first"
        )
    raise unknown("variant", name, found)


def _folder(variant: Variant) -> Path:
    assert variant.folder is not None  # only the base has none, and it is not handed over
    return variant.folder


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


def _form(variant: Variant, wanted: Form | None) -> Form:
    kind = adaptation_of(_folder(variant)).kind
    if wanted == "adapter" and kind == "full":
        raise BadInput(
            f"variant {variant.name}: all its weights were trained, so there is no adapter; say "
            "--format merged"
        )
    return wanted or ("adapter" if kind == "lora" else "merged")


def _bytes(run: Run, form: Form) -> int:
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


def _results(run: Run, variant: str) -> Results | None:
    """results.json, if it is there and speaks of this variant of this recipe and these records."""
    file = run.out / "results.json"
    if not file.is_file():
        return None
    results = read_results(file)
    keys = [key for key, *_ in differing_keys(results.recipe_effective, run.effective)]
    changed = [key for key in keys if not key.startswith("evaluate.")]
    same = not changed and results.data_sha256 == data_hash(run.records)
    return results if same and variant in {v.name for v in results.variants} else None


def _probes(run: Run) -> list[list[int]]:
    """Token ids of the texts that are compared."""
    rows = [row for scope in BOTH for row in run.encoded(scope, "train")[:ROWS]]
    texts = [list(run.model.tokenizer(text)["input_ids"]) for text in PLAIN]
    return [*(list(row.ids[:TOKENS]) for row in rows), *texts]


def _write(
    run: Run, variant: Variant, form: Form, aside: Path, probes: Sequence[list[int]], shard: str
) -> float:
    """Write the weights and compare them; the largest difference of a logit."""
    model = _taken(run, variant, form)
    before = _logits(model.net, probes)
    bound = _bound(model, before, probes, TOLERANCE[run.recipe.model.dtype])
    if form == "adapter":
        loaded = _write_adapter(model, aside)
    else:
        _write_merged(model, aside, shard)
        device = model.device
        del model  # one base in memory
        _free()
        loaded = _plainly_loaded(run, aside).to(device)
    after = _logits(loaded.eval(), probes)
    del loaded
    _free()
    return _compared(variant, before, after, bound)


def _taken(run: Run, variant: Variant, form: Form) -> Model:
    """The variant, out of the run's hands: writing it takes the model apart."""
    model = run.model
    del run.__dict__["model"]
    if form == "merged" and model.quantization is not None:
        run.reporter.say(
            f"{variant.name}: weights of 4 bits take no LoRA in; it is merged into the base as it "
            "is without them"
        )
        tokenizer = model.tokenizer.name_or_path
        del model
        _free()
        keys = ("device", "dtype", "trust_remote_code", "attention")
        options = {key: getattr(run.recipe.model, key) for key in keys}
        options["tokenizer"] = tokenizer
        model = Model(run.recipe.model.base, adaptation_of(_folder(variant)), **options)
    model.use(variant)
    model.net.eval()
    return model


def _plainly_loaded(run: Run, folder: Path) -> Any:
    """A folder as transformers alone loads it."""
    section = run.recipe.model
    options: dict[str, Any] = {"trust_remote_code": section.trust_remote_code}
    if section.attention is not None:
        options["attn_implementation"] = section.attention
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **options)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _logits(net: Any, probes: Sequence[list[int]]) -> list[torch.Tensor]:
    """Logits at every position of each probe, [tokens, vocabulary], float32, on the CPU."""
    with torch.no_grad():
        return [
            net(input_ids=torch.tensor([ids], device=net.device)).logits[0].float().cpu()
            for ids in probes
        ]


def _largest(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference of a logit; not a number where one of them is not."""
    return float(torch.stack([(a - b).abs().max() for a, b in zip(one, other, strict=True)]).max())


def _bound(
    model: Model, logits: list[torch.Tensor], probes: Sequence[list[int]], tolerance: float
) -> float:
    """How far a logit may move by rounding."""
    scale = max(float(row.abs().max()) for row in logits)
    if not isinstance(model.net, PeftModel):
        return tolerance * scale
    with model.net.disable_adapter():
        effect = _largest(logits, _logits(model.net, probes))
    return min(tolerance * scale, max(OF_EFFECT * effect, TOLERANCE["float32"] * scale))


def _compared(
    variant: Variant, before: list[torch.Tensor], after: list[torch.Tensor], bound: float
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


def _write_merged(model: Model, folder: Path, shard_size: str) -> None:
    """Write all weights, the LoRA merged into them, with config and tokenizer.

    peft adds its float32 product to a weight of bfloat16 in float32 and rounds the sum once; its
    `safe_merge` would round the product first.
    """
    net = model.net.merge_and_unload() if isinstance(model.net, PeftModel) else model.net
    net.save_pretrained(folder, max_shard_size=shard_size)
    model.tokenizer.save_pretrained(folder)


def _write_adapter(model: Model, folder: Path) -> Any:
    """Write a LoRA with its tokenizer, and load it on the same base as plain peft does."""
    save_state(model, folder)
    model.tokenizer.save_pretrained(folder)
    file = folder / "adapter_config.json"
    path = base_path(model.base)
    local = Path(path).is_dir()
    config = read_json(file) | {
        "base_model_name_or_path": str(Path(path).resolve()) if local else path,
        "revision": hub_commit(model.base),
        "target_modules": _target_modules(model.causal_lm()),
    }
    write_json(file, config)
    # Others are for peft, which reads them below, and not for vLLM.
    if not model.adaptation.extra and not any("lora_embedding" in n for n in model.parameters()):
        check_adapter(folder)
    return PeftModel.from_pretrained(model.net.unload(), folder)


def _target_modules(net: torch.nn.Module) -> list[str]:
    """Names by which peft finds the modules with a LoRA: their last part, or else all of it.

    peft takes every module whose name ends in a given one, so the last part does only where all
    modules of that name have a LoRA.
    """
    names = [name for name, _ in net.named_modules() if ".lora_" not in name]
    adapted = [name for name, module in net.named_modules() if hasattr(module, "lora_A")]
    last = {name.rpartition(".")[2] for name in adapted}
    # Beside a LoRA the plain module is called base_layer, so these are all of that name.
    found = [name for name in names if name.rpartition(".")[2] in last]
    return sorted(last) if sorted(found) == sorted(adapted) else sorted(adapted)


_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What vLLM's loader refuses, or does not look at and would compute without.
_PLAIN_LORA = (
    "modules_to_save", "use_dora", "use_rslora", "lora_bias", "rank_pattern", "alpha_pattern",
    "layer_replication", "target_parameters", "trainable_token_indices",
)  # fmt: skip


def check_adapter(folder: Path) -> None:
    """Check that a folder is a LoRA as vLLM's loader reads it (vllm/lora: peft_helper, lora_model).

    Tensors are `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r];
    the config holds r, lora_alpha and a list of target modules, and nothing beside a plain LoRA.

    Raises:
        KnowUndoError: names what is otherwise.
    """
    config = read_json(folder / "adapter_config.json")
    wrong = [key for key in _PLAIN_LORA if config.get(key)]
    wrong += ["bias"] if config.get("bias", "none") != "none" else []
    wrong += [key for key in ("r", "lora_alpha") if not isinstance(config.get(key), int)]
    targets = config.get("target_modules")
    if config.get("peft_type") != "LORA" or wrong or not isinstance(targets, list):
        named = wrong[0] if wrong else "peft_type or target_modules"
        raise KnowUndoError(f"{folder}: not a plain LoRA ({named} in adapter_config.json)")
    sides: dict[str, set[str]] = {}
    with safe_open(folder / ADAPTER, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise KnowUndoError(f"{folder}: no LoRA tensor is named {name}")
            module, side = match.groups()
            if tensors.get_slice(name).get_shape()[side == "B"] != config["r"]:
                raise KnowUndoError(f"{folder}: {name} is not of rank {config['r']}")
            if not {module, module.rpartition(".")[2]} & set(targets):
                raise KnowUndoError(f"{folder}: {module} is not among target_modules")
            sides.setdefault(module, set()).add(side)
    if not sides or any(len(found) < 2 for found in sides.values()):
        raise KnowUndoError(f"{folder}: a module lacks one of lora_A and lora_B")


def _push(folder: Path, repository: str) -> str:
    """Upload a folder to the hub; the repository's address.

    Raises:
        BadInput: no network, no token, or no right to write there; the folder stays.
    """
    api = HfApi()
    try:
        url = str(api.create_repo(repository, exist_ok=True, private=True))
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # the client's HTTP library, and so its errors, differ by version
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise BadInput(
            f"--push-to-hub {repository}: not uploaded ({reason}); {folder} is complete, upload it "
            "with `hf upload` once you are logged in"
        ) from None
    return url


class _Markdown(str):
    """Text of a card that is Markdown already; all other text is escaped."""


def _line(value: Any) -> str:
    """A value as one line that Markdown shows as it is, in a table too."""
    if isinstance(value, _Markdown):
        return value
    line = escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", line)


def _fenced(text: str, language: str) -> _Markdown:
    """A code block that no line of the text can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Markdown(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def render_card(
    run: Run,
    variant: Variant,
    form: Form,
    results: Results | None,
    largest: float,
    probes: int,
    repository: str | None = None,
) -> str:
    """The model card, in Markdown with the hub's YAML in front. It holds no record's text."""
    environment = Environment(
        loader=PackageLoader("knowundo", ""),
        undefined=StrictUndefined,
        finalize=_line,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = read_manifest(_folder(variant))
    counts: dict[str, int] = {}
    for record in run.records:
        key = f"{record.scope}/{record.split}"
        counts[key] = counts.get(key, 0) + 1
    recipe = yaml.safe_dump(_without_folders(run.effective), sort_keys=False, allow_unicode=True)
    return environment.get_template("model_card.md.j2").render(
        front=_Markdown(yaml.safe_dump(_front(run, form), sort_keys=False, allow_unicode=True)),
        name=run.recipe.name,
        variant=variant,
        base=_base_name(run),
        commit=hub_commit(run.recipe.model.base),
        form=form,
        quantization=run.recipe.model.quantization,
        code=_fenced(_code(run, form, repository), "python"),
        facts=_made(run, variant, manifest),
        scores=_scores(results, variant.name) if results else None,
        largest=f"{largest:.2g}",
        probes=probes,
        data=run.recipe.data,
        data_sha256=data_hash(run.records),
        commits=run.commits,
        counts=counts,
        recipe=_fenced(recipe, "yaml"),
        packages=manifest["packages"],
        hardware={key: value for key, value in manifest["hardware"].items() if value is not None},
        revision=manifest["revision"],
    )


def _base_name(run: Run) -> str:
    """The base as others know it: its name on the hub, or its folder's last name."""
    base = run.recipe.model.base
    return Path(base).resolve().name if base != "embedded" and Path(base).is_dir() else base


def _front(run: Run, form: Form) -> dict[str, Any]:
    """The hub's metadata. It takes a base by its name on the hub only, so a folder has none."""
    base = run.recipe.model.base
    on_hub = base != "embedded" and not Path(base).is_dir()
    return ({"base_model": base} if on_hub else {}) | {
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "knowundo"],
    }


def _without_folders(value: Any) -> Any:
    """A recipe with absolute paths cut to their last names: a card travels, they do not."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return f"…/{Path(value).name}"
    return value


def _code(run: Run, form: Form, repository: str | None) -> str:
    """How to load the model and ask it, with what the run put around a question."""
    section, data = run.recipe.model, run.recipe.data
    options = f'dtype="{section.dtype}"' + ", trust_remote_code=True" * section.trust_remote_code
    where = f"model_id = {_quoted(repository or 'path/to/this/folder')}"
    prefix = prefix_text(data.prefix, data.domain)
    question = _quoted(prefix + "Your question?")
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    if form == "merged":
        load = [f"model = AutoModelForCausalLM.from_pretrained(model_id, {options})"]
    else:
        imports.insert(0, "from peft import PeftModel")
        base = f"base_id = {_quoted(section.base)}"
        if section.base == "embedded":
            imports.insert(0, "from importlib.resources import files\n")
            base = 'base_id = str(files("knowundo") / "embedded")'
        elif Path(section.base).is_dir():
            base = f"base_id = {_quoted('path/to/' + _base_name(run))}"
        load = [
            base,
            f"base = AutoModelForCausalLM.from_pretrained(base_id, {options})",
            "model = PeftModel.from_pretrained(base, model_id)",
        ]
    ask = [f"prompt = {question} + {_quoted(SEPARATOR)}"]
    tokenized = 'tokenizer(prompt, return_tensors="pt")'
    if data.encoding == "chat":
        turns = f'[{{"role": "user", "content": {question}}}]'
        ask = [
            f"turns = {turns}",
            "prompt = tokenizer.apply_chat_template(",
            "    turns, tokenize=False, add_generation_prompt=True",
            ")",
        ]
        tokenized = 'tokenizer(prompt, return_tensors="pt", add_special_tokens=False)'
    ask += [
        f"inputs = {tokenized}",
        "output = model.generate(**inputs, max_new_tokens=64, do_sample=False)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]))',
    ]
    tokenizer = "tokenizer = AutoTokenizer.from_pretrained(model_id)"
    return "\n".join([*imports, "", where, *load, tokenizer, "", *ask])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _made(run: Run, variant: Variant, manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    """How the variant was trained, from its manifest."""
    if variant.role == "unlearned":
        arguments = manifest.get("arguments") or {}
        facts = {
            "method": manifest["method"],
            "its arguments": ", ".join(f"{k} = {_without_folders(v)}" for k, v in arguments.items())
            or "none",
            "region": _without_folders(manifest["region"]),
            "parameters in the region": f"{manifest['parameters']:,}",
            "retained on": manifest.get("retain_on"),
            "peak learning rate": manifest["lr"],
            "passes": manifest.get("epochs"),
            "optimizer steps": manifest["optimizer_steps"],
        }
    elif "adopted" in manifest:
        facts = {"adopted": _without_folders(manifest["adopted"])}
    else:
        facts = {
            "peak learning rate": run.recipe.memorize.lr,
            "optimizer steps": manifest["optimizer_steps"],
            "rows known at the end": f"{manifest['known_share']:.1%}",
        }
    return [(name, value) for name, value in facts.items() if value is not None]


def _scores(results: Results, variant: str) -> dict[str, Any]:
    """The main table, turned: a line for each measure; before, after, and the target."""
    titles = {"memorized": "before: memorized", variant: f"this model: {variant}"}
    titles["retain"] = "target: retain" if variant != "retain" else "this model: retain"
    there = {v.name for v in results.variants}
    models = [name for name in titles if name in there]
    lines = []
    for column in COLUMNS:
        place = column.metric, column.scope, column.split, column.subset
        cells = [cell(results.find(model, *place)) for model in models]
        lines.append((column, [_shown(one) for one in cells]))
    return {"titles": [titles[name] for name in models], "lines": lines}


def _shown(one: Cell) -> str:
    return f"{one.value} ({one.interval})" if one.interval else one.value
