"""Activation patching: clean hidden states put into a forward with corrupted embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.modeling.model import Model


def subject_tokens(model: Model, row: Encoded) -> range:
    """Places of the subject's last mention in the prompt; the whole prompt if it is not named."""
    prompt, subject = row.prompt, row.record.subject
    decode: Callable[[Sequence[int]], str] = model.tokenizer.decode  # type: ignore[assignment]
    if not subject or subject not in decode(prompt):
        return range(len(prompt))
    end = len(prompt)
    while subject in decode(prompt[: end - 1]):
        end -= 1
    begin = end - 1
    while subject not in decode(prompt[begin:end]):
        begin -= 1
    return range(begin, end)


@torch.no_grad()
def traced(model: Model, row: Encoded, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Losses of one row: clean, corrupted, and corrupted with each layer restored.

    One forward of all of them: each layer's clean state at the subject's last token is taken from
    the first sequence and put into the one in which that layer is restored.

    Args:
        model: Not changed.
        row: Its subject's embeddings are corrupted.
        noise: Standard deviation of the noise, in those of all embeddings' numbers.
        generator: Of the noise.

    Returns:
        Mean negative log-likelihood per answer token, [2 + layers].

    Raises:
        BadInput: The decoder layers of this architecture are not found.
    """
    layers, places = layers_of(model), subject_tokens(model, row)
    if not layers:
        raise BadInput(
            f"model.base '{model.base}': no decoder layers were found; choose a localizer that "
            "traces no activations"
        )
    embeddings: Any = model.causal_lm().get_input_embeddings()  # type: ignore[operator]
    shape = (len(places), embeddings.weight.shape[1])
    drawn = torch.randn(shape, generator=generator).to(embeddings.weight)
    drawn *= noise * embeddings.weight.std()

    def corrupt(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[1:, places.start : places.stop] += drawn
        return output

    def restore(number: int) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            states = output if isinstance(output, torch.Tensor) else output[0]
            states[2 + number, places.stop - 1] = states[0, places.stop - 1]

        return hook

    hooks = [embeddings.register_forward_hook(corrupt)]
    hooks += [layer.register_forward_hook(restore(n)) for n, layer in enumerate(layers)]
    try:
        ids = torch.tensor([row.ids], device=model.device).expand(2 + len(layers), -1)
        logits = full_precision(model.net(input_ids=ids).logits[:, row.answer_from - 1 : -1])
    finally:
        for hook in hooks:
            hook.remove()
    labels = ids[:, row.answer_from :]
    losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return losses.mean(1).double().cpu()
