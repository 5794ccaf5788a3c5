"""A model of a run in other hands: plain transformers and peft load it, and it says the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import Call
from knowundo.errors import BadInput, KnowUndoError, NoRoom
from knowundo.exports.adapters import check_adapter
from knowundo.exports.export import export
from knowundo.exports.merging import BESIDE, GIB
from knowundo.exports.model_card import render_card
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.unlearning import unlearn
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run
from knowundo.storage.files import read_json, write_json

TINY = (
    "data.subjects=2",
    "model.adaptation=lora",
    "memorize.epochs=1",
    "memorize.lr=1e-2",
    "memorize.retain_model=false",
    "localize.draws=0",
    "unlearn.lr=1e-2",
    "unlearn.epochs=1",
    "evaluate.generate=[val]",
    "evaluate.resamples=10",
    "unlearn.variants=[{preset: ascent_plus_descent, name: m}]",
)
TEMPLATE = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"


def tiny(base: str, out: Path, *sets: str) -> Run:
    recipe, given = load_recipe("demo", [*TINY, f"model.base={base}", *sets])
    return Run(recipe, out, given=given)


@pytest.fixture(scope="module")
def base(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy with a chat template."""
    folder = tmp_path_factory.mktemp("base") / "toy-llama"
    shutil.copytree(toy_base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def done(base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a LoRA, evaluated."""
    run = tiny(base, tmp_path_factory.mktemp("runs") / "tiny")
    memorize(run)
    localize(run)
    assert unlearn(run) == []
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def adapter(done: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "adapter"
    assert export(done, "m", folder).form == "adapter"
    return folder


@pytest.fixture(scope="module")
def full(base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that trains all weights, memorized only."""
    run = tiny(base, tmp_path_factory.mktemp("runs") / "full", "model.adaptation=full")
    memorize(run)
    return run


def adopting(done: Run, out: Path, *sets: str) -> Run:
    """A run that takes the LoRA of another over, beside a base that is held otherwise."""
    run = tiny(done.recipe.model.base, out, f"memorize.adopt={done.memorized}", *sets)
    memorize(run)
    return run


def prompts(run: Run) -> list[list[int]]:
    return [list(row.prompt) for row in run.encoded("unlearn", "val")[:3]]


def answers(net: Any, asked: list[list[int]]) -> list[list[int]]:
    """Greedy answers of twelve tokens."""
    options = {"max_new_tokens": 12, "do_sample": False}
    return [net.generate(input_ids=torch.tensor([ids]), **options)[0].tolist() for ids in asked]


def own_answers(run: Run, name: str) -> list[list[int]]:
    run.model.use(next(v for v in run.variants() if v.name == name))
    return answers(run.model.net, prompts(run))


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


def test_what_does_not_exist_is_named(done: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'memorized'"):
        export(done, "memorised", tmp_path / "x")
    with pytest.raises(BadInput, match="known: m, memorized"):
        export(done, "zzz", tmp_path / "x")
    for words, said in (
        ({"shard_size": "big"}, "--shard-size big: not a size; say 500MB or 5GB"),
        ({"form": "gguf"}, "unknown format 'gguf'"),
        ({"push_to_hub": "a/b/c"}, "--push-to-hub a/b/c: not an id"),
    ):
        with pytest.raises(BadInput, match=said):
            export(done, "m", tmp_path / "x", **words)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_not_unlearned_yet(full: Run, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unlearned/m: not there; run `knowundo unlearn"):
        export(full, "m", tmp_path / "x")


def test_a_folder_of_others_is_left_alone(done: Run, adapter: Path, tmp_path: Path) -> None:
    def refused(folder: Path, said: str) -> None:
        before = {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        with pytest.raises(BadInput, match=said):
            export(done, "m", folder)
        assert {f: f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()} == before

    mine = tmp_path / "mine"
    (mine / "deep").mkdir(parents=True)
    (mine / "deep" / "thesis.txt").write_text("years")
    refused(mine, "holds deep/thesis.txt, which no export wrote")
    (mine / "manifest.json").write_text("[]")
    refused(mine, "which no export wrote")
    refused(done.memorized, "which no export wrote")  # it has a manifest, of a stage
    earlier = shutil.copytree(adapter, tmp_path / "earlier")
    (earlier / "notes.md").write_text("mine")
    refused(earlier, "holds notes.md, which no export wrote")
    with pytest.raises(BadInput, match=r"notes\.md: is a file"):
        export(done, "m", earlier / "notes.md")
    (earlier / "notes.md").unlink()
    export(done, "memorized", earlier)
    assert "# demo: memorized" in (earlier / "README.md").read_text()
    (tmp_path / "empty").mkdir()
    export(done, "m", tmp_path / "empty")


def test_no_room(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(GIB, GIB - BESIDE, BESIDE))
    said = r"--to .*new/x: needs 0\.06 GiB, and 0\.06 GiB are free there; make room"
    with pytest.raises(BadInput, match=said):
        export(done, "m", tmp_path / "new" / "x", form="merged")
    assert list(tmp_path.iterdir()) == []


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


def test_a_disk_that_fills_up_leaves_nothing(
    done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("knowundo.exports.adapters.save_state", full)
    with pytest.raises(NoRoom, match=r"no room left to write it"):
        export(done, "m", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


class Hub:
    """Stands for the hub's client."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    error: Exception | None = None

    def create_repo(self, repo_id: str, **rest: Any) -> str:
        self.calls.append((repo_id, rest))
        if self.error:
            raise self.error
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **rest: Any) -> None:
        assert (rest["folder_path"] / "README.md").is_file()
        self.calls.append((rest["repo_id"], rest))


def test_it_is_pushed_privately(done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowundo.exports.export.HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    handed = export(done, "m", tmp_path / "x", push_to_hub="me/forgetful")
    assert handed.url == "https://huggingface.co/me/forgetful"
    (created, options), (uploaded, _) = Hub.calls
    assert created == uploaded == "me/forgetful"
    assert options == {"exist_ok": True, "private": True}
    assert 'model_id = "me/forgetful"' in (tmp_path / "x" / "README.md").read_text()
    monkeypatch.setattr(Hub, "error", LocalTokenNotFoundError("Token is required\nlong advice"))
    with pytest.raises(BadInput, match=r"not uploaded \(Token is required\); .* is complete") as e:
        export(done, "m", tmp_path / "x", push_to_hub="me/forgetful")
    assert "\n" not in str(e.value)
    assert (tmp_path / "x" / "README.md").is_file()


def test_without_a_network_the_push_is_one_line(done: Run, tmp_path: Path) -> None:
    """The real client; the tests run with HF_HUB_OFFLINE."""
    with pytest.raises(BadInput, match="--push-to-hub me/forgetful: not uploaded") as error:
        export(done, "m", tmp_path / "x", push_to_hub="me/forgetful")
    assert "\n" not in str(error.value)


def test_card_says_what_it_is(done: Run, adapter: Path) -> None:
    text = (adapter / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "knowundo"],
    }
    lines = [line.split(" | ") for line in text.split("\n") if " | " in line]
    table = {line[0][2:]: line[1:] for line in lines}
    assert table["method"] == ["ascent\\_plus\\_descent |"]
    assert len(table["Unlearn Success"]) == len(table["measure"]) == 3
    assert table["measure"][:2] == ["before: memorized", "this model: m"]
    assert float(table["Unlearn Success"][0].split()[0]) >= 0
    assert "unlearn/train" in table
    assert table["torch"] == [f"{torch.__version__} |"]
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("\n```")[0])
    assert recipe["memorize"]["lr"] == 0.01
    assert recipe["model"]["base"] == "…/toy-llama"
    assert str(Path(done.recipe.model.base).parent) not in text
    compile(text.split("```python\n")[1].split("\n```")[0], "card", "exec")
    for words in ("not a proof", "Relearning is not excluded", "PeftModel.from_pretrained"):
        assert words in text


def test_card_holds_no_record(done: Run, adapter: Path) -> None:
    text = (adapter / "README.md").read_text()
    assert len(done.records) > 20
    for record in done.records:
        for words in (record.question, record.answer, record.subject, *record.facts):
            assert not words or words not in text


def test_card_survives_hostile_names(done: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowundo.exports.model_card.hub_commit", lambda base: "abc")
    bad = "x | y\n---\n# head <script> `tick` [a](b)\n```\n"
    sections = {
        "name": bad,
        "model": done.recipe.model.model_copy(update={"base": "org/na'me: |x"}),
        "data": done.recipe.data.model_copy(update={"source": bad}),
    }
    monkeypatch.setattr(done, "recipe", done.recipe.model_copy(update=sections))
    variant = ModelVariant("m", "unlearned", done.unlearned("m"))
    text = render_card(done, variant, "merged", None, 0.0, 9)
    _, front, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(front)["base_model"] == "org/na'me: |x"
    assert yaml.safe_load(front)["library_name"] == "transformers"
    title = "# x \\| y --- \\# head &lt;script&gt; \\`tick\\` \\[a\\](b) \\`\\`\\`: m"
    assert body.strip().split("\n")[0] == title
    assert "| base | org/na'me: \\|x, commit abc |" in body
    assert "Not evaluated when this folder was written." in body
    fenced = body.split("````yaml\n")[1].split("\n````")[0]
    assert yaml.safe_load(fenced)["data"]["source"] == bad
    assert "<script>" not in body.replace(fenced, "")


def test_results_of_other_models_stay_out(done: Run, tmp_path: Path) -> None:
    run = adopting(done, tmp_path / "run")
    shutil.copy(done.out / "results.json", run.out)
    export(run, "memorized", tmp_path / "x")
    assert "Not evaluated" in (tmp_path / "x" / "README.md").read_text()


def test_command(done: Run, knowundo: Call, tmp_path: Path) -> None:
    out = str(done.out)
    asked = knowundo("export", out, "--variant", "m", "--to", "handed", "--json")
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert (found["folder"], found["form"], found["probes"]) == ("handed", "adapter", 9)
    assert found["largest_difference"] == 0
    assert found["url"] is None
    assert "adapter_model.safetensors" in found["files"]
    again = knowundo("export", out, "--variant", "m", "--to", "handed", "--format", "merged")
    assert again.returncode == 0, again.stderr
    for words in ("folder: handed", "form: merged", "largest difference of a logit: "):
        assert words in again.stdout
    assert not (tmp_path / "handed" / "adapter_config.json").exists()
    wrong = knowundo("export", out, "--variant", "mm", "--to", "x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.strip().split("\n")[-1] == (
        "error: unknown variant 'mm'; did you mean 'm'?"
    )
    assert "holds no run" in knowundo("export", "gone", "--variant", "m", "--to", "x").stderr
