"""What transformers' `generate` makes of prompts in one batch, padded on the left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from knowundo.errors import BadInput, first_line
from knowundo.modeling.fast.oom import attempt
from knowundo.modeling.positions import reset

if TYPE_CHECKING:
    from knowundo.modeling.model import Model


@contextmanager
def plain_generation(net: Any) -> Iterator[None]:
    """Within it, `generate` follows what it is told, and nothing in generation_config.json.

    transformers fills whatever a call leaves open from the model's own settings (penalties,
    forbidden tokens, beams, stop strings); of these only the special tokens stay.
    """
    own = net.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    net.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})
    try:
        yield
    finally:
        net.generation_config = own


@torch.no_grad()
def continued(model: Model, prompts: Sequence[Sequence[int]], **how: Any) -> Any:
    """transformers' output of `generate` on prompts in one batch.

    Prompts are padded on the left, so that what is generated begins in one column. How is said
    here, whatever the model's generation_config.json holds.

    Args:
        model: Not changed.
        prompts: Token ids of each.
        how: Arguments of `generate`.

    Raises:
        BadInput: transformers cannot generate with this architecture.
    """
    longest = max(map(len, prompts))
    ids = [[model.pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    reset(model)
    with attempt() as tried, plain_generation(model.causal_lm()):
        return model.net.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            pad_token_id=model.pad,
            return_dict_in_generate=True,
            **how,
        )
    assert tried.error is not None  # or it would have returned
    raise BadInput(
        f"model.base '{model.base}': transformers' generate fails on it "
        f"({first_line(tried.error)}), so it cannot be asked anything; set evaluate.generate to [] "
        "to score given answers only"
    ) from tried.error


def next_logits(model: Model, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each prompt, [prompts, vocabulary]."""
    output = continued(model, prompts, max_new_tokens=1, do_sample=False, output_logits=True)
    logits: torch.Tensor = torch.stack(output.logits)[0]
    return logits
