"""The section `model` of a recipe: which base, and what training may change of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from knowundo.recipes.data_section import Section


class ModelSection(Section):
    """Which base, and what training may change of it."""

    base: str = "embedded"
    """`embedded`, a folder, or a name on the model hub."""
    merge: str | None = None
    """Folder of an adapter that is merged into the base when that is loaded, such as one with
    modules_to_save. If null, the base is as it is stored."""
    adaptation: Literal["auto", "lora", "full"] = "auto"
    """Train a LoRA or all weights. auto: a LoRA if the records fit into it."""
    rank: int = Field(8, ge=1)
    """Rank of the LoRA."""
    alpha: int = Field(16, ge=1)
    """Scale of the LoRA, alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the LoRA's input during training."""
    device: str = "auto"
    """Device of the model: cpu, cuda or mps. auto: cuda if there is such a GPU, else mps, else
    cpu."""
    dtype: Literal["float32", "bfloat16", "float64", "auto"] = "auto"
    """dtype of the weights. auto: bfloat16 if the base is stored in 16 bits and the device is
    faster with it, else float32."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads of torch. auto: one for each physical core, or as many as the environment variable
    KNOWUNDO_THREADS says."""
    quantization: Literal["nf4"] | None = None
    """Quantize the base to 4 bits (bitsandbytes NF4); only a LoRA is trained then."""
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Attention implementation. If null, transformers chooses."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    optimizer: Literal["adamw", "paged_adamw_32bit"] = "adamw"
    """AdamW of torch, or the one of bitsandbytes that pages its state out of a full GPU."""
    trust_remote_code: bool = False
    """Run Python code that comes with the base."""
