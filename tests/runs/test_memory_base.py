"""A run of a model in memory: the same bits as from its folder, and its own inputs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.unlearning import unlearn
from knowundo.runs.memory_base import MemoryBase
from knowundo.runs.run import Run
from tiny_run import tiny_run


def loaded(folder: str) -> dict[str, object]:
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {"model": net, "tokenizer": AutoTokenizer.from_pretrained(folder)}


def unlearned(run: Run) -> dict[str, bytes]:
    memorize(run)
    localize(run)
    assert not unlearn(run)
    files = [run.memorized / "adapter_model.safetensors", run.regions / "memflex.json"]
    files += sorted(run.unlearned("gradient_ascent").glob("adapter_*"))
    assert len(files) == 4
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


def test_a_loaded_model_gives_the_same_bits_as_its_folder(toy_base: str, tmp_path: Path) -> None:
    there = unlearned(tiny_run(tmp_path / "folder", toy_base))
    run = tiny_run(tmp_path / "loaded", None, **loaded(toy_base))
    assert run.recipe.model.base == toy_base
    assert unlearned(run) == there


def test_a_run_takes_the_model_that_was_opened_of_it(toy_base: str, tmp_path: Path) -> None:
    given = loaded(toy_base)
    base = MemoryBase(given["model"], given["tokenizer"])  # type: ignore[arg-type]
    recipe = tiny_run(tmp_path / "first", None, model=base).recipe
    opened = base.open(recipe, Adaptation("lora", 2, 4))
    assert tiny_run(tmp_path / "second", None, model=base).model is opened


def test_its_work_is_taken_up_by_the_same_model_only(toy_base: str, tmp_path: Path) -> None:
    first = tiny_run(tmp_path, None, **loaded(toy_base))
    memorize(first)
    inputs = first.memorize_inputs(("unlearn", "retention"))
    again = tiny_run(tmp_path, None, **loaded(toy_base))
    assert again.done(again.memorized, inputs)
    assert again.memorize_inputs(("unlearn", "retention")) == inputs
    other = loaded(toy_base)
    with torch.no_grad():
        next(iter(other["model"].parameters()))[0] += 1  # type: ignore[attr-defined]
    changed = tiny_run(tmp_path, None, **other)
    assert not changed.done(changed.memorized, changed.memorize_inputs(("unlearn", "retention")))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_it_is_opened_again_as_it_was_given(toy_base: str, tmp_path: Path, kind: str) -> None:
    run = tiny_run(tmp_path, None, "model.adaptation=full", **loaded(toy_base))
    model = run.model
    model.copy_initial(model.parameters())
    with torch.no_grad():
        for parameter in model.parameters().values():
            parameter += 1
    run.release_model()
    again = run.base.open(run.recipe, Adaptation(kind, 2, 4))  # type: ignore[arg-type]
    fresh = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32).state_dict()
    own = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in again.net.state_dict().items()
        if "lora_" not in name
    }
    assert own.keys() == fresh.keys()
    assert all(torch.equal(own[name], value) for name, value in fresh.items())


def test_what_cannot_be_taken(toy_base: str, tmp_path: Path) -> None:
    given = loaded(toy_base)
    with pytest.raises(BadInput, match="needs its tokenizer"):
        tiny_run(tmp_path, None, model=given["model"])
    net = given["model"]
    assert isinstance(net, PreTrainedModel)
    wrapped = get_peft_model(deepcopy(net), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(BadInput, match="model: has an adapter already; hand in its base"):
        tiny_run(tmp_path, None, model=wrapped, tokenizer=given["tokenizer"])
    offloaded = deepcopy(net).to("meta")
    with pytest.raises(BadInput, match="some of its weights are offloaded and not in memory"):
        tiny_run(tmp_path, None, model=offloaded, tokenizer=given["tokenizer"])
    with pytest.raises(BadInput, match=r"its weights are float16; call \.to\(torch\.bfloat16\)"):
        MemoryBase(net.half(), given["tokenizer"])  # type: ignore[arg-type]
