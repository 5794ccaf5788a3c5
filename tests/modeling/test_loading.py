"""A base as people have it: its weights, quantization, positions, padding and settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from conftest import records
from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.checks import stored_quantization
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.lora_layers import linear_targets
from knowundo.modeling.model import Model
from knowundo.modeling.positions import position_limit
from knowundo.scoring.answers import generate
from knowundo.scoring.generation import complete, sample

LORA = Adaptation("lora", rank=2, alpha=4)
SMALL = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
SIZES: dict[str, Any] = SMALL | {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 50}


def copied(base: str, folder: Path) -> Path:
    shutil.copytree(base, folder)
    return folder


def amend(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def rewrite(base: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


# Weights.


def test_weights_under_other_names_are_not_loaded(toy_base: str, tmp_path: Path) -> None:
    base = copied(toy_base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    rewrite(base, {f"_orig_mod.{name}": value for name, value in tensors.items()})
    with pytest.raises(BadInput, match=r"lack lm_head\.weight, model\..*_orig_mod\..*random"):
        Model(str(base))


def test_one_missing_weight_is_named(toy_base: str, tmp_path: Path) -> None:
    base = copied(toy_base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(base, {n: value for n, value in tensors.items() if n != name})
    with pytest.raises(BadInput, match=rf"lack {name}, and random"):
        Model(str(base))


def test_weights_without_a_place_are_noted(toy_base: str, tmp_path: Path) -> None:
    base = copied(toy_base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    rewrite(base, tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(24)})
    (note,) = Model(str(base)).notes.texts
    assert note.endswith("model.layers.0.self_attn.q_proj.bias, which the model does not use")


def test_a_whole_base_with_tied_weights_has_no_notes(toy_base: str) -> None:
    assert Model(toy_base).notes.texts == ()


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_numbers_that_are_none_are_named_with_their_file(
    number: float, toy_base: str, tmp_path: Path
) -> None:
    base = copied(toy_base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 4] = number
    rewrite(base, tensors)
    with pytest.raises(BadInput, match=rf"model\.safetensors: {name} holds NaN or infinity"):
        Model(str(base))


# Quantization.


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"\(gptq\)"),
        ({"quant_method": "awq"}, r"\(awq\)"),
        ({"quant_method": "fp8"}, r"\(fp8\)"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "in 8 bits"),
    ],
)
def test_a_quantized_base_is_refused_in_one_line(
    found: dict[str, Any], said: str, toy_base: str, tmp_path: Path
) -> None:
    base = copied(toy_base, tmp_path / "base")
    amend(base / "config.json", quantization_config=found)
    with pytest.raises(BadInput, match=said + r".*model\.quantization=nf4"):
        Model(str(base))


def test_a_base_of_floats_is_not_quantized(toy_base: str) -> None:
    config = AutoModelForCausalLM.from_pretrained(toy_base).config
    assert stored_quantization(config, toy_base) is None


class TestStoredIn4Bits:
    """A base that bitsandbytes quantized before it was saved."""

    @pytest.fixture(scope="class")
    def stored(self, toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
        pytest.importorskip("bitsandbytes")
        from transformers import BitsAndBytesConfig

        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        folder = str(tmp_path_factory.mktemp("stored"))
        AutoModelForCausalLM.from_pretrained(toy_base, quantization_config=how).save_pretrained(
            folder
        )
        AutoTokenizer.from_pretrained(toy_base).save_pretrained(folder)
        return folder

    def test_it_is_held_as_by_nf4(self, stored: str, toy_base: str) -> None:
        model = Model(stored, LORA)
        assert (model.options.quantization, model.stored_in_4_bits) == ("nf4", True)
        same = Model(toy_base, LORA, options=LoadingOptions(quantization="nf4"))
        ids = torch.tensor([[5, 17, 90, 33]])
        with torch.no_grad():
            one, other = (m.net(input_ids=ids).logits for m in (model, same))
        torch.testing.assert_close(one, other)

    def test_its_gradients_are_there(self, stored: str) -> None:
        from knowundo.localization.gradients import mean_gradients

        model = Model(stored, LORA)
        found = mean_gradients(model, encode(records("unlearn", "train", 3), model.tokenizer))
        assert all(g.abs().max() > 0 for name, g in found.items() if "lora_B" in name)

    def test_all_its_weights_cannot_be_trained(self, stored: str) -> None:
        with pytest.raises(
            BadInput,
            match=r"stored in 4 bits: .*set model\.adaptation to lora, or leave --route full",
        ):
            Model(stored, Adaptation("full"))


# Where a LoRA can lie.


def test_routers_that_return_more_get_no_lora(toy_base: str) -> None:
    torch.manual_seed(0)
    config = PhimoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    found, left = linear_targets(PhimoeForCausalLM(config))
    assert left == ["router"]
    assert "model.layers.1.self_attn.o_proj" in found
    assert not any("router" in name or "lm_head" in name for name in found)


def test_what_peft_forbids_in_mamba_is_left_out(toy_base: str, tmp_path: Path) -> None:
    base = str(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4
    )
    MambaForCausalLM(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    model = Model(base, LORA)
    beside = {name.split(".lora_")[0].rpartition(".")[2] for name in model.parameters()}
    assert beside == {"in_proj", "x_proj", "dt_proj"}
    assert [*model.notes.texts] == [f"base '{base}': out_proj can have no LoRA"]


def test_every_linear_layer_of_others_stays_one_word() -> None:
    assert linear_targets(LlamaForCausalLM(LlamaConfig(**SIZES))) == ("all-linear", [])
    # Falcon's linear layers are of a class of their own, but give what others do.
    falcon = FalconConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    assert linear_targets(FalconForCausalLM(falcon)) == ("all-linear", [])


# Positions.


def test_positions_are_a_limit_where_something_is_held_for_each() -> None:
    gpt2 = GPT2Config(vocab_size=50, n_positions=40, n_embd=16, n_layer=1, n_head=2)
    opt = OPTConfig(
        vocab_size=50, max_position_embeddings=40, hidden_size=16, word_embed_proj_dim=16,
        num_hidden_layers=1, num_attention_heads=2, ffn_dim=24,
    )  # fmt: skip
    gptj = GPTJConfig(vocab_size=50, n_positions=40, n_embd=16, n_layer=1, n_head=2, rotary_dim=8)
    llama = LlamaConfig(**SIZES, max_position_embeddings=40)
    nets = [GPT2LMHeadModel(gpt2), OPTForCausalLM(opt), GPTJForCausalLM(gptj)]
    assert [position_limit(net) for net in nets] == [40, 40, 40]
    # RoBERTa's positions begin behind the padding's; MPT has another name for their number.
    roberta = RobertaConfig(
        vocab_size=50, max_position_embeddings=42, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=24, is_decoder=True, pad_token_id=1,
    )  # fmt: skip
    mpt = MptConfig(vocab_size=50, d_model=16, n_layers=1, n_heads=2, max_seq_len=40)
    assert position_limit(RobertaForCausalLM(roberta)) == 40
    assert position_limit(MptForCausalLM(mpt)) == 40
    for net in nets:
        net.eval()
        assert net(input_ids=torch.ones(1, 40, dtype=torch.long)).logits.shape == (1, 40, 50)
        with pytest.raises((IndexError, RuntimeError)):
            net(input_ids=torch.ones(1, 41, dtype=torch.long))
    net = LlamaForCausalLM(llama)
    assert position_limit(net) is None
    assert net(input_ids=torch.ones(1, 41, dtype=torch.long)).logits.shape == (1, 41, 50)


@pytest.fixture(scope="module")
def learned_positions(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A GPT-2 of 40 positions."""
    folder = str(tmp_path_factory.mktemp("gpt2"))
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=40, n_embd=16, n_layer=2, n_head=2,
        eos_token_id=tokenizer.eos_token_id, initializer_range=0.5,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Model(folder, Adaptation("full"))


