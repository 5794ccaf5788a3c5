"""Small random models of the causal LMs that the installed transformers knows.

`build(name)` makes one from its config class with every size set to a small value; `NAMES` are all
keys of transformers' mapping, one for each model class. What cannot be built so raises.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

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
