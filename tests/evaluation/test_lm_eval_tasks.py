"""General tasks through lm-evaluation-harness, on invented questions and on the real files."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets.config
import numpy as np
import pytest
import torch
import transformers
import yaml

from conftest import randomize
from knowundo.errors import BadInput
from knowundo.evaluation.lm_eval_tasks import TaskSettings, check_tasks, task_rows
from knowundo.modeling.model import Model
from knowundo.progress import Progress
from knowundo.results import Row

pytest.importorskip("lm_eval")

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lm_eval_tasks"
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task files, with the places of their data filled in."""
    place = tmp_path_factory.mktemp("tasks")
    for file in FIXTURES.glob("*.yaml"):
        text = file.read_text().replace("FIXTURES", str(FIXTURES)).replace("DATA", str(DATA))
        (place / file.name).write_text(text)
    return place


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets are converted into a folder of this run; `datasets` reads the variable once."""
    cache = tmp_path_factory.getbasetemp() / "datasets"
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


@pytest.fixture(scope="module")
def embedded() -> Model:
    return Model("embedded")


def ask(
    model: Model,
    folder: Path,
    *tasks: str,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    **rest: Any,
) -> dict[tuple[str, str], Row]:
    settings = TaskSettings(tasks, folder, **rest)
    rows = task_rows(model, "base", settings, progress=progress, say=say)
    found = {(row.metric, str(row.subset)): row for row in rows}
    assert len(found) == len(rows)
    json.dumps([row.model_dump() for row in rows], allow_nan=False)
    return found


def log_prob(model: Model, prompt: str, answer: str) -> float:
    """log p(answer | prompt) of one unpadded row, from the raw logits."""
    ids, start = model.tokenizer.encode(prompt + answer), len(model.tokenizer.encode(prompt))
    logits = model.net(input_ids=torch.tensor([ids])).logits[0]
    return float(logits.log_softmax(-1)[range(start - 1, len(ids) - 1), ids[start:]].sum())


def questions(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FIXTURES / name).read_text().splitlines()]


def naive_hits(model: Model, name: str) -> tuple[list[int], list[int]]:
    """Right answers, by likelihood and by likelihood per character."""
    plain, normed = [], []
    for row in questions(name):
        prompt = f"Question: {row['question']}\nAnswer:"
        sums = [log_prob(model, prompt, f" {choice}") for choice in row["choices"]]
        per = [s / len(c) for s, c in zip(sums, row["choices"], strict=True)]
        plain.append(int(sums.index(max(sums)) == row["answer"]))
        normed.append(int(per.index(max(per)) == row["answer"]))
    return plain, normed


@torch.no_grad()
def test_accuracies_equal_those_of_the_raw_logits(toy: Model, folder: Path) -> None:
    different = set()
    for seed in (0, 3):
        randomize(toy, seed)
        rows = ask(toy, folder, "mini_towns", batch_size=4)
        for metric, hits in zip(("acc", "acc_norm"), naive_hits(toy, "towns.jsonl"), strict=True):
            row = rows["mini_towns", metric]
            share = sum(hits) / 6
            stderr = 100 * math.sqrt(share * (1 - share) / 5)
            assert row.value == pytest.approx(100 * share)
            assert row.stderr == pytest.approx(stderr)
            assert row.low == pytest.approx(100 * share - 1.96 * stderr)
            assert row.high == pytest.approx(100 * share + 1.96 * stderr)
            assert (row.scope, row.split, row.records, row.subjects) == ("general", None, 6, 6)
            assert (row.variant, row.task_version) == ("base", "1.5")
            different.add((metric, row.value))
    assert len(different) > 2  # neither metric nor weights are blind


@torch.no_grad()
def test_text_likelihood_is_exact_and_not_in_percent(toy: Model, folder: Path) -> None:
    texts = [str(row["question"]) for row in questions("towns.jsonl")]
    total = sum(log_prob(toy, toy.tokenizer.eos_token, text) for text in texts)
    row = ask(toy, folder, "mini_text")["mini_text", "word_perplexity"]
    assert row.value == pytest.approx(math.exp(-total / sum(len(t.split()) for t in texts)))
    assert (row.stderr, row.low, row.high, row.task_version) == (None, None, None, None)


def test_a_group_is_the_mean_over_its_questions(toy: Model, folder: Path) -> None:
    rows = ask(toy, folder, "mini")
    parts = [rows[task, "acc"] for task in ("mini_towns", "mini_trades")]
    assert [row.records for row in parts] == [6, 4]
    whole = rows["mini", "acc"]
    assert whole.value == pytest.approx(sum(row.value * row.records for row in parts) / 10)
    assert (whole.records, whole.task_version, whole.stderr is None) == (10, "3", False)
    assert [row.task_version for row in parts] == ["1.5", "2"]


def test_a_swapped_adapter_is_what_answers(
    toy: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **rest: object) -> None:
        raise AssertionError("loaded again")

    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", never)
    tensors = {name: id(p) for name, p in toy.net.named_parameters()}
    key = ("mini_text", "word_perplexity")
    first = ask(toy, folder, "mini_text")[key]
    randomize(toy, 5)
    assert ask(toy, folder, "mini_text")[key].value != first.value
    toy.restore(toy.initial.tensors)
    assert ask(toy, folder, "mini_text")[key] == first
    assert tensors == {name: id(p) for name, p in toy.net.named_parameters()}


def test_the_same_seed_gives_the_same_rows(toy: Model, folder: Path) -> None:
    asked = [ask(toy, folder, "mini_trades", "mini_said", seed=seed) for seed in (1, 1)]
    assert asked[0] == asked[1]
    said = asked[0]["mini_said", "exact_match"]
    assert (said.records, said.task_version) == (4, "1")


def test_nothing_else_is_changed(
    toy: Model, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.tokenizer.padding_side = "right"
    toy.tokenizer.pad_token = None
    toy.net.train()
    before = toy.state()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    ask(toy, folder, "mini_trades", "mini_said", seed=7)
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
    assert toy.net.training
    assert toy.tokenizer.padding_side == "right"
    assert toy.tokenizer.pad_token is None
    assert all(torch.equal(before[name], value) for name, value in toy.state().items())
    assert capsys.readouterr() == ("", "")


def test_limit_shots_progress_and_remarks(toy: Model, folder: Path) -> None:
    ticks, lines = [], []
    rows = ask(
        toy,
        folder,
        "mini",
        limit=2,
        shots=1,
        progress=lambda done, total: ticks.append((done, total)),
        say=lines.append,
    )
    assert [rows[task, "acc"].records for task in ("mini_towns", "mini_trades", "mini")] == [
        2,
        2,
        4,
    ]
    assert ticks == [(n, 14) for n in range(1, 15)]
    assert len(lines) == 1
    assert lines[0].startswith("general tasks: mini_towns: asked with no solved examples")


def test_cut_prompts_are_told(toy: Model, folder: Path) -> None:
    toy.causal_lm().config.max_position_embeddings = 16
    lines: list[str] = []
    ask(toy, folder, "mini_towns", say=lines.append)
    assert len(lines) == 1
    assert "of 18 prompts are longer than the 16 tokens" in lines[0]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["mini_town"], "unknown general task 'mini_town'; did you mean 'mini_towns'?"),
        (["mmluu"], "unknown general task 'mmluu'; did you mean 'mmlu'?"),
        (["?!"], "unknown general task '\\?!'; known: "),
    ],
)
def test_unknown_tasks(folder: Path, tasks: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        check_tasks(tasks, folder)
    assert len(str(caught.value)) < 300


def test_known_tasks(folder: Path) -> None:
    check_tasks(["mmlu", "arc_challenge", "truthfulqa_mc1", "social_iqa", "race", "mini"], folder)
    check_tasks([], "nowhere")


@pytest.mark.parametrize(
    ("tasks", "rest", "message"),
    [
        (["mini", "mini_towns"], {}, "'mini_towns' is already asked for; drop one"),
        (["mini_missing"], {}, "'mini_missing': cannot be loaded .*nowhere.jsonl"),
        (["mini_broken"], {}, "'mini_broken': cannot be loaded .*'query' is undefined"),
        (["mini_trades"], {"shots": 9}, "refuses .*general_shots"),
    ],
)
def test_what_cannot_run(
    toy: Model, folder: Path, tasks: list[str], rest: dict[str, int], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        task_rows(toy, "base", TaskSettings(tasks, folder, **rest))
    assert "\n" not in str(caught.value)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="general_folder 'nowhere': no such folder"):
        check_tasks(["mmlu"], "nowhere")
    (tmp_path / "bad.yaml").write_text("task: [")
    with pytest.raises(BadInput, match=r"bad.yaml: not YAML"):
        check_tasks(["mmlu"], tmp_path)


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("lm_eval", "lm_eval.tasks"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match="pip install 'knowundo\\[lm-eval\\]'"):
        check_tasks(["mmlu"], tmp_path)


def has(*parts: str) -> pytest.MarkDecorator:
    path = DATA.joinpath(*parts)
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not on this machine")


@has("truthfulqa", "mc_task.json")
@torch.no_grad()
def test_real_truthfulqa(embedded: Model, folder: Path) -> None:
    row = ask(embedded, folder, "real_truthfulqa_mc1", limit=8)["real_truthfulqa_mc1", "acc"]
    hits = []
    for given in json.loads((DATA / "truthfulqa" / "mc_task.json").read_text())[:8]:
        prompt = f"Q: {given['question']}\nA:"
        choices = given["mc1_targets"]
        sums = {choice: log_prob(embedded, prompt, f" {choice}") for choice in choices}
        hits.append(choices[max(sums, key=sums.__getitem__)])
    assert row.value == pytest.approx(100 * sum(hits) / 8)
    assert (row.records, row.task_version, row.stderr is None) == (8, "2.0", False)


@has("mmlu_dev")
@pytest.mark.parametrize("shots", [0, 2])
def test_real_mmlu(embedded: Model, folder: Path, shots: int) -> None:
    rows = ask(embedded, folder, "real_mmlu", shots=shots)
    subjects = yaml.safe_load((folder / "real_mmlu.yaml").read_text())["task"]
    parts = [rows[subject, "acc"] for subject in subjects]
    assert [(row.records, row.task_version) for row in parts] == [(5, "1.0")] * 3
    whole = rows["real_mmlu", "acc"]
    assert (whole.records, whole.task_version) == (15, "2")
    assert whole.value == pytest.approx(sum(row.value for row in parts) / 3)
    assert whole.stderr is not None


@has("gsm8k", "test.jsonl")
def test_real_gsm8k(embedded: Model, folder: Path) -> None:
    rows = ask(embedded, folder, "real_gsm8k", limit=2, shots=1)
    assert set(rows) == {
        ("real_gsm8k", f"exact_match,{way}") for way in ("strict-match", "flexible-extract")
    }
    assert {(row.value, row.records, row.task_version) for row in rows.values()} == {(0, 2, "3.0")}
