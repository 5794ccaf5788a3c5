"""`erase` on loaded objects: the embedded base forgets facts of its own pretraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from knowundo import erase
from knowundo.data.benchmarks.embedded import general_records
from knowundo.data.records import Record
from knowundo.modeling.base import base_path
from knowundo.progress import Reporter
from tiny_run import Said

# A rate, so that none is searched for, and fewer steps.
QUICK = ("unlearn.lr=4e-3", "unlearn.epochs=50")
FACTS = [r for r in general_records(0) if r.subset == "facts" and r.question.endswith("?")]


@pytest.fixture(autouse=True)
def few_made_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("OTHERS", "THINGS", "TEXTS"):
        monkeypatch.setattr(f"knowundo.erasure.generated_rows.{kind}", 60)


@pytest.fixture
def net() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base_path("embedded"), dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(base_path("embedded"))


def answers(net: Any, tokenizer: Any, records: list[Record]) -> list[str]:
    """By plain transformers."""
    found = []
    for record in records:
        prompt = tokenizer(record.question + "\n\n", return_tensors="pt")
        ids = net.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
        found.append(
            tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        )
    return found


def weights(net: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def unchanged(net: Any, before: dict[str, torch.Tensor]) -> bool:
    after = net.state_dict()
    return before.keys() == after.keys() and all(before[n].equal(after[n]) for n in before)


def test_questions_alone_are_erased_from_a_loaded_model(
    net: PreTrainedModel, tokenizer: Any, tmp_path: Path
) -> None:
    listed, others = FACTS[:4], FACTS[4:12]
    before, asked, said = weights(net), answers(net, tokenizer, FACTS[:12]), Said()
    assert asked == [record.answer for record in FACTS[:12]]
    done = erase(
        net, tokenizer, [r.question for r in listed], out=tmp_path / "out", sets=QUICK,
        reporter=said,
    )  # fmt: skip
    assert done.erased, done.verdict
    assert done.verdict.startswith("erased: 0.0 %")
    assert done.report.is_file()
    assert unchanged(net, before)
    assert [p.requires_grad for p in net.parameters()] == [True] * len(list(net.parameters()))
    assert answers(net, tokenizer, FACTS[:12]) == asked
    assert isinstance(done.model, PeftModel)
    assert not done.model.training
    after = answers(done.model, done.tokenizer, FACTS[:12])
    assert not set(after[:4]) & set(asked[:4])
    assert sum(a == b for a, b in zip(after[4:], asked[4:], strict=True)) >= len(others) // 2
    # Merging the result writes into weights of its own.
    done.model.merge_and_unload()
    assert unchanged(net, before)
    lines = (tmp_path / "out" / "lists" / "unlearn.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    trained = [row for row in rows if row["split"] == "train"]
    assert [row["answer"] for row in trained] == asked[:4]
    assert all(row["generated"] for row in trained)
    assert f"unlearn/train/0: {listed[0].question} → {asked[0]}" in said.lines


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"route": "full"}, {"form": "merged"}, {"copy": False}])
def test_every_form_of_the_result_says_what_the_run_measured(
    net: PreTrainedModel, tokenizer: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    before = weights(net)
    rows = [(r.question, r.answer) for r in FACTS[:4]]
    rates = (f"unlearn.lr={8e-4 if 'route' in options else 4e-3}", "unlearn.epochs=50")
    done = erase(
        net, tokenizer, rows, out=tmp_path, sets=rates, reporter=Reporter(), **options
    )  # fmt: skip
    assert done.erased, done.verdict
    assert isinstance(done.model, PeftModel) == ("copy" in options)
    assert unchanged(net, before)
    after = answers(done.model, tokenizer, FACTS[:4])
    assert not set(after) & {r.answer for r in FACTS[:4]}
    row = done.results.find("erased", "exact_match", "unlearn", "train", None)
    assert row is not None
    assert row.value == 0


@pytest.mark.slow
def test_the_adapter_of_a_peft_model_is_what_knows_the_list(
    net: PreTrainedModel, tokenizer: Any, tmp_path: Path
) -> None:
    """Here it has no effect yet; it is trained, and its shape stays."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    wrapped = get_peft_model(net, config)
    before = weights(wrapped)
    rows = [{"question": r.question, "answer": r.answer} for r in FACTS[:4]]
    again = {"out": tmp_path / "out", "sets": ("unlearn.lr=1e-2", "unlearn.epochs=50")}
    done = erase(wrapped, tokenizer, rows, reporter=Reporter(), **again)  # type: ignore[arg-type]
    assert unchanged(wrapped, before)
    assert isinstance(done.model, PeftModel), done.verdict
    assert done.model.peft_config["default"].r == 4
    after = answers(done.model, tokenizer, FACTS[:4])
    assert not set(after) & {r.answer for r in FACTS[:4]}
    said = Said()
    assert erase(wrapped, tokenizer, rows, reporter=said, **again).verdict == done.verdict  # type: ignore[arg-type]
    assert any(line.startswith("lists: already there") for line in said.lines)