def test_a_row_beyond_the_positions_is_named(learned_positions: Model) -> None:
    (row,) = records("unlearn", "train", 1)
    model, longer = learned_positions, [row, *records("unlearn", "train", 9)[-1:]]
    length = len(encode(longer, model.tokenizer)[1].ids)
    positions = length - 1
    with pytest.raises(BadInput, match=rf"^unlearn/train/8: {length} tokens, .*'s {positions} pos"):
        encode(longer, model.tokenizer, positions=positions)
    cut = encode(longer, model.tokenizer, positions=positions, truncate=True)
    assert len(cut[1].ids) == positions
    assert len(encode(longer, model.tokenizer, positions=length)[1].ids) == length


def test_answers_reach_as_far_as_the_positions(learned_positions: Model) -> None:
    model = learned_positions
    prompts = [[7, 8, 9], [5] * 38, [6] * 40, [3, 4]]
    said = complete(model, prompts, tokens=10)
    alone = [complete(model, [prompt], tokens=10)[0] for prompt in prompts]
    assert said == alone
    assert said[2] == ("", False)
    # Of many answers to each prompt, each stands where it would alone: so cold, draws are greedy.
    several = complete(model, prompts, tokens=10, each=2, temperature=1e-6)
    assert several[::2] == several[1::2] == said


