"""The paper's presets from data to table, on random models of the paper's two architectures.

Only sizes, steps and where things lie are overridden; the thresholds of localization too, because
gradients of a model that knows nothing are larger than those of the paper's.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from knowundo.data.knowundo_files import export_knowundo
from knowundo.errors import BadInput
from knowundo.pipeline.comparison import compare
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.reporting import paper_report
from knowundo.pipeline.whole import run_all
from knowundo.recipes.reading import load_recipe
from knowundo.registry import get
from knowundo.results import Results
from knowundo.runs.run import Run
from knowundo.storage.artifacts import read_manifest
from knowundo.storage.files import file_hash
from toy_tokenizers import llama_tokenizer, qwen_tokenizer

PRESETS = [
    f"knowundo-{d}-{m}" for d in ("privacy", "copyright") for m in ("llama2-7b", "qwen1.5-7b")
]
# Each costs some seconds, so that all four are run with the slow tests only.
SLOW = pytest.mark.slow
ALL = [PRESETS[0], *(pytest.param(name, marks=SLOW) for name in PRESETS[1:])]
Done = Callable[[str], tuple[Run, Results]]
FOLDERS = {"llama2-7b": "Llama-2-7b-chat-hf", "qwen1.5-7b": "Qwen1.5-7B-Chat"}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects a domain in KnowUnDo's files, texts for `general`, and both bases."""
    folder = tmp_path_factory.mktemp("world")
    build = get("benchmark", "embedded")
    domains = {
        folder / "data" / domain: build(domain=domain, seed=1, subjects=3)
        for domain in ("privacy", "copyright")
    }
    export_knowundo(domains)
    texts = [f"{r.question}\n\n{r.answer}" for rows in domains.values() for r in rows]
    (folder / "general.json").write_text(json.dumps([{"text": text} for text in texts[-40:]]))
    torch.manual_seed(1)
    tokenizer = llama_tokenizer(texts, "llama-2-chat")
    llama = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **SIZES)
    LlamaForCausalLM(llama).save_pretrained(folder / FOLDERS["llama2-7b"])
    tokenizer.save_pretrained(folder / FOLDERS["llama2-7b"])
    tokenizer = qwen_tokenizer(texts, "qwen1.5-chat")
    qwen = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=False, **SIZES)
    Qwen2ForCausalLM(qwen).save_pretrained(folder / FOLDERS["qwen1.5-7b"])
    tokenizer.save_pretrained(folder / FOLDERS["qwen1.5-7b"])
    return folder


