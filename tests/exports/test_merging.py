"""Merged models say what the run's own model says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from exports.runs import adopting, answers, own_answers, prompts, tiny
from knowundo.errors import BadInput, KnowUndoError
from knowundo.exports.export import export
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.memorization import memorize
from knowundo.runs.run import Run
from tiny_run import tiny_run

ELSEWHERE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, asked = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder).eval()
options = {"max_new_tokens": 12, "do_sample": False}
said = [model.generate(input_ids=torch.tensor([i]), **options)[0].tolist() for i in asked]
turns = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
print(json.dumps({"said": said, "turns": turns, "dtype": str(model.dtype)}))
assert "knowundo" not in sys.modules
"""


def test_merged_says_the_same_in_another_process(done: Run, tmp_path: Path) -> None:
    wanted = own_answers(done, "m")
    handed = export(done, "m", tmp_path / "merged", form="merged")
    assert 0 < handed.largest_difference < 1e-4
    assert handed.probes == 9
    words = [sys.executable, "-c", ELSEWHERE, str(handed.folder), json.dumps(prompts(done))]
    other = subprocess.run(words, capture_output=True, text=True)
    assert other.returncode == 0, other.stderr
    found = json.loads(other.stdout)
    assert found == {"said": wanted, "turns": "user: Hello\n", "dtype": "torch.float32"}
    assert wanted != own_answers(done, "memorized")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors"):
        assert name in handed.files


def test_all_weights_come_in_shards(full: Run, tmp_path: Path) -> None:
    handed = export(full, "memorized", tmp_path / "merged", shard_size="100KB")
    assert handed.form == "merged"
    assert handed.largest_difference == 0
    shards = [name for name in handed.files if re.fullmatch(r"model-0.*\.safetensors", name)]
    assert len(shards) == 2
    assert "model.safetensors.index.json" in handed.files
    loaded = AutoModelForCausalLM.from_pretrained(handed.folder).eval()
    assert answers(loaded, prompts(full)) == own_answers(full, "memorized")


def test_all_weights_are_no_adapter(full: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no adapter; say --format merged"):
        export(full, "memorized", tmp_path / "adapter", form="adapter")
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_rounded_once(done: Run, tmp_path: Path) -> None:
    run = adopting(done, tmp_path / "run", "model.dtype=bfloat16")
    lora = load_file(run.memorized / "adapter_model.safetensors")
    before = load_file(Path(done.recipe.model.base) / "model.safetensors")
    handed = export(run, "memorized", tmp_path / "merged", form="merged")
    after = load_file(handed.folder / "model.safetensors")
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    name = "model.layers.1.mlp.down_proj"
    first, second = (lora[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    weight = before[f"{name}.weight"].bfloat16().float() + 2 * (second @ first)
    assert torch.equal(after[f"{name}.weight"], weight.bfloat16())
    assert handed.largest_difference > 0


def test_a_lora_that_rounding_swallows_is_refused(done: Run, tmp_path: Path) -> None:
    """Beside weights of bfloat16 it says something, inside them nothing."""
    given = shutil.copytree(done.memorized, tmp_path / "given")
    file = given / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({k: v * (0.003 if "lora_B" in k else 1) for k, v in tensors.items()}, file)
    sets = (f"memorize.adopt={given}", "model.dtype=bfloat16")
    run = tiny(done.recipe.model.base, tmp_path / "run", *sets)
    memorize(run)
    with pytest.raises(KnowUndoError, match="logits differ from the run's"):
        export(run, "memorized", tmp_path / "x", form="merged")
    # Beside weights of bfloat16 the run casts A and B, and peft casts x: the same to rounding.
    assert export(run, "memorized", tmp_path / "x").largest_difference < 0.03


def test_four_bits_are_merged_without_them(done: Run, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = adopting(done, tmp_path / "run", "model.quantization=nf4")
    handed = export(run, "memorized", tmp_path / "merged", form="merged")
    plain = export(done, "memorized", tmp_path / "plain", form="merged")
    one, other = (load_file(e.folder / "model.safetensors") for e in (handed, plain))
    assert all(torch.equal(one[name], other[name]) for name in other)
    card = " ".join((handed.folder / "README.md").read_text().split())
    assert "it is merged into the base without them" in card
    beside = export(run, "memorized", tmp_path / "adapter")
    assert beside.form == "adapter"
    assert beside.largest_difference == 0


@pytest.mark.parametrize(
    ("form", "owner", "wrong"), [("merged", "merge_and_unload", "unload"), ("adapter", "", "")]
)
def test_a_model_that_says_something_else_is_not_left(
    done: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Any,
    owner: str,
    wrong: str,
) -> None:
    """The LoRA forgotten; and an adapter with one number changed."""
    if form == "merged":
        net = type(done.model.net.base_model)
        monkeypatch.setattr(net, owner, getattr(net, wrong))
    else:
        save = save_file

        def damaged(tensors: dict[str, torch.Tensor], path: Any, **rest: Any) -> None:
            name = next(name for name in tensors if "layers.1.mlp.down_proj.lora_B" in name)
            save(tensors | {name: tensors[name] + 1}, path, **rest)

        monkeypatch.setattr("knowundo.modeling.weights.save_file", damaged)
    with pytest.raises(KnowUndoError, match="logits differ from the run's by") as error:
        export(done, "m", tmp_path / "x", form=form)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert own_answers(done, "m")  # the run takes its model from the disk again


def test_a_loaded_base_is_merged_in_a_copy(toy_base: str, tmp_path: Path) -> None:
    """The run goes on with the base and the LoRA as they are, after either form."""
    net = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    run = tiny_run(tmp_path / "run", None, "memorize.epochs=2", model=net, tokenizer=tokenizer)
    memorize(run)
    state = run.model.state()
    for form in ("merged", "adapter", "merged"):
        exported = export(run, "memorized", tmp_path / form, form=form)  # type: ignore[arg-type]
        assert exported.largest_difference < 1e-3
        run.model.use(ModelVariant("memorized", "memorized", run.memorized))
        assert all(value.equal(state[name]) for name, value in run.model.state().items())
        named = run.model.causal_lm().named_parameters()
        base = {n.replace(".base_layer", ""): value for n, value in named if "lora_" not in n}
        assert all(base[name].equal(before[name]) for name in base)