# Padding.


def test_a_padding_id_beyond_the_embeddings_is_not_used(toy_base: str, tmp_path: Path) -> None:
    base = copied(toy_base, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    tokenizer.add_special_tokens({"pad_token": "[NEW PAD]"})
    tokenizer.save_pretrained(base)
    model = Model(str(base), LORA)
    assert model.tokenizer.pad_token_id == model.embeddings
    assert model.pad == model.tokenizer.eos_token_id
    rows = encode(records("unlearn", "train", 4), model.tokenizer)
    own = Model(toy_base, LORA)
    assert generate(model, rows) == generate(own, rows)


def test_a_token_beyond_the_embeddings_is_named(toy_base: str, tmp_path: Path) -> None:
    from knowundo.recipes.presets import read_preset
    from knowundo.recipes.reading import parse_recipe
    from knowundo.runs.rows import encode_for

    base = copied(toy_base, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    tokenizer.add_tokens(["alder"])
    tokenizer.save_pretrained(base)
    recipe = parse_recipe(read_preset("recipes", "erase") | {"model": {"base": str(base)}}, "test")
    said = rf"^unlearn/train/0: its token 'alder' .* id {len(tokenizer) - 1}, .* embeddings"
    with pytest.raises(BadInput, match=said):
        encode_for(recipe, records("unlearn", "train", 1), Model(str(base), LORA))


# generation_config.json.

SETTINGS: dict[str, Any] = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "stop_strings": ["a"],
    "no_repeat_ngram_size": 1,
    "repetition_penalty": 7.0,
    "min_new_tokens": 12,
    "suppress_tokens": list(range(2, 400)),
    "begin_suppress_tokens": list(range(2, 400)),
    "bad_words_ids": [[5]],
    "forced_eos_token_id": 0,
    "num_beams": 3,
    "exponential_decay_length_penalty": [1, 9.0],
    "max_length": 3,
}


def test_answers_do_not_depend_on_the_bases_own_settings(toy_base: str, tmp_path: Path) -> None:
    base = copied(toy_base, tmp_path / "base")
    amend(base / "generation_config.json", **SETTINGS)
    model, plain = Model(str(base), LORA), Model(toy_base, LORA)
    rows = encode(records("unlearn", "train", 2), model.tokenizer)
    assert generate(model, rows) == generate(plain, rows)
    drawn = {"n": 2, "temperature": 1.0, "seed": 0}
    assert sample(model, rows, **drawn) == sample(plain, rows, **drawn)  # type: ignore[arg-type]
    prompts = [row.prompt for row in rows]
    assert complete(model, prompts, tokens=3) == complete(plain, prompts, tokens=3)
    # An export writes the base's own settings.
    own = model.net.generation_config
    assert {key: getattr(own, key) for key in SETTINGS} == SETTINGS


def test_a_model_that_reads_padding_is_continued_by_length(toy_base: str, tmp_path: Path) -> None:
    from transformers import RwkvConfig, RwkvForCausalLM

    base, tokenizer = str(tmp_path / "base"), AutoTokenizer.from_pretrained(toy_base)
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, intermediate_size=24,
        context_length=64, initializer_range=0.5, rescale_every=1,
    )  # fmt: skip
    RwkvForCausalLM(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    model = Model(base, LORA)
    before = {name: value.clone() for name, value in model.net.named_parameters()}
    prompts = [[7, 8, 9], [5] * 8, [6, 2, 9], [3, 4]]
    said = complete(model, prompts, tokens=6)
    assert model.capabilities.left_padding is False
    assert said == [complete(model, [prompt], tokens=6)[0] for prompt in prompts]
    assert all(torch.equal(before[name], value) for name, value in model.net.named_parameters())


def test_padding_before_a_prompt_is_tried_once(learned_positions: Model) -> None:
    complete(learned_positions, [[7, 8, 9], [5]], tokens=2)
    assert learned_positions.capabilities.left_padding is True
