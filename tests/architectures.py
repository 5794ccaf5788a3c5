"""Small random models of the causal LMs that the installed transformers knows.

`build(name)` makes one from its config class with every size set to a small value; `names()` are
all keys of transformers' mapping, one for each model class. What cannot be built so raises.
`inspect_one(name)` says what knowundo does with it, against plain transformers and peft;
`python tests/architectures.py` writes that of all of them to docs/architectures.md.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import frozen_head, live_head
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import save_state
from knowundo.scoring.generation import continue_prompts

VOCABULARY, LARGEST = 96, 10_000_000

# Sizes by the names that configs give them. One of a name that a config lacks is left out.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    "head_dim": 8,
    "rotary_dim": 8,
    "initializer_range": 0.1,
    "moe_intermediate_size": 16,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    "num_experts_per_token": 2,
    "n_group": 1,
    "topk_group": 1,
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    "first_k_dense_replace": 1,
    # Shorter than the rows of the tests, so that a window that is not looked through shows.
    "sliding_window": 6,
}


def names() -> list[str]:
    """Keys of transformers' mapping, the first of each model class."""
    first = {model: key for key, model in reversed(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items())}
    return sorted(first.values())


def config(name: str, **more: Any) -> Any:
    """The small config of an architecture."""
    kind = CONFIG_MAPPING[name]
    known = set(inspect.signature(kind.__init__).parameters) | set(
        getattr(kind, "__dataclass_fields__", ())
    )
    known |= set(getattr(kind, "attribute_map", ()))
    own = {key: value for key, value in SIZES.items() if key in known}
    return kind(**own | EXTRA.get(name, {}) | more)


def build(name: str, **more: Any) -> PreTrainedModel:
    """A random model of an architecture, in evaluation mode, of seed 0."""
    small = config(name, **more)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(small).parameters())
    if size > LARGEST:
        raise ValueError(f"{size} parameters, although every known size is small")
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(small).eval()
    with torch.no_grad():  # norms and biases that are 1 and 0 at first hide what leaves them out
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


# What single architectures need beside, or instead.
_LATENT = {"num_key_value_heads": 4}
_HYBRID = {"num_hidden_layers": 4}
_DECODER = {"is_decoder": True}
EXTRA: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32"), _LATENT),
    **dict.fromkeys(
        ("glm4_moe_lite", "glm_moe_dsa", "longcat_flash", "minicpm3", "youtu"), _LATENT
    ),
    **dict.fromkeys(
        ("bert", "bert-generation", "big_bird", "camembert", "data2vec-text"), _DECODER
    ),
    **dict.fromkeys(("electra", "ernie", "megatron-bert", "rembert", "roberta"), _DECODER),
    **dict.fromkeys(
        ("roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl"), _DECODER
    ),
    "xmod": _DECODER | {"default_language": "en_XX"},
    "roc_bert": _DECODER | {"pronunciation_vocab_size": 96, "shape_vocab_size": 96},
    "dory": {"sliding_window": 64},
    "falcon_h1": {
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "dots1": {"n_shared_experts": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "bailing_hybrid": _LATENT | {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": _HYBRID | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    "kimi_linear": _LATENT | {"layer_types": ["linear_attention", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8},
    "bamba": {
        "attn_layer_indices": [1],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 6},
    "gemma4_text": {
        "vocab_size_per_layer_input": 96,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
    },
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "vocab_size_per_layer_input": 96,
        "hidden_size_per_layer_input": 8,
    },
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "layer_types": ["mamba", "attention"],
    },
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
}


def folder(name: str, into: Path) -> Path:
    """A built model in a folder, beside the embedded tokenizer."""
    build(name).save_pretrained(into)
    for file in Path(base_path("embedded")).glob("tok*"):
        shutil.copy(file, into)
    return into


