"""Adapters as plain peft and vLLM load them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from exports.runs import TEMPLATE, answers, own_answers, prompts, tiny
from knowundo.errors import KnowUndoError
from knowundo.exports.adapters import check_adapter
from knowundo.exports.export import export
from knowundo.pipeline.memorization import memorize
from knowundo.runs.run import Run
from knowundo.storage.files import read_json, write_json


def test_adapter_is_loaded_by_plain_peft(done: Run, adapter: Path) -> None:
    config = read_json(adapter / "adapter_config.json")
    named = config["base_model_name_or_path"]
    assert named == done.recipe.model.base
    assert Path(named).is_absolute()
    plain = AutoModelForCausalLM.from_pretrained(named, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(plain, adapter).eval()
    assert answers(loaded, prompts(done)) == own_answers(done, "m")
    assert AutoTokenizer.from_pretrained(adapter).chat_template == TEMPLATE


def test_adapter_of_the_embedded_base_finds_it(tmp_path: Path) -> None:
    run = tiny("embedded", tmp_path / "run", "memorize.general=false")
    memorize(run)
    export(run, "memorized", tmp_path / "adapter")
    named = read_json(tmp_path / "adapter" / "adapter_config.json")["base_model_name_or_path"]
    assert (Path(named) / "model.safetensors").is_file()
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert 'files("knowundo") / "embedded"' in card
    assert named not in card
    assert "treat it as you" in card


def test_adapter_is_as_vllm_reads_it(done: Run, adapter: Path) -> None:
    check_adapter(adapter)
    config = read_json(adapter / "adapter_config.json")
    assert config["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    assert (config["r"], config["lora_alpha"], config["bias"]) == (32, 64, "none")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    assert tensors[name].shape == (24, 32)
    assert len(tensors) == 2 * 2 * 7


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_dora": True}, "not a plain LoRA .use_dora"),
        ({"bias": "all"}, "not a plain LoRA .bias"),
        ({"r": 4}, "is not of rank 4"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "is not among target_modules"),
    ],
)
def test_other_configs_are_noticed(
    adapter: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    copy = shutil.copytree(adapter, tmp_path / "copy")
    write_json(copy / "adapter_config.json", read_json(copy / "adapter_config.json") | changed)
    with pytest.raises(KnowUndoError, match=said):
        check_adapter(copy)


def test_other_tensors_are_noticed(adapter: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapter, tmp_path / "copy")
    file = copy / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if not k.endswith("q_proj.lora_B.weight")}, file)
    with pytest.raises(KnowUndoError, match="lacks one of lora_A and lora_B"):
        check_adapter(copy)
    save_file(tensors | {"base_model.model.lm_head.weight": torch.ones(1)}, file)
    with pytest.raises(KnowUndoError, match=r"no LoRA tensor is named .*lm_head"):
        check_adapter(copy)


def test_some_modules_of_a_name_are_named_in_full(base: str, done: Run, tmp_path: Path) -> None:
    """An adapter on one layer stays on one layer."""
    config = read_json(done.memorized / "adapter_config.json")
    modules = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    given = tmp_path / "given"
    given.mkdir()
    write_json(given / "adapter_config.json", config | {"target_modules": modules})
    tensors = load_file(done.memorized / "adapter_model.safetensors")
    kept = {k: v for k, v in tensors.items() if any(f".{m}." in k for m in modules)}
    save_file(kept, given / "adapter_model.safetensors")
    run = tiny(base, tmp_path / "run", f"memorize.adopt={given}")
    memorize(run)
    export(run, "memorized", tmp_path / "adapter")
    assert read_json(tmp_path / "adapter" / "adapter_config.json")["target_modules"] == modules
    assert set(load_file(tmp_path / "adapter" / "adapter_model.safetensors")) == set(kept)