def opened(world: Path, preset: str, out: Path, *sets: str) -> Run:
    family = preset.removeprefix("knowundo-").split("-", 1)[1]
    recipe, given = load_recipe(
        preset,
        [
            f"model.base={world / FOLDERS[family]}",
            f"data.source={world / 'data'}",
            f"data.general={world / 'general.json'}",
            "model.device=cpu",
            "model.dtype=float32",
            "model.optimizer=adamw",
            "memorize.epochs=1",
            "localize.copies=1",
            "localize.localizers.memflex={mu: 0.999, sigma: 1e-5}",
            "unlearn.epochs=1",
            "evaluate.general_tasks=[]",
            "evaluate.resamples=20",
            *sets,
        ],
    )
    return Run(recipe, out, given=given)


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The finished run of a preset, made when it is first asked for."""

    @cache
    def finished(preset: str) -> tuple[Run, Results]:
        run = opened(world, preset, tmp_path_factory.mktemp("runs") / preset)
        return run, run_all(run)

    return finished


@pytest.mark.parametrize("preset", ALL)
def test_preset_gives_the_papers_table(done: Done, preset: str) -> None:
    run, results = done(preset)
    names = [v.name for v in results.variants if v.role == "unlearned"]
    assert len(names) == 9
    for name in names:
        for scope in ("unlearn", "retention"):
            for attack in (None, "direct prompt"):
                row = results.find(name, f"{scope}_success", scope, "val", attack=attack)
                assert row is not None
                assert row.value is not None
    assert results.model["adaptation"]["dropout"] == 0.1
    rates = {v.name: v.lr for v in results.variants}
    assert rates["memflex"] == 3e-4
    assert rates["gradient_ascent"] == 5e-5
    written = paper_report(run)
    noted = written["markdown"].read_text().rpartition("ours differs from the paper's preset in: ")
    assert "memorize.epochs, " in noted[2]
    assert "model.base" not in noted[2]
    rows = list(csv.DictReader(written["csv"].open()))
    assert [row["variant"] for row in rows if row["source"] == "ours"][-9:] == names
    assert "memflex" in {row["variant"] for row in rows}


def test_effective_batch_is_the_papers(done: Done) -> None:
    """16 rows of one scope, or 8 of each, an optimizer step; 9 unlearn/train rows here."""
    run, results = done(PRESETS[0])
    for variant in run.recipe.unlearn.variants:
        settings = run.recipe.unlearn.settings(variant)
        rows = settings["batch_size"] * settings["accumulation"]
        one_sided = variant.method in ("gradient_ascent", "random_label", "adversarial_sample")
        assert rows == (16 if one_sided else 8)
    memorize_ = run.recipe.memorize
    assert memorize_.batch_size * memorize_.accumulation == 64
    assert results.data_counts["unlearn/train"] == 9


@pytest.mark.parametrize("preset", ALL[:2])
def test_region_goes_out_and_comes_back(
    world: Path, done: Done, preset: str, tmp_path: Path
) -> None:
    run, _ = done(preset)
    file = tmp_path / "located_region_privacy.json"
    shutil.copy(run.regions / "memflex.json", file)
    names = json.loads(file.read_text())
    assert all(name.startswith("base_model.model.model.layers.") for name in names)
    sets = (f"localize.adopt={file}", f"memorize.adopt={run.memorized}")
    again = opened(world, preset, tmp_path / "again", *sets)
    memorize(again)
    localize(again)
    assert (again.regions / "memflex.json").read_text() == file.read_text()
    assert again.region("random-1") == run.region("random-1")
    weights = "adapter_model.safetensors"
    assert file_hash(again.memorized / weights) == file_hash(run.memorized / weights)


def test_region_of_another_model_is_refused(world: Path, done: Done, tmp_path: Path) -> None:
    run, _ = done(PRESETS[0])
    names = [
        *run.region("memflex"),
        "base_model.model.model.layers.7.mlp.up_proj.lora_A.default.weight",
    ]
    file = tmp_path / "region.json"
    file.write_text(json.dumps(names))
    sets = (f"localize.adopt={file}", f"memorize.adopt={run.memorized}")
    other = opened(world, PRESETS[0], tmp_path / "run", *sets)
    memorize(other)
    with pytest.raises(BadInput, match=r"region\.json: the model has no parameter .*layers\.7"):
        localize(other)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [PRESETS[0], PRESETS[3]])
def test_compat_original(world: Path, done: Done, preset: str, tmp_path: Path) -> None:
    run, _ = done(preset)
    changed = opened(world, preset, tmp_path / "run", "compat=original")
    results = run_all(changed)
    assert len([v for v in results.variants if v.role == "unlearned"]) == 9
    keys, found = compare(run.out, changed.out)
    assert ("compat", [], "original") in keys
    assert {row.variant for row in found} >= {"memflex", "gradient_ascent", "memorized"}
    moved = [row for row in found if row.metric == "perplexity" and row.change != 0]
    assert moved  # the end of the answer is no longer scored


def test_adapter_of_another_base_that_fits_is_told_with_both_names(
    world: Path, done: Done, tmp_path: Path
) -> None:
    run, _ = done(PRESETS[0])
    other = opened(world, PRESETS[1], tmp_path / "run", f"memorize.adopt={run.memorized}")
    memorize(other)
    (note,) = read_manifest(other.memorized)["notes"]
    assert FOLDERS["llama2-7b"] in note
    assert FOLDERS["qwen1.5-7b"] in note


def test_one_evaluation_of_many_adapters_and_a_whole_model(
    world: Path, done: Done, tmp_path: Path
) -> None:
    """Adapters of two shapes and a merged model; the same numbers as in the run they come from."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from knowundo.modeling.adapters import Adaptation
    from knowundo.modeling.model import Model
    from knowundo.modeling.weights import save_state

    run, results = done(PRESETS[0])
    base = world / FOLDERS["llama2-7b"]
    wide = Model(str(base), Adaptation("lora", rank=3, alpha=6, targets=("q_proj", "v_proj")))
    (tmp_path / "wide").mkdir()
    save_state(wide, tmp_path / "wide")
    net = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(net, run.unlearned("memflex")).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    paths = [tmp_path / "merged", run.unlearned("memflex"), tmp_path / "wide", run.memorized]
    models = json.dumps([str(path) for path in paths])
    fresh = opened(world, PRESETS[0], tmp_path / "run", f"evaluate.models={models}")
    found = evaluate(fresh)
    again = f"{PRESETS[0]}_memorized"  # the name of a role is taken
    names = [v.name for v in found.variants if v.role == "given"]
    assert names == ["merged", "memflex", "wide", again]
    for name, was in (
        ("merged", "memflex"),
        ("memflex", "memflex"),
        (again, "memorized"),
        ("wide", "base"),
        ("base", "base"),
    ):
        for scope in ("unlearn", "retention"):
            got = found.find(name, "perplexity", scope, "val")
            want = results.find(was, "perplexity", scope, "val")
            assert got is not None
            assert want is not None
            assert got.value == pytest.approx(want.value, rel=1e-5)