def rows(*lengths: int) -> list[Encoded]:
    """Rows of random tokens, whose answers begin with the fourth."""
    made = []
    for number, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(number)
        ids = tuple(torch.randint(3, VOCABULARY - 6, (length,), generator=generator).tolist())
        record = Record(str(number), "", "x", "unlearn", "train", kind="text")
        made.append(Encoded(record, ids, 3, (False,) * length))
    return made


@torch.no_grad()
def plain_logits(net: Any, encoded: Sequence[Encoded]) -> torch.Tensor:
    """Logits at the answers' positions, each row in a forward of its own."""
    every = [net(input_ids=torch.tensor([r.ids]), use_cache=False).logits[0] for r in encoded]
    parts = zip(every, encoded, strict=True)
    return torch.cat([logits[row.answer_from - 1 : -1] for logits, row in parts])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest, as a share of the largest number."""
    return float((one - other).abs().max() / other.abs().max())


@torch.no_grad()
def moved(model: Model, seed: int = 0) -> None:
    """Add noise to everything that the adaptation trains."""
    generator = torch.Generator().manual_seed(seed)
    model.copy_initial(model.parameters())
    for parameter in model.parameters().values():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(0.1 * noise.to(parameter.dtype))


def own_logits(model: Model, encoded: Sequence[Encoded]) -> Iterator[torch.Tensor]:
    """Logits as every stage computes them: together, by the live head and by a frozen one."""
    batch = collate(encoded, model.pad)
    with torch.no_grad():
        states = hidden_states(model, batch)
        yield live_head(model)(states)
        yield frozen_head(model)(states)


def backward(model: Model, encoded: Sequence[Encoded]) -> float:
    """Norm of the gradient of the answers' likelihood by all that the adaptation trains."""
    chosen = model.train_only(model.parameters())
    batch = collate(encoded, model.pad)
    Half(batch, hidden_states(model, batch), live_head(model)).mean_nll.sum().backward()
    found = [p.grad.norm() for p in chosen if p.grad is not None]
    model.net.zero_grad()
    model.train_only([])
    return float(torch.stack(found).norm())


ROWS, PROMPTS = rows(14, 9, 20, 14), [tuple(range(3, 15)), tuple(range(5, 11)), tuple(range(7, 16))]


def same_answers(model: Model) -> bool:
    """True if prompts in one call get the tokens that each gets in a call of its own."""
    how: dict[str, Any] = {"tokens": 5, "stops": [VOCABULARY]}  # no token ends an answer
    alone = torch.cat([continue_prompts(model, [prompt], **how) for prompt in PROMPTS])
    return torch.equal(continue_prompts(model, PROMPTS, **how), alone)


def all_weights(name: str, base: Path, into: Path) -> Model:
    """A model whose every weight was moved, written, reset and read again.

    Raises:
        AssertionError: Its numbers are not those of plain transformers.
    """
    model = Model(str(base), Adaptation("full"))
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    for found in own_logits(model, ROWS):
        assert difference(found, plain_logits(plain, ROWS)) < NEAR, f"{name}: other logits"
    assert backward(model, ROWS) > 0
    moved(model)
    weights = model.state()
    save_state(model, into)
    model.reset()
    model.use(ModelVariant("moved", "unlearned", into))
    reread = AutoModelForCausalLM.from_pretrained(into).eval()
    for found in own_logits(model, ROWS):
        assert difference(found, plain_logits(reread, ROWS)) < NEAR, f"{name}: read otherwise"
    now = model.parameters()
    lost = [key for key, value in weights.items() if not torch.equal(value, now[key])]
    assert not lost, f"transformers reads {lost[0]} otherwise than it wrote it"
    return model


def adapter(name: str, base: Path, into: Path, targets: str | Sequence[str]) -> Model:
    """A model with a LoRA that was moved and written.

    Raises:
        AssertionError: Its numbers are not those of plain peft.
    """
    wanted = targets if isinstance(targets, str) else tuple(targets)
    model = Model(str(base), Adaptation("lora", rank=2, alpha=4, targets=wanted))
    assert backward(model, ROWS) > 0, f"{name}: no gradient"
    moved(model)
    save_state(model, into)
    model.reset()
    model.use(ModelVariant("moved", "unlearned", into))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), into).eval()
    for found in own_logits(model, ROWS):
        assert difference(found, plain_logits(plain, ROWS)) < NEAR, f"{name}: other than peft"
    return model


