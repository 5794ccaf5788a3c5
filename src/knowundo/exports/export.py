"""export(): one model of a run as a folder that plain peft or transformers loads.

adapter: peft's LoRA layout, which vLLM's loader reads too; the base is named, not copied.
merged:  the LoRA added to the base's weights, or all weights where they were trained, in shards.

Before the folder gets its name, those libraries load what was written, and its logits are compared
with those of the run's own model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError

from knowundo.data.records import data_hash
from knowundo.errors import BadInput, first_line, unknown
from knowundo.exports.adapters import write_adapter
from knowundo.exports.merging import (
    TOLERANCE,
    compare_merged,
    error_bound,
    free_memory,
    load_with_transformers,
    merged_bytes,
    need_room,
    probe_logits,
    probe_rows,
    refuse_merge,
    take_variant,
    write_merged,
)
from knowundo.exports.model_card import Form, made_folder, render_card, variant_folder
from knowundo.modeling.adapters import adaptation_of
from knowundo.modeling.guard_files import ASSISTANT, copy_guard
from knowundo.modeling.variant import ModelVariant
from knowundo.recipes.reading import differing_keys
from knowundo.results import Results, read_results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import MANIFEST, new_folder, read_manifest
from knowundo.storage.environment import surroundings
from knowundo.storage.files import read_json, write_text
from knowundo.storage.integrity import seal
from knowundo.storage.locks import alone


class Exported(NamedTuple):
    """What was exported."""

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
        form: `adapter` or `merged`. If `None`, adapter for a LoRA, and merged for all weights.
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
    form = _form(run, chosen, form)
    refuse_merge(run.model, form)
    need_room(target, merged_bytes(run, form), f"--to {to}")
    results = _results(run, variant)
    probes = probe_rows(run)
    facts = {"exported": {"variant": variant, "form": form}, **surroundings()}
    inputs = [read_manifest(made_folder(chosen))["outputs"], form, shard_size]
    try:
        with new_folder(target, inputs, **facts) as aside:
            largest = _write(run, replace(chosen, guard=None), form, aside, probes, shard_size)
            if chosen.guard is not None:
                copy_guard(chosen.guard, aside)
            card = render_card(run, chosen, form, results, largest, len(probes), push_to_hub)
            write_text(aside / "README.md", card)
            if beside is not None:
                beside(aside)
    except (OSError, SafetensorError) as error:
        reason = first_line(error)
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
            reason = first_line(error)
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


def _chosen(run: Run, name: str) -> ModelVariant:
    """The variant of that name, made of what the run holds now."""
    run.check_current()
    found = {v.name: v for v in run.variants() if v.role in ("memorized", "retain", "unlearned")}
    if name in found:
        if found[name].folder is None:
            what = "this is" if found[name].guard is None else "a guard before"
            raise BadInput(
                f"variant {name}: {what} the base itself, so there are no weights to export; name "
                "a trained model"
            )
        return found[name]
    if name in {planned.name for planned in run.recipe.unlearn.variants}:
        raise BadInput(
            f"{run.unlearned(name)}: not there; run `knowundo unlearn --out {run.out}` first"
        )
    raise unknown("variant", name, found)


def _form(run: Run, variant: ModelVariant, wanted: Form | None) -> Form:
    if (merge := run.recipe.model.merge) is not None:
        if wanted == "adapter":
            raise BadInput(
                f"variant {variant.name}: {merge} was merged into its base, so that an adapter "
                "would not fit the base alone; say --format merged"
            )
        _refuse_assistant(variant)
        return "merged"
    if wanted == "merged":
        _refuse_assistant(variant)
    kind = adaptation_of(variant_folder(variant)).kind
    if wanted == "adapter" and kind == "full":
        raise BadInput(
            f"variant {variant.name}: all its weights were trained, so there is no adapter; say "
            "--format merged"
        )
    return wanted or ("adapter" if kind == "lora" else "merged")


def _refuse_assistant(variant: ModelVariant) -> None:
    """Refuse merged weights behind a guard whose assistant is a LoRA beside the base itself."""
    if variant.guard is not None and (variant.guard / ASSISTANT).is_dir():
        raise BadInput(
            f"variant {variant.name}: the guard's assistant is a LoRA beside the base, and merged "
            "weights are no longer that base; say --format adapter"
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


def _write(
    run: Run,
    variant: ModelVariant,
    form: Form,
    aside: Path,
    probes: Sequence[list[int]],
    shard: str,
) -> float:
    """Write the weights and compare them; the largest difference of a logit."""
    model = take_variant(run, variant, form)
    before = probe_logits(model.net, probes)
    bound = error_bound(model, before, probes, TOLERANCE[run.recipe.model.dtype])
    if form == "adapter":
        loaded = write_adapter(model, aside)
    else:
        write_merged(model, aside, shard)
        device = model.device
        del model  # one base in memory
        free_memory()
        loaded = load_with_transformers(run, aside).to(device)
    after = probe_logits(loaded.eval(), probes)
    del loaded
    free_memory()
    return compare_merged(variant, before, after, bound)


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
        reason = first_line(error)
        raise BadInput(
            f"--push-to-hub {repository}: not uploaded ({reason}); {folder} is complete, upload it "
            "with `hf upload` once you are logged in"
        ) from None
    return url
