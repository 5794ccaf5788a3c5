"""Adapters as people have them: each computes what plain peft computes, or is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralConfig,
    MixtralForCausalLM,
)

from knowundo.errors import BadInput
from knowundo.modeling.adapters import ADAPTER, CONFIG, Adaptation, adaptation_of, file_name
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import can_batch_adapters
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import save_state
from knowundo.runs.base import model_with_adapters, tokenizer_of

IDS = torch.tensor([[5, 17, 90, 33, 41, 7, 8]])
PLAIN: dict[str, Any] = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
# Fields that change where the LoRA lies or how it computes.
HANDED_ON: dict[str, dict[str, Any]] = {
    "target_parameters": {"target_parameters": ["mlp.up_proj.weight"]},
    "lora_alpha, a fraction": {"lora_alpha": 4.5},
    "use_rslora": {"use_rslora": True},
    "use_dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "rank_pattern": {"rank_pattern": {"q_proj": 5}},
    "alpha_pattern": {"alpha_pattern": {"v_proj": 20}},
    "layers_to_transform": {"layers_to_transform": [1]},
    "layers_pattern": {"layers_to_transform": [0], "layers_pattern": "layers"},
    "exclude_modules": {"exclude_modules": r".*layers\.0\..*", "target_modules": "all-linear"},
    "exclude_modules by name": {"exclude_modules": ["up_proj"], "target_modules": "all-linear"},
    "a pattern of modules": {"target_modules": r".*layers\.1\.mlp\.(up|down)_proj"},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "a tied head": {"target_modules": ["q_proj", "lm_head"]},
    "bias without any": {"bias": "lora_only"},
    "gaussian": {"init_lora_weights": "gaussian"},
}


def write(base: str, folder: Path, seed: int = 5, **fields: Any) -> Path:
    """An adapter with random values, as peft writes it."""
    net = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(**PLAIN | {"task_type": "CAUSAL_LM"} | fields)
    made = get_peft_model(net, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    return folder


def by_peft(base: str, folder: Path) -> torch.Tensor:
    net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    with torch.no_grad():
        return net(input_ids=IDS).logits


def by_ours(model: Model) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.net(input_ids=IDS).logits
    return logits


def given(folder: Path) -> ModelVariant:
    return ModelVariant("given", "given", folder)


@pytest.mark.parametrize("name", HANDED_ON)
def test_a_field_computes_as_by_peft(name: str, toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter", **HANDED_ON[name])
    right = by_peft(toy_base, folder)
    model = Model(toy_base, Adaptation("lora", 2, 4))
    plain = by_ours(model)
    model.use(given(folder))
    torch.testing.assert_close(by_ours(model), right)
    assert (right - plain).abs().max() > 1e-2  # the adapter does something
    # What is written again is what peft reads, and the base is what it was.
    (tmp_path / "again").mkdir()
    save_state(model, tmp_path / "again")
    assert load_file(tmp_path / "again" / ADAPTER).keys() <= load_file(folder / ADAPTER).keys()
    torch.testing.assert_close(by_peft(toy_base, tmp_path / "again"), right)
    model.reset()
    torch.testing.assert_close(by_ours(model), plain)


def test_names_are_those_of_peft() -> None:
    names = {
        "m.q_proj.lora_A.default.weight": "m.q_proj.lora_A.weight",
        "m.q_proj.lora_B.default.bias": "m.q_proj.lora_B.bias",
        "m.q_proj.lora_magnitude_vector.default.weight": "m.q_proj.lora_magnitude_vector",
        "m.embed_tokens.lora_embedding_A.default": "m.embed_tokens.lora_embedding_A",
    }
    assert {name: file_name(name) for name in names} == names


@pytest.mark.parametrize("field", ["use_dora", "lora_bias"])
def test_more_than_a_product_is_not_batched(field: str, toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter", **{field: True})
    model = Model(toy_base, Adaptation("lora", 3, 6, ("q_proj", "v_proj")))
    base = ModelVariant("base", "base")
    assert can_batch_adapters(model, [base, base])
    assert not can_batch_adapters(model, [given(folder), base])
    model.use(given(folder))
    assert not can_batch_adapters(model, [base, base])


def test_an_adapter_of_one_shape_is_put_in_place(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter", use_rslora=True)
    model = Model(toy_base, adaptation_of(folder))
    net = model.net
    model.use(given(folder))
    assert model.net is net
    model.use(given(write(toy_base, tmp_path / "plain")))  # another scale is another shape
    assert model.net is not net


def test_another_shape_keeps_the_dropout_of_the_recipe(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter", lora_dropout=0.4)
    model = Model(toy_base, Adaptation("lora", 2, 4, dropout=0.1))
    model.use(given(folder))
    assert model.adaptation == Adaptation("lora", 3, 6, ("q_proj", "v_proj"), dropout=0.1)
    drops = [m.p for m in model.net.modules() if isinstance(m, torch.nn.Dropout)]
    assert drops == [0.1] * 4  # two modules in each of two layers
    assert model.drops


REFUSED: dict[str, dict[str, Any]] = {
    "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
    "alora_invocation_tokens": {"alora_invocation_tokens": [5]},
    "a_field_of_tomorrow": {"a_field_of_tomorrow": True},
    "init_lora_weights pissa": {"init_lora_weights": "pissa_niter_4"},
    "init_lora_weights corda": {"init_lora_weights": "corda"},
    "init_lora_weights loftq": {"init_lora_weights": "loftq"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    config = {"peft_type": "LORA"} | PLAIN | REFUSED[name]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(BadInput, match=name) as error:
        adaptation_of(tmp_path)
    assert "merge" in str(error.value)
    if "init" in name:
        assert "path_initial_model_for_weight_conversion" in str(error.value)


def test_defaults_that_peft_writes_are_no_fields(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    assert adaptation_of(folder) == Adaptation("lora", 3, 6, ("q_proj", "v_proj"))


def test_biases_that_were_trained_are_merged(tmp_path: Path, toy_base: str) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    net = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(AutoTokenizer.from_pretrained(toy_base)), hidden_size=16,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24,
        )
    )  # fmt: skip
    base = str(tmp_path / "base")
    net.save_pretrained(base)
    AutoTokenizer.from_pretrained(toy_base).save_pretrained(base)
    folder = write(base, tmp_path / "adapter", bias="lora_only")
    tensors = load_file(folder / ADAPTER)
    name = next(name for name in tensors if name.endswith("q_proj.base_layer.bias"))
    save_file(tensors | {name: tensors[name] + 1}, folder / ADAPTER)
    assert adaptation_of(folder) == Adaptation("full")
    merged = Model(base, Adaptation("full"), options=LoadingOptions(merge=str(folder)))
    torch.testing.assert_close(by_ours(merged), by_peft(base, folder))
    plain = Model(base, Adaptation("lora", 3, 6, ("q_proj", "v_proj")))
    with pytest.raises(BadInput, match=r"bias lora_only: .*q_proj.* merge"):
        plain.use(given(folder))


def test_a_grown_vocabulary_is_called_so(toy_base: str, tmp_path: Path) -> None:
    net = AutoModelForCausalLM.from_pretrained(toy_base)
    rows = net.config.vocab_size
    net.resize_token_embeddings(rows + 2)
    config = LoraConfig(**PLAIN, task_type="CAUSAL_LM")
    get_peft_model(net, config).save_pretrained(tmp_path)
    said = rf"another vocabulary \({rows + 2} rows, the base has {rows}\).*embeddings\({rows + 2}\)"
    with pytest.raises(BadInput, match=said):
        Model(toy_base, adaptation_of(tmp_path)).use(given(tmp_path))


def rename(folder: Path, base: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": base}))


def test_a_base_that_was_moved_keeps_its_adapters(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    right = by_peft(toy_base, folder)
    rename(folder, "/gone/models/toy")
    model = Model(toy_base, adaptation_of(folder))
    for _ in range(2):
        model.use(given(folder))
    torch.testing.assert_close(by_ours(model), right)
    (note,) = model.notes.texts
    assert "names base '/gone/models/toy'" in note
    assert "all its shapes fit" in note


def test_an_adapter_that_names_no_base_is_taken(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": None}))
    model = Model(toy_base, adaptation_of(folder))
    model.use(given(folder))
    torch.testing.assert_close(by_ours(model), by_peft(toy_base, folder))
    assert model.notes.texts == ()


def test_a_shape_that_does_not_fit_names_the_base_it_was_of(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    rename(folder, "another/model")
    tensors = load_file(folder / ADAPTER)
    name = next(iter(tensors))
    save_file(tensors | {name: torch.zeros(3, 99)}, folder / ADAPTER)
    with pytest.raises(BadInput, match=r"\[3, 99\].*\[3, 24\] is needed.*base 'another/model'"):
        Model(toy_base, adaptation_of(folder)).use(given(folder))


def test_a_tensor_that_is_missing_is_named(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    tensors = load_file(folder / ADAPTER)
    name = min(tensors)
    save_file({n: t for n, t in tensors.items() if n != name}, folder / ADAPTER)
    with pytest.raises(BadInput, match=f"it has no {name}"):
        Model(toy_base, adaptation_of(folder)).use(given(folder))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_named(number: float, toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    tensors = load_file(folder / ADAPTER)
    name = sorted(tensors)[2]
    tensors[name][1, 2] = number
    save_file(tensors, folder / ADAPTER)
    with pytest.raises(BadInput, match=rf"{ADAPTER}: {name} holds NaN or infinity"):
        Model(toy_base, adaptation_of(folder)).use(given(folder))


def test_pickles_are_not_read_and_the_way_out_is_named(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, tmp_path / "adapter")
    (folder / ADAPTER).rename(folder / "adapter_model.bin")
    with pytest.raises(BadInput, match=r"adapter_model\.bin, a pickle, .*convert .*\.safetensors"):
        Model(toy_base, adaptation_of(folder)).use(given(folder))


def test_an_adapter_below_the_folder_is_named(toy_base: str, tmp_path: Path) -> None:
    write(toy_base, tmp_path / "adapter" / "client")
    with pytest.raises(BadInput, match=r"lies in .*adapter/client; name that folder"):
        adaptation_of(tmp_path / "adapter")


def test_an_adapter_in_place_of_a_base_is_refused(toy_base: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds an adapter; name its base as the model"):
        Model(str(write(toy_base, tmp_path / "adapter")))


TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"


def with_tokenizer(base: str, folder: Path, template: str | None) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    write(base, folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_adapters_own_tokenizer_is_taken_and_named(toy_base: str, tmp_path: Path) -> None:
    folder = with_tokenizer(toy_base, tmp_path / "adapter", TEMPLATE)
    model = model_with_adapters(toy_base, adaptation_of(folder), [folder], {})
    assert model.tokenizer.chat_template == TEMPLATE
    assert [*model.notes.texts] == [
        f"{folder}: its own tokenizer and chat template are used, not the base's"
    ]


def test_a_copy_of_the_bases_tokenizer_is_no_other(toy_base: str, tmp_path: Path) -> None:
    own = AutoTokenizer.from_pretrained(toy_base).chat_template
    folder = with_tokenizer(toy_base, tmp_path / "adapter", own)
    rules = json.loads((folder / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(rules | {"truncation": cut}))
    assert tokenizer_of(toy_base, [folder]) == (None, None)


def test_adapters_with_several_tokenizers_get_the_bases(toy_base: str, tmp_path: Path) -> None:
    first = with_tokenizer(toy_base, tmp_path / "first", TEMPLATE)
    second = write(toy_base, tmp_path / "second")
    taken, note = tokenizer_of(toy_base, [second, first])
    assert taken is None
    assert note is not None
    assert str(first) in note
    assert "one at a time" in note
    shutil.copytree(first, tmp_path / "third")
    assert tokenizer_of(toy_base, [first, tmp_path / "third"])[0] == str(first)


@pytest.mark.parametrize("name", ["use_rslora", "use_dora", "embeddings", "target_parameters"])
def test_it_is_exported_as_peft_reads_it(name: str, toy_base: str, tmp_path: Path) -> None:
    exported_as_peft_reads_it(toy_base, tmp_path, HANDED_ON[name])


def test_a_lora_on_fused_experts_is_exported_as_peft_reads_it(
    toy_base: str, tmp_path: Path
) -> None:
    """peft turns "all-linear" into parameters there, and refuses the module that holds them."""
    base = tmp_path / "mixture"
    plain = AutoConfig.from_pretrained(toy_base)
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    kept = {name: getattr(plain, name) for name in (*sizes, "intermediate_size", "eos_token_id")}
    torch.manual_seed(1)
    config = MixtralConfig(**kept, num_key_value_heads=1, num_local_experts=3, bos_token_id=None)
    MixtralForCausalLM(config).save_pretrained(base)
    AutoTokenizer.from_pretrained(toy_base).save_pretrained(base)
    exported_as_peft_reads_it(str(base), tmp_path, {"target_modules": "all-linear"})
    written = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert "gate_up_proj" in written["target_parameters"]
    assert not any("experts" in name for name in written["target_modules"])


def exported_as_peft_reads_it(base: str, tmp_path: Path, fields: dict[str, Any]) -> None:
    from knowundo.exports.adapters import write_adapter

    folder = write(base, tmp_path / "adapter", **fields)
    model = Model(base, adaptation_of(folder))
    model.use(given(folder))
    before = by_ours(model)
    (tmp_path / "out").mkdir()
    loaded = write_adapter(model, tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, before)
    torch.testing.assert_close(by_peft(base, tmp_path / "out"), before)


def test_parameters_alone_need_no_modules(toy_base: str, tmp_path: Path) -> None:
    """peft writes null for the modules then."""
    only = {"target_modules": None, "target_parameters": ["mlp.up_proj.weight"]}
    config = {"peft_type": "LORA"} | PLAIN | only
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert adaptation_of(tmp_path).targets == ()
    Model(toy_base, adaptation_of(tmp_path))


@pytest.mark.parametrize(
    "field", [{"target_modules": "("}, {"exclude_modules": "("}, {"rank_pattern": {"(": 3}}]
)
def test_a_pattern_that_is_none_is_one_line(
    field: dict[str, Any], toy_base: str, tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA"} | PLAIN | field))
    with pytest.raises(BadInput, match="no LoRA with these fields fits it"):
        Model(toy_base, adaptation_of(tmp_path))


def test_checkpoints_of_a_trainer_are_named(tmp_path: Path) -> None:
    for step in (100, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / CONFIG).write_text("{}")
    with pytest.raises(BadInput, match=r"2 adapters below it \(checkpoint-100, checkpoint-200\)"):
        adaptation_of(tmp_path)