NEAR = 1e-4


@dataclass(frozen=True)
class Inspected:
    """What knowundo does with an architecture."""

    name: str
    refused: str = ""  # why it could not be tried at all
    full: str = ""
    lora: str = ""
    answers: str = ""
    shortcuts: str = ""


def inspect_one(name: str) -> Inspected:
    """Try an architecture, with all weights and with a LoRA."""
    with tempfile.TemporaryDirectory() as place:
        made = [Path(place) / part for part in ("base", "full", "lora")]
        for path in made:
            path.mkdir()
        try:
            folder(name, made[0])
        except Exception as error:  # whatever its code raises with sizes that small
            return Inspected(name, refused=_reason(error))
        found: dict[str, Any] = {}
        models = list[Model]()

        def tried(part: str, work: Callable[[], Model]) -> None:
            try:
                models.append(work())
                found[part] = "yes"
            except (BadInput, AssertionError) as error:
                found[part] = _reason(error)

        tried("full", lambda: all_weights(name, made[0], made[1]))
        tried("lora", lambda: adapter(name, made[0], made[2], "all-linear"))
        if models:
            model = models[-1]
            try:
                found["answers"] = "yes" if same_answers(model) else "other than alone"
            except BadInput as error:
                found["answers"] = _reason(error)
            found["shortcuts"] = _shortcuts(model)
    return Inspected(name, **found)


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+/", "", text)  # other ones each time
    return text.replace("|", "/")[:160]


def _shortcuts(model: Model) -> str:
    tried = vars(model.capabilities)  # those that were asked for
    packing = tried.get("packing_window", 0) > 0
    able = {
        "packing": packing,
        "padding": packing or tried.get("right_padding"),
        "left padding": tried.get("left_padding"),
        "head apart": tried.get("separate_head"),
    }
    return ", ".join(name for name, yes in able.items() if yes)


def table(found: Sequence[Inspected]) -> str:
    """The page docs/architectures.md."""
    tried = [one for one in found if not one.refused]
    lines = [
        "# Architectures",
        "",
        f"Every causal LM of transformers {transformers.__version__}, built small with random "
        f"weights, with peft {peft.__version__} and torch {torch.__version__.split('+')[0]} on a "
        "CPU in float32. Written by `python tests/architectures.py`; `make test-all` checks it.",
        "",
        "- **all weights**: logits, and what is written and read again, are those of plain "
        "transformers (to 1e-4 of the largest).",
        "- **LoRA**: beside every linear layer; logits are those of plain peft.",
        "- **answers**: generated in one batch as each alone.",
        "- **shortcuts**: what this model's forward allows. Without packing, rows are padded; "
        "without padding, only rows of one length share a batch; where the head cannot be computed "
        "apart, the whole model computes all logits. Results are the same, more slowly.",
        "",
        f"{len(tried)} of {len(found)} were built; "
        f"{sum(o.full == o.lora == o.answers == 'yes' for o in tried)} do all of it.",
        "",
        "| architecture | all weights | LoRA | answers | shortcuts |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {o.name} | {o.full} | {o.lora} | {o.answers} | {o.shortcuts} |" for o in tried]
    lines += ["", "Not built so small, and so not tried:", ""]
    lines += [f"- {one.name}: {one.refused}" for one in found if one.refused]
    return "\n".join(lines) + "\n"


def main() -> None:
    transformers.logging.set_verbosity_error()
    found = []
    for name in sys.argv[1:] or names():
        found.append(inspect_one(name))
        print(found[-1], flush=True)
    page = Path(__file__).parents[1] / "docs" / "architectures.md"
    if not sys.argv[1:]:
        page.write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
