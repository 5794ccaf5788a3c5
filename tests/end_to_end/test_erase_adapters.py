"""Erasure requests on adapters as people have them, from a small model that knows four people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from knowundo.erasure.erase import run_request
from knowundo.erasure.request import ErasureRequest
from knowundo.errors import BadInput
from knowundo.modeling.adapters import adaptation_of
from knowundo.pipeline.memorization import memorize
from knowundo.recipes.reading import load_recipe, parse_recipe
from knowundo.runs.run import Run

QUICK = ("unlearn.lr=4e-3", "unlearn.epochs=40", "evaluate.resamples=50")
KINDS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "rank_pattern": {"rank_pattern": {"q_proj": 5}},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "trainable tokens": {"trainable_token_indices": [5, 6]},
}
MERGED = ("modules_to_save", "trainable tokens")


@pytest.fixture(scope="module")
def memorized(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model that knows four people, and a file of the private rows of one."""
    out = tmp_path_factory.mktemp("known")
    keys = ["data.subjects=4", "model.adaptation=full", "memorize.retain_model=false"]
    recipe, given = load_recipe("demo", [*keys, "memorize.epochs=40"])
    run = Run(recipe, out / "run", given=given)
    memorize(run)
    listed = [r for r in run.records if r.scope == "unlearn" and r.split in ("train", "val")]
    rows = [r for r in listed if r.subject == listed[0].subject]
    lines = (json.dumps({"question": r.question, "answer": r.answer}) + "\n" for r in rows)
    (out / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(run.memorized), out / "rows.jsonl"


def write_adapter(base: str, folder: Path, fields: dict[str, Any]) -> Path:
    """An adapter that changes a model so little that it still knows everything."""
    net = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **fields)
    made = get_peft_model(net, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(2e-3 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_list_is_erased_from_an_adapter(
    name: str, memorized: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("OTHERS", "THINGS", "TEXTS"):
        monkeypatch.setattr(f"knowundo.erasure.generated_rows.{kind}", 12)
    base, rows = memorized
    adapter = write_adapter(base, tmp_path / "adapter", KINDS[name])
    done = run_request(
        ErasureRequest(base, rows, tmp_path / "request", adapter=adapter, sets=QUICK)
    )
    assert done.exported is not None, done.verdict
    folder = done.exported.folder
    assert done.exported.form == ("merged" if name in MERGED else "adapter")
    if name in MERGED:
        net: Any = AutoModelForCausalLM.from_pretrained(folder)
        assert done.run.effective["model"]["merge"] == str(adapter)
    else:
        assert adaptation_of(folder).fields == adaptation_of(adapter).fields
        known = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        net = PeftModel.from_pretrained(known, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = json.loads(rows.read_text(encoding="utf-8").splitlines()[0])
    prompt = tokenizer(row["question"] + "\n\n", return_tensors="pt")
    ids = net.generate(**prompt, max_new_tokens=30, do_sample=False)[0]
    assert row["answer"] not in tokenizer.decode(ids, skip_special_tokens=True)


def test_a_run_that_takes_over_such_an_adapter_merges_it(toy_base: str, tmp_path: Path) -> None:
    adapter = write_adapter(toy_base, tmp_path / "adapter", {"modules_to_save": ["lm_head"]})
    given = {
        "model": {"base": toy_base},
        "memorize": {"adopt": str(adapter), "retain_model": False},
    }
    run = Run(parse_recipe(given, "given"), tmp_path / "run", given=given)
    section = run.recipe.model
    assert (section.merge, section.adaptation) == (str(adapter), "lora")
    assert run.recipe.memorize.adopt == toy_base
    assert run.start.folder is None  # the merged base itself knows the records
    right = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(toy_base), adapter)
    ids = torch.tensor([[5, 17, 90, 33]])
    with torch.no_grad():
        torch.testing.assert_close(run.model.net(input_ids=ids).logits, right(ids).logits)
    run.claim()
    before = run.base.identity()
    write_adapter(toy_base, adapter, {"modules_to_save": ["embed_tokens"]})
    assert Run.existing(run.out).base.identity() != before  # another adapter is another base
    with pytest.raises(BadInput, match=r"model\.merge names another adapter"):
        Run(parse_recipe({**given, "model": {"base": toy_base, "merge": "b"}}, "x"), tmp_path / "2")
